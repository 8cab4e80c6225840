"""Two engines keyed over an in-memory wire with a simulated clock; the wire can lose, double, delay and change."""

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from ipaddress import IPv4Address, ip_address
from itertools import count

from cryptography.hazmat.primitives.asymmetric import rsa

from oesvc.ike.datagram import Datagram, Endpoint
from oesvc.ike.events import KeysWanted, MessageSeen, SasReady, TunnelId, TunnelProposed, Way, Work
from oesvc.ike.identity import AddressIdentity, Identity
from oesvc.ike.v1.config import EngineConfig
from oesvc.ike.v1.engine import IkeEngine
from oesvc.ipsec.flow import Address, Flow
from oesvc.ipsec.rsa_key import RsaPublicKey
from oesvc.ipsec.sa import IpsecSa
from oesvc.keys import key_pair as keys

LATENCY = 0.01
SG_A, SG_B = ip_address("192.1.1.4"), ip_address("192.1.1.5")
ALICE, BOB = ip_address("192.1.0.65"), ip_address("192.2.0.66")
ALICE_TO_BOB = Flow(ALICE, BOB)


@cache
def private_key(name: str, bits: int = 2048) -> rsa.RSAPrivateKey:
    """One key pair per name, made when it is first asked for."""
    return rsa.generate_private_key(65537, bits)


def public_key(name: str) -> RsaPublicKey:
    return keys.public_key(private_key(name))


def entropy(seed: object) -> Callable[[int], bytes]:
    return random.Random(str(seed)).randbytes


@dataclass
class Gateway:
    """An engine with an owner that answers for the DNS and the kernel, and keeps a diary."""

    name: str
    address: Address
    engine: IkeEngine
    keys: dict[Identity, tuple[RsaPublicKey, ...]] = field(default_factory=dict)
    "What the DNS has."
    dns_delay: float | None = 0.0
    "None: the DNS never answers."
    authorizes: bool | None = True
    "Whether it accepts tunnels; None: it never says."
    work_delay: float = 0.0
    "Seconds that each calculation takes."
    installs: bool = True
    events: list[object] = field(default_factory=list)
    sas: dict[TunnelId, list[IpsecSa]] = field(default_factory=dict)

    def heard(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]

    def messages(self, way: Way | None = None) -> list[str]:
        return [event.name for event in self.heard(MessageSeen) if way in (None, event.way)]

    def tunnel_sas(self) -> list[IpsecSa]:
        return [sa for sas in self.sas.values() for sa in sas]


Fault = Callable[[int, Datagram], Sequence[tuple[float, Datagram]]]
"What becomes of the n-th datagram: any number of copies with delays."


def faithful(number: int, datagram: Datagram) -> Sequence[tuple[float, Datagram]]:
    return [(0.0, datagram)]


