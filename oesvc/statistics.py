"""What has happened since the start, counted for the metrics; what is now is read where it is."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import accumulate

from twisted.internet.defer import Deferred

from oesvc.dns.answer import Answer, AnswerKind, Name, SecurityStatus
from oesvc.ike import events as ike
from oesvc.ike.failures import KeyingFailure
from oesvc.interfaces import Bounds, Resolver
from oesvc.ipsec.flow import Address
from oesvc.ipsec.policy import ForwardingPolicy
from oesvc.oe import events as oe

LOOK_UPS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 8.0)
"Seconds: from a resolver on this host that has the answer, to our usual patience."
DELAYS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)
"Seconds: from a standing keying channel on a short path, to several gateways tried in turn."


class Histogram:
    """How many values lie at or below each of some bounds, and their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> list[tuple[float, int]]:
        """Each bound, infinity the last, and how many values do not exceed it."""
        return list(zip((*self._bounds, float("inf")), accumulate(self._counts), strict=True))


class Statistics:
    """Counts by what cannot grow: kinds of events, reasons, verdicts; never by addresses or names."""

    def __init__(self) -> None:
        self.keying: Counter[type[ike.IkeEvent]] = Counter()
        self.failures: Counter[tuple[type[ike.IkeEvent], KeyingFailure]] = Counter()
        self.connections: Counter[type[oe.Event]] = Counter()
        "What connections were told."
        self.answers: Counter[tuple[AnswerKind, SecurityStatus]] = Counter()
        self.look_ups = Histogram(LOOK_UPS)
        "Those that had to be waited for."
        self.delays: dict[ForwardingPolicy, Histogram] = {
            policy: Histogram(DELAYS) for policy in ForwardingPolicy if policy is not ForwardingPolicy.HOLD}
        "Of the first datagram of a flow, by what became of it."

    def heard(self, event: ike.IkeEvent) -> None:
        """The keying engine has told something."""
        self.keying[type(event)] += 1
        if isinstance(event, ike.ChannelFailed | ike.TunnelFailed):
            self.failures[type(event), event.failure] += 1

    def told(self, event: oe.Event) -> None:
        """A connection was told something."""
        self.connections[type(event)] += 1

    def released(self, policy: ForwardingPolicy, seconds: float) -> None:
        """The first datagram of a flow was held for so long."""
        self.delays[policy].add(seconds)


class CountedResolver:
    """A Resolver whose answers are counted, and timed where they have to be waited for."""

    def __init__(self, resolver: Resolver, statistics: Statistics, seconds: Callable[[], float]) -> None:
        self._resolver, self._statistics, self._seconds = resolver, statistics, seconds

    def look_up(self, name: Name, rdtype: int, client: Address | None = None) -> "Deferred[Answer]":
        """See oesvc.interfaces.Resolver."""
        begun, answer = self._seconds(), self._resolver.look_up(name, rdtype, client)
        at_once = answer.called

        def count(found: Answer) -> Answer:
            self._statistics.answers[found.kind, found.status] += 1
            if not at_once:
                self._statistics.look_ups.add(self._seconds() - begun)
            return found

        return answer.addCallback(count)

    def bounds(self) -> Bounds:
        """See oesvc.interfaces.Resolver."""
        return self._resolver.bounds()
