"""The pair of addresses that one connection protects."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Flow:
    """Traffic from one host to another (RFC 4322 section 3.1: one SPD object each)."""

    source: Address
    destination: Address

    def __post_init__(self) -> None:
        if self.source.version != self.destination.version:
            raise ValueError(f"{self.source} and {self.destination} are of different address families")

    def reversed(self) -> "Flow":
        """The traffic that answers this one."""
        return Flow(self.destination, self.source)

    def __str__(self) -> str:
        return f"{self.source} -> {self.destination}"
