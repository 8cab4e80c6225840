"""How many look-ups may be under way: in all, and for the traffic of one client prefix (one host may invent flows)."""

from collections import Counter
from dataclasses import dataclass
from ipaddress import ip_network

from oesvc.dns.failures import Indeterminate
from oesvc.ipsec.flow import Address

PREFIX_LENGTH = {4: 24, 6: 64}
"What one owner commonly has, and can take any source address of."


@dataclass(frozen=True, slots=True)
class CrowdLimits:
    """Our choice: a network that wakes up as a whole fits, a scan does not keep the others waiting."""

    per_client: int = 250
    "Look-ups that wait for an answer for the traffic of one /24 or /64."
    in_all: int = 1000
    questions: int = 2000
    "To resolvers, those that wait for a socket included."
    sockets: int = 200
    "A process may commonly have 1024 files open."


class Crowd:
    """The look-ups that wait for an answer."""

    def __init__(self, limits: CrowdLimits) -> None:
        self._limits = limits
        self._prefixes: Counter[str | None] = Counter()
        self._refused: Counter[str] = Counter()

    def enter(self, client: Address | None, under_way: int) -> str | None:
        """Count one more; what is returned is to be given to `leave`. Indeterminate when there is no room.

        `under_way` counts the questions that are being answered, also those for which nobody waits any more.
        """
        prefix = str(ip_network((client, PREFIX_LENGTH[client.version]), strict=False)) if client else None
        if prefix and self._prefixes[prefix] >= self._limits.per_client:
            self._refused["look-ups-per-client"] += 1
            raise Indeterminate(f"{self._limits.per_client} look-ups for {prefix} are under way, no more are begun")
        if max(self._prefixes.total(), under_way) >= self._limits.in_all:
            self._refused["look-ups"] += 1
            raise Indeterminate(f"{self._limits.in_all} look-ups are under way, no more are begun")
        self._prefixes[prefix] += 1
        return prefix

    def bounds(self, under_way: int) -> dict[str, tuple[int, int, int]]:
        """See oesvc.interfaces.Bounds."""
        fullest = max((count for prefix, count in self._prefixes.items() if prefix), default=0)
        return {"look-ups": (max(self._prefixes.total(), under_way), self._limits.in_all, self._refused["look-ups"]),
                "look-ups-per-client": (fullest, self._limits.per_client, self._refused["look-ups-per-client"])}

    def leave(self, prefix: str | None) -> None:
        self._prefixes[prefix] -= 1
        if not self._prefixes[prefix]:
            del self._prefixes[prefix]
