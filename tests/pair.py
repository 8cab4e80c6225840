"""Two gateways in one process: real daemons, machines and IKE engines; DNS and kernel are fakes, as is the clock."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from twisted.internet.task import Clock

from oesvc.config_tunnels import ConfiguredPeer
from oesvc.configured_peers import ConfiguredPeers
from oesvc.daemon import KeyingDaemon
from oesvc.discovery import KEY, TXT, Discovery
from oesvc.dns.answer import Answer, AnswerKind, Name, SecurityStatus
from oesvc.dns.name import parse_name, reverse_name
from oesvc.dns.records import RecordType
from oesvc.ike.datagram import Datagram
from oesvc.ike.identity import Identity
from oesvc.ike.v1.config import EngineConfig
from oesvc.ike.v1.engine import IkeEngine
from oesvc.ipsec.flow import Address, Flow
from oesvc.ipsec.rsa_key import RsaPublicKey
from oesvc.journal import Journal
from oesvc.keys.key_pair import public_key
from oesvc.oe.aging import Lifespans
from oesvc.oe.authorization import DnssecPolicy
from oesvc.oe.classes import ClassTable, ConnectionClass
from oesvc.oe.configured import ConfiguredTunnel
from oesvc.oe.connections import Connections
from oesvc.oe.paths import Choice
from oesvc.partners import Partners
from tests.fakes import FakePlane, FakeResolver
from tests.oe.parts import ALICE, BOB, SG_A, SG_B
from tests.oe.test_authorization import strings

LATENCY = 0.01
"Seconds that a datagram takes from gateway to gateway."


@cache
def private_key(name: str) -> RSAPrivateKey:
    """The key of one gateway; 1024 bits, for speed."""
    return generate_private_key(65537, 1024)


@dataclass
class Wire:
    """What lies between the gateways: delivers after LATENCY, or loses what `loses` says."""

    clock: Clock
    gateways: dict[Address, "Gateway"] = field(default_factory=dict)
    sent: list[Datagram] = field(default_factory=list)

    def loses(self, datagram: Datagram) -> bool:
        return False

    def send(self, datagram: Datagram) -> None:
        self.sent.append(datagram)
        peer = self.gateways.get(datagram.peer.address)
        if peer is not None and not self.loses(datagram):
            arrived = Datagram(datagram.data, datagram.peer, datagram.local)
            self.clock.callLater(LATENCY, lambda: peer.daemon.receive_datagram(arrived))


class Gateway:
    """One gateway and what it sees of the world."""

    def __init__(self, name: str, address: Address, client: Address, wire: Wire, resolver: FakeResolver,
                 of_class: ConnectionClass, dnssec: DnssecPolicy = DnssecPolicy.PREFER,
                 choice: Choice = Choice.LAST_KEYED, partners: Partners | None = None,
                 tunnels: Sequence[ConfiguredPeer] = (), identity: Identity | None = None,
                 key: RSAPrivateKey | None = None) -> None:
        key = key or private_key(name)
        self.alive = True
        self.address, self._client, self._wire = address, client, wire
        self.diary: list[tuple[object, ...]] = []
        self.plane = FakePlane(self.diary)
        self.entropy = random.Random(name)
        self.key = public_key(key)
        discovery = Discovery(resolver, dnssec, lambda: 0.5)
        lines = [line for tunnel in tunnels for line in tunnel.lines]
        configured = [ConfiguredTunnel(tunnel.name, subnets, tunnel.start, tunnel.place)
                      for tunnel in tunnels for subnets in tunnel.subnets]
        networks = frozenset(tunnel.flow for tunnel in configured)
        self.daemon = KeyingDaemon(
            connections=Connections(ClassTable(lines, of_class), Lifespans(), configured=configured),
            discovery=discovery, plane=self.plane,
            engine=IkeEngine(EngineConfig(key, identity=identity, configured=networks),
                             self.entropy.randbytes),
            journal=Journal(), clock=wire.clock, unix_time=wire.clock.seconds, partners=partners,
            local_address=lambda peer: self.address,
            send=lambda datagram: wire.send(datagram) if self.alive else None,
            is_ours=lambda other: other in (self.address, self._client), choice=choice,
            peers=ConfiguredPeers(tunnels, discovery))
        wire.gateways[address] = self

    def move(self, address: Address) -> None:
        """DHCP gives it another address than before."""
        before, self.address = self.address, address
        del self._wire.gateways[before]
        self._wire.gateways[address] = self
        self.daemon.address_gone(before)

    def policies(self) -> list[str]:
        """The forwarding policies asked for, in order."""
        return [str(entry[0]) for entry in self.diary if entry[0] in ("hold", "pass-through", "deny", "encrypt")]

    def asked(self) -> list[str]:
        """The steps of section 11.2 so far."""
        return [entry.arrow.label for flow in (Flow(ALICE, BOB), Flow(BOB, ALICE))
                for entry in self.daemon.journal.entries(flow) if entry.arrow and entry.arrow.label]


def key_record(key: RsaPublicKey) -> bytes:
    """The RDATA of section 5.1."""
    return bytes.fromhex("42000401") + key.to_rfc3110()


class Pair:
    """SG-A for Alice and SG-B for Bob, with the records of section 5 in the DNS."""

    def __init__(self, class_a: ConnectionClass = ConnectionClass.OE_PERMISSIVE,
                 class_b: ConnectionClass = ConnectionClass.OE_PERMISSIVE,
                 dnssec: DnssecPolicy = DnssecPolicy.PREFER, tunnels_a: Sequence[ConfiguredPeer] = (),
                 tunnels_b: Sequence[ConfiguredPeer] = (), identity_a: Identity | None = None) -> None:
        self.clock = Clock()
        self.wire = Wire(self.clock)
        self.resolver = FakeResolver()
        self.a = Gateway("a", SG_A, ALICE, self.wire, self.resolver, class_a, dnssec, tunnels=tunnels_a,
                         identity=identity_a)
        self.b = Gateway("b", SG_B, BOB, self.wire, self.resolver, class_b, dnssec, tunnels=tunnels_b)
        for gateway, address, client in ((self.a, SG_A, ALICE), (self.b, SG_B, BOB)):
            self.publish_key(address, gateway.key)
            self.publish_delegation(client, address, gateway.key)

    def publish_key(self, address: Address, *keys: RsaPublicKey) -> None:
        self.publish(address, KEY, [key_record(key) for key in keys], SecurityStatus.SECURE)

    def publish_name(self, fqdn: str, *keys: RsaPublicKey) -> None:
        """What one that is known by name has in the forward map (section 5.3)."""
        self._answer(parse_name(fqdn), KEY, [key_record(key) for key in keys], SecurityStatus.SECURE)

    def reboot_b(self, partners: Partners | None = None) -> Gateway:
        """SG-B loses its power, and begins anew knowing nothing, or only who its partners were."""
        self.b.alive = False
        self.b = Gateway("b", SG_B, BOB, self.wire, self.resolver, ConnectionClass.OE_PERMISSIVE, partners=partners)
        self.b.entropy.seed("another life")
        return self.b

    def publish_delegation(self, host: Address, gateway: Address, key: RsaPublicKey,
                           status: SecurityStatus = SecurityStatus.SECURE) -> None:
        self.publish(host, TXT, [strings(f"X-IPsec-Server(10)={gateway} {key.to_base64()}")], status)

    def publish_address(self, name: str, address: Address) -> None:
        owner, rdtype = parse_name(name), RecordType.A
        self.resolver.answers[owner, rdtype] = Answer(owner, rdtype, AnswerKind.DATA, SecurityStatus.INSECURE,
                                                      "because", (address.packed,), owner, expires=36000.0)

    def publish(self, address: Address, rdtype: int, rdatas: list[bytes], status: SecurityStatus) -> None:
        self._answer(reverse_name(address), rdtype, rdatas, status)

    def _answer(self, name: Name, rdtype: int, rdatas: list[bytes], status: SecurityStatus) -> None:
        self.resolver.answers[name, rdtype] = Answer(name, rdtype, AnswerKind.DATA, status, "because", tuple(rdatas),
                                                     name, expires=36000.0)

    def run(self, seconds: float) -> None:
        """Let time pass, in steps short enough for every message to be taken in its turn."""
        for _ in range(round(seconds / LATENCY)):
            self.clock.advance(LATENCY)
