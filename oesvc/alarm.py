"""One delayed call for the earliest deadline of an owner."""

from collections.abc import Callable

from oesvc.interfaces import Clock, DelayedCall


class Alarm:
    """Calls `ring` when the owner's next deadline comes. The owner says `set` after whatever may have moved it."""

    def __init__(self, clock: Clock, ring: Callable[[], None]) -> None:
        self._clock = clock
        self._ring = ring
        self._at: float | None = None
        self._call: DelayedCall | None = None

    def set(self, deadline: float | None) -> None:
        """Ring at `deadline` (the clock's seconds), or not at all."""
        if deadline == self._at:
            return
        self.stop()
        if deadline is not None:
            self._at = deadline
            self._call = self._clock.callLater(max(0.0, deadline - self._clock.seconds()), self._fire)

    @property
    def is_set(self) -> bool:
        return self._at is not None

    def stop(self) -> None:
        self._at = None
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None

    def _fire(self) -> None:
        self._at = self._call = None
        self._ring()
