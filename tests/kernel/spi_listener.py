"""Says what `UnknownSpis` hears in this network namespace, one line each, until it gets SIGTERM.

    python -m tests.kernel.spi_listener
"""

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred

from oesvc.ipsec.flow import Flow
from oesvc.kernel.unknown_spis import UnknownSpis

READY = "ready"
ANY_REACTOR: Any = reactor


def heard(ends: Flow, spi: int, port: int | None) -> None:
    print(ends, hex(spi), port, flush=True)


def begin() -> "Deferred[None]":
    listener = UnknownSpis(ANY_REACTOR, heard)
    ANY_REACTOR.addSystemEventTrigger("before", "shutdown", listener.close)
    return listener.start().addCallback(lambda _: print(READY, flush=True))


if __name__ == "__main__":
    ANY_REACTOR.callWhenRunning(begin)
    ANY_REACTOR.run()
