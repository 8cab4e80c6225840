"""`oegw monitor`: what goes into the journal, sent to one client as it happens."""

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from oesvc.daemon import KeyingDaemon
from oesvc.ipsec.flow import Flow
from oesvc.journal import Entry
from oesvc.operator.report import SCHEMA


@implementer(IPushProducer)
class Monitor:
    """One client that follows. While it reads more slowly than things happen, they are counted instead."""

    def __init__(self, daemon: KeyingDaemon, transport: Any, send: Callable[[dict[str, Any]], None]) -> None:
        self._daemon, self._send = daemon, send
        self._paused = False
        self._missed = 0
        daemon.journal.listeners.append(self._noted)
        transport.registerProducer(self, True)

    def _noted(self, flow: Flow, entry: Entry) -> None:
        if self._paused:
            self._missed += 1
            return
        connection = self._daemon.connections.get(flow)
        source, destination = flow.ends
        self._send({"schema": SCHEMA, "at": entry.at, "source": source, "destination": destination,
                    "state": connection.state.value if connection else None,
                    "step": entry.arrow.label if entry.arrow else "", "text": entry.text, "missed": self._missed})
        self._missed = 0

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False

    def stopProducing(self) -> None:
        """The client is gone."""
        if self._noted in self._daemon.journal.listeners:
            self._daemon.journal.listeners.remove(self._noted)
