"""What a configured tunnel protects: all flows from one network to another (RFC 4301 section 4.4.1.1)."""

from dataclasses import dataclass
from ipaddress import ip_network

from oesvc.ipsec.flow import Flow, Network


@dataclass(frozen=True, slots=True)
class Subnets(Flow):
    """Traffic between two networks, taken as one; source and destination are their first addresses.

    Two hosts that somebody configured a tunnel for are no `Flow`, and not equal to one.
    """

    source_length: int
    "Of its prefix."
    destination_length: int

    @classmethod
    def between(cls, source: Network, destination: Network) -> "Subnets":
        """Raises ValueError for networks of different address families."""
        return cls(source.network_address, destination.network_address, source.prefixlen, destination.prefixlen)

    @property
    def networks(self) -> tuple[Network, Network]:
        return ip_network((self.source, self.source_length)), ip_network((self.destination, self.destination_length))

    def holds(self, flow: Flow) -> bool:
        """Whether a flow is one of those."""
        source, destination = self.networks
        return flow.source in source and flow.destination in destination

    def reversed(self) -> "Subnets":
        return Subnets(self.destination, self.source, self.destination_length, self.source_length)

    @property
    def ends(self) -> tuple[str, str]:
        source, destination = self.networks
        return str(source), str(destination)
