"""One clock for all gateways: a heap of calls, each owned by something that may die before its time."""

import heapq
from collections.abc import Callable
from itertools import count

SWEPT = 10_000
"Calls that are not worth sweeping: most of those that are cancelled would lie in the heap for hours."


class Call:
    """A delayed call, as Twisted's."""

    __slots__ = ("args", "function", "owner")

    def __init__(self, function: Callable[..., object], args: tuple[object, ...], owner: "OwnedClock | None") -> None:
        self.function: Callable[..., object] | None = function
        self.args = args
        self.owner = owner

    def cancel(self) -> None:
        self.function = None

    def active(self) -> bool:
        return self.function is not None and (self.owner is None or self.owner.alive)


class HeapClock:
    """Time passes from one call to the next."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Call]] = []
        self._numbers = count()
        self._now = 0.0
        self._sweep_at = SWEPT
        self.done = 0

    def seconds(self) -> float:
        return self._now

    def callLater(self, delay: float, function: Callable[..., object], *args: object) -> Call:  # noqa: N802
        return self.schedule(delay, Call(function, args, None))

    def schedule(self, delay: float, call: Call) -> Call:
        heapq.heappush(self._heap, (self._now + delay, next(self._numbers), call))
        if len(self._heap) > self._sweep_at:
            self._heap[:] = [entry for entry in self._heap if entry[2].active()]
            heapq.heapify(self._heap)
            self._sweep_at = 2 * len(self._heap) + SWEPT
        return call

    def run(self, until: float, after_each: Callable[[], object]) -> None:
        """Make all calls that are due by then."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            self._now, _, call = heapq.heappop(heap)
            if call.active():
                function, call.function = call.function, None
                self.done += 1
                function(*call.args)  # type: ignore[misc]
                after_each()
        self._now = until

    def waiting(self, owner: "OwnedClock") -> int:
        """How many of somebody's calls are still to come."""
        return sum(call.owner is owner and call.active() for _, _, call in self._heap)


class OwnedClock:
    """The clock as one process sees it: after its death none of its calls is made."""

    def __init__(self, clock: HeapClock) -> None:
        self.alive = True
        self._clock = clock
        self.seconds = clock.seconds

    def callLater(self, delay: float, function: Callable[..., object], *args: object) -> Call:  # noqa: N802
        return self._clock.schedule(delay, Call(function, args, self))
