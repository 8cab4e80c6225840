"""What one look-up may cost at most. Reaching it is Indeterminate, with that reason."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from oesvc.dns.failures import Indeterminate


@dataclass(frozen=True, slots=True)
class Limits:
    """Our choice: a cold chain of four signed levels takes 8 queries and 8 signatures."""

    queries: int = 40
    signatures: int = 64
    depth: int = 20
    "Zones between the anchor and the answer."


DEFAULT = Limits()


class Budget:
    """Spent by one look-up; RFC 4035 says nothing, KeyTrap (CVE-2023-50387) showed why."""

    def __init__(self, limits: Limits = DEFAULT) -> None:
        self._limits = limits
        self._queries, self._signatures, self._depth = limits.queries, limits.signatures, limits.depth

    def spend_query(self) -> None:
        if not self._queries:
            raise Indeterminate(f"given up after {self._limits.queries} queries for one look-up")
        self._queries -= 1

    def spend_signature(self) -> None:
        if not self._signatures:
            raise Indeterminate(f"given up after {self._limits.signatures} signature checks for one look-up")
        self._signatures -= 1

    @contextmanager
    def descend(self) -> Iterator[None]:
        if not self._depth:
            raise Indeterminate(f"given up after {self._limits.depth} zones for one look-up")
        self._depth -= 1
        try:
            yield
        finally:
            self._depth += 1
