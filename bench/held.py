"""What stands in for the packet queue and the peers of bench/scale, and who holds all that is brought: the daemon."""

import argparse
import os
import random
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import Factory

from oesvc.daemon import KeyingDaemon
from oesvc.discovery import Discovery
from oesvc.dns.answer import Answer, AnswerKind, SecurityStatus
from oesvc.dns.name import reverse_name
from oesvc.dns.records import RecordType
from oesvc.dns.resolver import ValidatingResolver
from oesvc.ike.datagram import Datagram, Endpoint
from oesvc.ike.events import KeysWanted, SasReady, TunnelProposed, Work
from oesvc.ike.v1.config import EngineConfig
from oesvc.ike.v1.engine import IkeEngine
from oesvc.journal import Journal
from oesvc.kernel.constants import NFQA_PACKET_HDR, NFQA_PAYLOAD, XfrmMessage
from oesvc.kernel.netlink import HEADER, Message, NetlinkSocket, Request, attribute
from oesvc.kernel.plane_config import PlaneConfig
from oesvc.kernel.queue import NFGEN, PACKET, PacketQueue
from oesvc.kernel.service import LinuxForwardingPlane
from oesvc.keys.key_pair import public_key
from oesvc.keys.records import delegation_record
from oesvc.oe.aging import Lifespans
from oesvc.oe.authorization import DnssecPolicy
from oesvc.oe.classes import ClassTable, ConnectionClass, PolicyLine
from oesvc.oe.connections import Connections
from oesvc.oe.reasons import Because
from oesvc.operator.control import ControlProtocol
from oesvc.statistics import CountedResolver, Statistics

ROOT = Path(__file__).resolve().parent.parent
GATEWAY = ip_address("192.0.2.1")
CLIENTS = ip_network("11.0.0.0/16")
"Public addresses, as those of the hosts that tunnels are for: private ones are not keyed by every peer (section 6)."
NEVER_CLEAR = ip_network("198.19.0.0/16")
"Of the class OE-paranoid: where nothing is published, flows are denied."
PASSED, DENIED, KEYED = (int(ip_address(first)) for first in ("198.18.0.0", "198.19.0.0", "12.0.0.0"))
PEERS = int(ip_address("100.64.0.0"))
IN_FLIGHT = 32
UNBOUNDED = dict.fromkeys(("max_half_open", "max_half_open_per_prefix", "max_channels", "max_channels_per_peer",
                           "max_channels_per_prefix", "max_tunnels", "max_tunnels_per_peer", "max_tunnels_per_prefix"),
                          10**6)
HAS_ESP = subprocess.run([ROOT / "tools/in-lab-kernel", "--probe"], stdout=subprocess.DEVNULL).returncode == 0
SA_MESSAGES = (XfrmMessage.NEWSA, XfrmMessage.UPDSA, XfrmMessage.DELSA, XfrmMessage.GETSA)


class Queue(PacketQueue):
    """The packet queue without the kernel: it counts the verdicts, and `decided` hears of each."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._socket.close()
        self._socket = self
        self.verdicts = 0
        self.decided = lambda: None

    def bind(self) -> "Deferred[list[Message]]":
        return succeed([])

    def post(self, octets: bytes) -> None:
        self.verdicts += 1
        self.decided()

    def close(self) -> None:
        pass

    def arrive(self, number: int, source: IPv4Address, destination: IPv4Address) -> None:
        packet = struct.pack("!BxHxxxxBBxx4s4s", 0x45, 28, 64, 17, source.packed, destination.packed) + bytes(8)
        body = NFGEN.pack(socket.AF_INET, 0, 0) + attribute(NFQA_PACKET_HDR, struct.pack("!IHB", number, 0x800, 0))
        body += attribute(NFQA_PAYLOAD, packet)
        self._received(Message(PACKET, HEADER.pack(HEADER.size + len(body), PACKET, 0, 0, 0) + body))


class WithoutEsp:
    """XFRM where the kernel has no ESP: what is asked of the SAD is done at once, and by nobody."""

    def __init__(self, xfrm: NetlinkSocket) -> None:
        self._xfrm = xfrm

    def request(self, *requests: Request) -> "Deferred[list[Message]]":
        asks_sad = all(request.kind in SA_MESSAGES and request.body for request in requests)
        return succeed([]) if asks_sad else self._xfrm.request(*requests)


class Plane(LinuxForwardingPlane):
    def _open_sockets(self) -> None:
        super()._open_sockets()
        if not HAS_ESP:
            self._xfrm = WithoutEsp(self._xfrm)
        self._sets.load_all, self._sets.load = self._sets.load, self._load
        self._queue = Queue(self._reactor, 0, 0, 0, self._datagram_arrived)

    def _load(self, text: str) -> "Deferred[None]":
        """This machine's kernel may lack the queue, and the look-up of routes; the sets are in need of neither."""
        lines = [line for line in text.splitlines() if "fib daddr" not in line and "rt ipsec" not in line]
        return self._sets.load_all("\n".join(lines).replace("queue flags bypass to 4322", "drop"))


