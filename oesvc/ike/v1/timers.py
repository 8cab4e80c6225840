"""Deadlines, earliest first."""

import heapq
from collections.abc import Callable
from itertools import count

TimedAction = Callable[[float], None]


class Timer:
    """One deadline; it is called with the time at which it was found due."""

    __slots__ = ("_action",)

    def __init__(self, action: TimedAction) -> None:
        self._action: TimedAction | None = action

    @property
    def active(self) -> bool:
        return self._action is not None

    def cancel(self) -> None:
        self._action = None

    def fire(self, now: float) -> None:
        action, self._action = self._action, None
        if action is not None:
            action(now)


class Timers:
    """A heap of timers; cancelled ones fall out when they come to its top."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = count()

    def at(self, when: float, action: TimedAction) -> Timer:
        timer = Timer(action)
        heapq.heappush(self._heap, (when, next(self._order), timer))
        return timer

    def next_deadline(self) -> float | None:
        while self._heap and not self._heap[0][2].active:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def run_due(self, now: float) -> None:
        while (deadline := self.next_deadline()) is not None and deadline <= now:
            heapq.heappop(self._heap)[2].fire(now)
