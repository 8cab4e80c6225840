"""A bounded store of what is believed until a time."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class ExpiringCache(Generic[K, V]):
    """Forgets what has expired, and what was not used for longest when it is full.

    When the clock was set back, what came before is forgotten too: nobody knows how old it is.
    """

    def __init__(self, capacity: int, clock: Callable[[], float]) -> None:
        self._entries: OrderedDict[K, tuple[V, float, float]] = OrderedDict()
        self._capacity, self._clock = capacity, clock

    def get(self, key: K) -> V | None:
        value, begins, expires = self._entries.get(key, (None, 0.0, 0.0))
        if value is None or not begins <= self._clock() < expires:
            self._entries.pop(key, None)
            return None
        self._entries.move_to_end(key)
        return value

    def put(self, key: K, value: V, expires: float) -> None:
        now = self._clock()
        if expires <= now:
            return
        self._entries[key] = (value, now, expires)
        self._entries.move_to_end(key)
        if len(self._entries) > self._capacity:
            self._entries.popitem(last=False)

    def __len__(self) -> int:
        return len(self._entries)
