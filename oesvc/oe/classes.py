"""Connection classes: what could be (RFC 4322 section 3.2)."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Network, IPv6Network

from oesvc.ipsec.flow import Address

Network = IPv4Network | IPv6Network


class ConnectionClass(Enum):
    """The classes that section 3.2 requires; the value is the RFC's name."""

    DENY = "deny"
    ALWAYS_CLEAR_TEXT = "always-clear-text"
    OE_PERMISSIVE = "OE-permissive"
    OE_PARANOID = "OE-paranoid"

    @property
    def opportunistic(self) -> bool:
        return self in (ConnectionClass.OE_PERMISSIVE, ConnectionClass.OE_PARANOID)

    @property
    def never_clear(self) -> bool:
        return self in (ConnectionClass.DENY, ConnectionClass.OE_PARANOID)


@dataclass(frozen=True, slots=True)
class PolicyLine:
    """One prefix in a class, and where the administrator wrote it."""

    network: Network
    connection_class: ConnectionClass
    place: str
    "file:line"

    def __str__(self) -> str:
        return f"{self.network} is {self.connection_class.value} ({self.place})"


class ClassTable:
    """Which class a destination belongs to: longest prefix first (RFC 4322 section 1.2)."""

    def __init__(self, lines: Iterable[PolicyLine], default: ConnectionClass) -> None:
        self.lines = tuple(lines)
        self.default = default
        self._by_length: dict[tuple[int, int], dict[int, PolicyLine]] = {}
        for line in self.lines:
            network = line.network
            same_length = self._by_length.setdefault((network.version, network.prefixlen), {})
            same_length[int(network.network_address)] = line
        self._lengths = {version: sorted((length for v, length in self._by_length if v == version), reverse=True)
                         for version in (4, 6)}

    def find(self, destination: Address) -> PolicyLine:
        """The line that decides for a destination; one that names the default when none matches."""
        number, bits = int(destination), destination.max_prefixlen
        for length in self._lengths[destination.version]:
            host_bits = bits - length
            line = self._by_length[destination.version, length].get(number >> host_bits << host_bits)
            if line is not None:
                return line
        everything = IPv4Network("0.0.0.0/0") if destination.version == 4 else IPv6Network("::/0")
        return PolicyLine(everything, self.default, "no policy line matches; this is the default")
