"""Sending a message again until it is answered: RFC 2408 section 5.1."""

from collections.abc import Sequence

from oesvc.ike.v1.timers import TimedAction, Timer, Timers


class Retransmission:
    """Calls `resend` after each of the delays in turn, until stopped; giving up is its owner's affair."""

    __slots__ = ("_delays", "_resend", "_timer", "_timers")

    def __init__(self, timers: Timers, delays: Sequence[float], resend: TimedAction, now: float) -> None:
        self._timers, self._delays, self._resend = timers, iter(delays), resend
        self._timer: Timer | None = None
        self._schedule(now)

    def stop(self) -> None:
        if self._timer:
            self._timer.cancel()

    def _schedule(self, now: float) -> None:
        delay = next(self._delays, None)
        self._timer = self._timers.at(now + delay, self._fire) if delay is not None else None

    def _fire(self, now: float) -> None:
        self._resend(now)
        self._schedule(now)
