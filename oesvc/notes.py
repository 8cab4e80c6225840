"""What the daemon writes into the journal, with the time and the arrows of RFC 4322's figure; and into the log."""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from oesvc.discovery import Asked, Replied
from oesvc.dns.name import reverse_name
from oesvc.ike.events import MessageSeen
from oesvc.ipsec.flow import Address, Flow
from oesvc.journal import OWN_NAME, Arrow, Entry, Journal
from oesvc.timeline import arrow_of_message, arrow_of_question

LOG = Logger()


class Notes:
    """A journal and the time of day, in UNIX seconds."""

    def __init__(self, journal: Journal, unix_time: Callable[[], float]) -> None:
        self._journal = journal
        self._unix_time = unix_time

    def take(self, flow: Flow, text: str, arrow: Arrow | None = None) -> None:
        self._journal.note(flow, Entry(self._unix_time(), text, arrow))

    def question(self, flow: Flow, responder: bool, happened: Asked | Replied) -> None:
        """Its flow's own name is left out: that makes the words the same for very many flows."""
        own = happened.name == reverse_name(flow.destination)
        text = happened.about(OWN_NAME) if own else str(happened)
        self._journal.note(flow, Entry(self._unix_time(), text, arrow_of_question(happened, responder)))

    def peer_question(self, peer: Address, happened: Asked | Replied) -> None:
        self._journal.note_peer(peer, Entry(self._unix_time(), str(happened), arrow_of_question(happened, True)))

    def adopt(self, flow: Flow, peer: Address) -> None:
        """What was said with a peer belongs to a flow that it proposes."""
        self._journal.adopt(flow, peer)

    def message(self, event: MessageSeen) -> None:
        """Of IKE, sent or received."""
        entry = Entry(self._unix_time(), f"{event.way.value} {event.name}", arrow_of_message(event))
        if event.flow is not None:
            self._journal.note(event.flow, entry)
        else:
            self._journal.note_peer(event.peer, entry)


def log_failure(deferred: "Deferred[Any]", of: object, what: str,
                instead: Callable[[str], object] | None = None) -> None:
    """Log what should not fail, with whose it is, and do `instead`, so that no connection waits for it for ever."""
    deferred.addErrback(_failed, of, what, instead)


def _failed(failure: Failure, of: object, what: str, instead: Callable[[str], object] | None) -> None:
    LOG.failure("{of}: {what} failed", failure=failure, of=of, what=what)
    if instead is not None:
        instead(f"{of}: {what} failed: {failure.getErrorMessage()}")