class Pair:
    """SG-A and SG-B, and the world between them."""

    def __init__(self, a: EngineConfig | None = None, b: EngineConfig | None = None, fault: Fault = faithful,
                 seed: object = 0, addresses: tuple[Address, Address] = (SG_A, SG_B)) -> None:
        self.now, self.fault = 1000.0, fault
        self.wire: list[tuple[float, int, Datagram]] = []
        self.capture: list[Datagram] = []
        self._order, self._later = count(), []
        configs = a or EngineConfig(private_key("a")), b or EngineConfig(private_key("b"))
        self.a, self.b = (Gateway(name, address, IkeEngine(config, entropy((name, seed))))
                          for name, address, config in zip("ab", addresses, configs, strict=True))
        for gateway in self.gateways:
            gateway.keys = {AddressIdentity(address): (public_key(name),)
                            for name, address in zip("ab", addresses, strict=True)}

    @property
    def gateways(self) -> tuple[Gateway, Gateway]:
        return self.a, self.b

    def initiate(self, flow: Flow = ALICE_TO_BOB, by: Gateway | None = None, **changes: object) -> TunnelId:
        gateway = by or self.a
        other = self.b if gateway is self.a else self.a
        identity = changes.get("identity", AddressIdentity(other.address))
        keys = changes.get("keys", gateway.keys.get(AddressIdentity(other.address), ()))
        tunnel = gateway.engine.initiate(flow, gateway.address, other.address, identity, keys, self.now)
        self._serve(gateway)
        return tunnel

    def do(self, gateway: Gateway, call: Callable[..., object], *arguments: object) -> None:
        """Call an engine's method with the time, then serve what comes of it."""
        call(*arguments, self.now)
        self._serve(gateway)

    def run(self, seconds: float = 9.0) -> "Pair":
        """Let time pass, from one thing that happens to the next."""
        end = self.now + seconds
        while (when := self._next()) is not None and when <= end:
            self.now = max(self.now, when)
            self._step()
        self.now = end
        return self

    def inject(self, datagram: Datagram) -> None:
        """Deliver a datagram now, whoever made it."""
        for gateway in self.gateways:
            if gateway.address == datagram.local.address:
                gateway.engine.receive_datagram(datagram, self.now)
                self._serve(gateway)

    def _next(self) -> float | None:
        times = [self.wire[0][0]] if self.wire else []
        times += [when for when, _ in self._later]
        times += [deadline for gateway in self.gateways
                  if (deadline := gateway.engine.next_deadline()) is not None]
        return min(times, default=None)

    def _step(self) -> None:
        while self.wire and self.wire[0][0] <= self.now:
            self.inject(heapq.heappop(self.wire)[2])
        due = [action for when, action in self._later if when <= self.now]
        self._later = [(when, action) for when, action in self._later if when > self.now]
        for action in due:
            action()
        for gateway in self.gateways:
            gateway.engine.handle_deadline(self.now)
            self._serve(gateway)

    def _serve(self, gateway: Gateway) -> None:
        self._carry(gateway)
        while events := gateway.engine.events():
            for event in events:
                gateway.events.append(event)
                self._answer(gateway, event)
            self._carry(gateway)

    def _carry(self, gateway: Gateway) -> None:
        for datagram in gateway.engine.datagrams_to_send():
            arriving = Datagram(datagram.data, datagram.peer, datagram.local)
            for delay, copy in self.fault(len(self.capture), arriving):
                heapq.heappush(self.wire, (self.now + LATENCY + delay, next(self._order), copy))
            self.capture.append(datagram)

    def _answer(self, gateway: Gateway, event: object) -> None:
        engine = gateway.engine
        if isinstance(event, Work) and not gateway.work_delay:
            engine.work_done(event.id, event.calculate(), self.now)
        elif isinstance(event, Work):
            self._later.append((self.now + gateway.work_delay, lambda: self._work(gateway, event)))
        elif isinstance(event, KeysWanted) and gateway.dns_delay is not None:
            self._later.append((self.now + gateway.dns_delay, lambda: self._give_keys(gateway, event)))
        elif isinstance(event, TunnelProposed) and gateway.authorizes is not None:
            if gateway.authorizes:
                engine.accept_tunnel(event.tunnel, self.now)
            else:
                engine.refuse_tunnel(event.tunnel, "policy", self.now)
        elif isinstance(event, SasReady):
            gateway.sas.setdefault(event.tunnel, []).extend(event.sas)
            if gateway.installs:
                engine.sas_installed(event.tunnel, self.now)

    def _work(self, gateway: Gateway, work: Work) -> None:
        gateway.engine.work_done(work.id, work.calculate(), self.now)
        self._serve(gateway)

    def _give_keys(self, gateway: Gateway, event: KeysWanted) -> None:
        if keys := gateway.keys.get(event.identity):
            gateway.engine.keys_found(event.channel, event.identity, keys, self.now)
        else:
            gateway.engine.keys_missing(event.channel, event.identity, f"no KEY record for {event.identity}", self.now)
        self._serve(gateway)


def endpoint(address: str, port: int = 500) -> Endpoint:
    return Endpoint(IPv4Address(address), port)
