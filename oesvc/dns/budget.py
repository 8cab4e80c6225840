"""What one look-up may cost at most. Reaching it is Indeterminate, with that reason."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from oesvc.dns.failures import Indeterminate
from oesvc.dns.trace import Link


@dataclass(frozen=True, slots=True)
class Limits:
    """Our choice: a cold chain of four signed levels takes 8 queries and 8 signatures."""

    queries: int = 40
    signatures: int = 64
    depth: int = 20
    "Zones between the anchor and the answer."
    hashes: int = 20000
    "Runs of SHA-1 for NSEC3; an absence in ip6.arpa at 150 iterations takes 5000."
    octets: int = 262144
    "Of all the messages that came."


DEFAULT = Limits()


class Budget:
    """Spent by one look-up; RFC 4035 says nothing, KeyTrap (CVE-2023-50387) showed why."""

    def __init__(self, limits: Limits = DEFAULT, trace: list[Link] | None = None) -> None:
        """`trace` is for those who watch the look-up: it is told each link."""
        self._limits, self.trace = limits, trace
        self._queries = self._signatures = self._depth = self._deepest = self._hashes = self._octets = 0

    @property
    def spent(self) -> Limits:
        """What the look-up has cost so far."""
        return Limits(self._queries, self._signatures, self._deepest, self._hashes, self._octets)

    def note(self, kind: Callable[..., Link], *values: Any) -> None:
        """A link of the chain: made only where somebody watches."""
        if self.trace is not None:
            self.trace.append(kind(*values))

    def spend_query(self) -> None:
        if self._queries == self._limits.queries:
            raise Indeterminate(f"given up after {self._limits.queries} queries for one look-up")
        self._queries += 1

    def spend_signature(self) -> None:
        if self._signatures == self._limits.signatures:
            raise Indeterminate(f"given up after {self._limits.signatures} signature checks for one look-up")
        self._signatures += 1

    def spend_hashes(self, count: int) -> None:
        """CVE-2023-50868: a name of many labels and a zone of many iterations."""
        if self._hashes + count > self._limits.hashes:
            raise Indeterminate(f"given up after {self._limits.hashes} NSEC3 hashes for one look-up")
        self._hashes += count

    def spend_octets(self, count: int) -> None:
        """Of a message that has come already."""
        self._octets += count
        if self._octets > self._limits.octets:
            raise Indeterminate(f"given up after {self._limits.octets} octets of answers for one look-up")

    @contextmanager
    def descend(self) -> Iterator[None]:
        if self._depth == self._limits.depth:
            raise Indeterminate(f"given up after {self._limits.depth} zones for one look-up")
        self._depth += 1
        self._deepest = max(self._deepest, self._depth)
        try:
            yield
        finally:
            self._depth -= 1
