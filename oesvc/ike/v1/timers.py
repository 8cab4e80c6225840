"""Deadlines, earliest first."""

import heapq
from collections.abc import Callable
from itertools import count
from typing import Any

TimedAction = Callable[..., None]
"Called with what it is about, and the time at which it was found due."

SLACK = 64
"Cancelled timers that are not worth sweeping out."


class Timer:
    """One deadline."""

    __slots__ = ("_about", "_action", "_timers")

    def __init__(self, timers: "Timers", action: TimedAction, about: tuple[Any, ...]) -> None:
        self._timers, self._about = timers, about
        self._action: TimedAction | None = action

    @property
    def active(self) -> bool:
        return self._action is not None

    def cancel(self) -> None:
        if self.active:
            self._action, self._about = None, ()
            self._timers.one_less()

    def fire(self, now: float) -> None:
        action, about = self._action, self._about
        self.cancel()
        if action is not None:
            action(*about, now)


class Timers:
    """A heap of timers; cancelled ones fall out when they come to its top, or when they are a third of it."""

    def __init__(self) -> None:
        self._active = 0
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = count()

    def at(self, when: float, action: TimedAction, *about: Any) -> Timer:
        timer = Timer(self, action, about)
        heapq.heappush(self._heap, (when, next(self._order), timer))
        self._active += 1
        return timer

    def __len__(self) -> int:
        return self._active

    def one_less(self) -> None:
        """A timer fired or was cancelled."""
        self._active -= 1
        if len(self._heap) > 1.5 * self._active + SLACK:
            self._heap = [entry for entry in self._heap if entry[2].active]
            heapq.heapify(self._heap)

    def next_deadline(self) -> float | None:
        while self._heap and not self._heap[0][2].active:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def run_due(self, now: float) -> None:
        while (deadline := self.next_deadline()) is not None and deadline <= now:
            self._heap[0][2].fire(now)
