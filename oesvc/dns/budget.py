"""What one look-up may cost at most. Reaching it is Indeterminate, with that reason."""

from collections.abc import Iterator
from contextlib import contextmanager

from oesvc.dns.failures import Indeterminate

# Our choice: a cold chain of four signed levels takes 8 queries and 8 signatures.
MAX_QUERIES = 40
MAX_SIGNATURES = 64
MAX_DEPTH = 20
"Zones between the anchor and the answer."


class Budget:
    """Spent by one look-up; RFC 4035 says nothing, KeyTrap (CVE-2023-50387) showed why."""

    def __init__(self) -> None:
        self._queries, self._signatures, self._depth = MAX_QUERIES, MAX_SIGNATURES, MAX_DEPTH

    def spend_query(self) -> None:
        if not self._queries:
            raise Indeterminate(f"given up after {MAX_QUERIES} queries for one look-up")
        self._queries -= 1

    def spend_signature(self) -> None:
        if not self._signatures:
            raise Indeterminate(f"given up after {MAX_SIGNATURES} signature checks for one look-up")
        self._signatures -= 1

    @contextmanager
    def descend(self) -> Iterator[None]:
        if not self._depth:
            raise Indeterminate(f"given up after {MAX_DEPTH} zones for one look-up")
        self._depth -= 1
        try:
            yield
        finally:
            self._depth += 1
