"""Hosts that begin flows. How many a gateway's hosts begin, how long one lasts and how often it says something is
heavy-tailed: most are over in seconds, some last for days."""

from dataclasses import dataclass
from random import Random

from oesvc.ipsec.flow import Flow
from simulate.clock import Call, HeapClock
from simulate.kernel import Packet

AGAIN = (1.0, 2.0, 4.0, 8.0, 16.0)
"Seconds until an unanswered datagram is repeated, as TCP does."


def pareto(random: Random, least: float, shape: float, most: float) -> float:
    return min(least * random.paretovariate(shape), most)


@dataclass(frozen=True, slots=True)
class Habit:
    """How one flow behaves."""

    lasts: float
    spacing: float
    "Seconds between its datagrams."
    one_way: bool


def habit(random: Random) -> Habit:
    """Every twelfth is one of those that last for hours; every sixth says something less often than the daemon looks;
    every seventh is never answered."""
    least = 4.0 if random.random() > 1 / 12 else 1200.0
    lasts = pareto(random, least, 0.9, 2 * 86400.0)
    rarely = random.random() < 1 / 6
    spacing = random.uniform(40, 400) if rarely else random.uniform(4, 25)
    return Habit(lasts, spacing, random.random() < 1 / 7)


class Stream:
    """The datagrams of one flow."""

    def __init__(self, world: "Streets", clock: HeapClock, flow: Flow, habit: Habit,
                 world_ends: float) -> None:
        self._world, self._clock, self.flow, self._habit = world, clock, flow, habit
        self._ends = min(clock.seconds() + habit.lasts, world_ends)
        self._unanswered = 0
        self._silent_since: float | None = None
        "When the first datagram was sent that is not answered yet."
        self._next: Call
        self._send()

    def _send(self) -> None:
        now = self._clock.seconds()
        if now > self._ends:
            return
        wait = self._habit.spacing
        if not self._habit.one_way:
            if self._silent_since is None:
                self._silent_since, self._unanswered = now, 0
            wait = min(AGAIN[min(self._unanswered, len(AGAIN) - 1)], wait)
            self._unanswered += 1
        self._next = self._clock.callLater(wait, self._send)
        self._world.leave_host(Packet(self.flow, self._came_there))

    def _came_there(self, packet: Packet) -> None:
        """The other host has it, and answers."""
        if not self._habit.one_way:
            self._world.leave_host(Packet(self.flow.reversed(), self._answered))

    def _answered(self, packet: Packet) -> None:
        if self._silent_since is not None:
            self._world.answered_after(self.flow, self._clock.seconds() - self._silent_since)
            self._silent_since = None
            self._next.cancel()
            self._next = self._clock.callLater(self._habit.spacing, self._send)


class Streets:
    """What a stream needs of the world."""

    def leave_host(self, packet: Packet) -> None: ...

    def answered_after(self, flow: Flow, seconds: float) -> None: ...
