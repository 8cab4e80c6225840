"""Connection classes: what could be (RFC 4322 section 3.2)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from ipaddress import IPv4Network, IPv6Network

from oesvc.ipsec.flow import Address
from oesvc.ipsec.ports import Ports
from oesvc.oe.aging import Lifespans
from oesvc.oe.authorization import DnssecPolicy

Network = IPv4Network | IPv6Network

BITS = {4: 32, 6: 128}
EVERYTHING: dict[int, Network] = {4: IPv4Network("0.0.0.0/0"), 6: IPv6Network("::/0")}


class ConnectionClass(Enum):
    """The classes that section 3.2 requires, and the one of section 3.3.2; the value is the RFC's name."""

    DENY = "deny"
    ALWAYS_CLEAR_TEXT = "always-clear-text"
    PASSIVE = "passive"
    "Accepts opportunistic encryption but does not initiate it (section 3.3.2)."
    OE_PERMISSIVE = "OE-permissive"
    OE_PARANOID = "OE-paranoid"
    CONFIGURED = "configured tunnel"
    "Of the networks that a configured tunnel leads to, for sources that it is not for; a `deny` of its own (1.2)."

    @property
    def opportunistic(self) -> bool:
        """Whether a peer's proposal may be accepted."""
        return self in (ConnectionClass.PASSIVE, ConnectionClass.OE_PERMISSIVE, ConnectionClass.OE_PARANOID)

    @property
    def initiates(self) -> bool:
        """Whether the DNS is asked, and a gateway called."""
        return self in (ConnectionClass.OE_PERMISSIVE, ConnectionClass.OE_PARANOID)

    @property
    def never_clear(self) -> bool:
        return self in (ConnectionClass.DENY, ConnectionClass.OE_PARANOID, ConnectionClass.CONFIGURED)


@dataclass(frozen=True, slots=True)
class ClassOptions:
    """What an administrator's own class does otherwise than the RFC's that it is based on. None: as for all."""

    name: str = field(default="", compare=False)
    "Empty for the RFC's own classes."
    dnssec: DnssecPolicy | None = None
    bad_record_is_absence: bool = False
    "A record that is misformatted or forged counts as none, instead of leading to deny (3.2.4)."
    dns_failure_denies: bool = False
    "Where the DNS gives no answer, OE-permissive too is denied (9.1)."
    lifespans: Lifespans | None = field(default=None, compare=False)
    keying_time: float | None = field(default=None, compare=False)
    "Seconds."
    icmp_on_deny: bool | None = field(default=None, compare=False)


AS_THE_RFC = ClassOptions()


@dataclass(frozen=True, slots=True)
class PolicyLine:
    """One prefix in a class, and where the administrator wrote it."""

    network: Network
    connection_class: ConnectionClass
    place: str
    "file:line"
    options: ClassOptions = AS_THE_RFC

    @property
    def class_name(self) -> str:
        base = self.connection_class.value
        return f"{self.options.name} ({base})" if self.options.name else base

    def treats_alike(self, other: "PolicyLine") -> bool:
        """Whether a flow is treated the same by either; how long for, and how a denial is told, counts for nothing."""
        return self.connection_class is other.connection_class and (
            self.options == other.options or not self.connection_class.opportunistic)

    def __str__(self) -> str:
        return f"{self.network} is {self.class_name} ({self.place})"


@dataclass(frozen=True, slots=True)
class PortLine:
    """Datagrams to a prefix that are no matter of opportunistic encryption: they pass in clear, or are dropped."""

    network: Network
    ports: Ports
    dropped: bool
    place: str
    "file:line"

    def __str__(self) -> str:
        return f"{self.network} {self.ports} is {'dropped' if self.dropped else 'in clear'} ({self.place})"


class ClassTable:
    """Which class a destination belongs to: longest prefix first (RFC 4322 section 1.2)."""

    def __init__(self, lines: Iterable[PolicyLine], default: ConnectionClass, options: ClassOptions = AS_THE_RFC,
                 port_lines: Iterable[PortLine] = ()) -> None:
        """`default` and its `options` are for destinations that no line is about."""
        self.lines = tuple(lines)
        self.default = default
        self.default_options = options
        self.port_lines = tuple(port_lines)
        self._by_length: dict[tuple[int, int], dict[int, PolicyLine]] = {}
        for line in self.lines:
            network = line.network
            same_length = self._by_length.setdefault((network.version, network.prefixlen), {})
            same_length[int(network.network_address)] = line
        self._lengths = {version: sorted((length for v, length in self._by_length if v == version), reverse=True)
                         for version in (4, 6)}
        self._otherwise: dict[int, PolicyLine] = {
            network.version: PolicyLine(network, default, "no policy line matches; this is the default", options)
            for network in EVERYTHING.values()}
        self.dnssec_policies = frozenset((options.dnssec, *(line.options.dnssec for line in self.lines)))
        "All that classes ask for; None stands for that of the configuration."

    def become(self, other: "ClassTable") -> None:
        """Take another's place for all who hold this one."""
        self.__dict__.update(other.__dict__)

    def find(self, destination: Address) -> PolicyLine:
        """The line that decides for a destination; one that names the default when none matches."""
        return self._find(int(destination), destination.version, destination.max_prefixlen)

    def about(self, network: Network) -> PolicyLine:
        """The line that decides for a prefix as a whole: its own, or else the one of the longest that it is within."""
        return self._find(int(network.network_address), network.version, network.prefixlen)

    def _find(self, number: int, version: int, longest: int) -> PolicyLine:
        for length in self._lengths[version]:
            host_bits = BITS[version] - length
            line = self._by_length[version, length].get(number >> host_bits << host_bits)
            if line is not None and length <= longest:
                return line
        return self._otherwise[version]

    def port_rules(self) -> Iterator[PortLine]:
        """The port lines, each for as much of its prefix as no line with a longer one is about."""
        for port_line in self.port_lines:
            longer = [line.network for line in self.lines if _is_within(line.network, port_line.network)]
            longer += [other.network for other in self.port_lines
                       if other.ports == port_line.ports and _is_within(other.network, port_line.network)]
            for network in _without(port_line.network, longer):
                yield replace(port_line, network=network)


def _is_within(network: Network, other: Network) -> bool:
    """Whether it is a proper part."""
    return (network.version == other.version and network != other
            and network.subnet_of(other))  # type: ignore[arg-type]


def _without(network: Network, parts: Iterable[Network]) -> list[Network]:
    left = [network]
    for part in parts:
        left = [rest for whole in left for rest in (
            [] if whole == part or _is_within(whole, part) else
            whole.address_exclude(part) if _is_within(part, whole) else [whole])]  # type: ignore[arg-type]
    return left
