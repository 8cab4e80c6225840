"""Protocol and ports, as far as a policy may look into a datagram: RFC 4301 section 4.4.1.1."""

from dataclasses import dataclass

PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "dccp": 33, "gre": 47, "esp": 50, "ah": 51, "ipv6-icmp": 58,
             "sctp": 132, "udplite": 136}
NAMES = {number: name for name, number in PROTOCOLS.items()}
WITH_PORTS = frozenset(PROTOCOLS[name] for name in ("tcp", "udp", "dccp", "sctp", "udplite"))


@dataclass(frozen=True, slots=True, order=True)
class Ports:
    """A protocol of IANA's numbers, and ports on either side; 0 is any."""

    protocol: int
    source: int = 0
    destination: int = 0

    def __str__(self) -> str:
        source = f" from port {self.source}" if self.source else ""
        return f"{NAMES.get(self.protocol, self.protocol)}{source}" + (
            f" to port {self.destination}" if self.destination else "")
