"""What is counted, and what a look-up's time is."""

from twisted.internet.defer import succeed
from twisted.internet.task import Clock

from oesvc.dns.answer import AnswerKind, SecurityStatus
from oesvc.dns.name import reverse_name
from oesvc.statistics import CountedResolver, Histogram, Statistics
from tests.fakes import FakeResolver
from tests.oe.parts import BOB

NAME = reverse_name(BOB)


def test_histogram_counts_what_does_not_exceed_each_bound():
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 7.0):
        histogram.add(value)
    assert histogram.cumulative() == [(1.0, 2), (2.0, 3), (float("inf"), 4)] and histogram.sum == 10.0


def test_answers_are_counted_and_handed_on_and_those_waited_for_are_timed():
    clock, below, statistics = Clock(), FakeResolver(), Statistics()
    resolver, answers = CountedResolver(below, statistics, clock.seconds), []
    resolver.look_up(NAME, 16).addCallback(answers.append)
    assert len(answers) == 1 and statistics.look_ups.sum == 0.0
    below.waiting = []
    resolver.look_up(NAME, 16, BOB).addCallback(answers.append)
    assert resolver.bounds() == {"look-ups": (1, 1000, 0)}
    clock.advance(0.3)
    deferred, answer = below.waiting.pop()
    deferred.callback(answer)
    assert answers[1] is answer
    assert statistics.answers == {(AnswerKind.NXDOMAIN, SecurityStatus.SECURE): 2}
    assert statistics.look_ups.sum == 0.3 and statistics.look_ups.cumulative()[-1] == (float("inf"), 1)


def test_errors_are_handed_on():
    class Failing:
        def look_up(self, name, rdtype, client=None):
            return succeed(None).addCallback(lambda _: 1 / 0)

    failures = []
    CountedResolver(Failing(), Statistics(), Clock().seconds).look_up((), 16).addErrback(failures.append)
    assert failures[0].check(ZeroDivisionError)
