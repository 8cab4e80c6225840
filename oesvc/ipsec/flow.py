"""The pair of addresses that one connection protects."""

from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


@lru_cache(maxsize=8192)
def host(address: Address) -> Network:
    """The prefix of one address; many flows have the same one at an end."""
    return ip_network((address.packed, address.max_prefixlen))


@dataclass(frozen=True, slots=True)
class Flow:
    """Traffic from one host to another (RFC 4322 section 3.1: one SPD object each)."""

    source: Address
    destination: Address
    _hash: int = field(init=False, repr=False, compare=False)
    "Tables are asked for a flow some thirty times until it is decided, and addresses take long to hash."

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.source, self.destination)))
        if self.source.version != self.destination.version:
            raise ValueError(f"{self.source} and {self.destination} are of different address families")

    def __hash__(self) -> int:
        return self._hash

    @property
    def networks(self) -> tuple[Network, Network]:
        """Source and destination as prefixes: of a flow, single hosts."""
        return host(self.source), host(self.destination)

    @property
    def ends(self) -> tuple[str, str]:
        """For people: hosts by their addresses, networks by their prefixes."""
        return str(self.source), str(self.destination)

    def reversed(self) -> "Flow":
        """The traffic that answers this one."""
        return Flow(self.destination, self.source)

    def __str__(self) -> str:
        return " -> ".join(self.ends)
