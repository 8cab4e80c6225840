"""NAT on the gateway itself: what a datagram's source becomes before it is encrypted (RFC 4322 section 6.1)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from oesvc.ipsec.flow import Address, Flow


@dataclass(frozen=True, slots=True)
class Translation:
    """One rule of the firewall. Raises ValueError where it is neither 1:1 nor m:1."""

    inside: IPv4Network | IPv6Network
    outside: IPv4Network | IPv6Network | None = None
    "Of the same size: NAT, address by address; a single address: NAPT; None: NAPT, to the gateway's own address."

    def __post_init__(self) -> None:
        if self.outside is None:
            return
        if self.outside.version != self.inside.version:
            raise ValueError(f"{self.inside} and {self.outside} are of different IP versions")
        if self.outside.num_addresses not in (1, self.inside.num_addresses):
            raise ValueError(f"{self.outside} is neither a single address nor as large as {self.inside}")

    def __str__(self) -> str:
        return f"{self.inside}={self.outside}" if self.outside else str(self.inside)

    def apply(self, flow: Flow, own: Callable[[Address], Address]) -> Flow:
        """A flow out of `inside`, translated; `own` is the gateway's address towards another. Raises what it does."""
        if self.outside is None:
            return Flow(own(flow.destination), flow.destination)
        number = int(flow.source) - int(self.inside.network_address) if self.outside.num_addresses > 1 else 0
        return Flow(self.outside[number], flow.destination)


def translate(flow: Flow, translations: Iterable[Translation], own: Callable[[Address], Address]) -> Flow | None:
    """What becomes of a flow; None where nothing does."""
    return next((rule.apply(flow, own) for rule in translations if flow.source in rule.inside), None)
