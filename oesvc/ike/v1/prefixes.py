"""Counts by neighbourhood: who has one address in a prefix has them all."""

from functools import lru_cache

from oesvc.ipsec.flow import Address

SHARES = {4: {24: 1}, 6: {64: 1, 56: 2, 48: 4}}
"""Prefixes that one owner may well have (RFC 6177), by version and bits, and how many times as much as the longest
the wider ones may take: who has a /48 has 65,536 times a /64."""

Prefix = tuple[int, int, int]
"Version, bits, and their value."


class PerPrefix:
    """How much there is of something in each prefix; empty ones take no memory."""

    def __init__(self) -> None:
        self._counts: dict[Prefix, int] = {}

    def add(self, address: Address, amount: int = 1) -> None:
        for prefix in _prefixes(address):
            self._counts[prefix] = self._counts.get(prefix, 0) + amount
            if not self._counts[prefix]:
                del self._counts[prefix]

    def remove(self, address: Address) -> None:
        self.add(address, -1)

    def count(self, address: Address) -> int:
        """As if all were in one /24 or /64: of the prefixes around an address, the one with most of its share."""
        return max(_shares(self._counts.get(prefix, 0), prefix) for prefix in _prefixes(address))

    def most(self) -> int:
        """In the prefix with the most."""
        return max((_shares(count, prefix) for prefix, count in self._counts.items()), default=0)

    def __len__(self) -> int:
        return len(self._counts)


@lru_cache(maxsize=1024)
def _prefixes(address: Address) -> tuple[Prefix, ...]:
    version, number, length = address.version, int(address), address.max_prefixlen
    return tuple((version, bits, number >> (length - bits)) for bits in SHARES[version])


def _shares(count: int, prefix: Prefix) -> int:
    version, bits, _ = prefix
    return count // SHARES[version][bits]
