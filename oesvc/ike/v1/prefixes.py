"""Counts by neighbourhood: who has one address in a prefix has them all."""

from oesvc.ipsec.flow import Address

PREFIX_BITS = {4: 24, 6: 64}


class PerPrefix:
    """How many there are of something in each /24 or /64; empty ones take no memory."""

    def __init__(self) -> None:
        self._counts: dict[tuple[int, int], int] = {}

    def add(self, address: Address) -> None:
        prefix = _prefix(address)
        self._counts[prefix] = self._counts.get(prefix, 0) + 1

    def remove(self, address: Address) -> None:
        prefix = _prefix(address)
        self._counts[prefix] -= 1
        if not self._counts[prefix]:
            del self._counts[prefix]

    def count(self, address: Address) -> int:
        return self._counts.get(_prefix(address), 0)

    def most(self) -> int:
        """In the prefix with the most."""
        return max(self._counts.values(), default=0)

    def __len__(self) -> int:
        return len(self._counts)


def _prefix(address: Address) -> tuple[int, int]:
    return address.version, int(address) >> (address.max_prefixlen - PREFIX_BITS[address.version])
