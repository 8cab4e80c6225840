"""A bounded store of what is believed until a time."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class ExpiringCache(Generic[K, V]):
    """Forgets what has expired, and what was not used for longest when it is full."""

    def __init__(self, capacity: int, clock: Callable[[], float]) -> None:
        self._entries: OrderedDict[K, tuple[V, float]] = OrderedDict()
        self._capacity, self._clock = capacity, clock

    def get(self, key: K) -> V | None:
        value, expires = self._entries.get(key, (None, 0.0))
        if value is None or expires <= self._clock():
            self._entries.pop(key, None)
            return None
        self._entries.move_to_end(key)
        return value

    def put(self, key: K, value: V, expires: float) -> None:
        if expires <= self._clock():
            return
        self._entries[key] = (value, expires)
        self._entries.move_to_end(key)
        if len(self._entries) > self._capacity:
            self._entries.popitem(last=False)

    def __len__(self) -> int:
        return len(self._entries)
