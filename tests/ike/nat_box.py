"""A NAT on the wire of a pair: one gateway is behind it, and its ports are mapped (RFC 3947)."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

from oesvc.ike.datagram import Datagram, Endpoint
from oesvc.ike.identity import FqdnIdentity
from oesvc.ike.v1.config import EngineConfig
from oesvc.ipsec.flow import Address
from tests.ike.pair import SG_B, Pair, private_key, public_key

INSIDE = ip_address("10.0.0.4")
OUTSIDE, ELSEWHERE = ip_address("198.51.100.1"), ip_address("203.0.113.9")
NAME = FqdnIdentity("sg-a.example.net")


@dataclass
class NatBox:
    """A fault of a pair's wire that translates. It lets in only what comes to a mapping (NAPT)."""

    inside: Address = INSIDE
    outside: Address = OUTSIDE
    next_port: int = 32001
    mappings: dict[Endpoint, Endpoint] = field(default_factory=dict)
    "From inside to outside."
    closed: bool = False

    def __call__(self, number: int, datagram: Datagram) -> Sequence[tuple[float, Datagram]]:
        """`datagram` is as its receiver would get it."""
        if self.closed:
            return []
        if datagram.peer.address == self.inside:
            return [(0.0, replace(datagram, peer=self._map(datagram.peer)))]
        inside = [inside for inside, outside in self.mappings.items() if outside == datagram.local]
        return [(0.0, replace(datagram, local=inside[0]))] if inside else []

    def forget(self, outside: Address | None = None) -> None:
        """As after a reboot: new ports, maybe a new address."""
        self.mappings.clear()
        self.outside = outside or self.outside

    def _map(self, inside: Endpoint) -> Endpoint:
        if inside not in self.mappings:
            self.mappings[inside] = Endpoint(self.outside, self.next_port)
            self.next_port += 1
        return self.mappings[inside]


def behind_nat(box: NatBox | None = None, seed: object = 0, **changes: object) -> tuple[Pair, NatBox]:
    """SG-A, known by its name, behind a NAT; SG-B outside."""
    box = box or NatBox()
    config = replace(EngineConfig(private_key("a"), identity=NAME), **changes)
    pair = Pair(config, replace(EngineConfig(private_key("b")), **{**changes, "identity": None}), fault=box, seed=seed,
                addresses=(box.inside, SG_B))
    pair.b.keys[NAME] = (public_key("a"),)
    return pair, box
