"""Threads for slow arithmetic, which take what is most urgent first."""

import sys
from itertools import count
from queue import PriorityQueue
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from oesvc.ike.events import Job

SWITCH_INTERVAL = 0.0005
"""Seconds for which a thread keeps the interpreter from another that waits for it. Python's own 5 ms are longer than a
calculation takes: on two cores, two threads were then 1.5 times as fast as one, and are 1.8 times (bench/ike)."""


class Arithmetic:
    """A pool of threads in front of which the jobs with the lowest rank overtake the others."""

    def __init__(self, reactor: Any, threads: int) -> None:
        sys.setswitchinterval(SWITCH_INTERVAL)
        self._reactor = reactor
        self._pool = ThreadPool(0, threads, "arithmetic")
        self._numbers = count()
        self._waiting: PriorityQueue[tuple[int, int, Job, Deferred[Any]]] = PriorityQueue()
        self.start, self.stop = self._pool.start, self._pool.stop

    def calculate(self, job: Job) -> "Deferred[Any]":
        """Fires in the reactor's thread with what the job returns."""
        done: Deferred[Any] = Deferred()
        self._waiting.put((job.rank, next(self._numbers), job, done))
        self._pool.callInThread(self._do_next)
        return done

    def _do_next(self) -> None:
        """Called once for each job, but not in their order."""
        *_, job, done = self._waiting.get_nowait()
        try:
            result = job()
        except Exception:
            self._reactor.callFromThread(done.errback, Failure())
        else:
            self._reactor.callFromThread(done.callback, result)
