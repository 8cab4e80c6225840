"""The two processes of test_flood: a gateway on loopback that is flooded, and who floods it.

    python -m tests.ike.flood serve KEYS            a gateway: prints its port and the room of its socket in octets, and
                                                    its counters for each line that it is given; a number there is
                                                    how many seconds later it shall be for the engine
    python -m tests.ike.flood send KEYS PORT ROOM   spoofed messages 1, 20,000 a second if it can, until it is ended

All peers share the key pair of the file KEYS/peer.pem; the gateway's own is KEYS/gateway.pem.
"""

import json
import os
import socket
import sys
import time
from ipaddress import ip_address
from itertools import count
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.stdio import StandardIO
from twisted.internet.threads import deferToThread
from twisted.protocols.basic import LineOnlyReceiver

from oesvc.daemon import KeyingDaemon
from oesvc.discovery import KEY, TXT, Discovery
from oesvc.dns.answer import Answer, AnswerKind, SecurityStatus
from oesvc.dns.name import reverse_name
from oesvc.ike.datagram import Endpoint
from oesvc.ike.v1.config import EngineConfig
from oesvc.ike.v1.constants import COOKIE_LENGTH, NO_COOKIE, ExchangeType, PayloadType
from oesvc.ike.v1.engine import IkeEngine
from oesvc.ike.v1.main_mode import invite
from oesvc.ike.v1.wire.header import Header
from oesvc.ike.v1.wire.message import seal_clear
from oesvc.ike.v1.wire.payloads import Payload
from oesvc.ipsec.rsa_key import RsaPublicKey
from oesvc.journal import Journal
from oesvc.keys import key_pair
from oesvc.oe.aging import Lifespans
from oesvc.oe.authorization import DnssecPolicy
from oesvc.oe.classes import ConnectionClass
from oesvc.oe.connections import Connections
from oesvc.udp import IkePort, open_socket
from tests.fakes import FakePlane, FakeResolver
from tests.oe.test_authorization import strings
from tests.oe.test_connections import table

GATEWAY = ip_address("127.0.0.1")
BOB = ip_address("192.2.0.66")
"Whom the gateway protects."
PEERS = [ip_address(f"127.1.{number}.1") for number in range(101)]
"Gateways that protect themselves."
SPOOFED = [f"127.2.{number}.1" for number in range(64)]
RATE = 20_000
BURST = 50
FULL = 8
"One part in so many of the socket's room may be taken by what waits to be read."
EVERY = 10
"One in so many spoofed messages is worded as none before."


def config(key: Path) -> EngineConfig:
    """Patient, for a busy machine; without extensions: those for NAT would notice that nobody here is on port 500."""
    return EngineConfig(key_pair.load(key), extensions=frozenset(), keying_time=40.0)


def publish(resolver: FakeResolver, key: RsaPublicKey) -> None:
    """The records of all peers."""
    for peer in PEERS:
        name = reverse_name(peer)
        for rdtype, rdata in ((KEY, bytes.fromhex("42000401") + key.to_rfc3110()),
                              (TXT, strings(f"X-IPsec-Server(10)={peer} {key.to_base64()}"))):
            resolver.answers[name, rdtype] = Answer(name, rdtype, AnswerKind.DATA, SecurityStatus.SECURE, "because",
                                                    (rdata,), name, expires=time.time() + 3600)


class Counters(LineOnlyReceiver):
    delimiter = b"\n"

    def __init__(self, engine: IkeEngine) -> None:
        self.engine = engine

    def lineReceived(self, line: bytes) -> None:
        if line:
            self.engine.handle_deadline(reactor.seconds() + float(line))
        # What was freed the interpreter keeps for itself, where a page of it is still in use.
        self.sendLine(json.dumps(self.engine.counters() | {"blocks": sys.getallocatedblocks()}).encode())


def serve(keys: Path) -> None:
    resolver = FakeResolver()
    publish(resolver, key_pair.public_key(key_pair.load(keys / "peer.pem")))
    engine = IkeEngine(config(keys / "gateway.pem"), os.urandom)
    opened = open_socket(Endpoint(GATEWAY, 0), lambda prepared: None)
    local = Endpoint(GATEWAY, opened.getsockname()[1])
    daemon = KeyingDaemon(
        connections=Connections(table(default=ConnectionClass.OE_PERMISSIVE), Lifespans(first=3600.0)),
        discovery=Discovery(resolver, DnssecPolicy.PREFER, lambda: 0.5), plane=FakePlane([]), engine=engine,
        journal=Journal(), clock=reactor, unix_time=time.time, send=lambda datagram: port.send(datagram),
        local_address=lambda peer: GATEWAY, is_ours=lambda address: address == BOB, calculate=deferToThread)
    port = IkePort(local, daemon.receive_datagram)
    reactor.adoptDatagramPort(opened.fileno(), opened.family, port, maxPacketSize=65535)
    print(local.port, opened.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF), flush=True)
    StandardIO(Counters(engine))
    reactor.run()


def send(keys: Path, port: int, room: int) -> None:
    """From addresses that never answer; each with another cookie.

    What floods a gateway has no share in its processor. Where there is little of that, this sends so much less that
    the gateway's socket is never full: otherwise it would be the machine that is tested.
    """
    os.nice(5)
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in SPOOFED]
    for each, address in zip(sockets, SPOOFED, strict=True):
        each.bind((address, 0))
        each.connect((str(GATEWAY), port))
    wording = invite(config(keys / "peer.pem"))
    usual = seal_clear(header(bytes(COOKIE_LENGTH)), wording)[COOKIE_LENGTH:]
    begun = time.monotonic()
    for burst in count():
        for number in range(burst * BURST, (burst + 1) * BURST):
            cookie = os.urandom(COOKIE_LENGTH)
            another = Payload(PayloadType.VENDOR_ID, cookie)
            message = cookie + usual if number % EVERY else seal_clear(header(cookie), [*wording, another])
            sockets[number % len(sockets)].send(message)
        time.sleep(max(0.0, begun + (burst + 1) * BURST / RATE - time.monotonic()))
        while waiting(port) > room // FULL:
            time.sleep(0.002)


def waiting(port: int) -> int:
    """Octets that wait in the gateway's socket to be read."""
    sockets = [line.split() for line in Path("/proc/net/udp").read_text().splitlines()[1:]]
    ours = next(cells for cells in sockets if cells[1] == f"{int.from_bytes(GATEWAY.packed, 'little'):08X}:{port:04X}")
    return int(ours[4].partition(":")[2], 16)


def header(cookie: bytes) -> Header:
    return Header(cookie, NO_COOKIE, PayloadType.SA, ExchangeType.MAIN_MODE, 0, 0)


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    if sys.argv[1] == "serve":
        serve(folder)
    else:
        send(folder, *map(int, sys.argv[3:]))
