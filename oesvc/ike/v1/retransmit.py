"""Sending a message again until it is answered: RFC 2408 section 5.1."""

from collections.abc import Sequence
from itertools import chain, repeat

from oesvc.ike.v1.timers import TimedAction, Timer, Timers


class Retransmission:
    """Calls `resend` after each of the delays in turn, then at the last of them, until it is stopped."""

    __slots__ = ("_delays", "_resend", "_timer", "_timers")

    def __init__(self, timers: Timers, delays: Sequence[float], resend: TimedAction, now: float) -> None:
        self._timers, self._delays, self._resend = timers, chain(delays, repeat(delays[-1])), resend
        self._timer = self._schedule(now)

    def stop(self) -> None:
        self._timer.cancel()

    def _schedule(self, now: float) -> Timer:
        return self._timers.at(now + next(self._delays), self._fire)

    def _fire(self, now: float) -> None:
        self._resend(now)
        self._timer = self._schedule(now)