class Names:
    """The resolver; for those whom we have tunnels with, answers without it."""

    def __init__(self, resolver: ValidatingResolver, key: Any, per_peer: int) -> None:
        self._resolver, self._key, self._per_peer = resolver, key, per_peer
        self._keyed: dict[Any, int] = {}

    def has(self, number: int) -> IPv4Address:
        host = ip_address(KEYED + number)
        self._keyed[reverse_name(host)] = number
        return host

    def look_up(self, name: Any, rdtype: int, client: Any = None) -> "Deferred[Answer]":
        number = self._keyed.get(name)
        if number is None:
            return self._resolver.look_up(name, rdtype, client)
        if rdtype != RecordType.TXT:
            return succeed(Answer(name, rdtype, AnswerKind.NODATA, SecurityStatus.SECURE, "made for it",
                                  expires=time.time() + 86400))
        gateway = ip_address(PEERS + number // self._per_peer)
        strings = delegation_record(ip_address(KEYED + number), gateway, self._key).split('"')[1::2]
        rdata = b"".join(bytes([len(one)]) + one.encode() for one in strings)
        return succeed(Answer(name, rdtype, AnswerKind.DATA, SecurityStatus.SECURE, "made for it", (rdata,), name,
                              time.time() + 86400))

    def bounds(self) -> Any:
        return self._resolver.bounds()


class Wire:
    """A pair of sockets to the peers; the address of the one that is meant goes before each datagram."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        self.fileno, self.logPrefix, self.connectionLost = end.fileno, lambda: "wire", lambda reason: None

    def send(self, datagram: Datagram) -> None:
        self.end.send(datagram.peer.address.packed + datagram.data)

    def doRead(self) -> None:
        data = self.end.recv(65535)
        self.receive(Datagram(data[4:], Endpoint(GATEWAY, 500), Endpoint(ip_address(data[:4]), 500)))


def play_peers(end: socket.socket, key: Any, gateway_key: Any) -> None:
    """All peers, in several engines: one that has very many channels with one gateway is what no peer is."""
    engines = [IkeEngine(EngineConfig(key, **UNBOUNDED, dpd_idle=0), os.urandom) for _ in range(256)]
    while data := end.recv(65535):
        engine = engines[data[3]]
        engine.receive_datagram(Datagram(data[4:], Endpoint(ip_address(data[:4]), 500), Endpoint(GATEWAY, 500)), 0.0)
        while events := engine.events():
            for event in events:
                if isinstance(event, Work):
                    engine.work_done(event.id, event.calculate(), 0.0)
                elif isinstance(event, KeysWanted):
                    engine.keys_found(event.channel, event.identity, [gateway_key], 0.0)
                elif isinstance(event, TunnelProposed):
                    engine.accept_tunnel(event.tunnel, 0.0)
                elif isinstance(event, SasReady):
                    engine.sas_installed(event.tunnel, 0.0)
        for datagram in engine.datagrams_to_send():
            end.send(datagram.local.address.packed + datagram.data)


class World:
    """A daemon as `oesvc.gateway` puts it together."""

    def __init__(self, directory: Path, resolver: ValidatingResolver, wire: socket.socket, keys: Sequence[Any],
                 options: argparse.Namespace) -> None:
        statistics = Statistics()
        config = PlaneConfig(clients=(CLIENTS,), own=(GATEWAY,), never_clear=(NEVER_CLEAR,),
                             reasons=tuple(Because.__members__))
        self.plane = Plane(reactor, config, statistics.released)
        self.names = Names(resolver, public_key(keys[1]), options.tunnels_per_peer)
        classes = ClassTable([PolicyLine(NEVER_CLEAR, ConnectionClass.OE_PARANOID, "private:1")],
                             ConnectionClass.OE_PERMISSIVE)
        discovery = Discovery(CountedResolver(self.names, statistics, reactor.seconds), DnssecPolicy.PREFER,
                              random.random)
        self.wire = Wire(wire)
        self.daemon = KeyingDaemon(
            connections=Connections(classes, Lifespans(first=86400.0)), discovery=discovery, plane=self.plane,
            engine=IkeEngine(EngineConfig(keys[0], **UNBOUNDED, dpd_idle=0), os.urandom), journal=Journal(),
            clock=reactor, unix_time=time.time, send=self.wire.send, local_address=lambda peer: GATEWAY,
            is_ours=lambda address: address in CLIENTS, key_directory=directory, statistics=statistics)
        self.wire.receive = self.daemon.receive_datagram
        self.control = directory / "control"
        reactor.addReader(self.wire)
        sources = SimpleNamespace(daemon=self.daemon, seconds=reactor.seconds)
        reactor.listenUNIX(str(self.control), Factory.forProtocol(lambda: ControlProtocol(sources)))
        self.brought = 0
        "Flows, those of tunnels among them."
        self._destinations = options.destinations

    def begin_flow(self) -> None:
        number, self.brought = self.brought, self.brought + 1
        client, which = divmod(number, self._destinations)
        first = (PASSED, DENIED)[which % 2]
        self.plane._queue.arrive(number, ip_address(int(CLIENTS[1]) + client), ip_address(first + which // 2))

    def begin_tunnel(self) -> None:
        number, self.brought = self.brought, self.brought + 1
        self.plane._queue.arrive(number, CLIENTS[-3], self.names.has(number))


def bring(world: World, count: int, begin: Callable[[], None]) -> "Deferred[None]":
    """Begin so many, a few at a time, until the verdict on each is there."""
    done: Deferred[None] = Deferred()
    began, decided = 0, 0

    def verdict() -> None:
        nonlocal decided
        decided += 1
        if decided == count:
            world.plane._queue.decided = lambda: None
            done.callback(None)
        elif began < count:
            reactor.callLater(0, another)

    def another() -> None:
        nonlocal began
        if began < count:
            began += 1
            begin()

    world.plane._queue.decided = verdict
    for _ in range(min(count, IN_FLIGHT)):
        another()
    return done
