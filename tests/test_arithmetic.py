"""The threads: what is most urgent overtakes what waits, and errors come back too."""

import threading

import pytest

from oesvc.arithmetic import Arithmetic
from oesvc.ike.events import Job


class Reactor:
    """Calls at once what is to be called in its thread."""

    def callFromThread(self, function, *arguments):  # noqa: N802
        function(*arguments)


@pytest.fixture
def arithmetic():
    arithmetic = Arithmetic(Reactor(), 1)
    arithmetic.start()
    yield arithmetic
    arithmetic.stop()


def test_lowest_rank_goes_first_and_among_equals_the_oldest(arithmetic):
    gate, begun, over, diary = threading.Event(), threading.Event(), threading.Event(), []
    arithmetic.calculate(Job(0, lambda: (begun.set(), gate.wait(10))))
    assert begun.wait(10)
    for name, rank in (("a stranger's", 16), ("another stranger's", 16), ("a peer's", 4), ("ours", 1)):
        arithmetic.calculate(Job(rank, lambda name=name: name)).addCallback(diary.append)
    arithmetic.calculate(Job(99, over.set))
    gate.set()
    assert over.wait(10)
    assert diary == ["ours", "a peer's", "a stranger's", "another stranger's"]


def test_job_that_raises_fails_its_own_deferred_only(arithmetic):
    failed, done = threading.Event(), threading.Event()
    arithmetic.calculate(Job(1, lambda: 1 // 0)).addErrback(lambda failure: failed.set())
    arithmetic.calculate(Job(2, lambda: 2)).addCallback(lambda result: done.set())
    assert failed.wait(10) and done.wait(10)
