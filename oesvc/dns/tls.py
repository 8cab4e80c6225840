"""DNS over TLS: RFC 7858 in the strict profile of RFC 8310. Before a server has proven who it is, it hears no question.

Questions share one connection; answers come in any order and are known by id and question (RFC 7766 section 7).
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory
from twisted.protocols.basic import Int16StringReceiver
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from oesvc.dns.authentication import Authentication, Handshakes
from oesvc.dns.failures import ServerFailure, Silence, Unreachable
from oesvc.dns.question import Question
from oesvc.dns.sockets import Endpoint, PrepareSocket, connect_tcp
from oesvc.dns.wire import answers_query

TLS_PORT = 853

# Our choice, in seconds
MIN_PATIENCE = 2.0
"For a question: with a new connection it takes three round trips."
SETUP_PATIENCE = 5.0
"Until a connection must stand and be authenticated."
IDLE = 10.0
"After the last answer: RFC 7858 section 3.4 wants connections reused and not hoarded."
FAREWELL = 2.0
"For the server to agree to an end."


@dataclass(eq=False)
class _Pending:
    """A question that waits for its answer."""

    question: Question
    answer: "Deferred[bytes]"
    query: bytes = b""
    asked_again: bool = False
    heard: int = 0
    "How many messages had come over its connection when it was asked."


class TlsChannel:
    """The way to one server: at most one connection that takes questions."""

    def __init__(self, reactor: Any, server: Endpoint, authentication: Authentication, prepare: PrepareSocket,
                 idle: float = IDLE) -> None:
        """`idle`: seconds after the last answer until a connection is given up."""
        self._reactor, self._server, self._prepare, self._idle = reactor, server, prepare, idle
        self._handshakes = Handshakes(authentication)
        self._current: _Session | None = None
        self._sessions: set[_Session] = set()
        self._closed = False

    def exchange(self, question: Question, patience: float) -> "Deferred[bytes]":
        """The octets of the answer; fails with ServerFailure."""
        def give_up(_result: Any, seconds: float) -> Any:
            raise Silence(reasons[0])

        def withdraw(_answer: "Deferred[bytes]") -> None:
            reasons.append(self._withdraw(pending))

        reasons: list[str] = []
        pending = _Pending(question, Deferred(withdraw))
        self._hand_over(pending)
        return pending.answer.addTimeout(max(patience, MIN_PATIENCE), self._reactor, onTimeoutCancel=give_up)

    def close(self) -> None:
        self._closed = True
        for session in list(self._sessions):
            session.fail("was left: the resolver was closed")

    def _hand_over(self, pending: _Pending) -> None:
        if self._current is not None and self._current.takes_questions:
            self._current.ask(pending)
            return
        session = self._current = _Session(self._reactor, self._handshakes, self._idle, self._ended)
        self._sessions.add(session)
        session.ask(pending)
        session.connect(self._server, self._prepare)

    def _withdraw(self, pending: _Pending) -> str:
        return next((session.withdraw(pending) for session in self._sessions if session.holds(pending)),
                    "did not answer")

    def _ended(self, session: "_Session", pending: list[_Pending], failure: ServerFailure) -> None:
        """A connection is gone. Who closes one that was in use may not have seen our question: ask it once more."""
        self._sessions.discard(session)
        if self._current is session:
            self._current = None
        for one in pending:
            if session.authenticated and not one.asked_again and not self._closed:
                one.asked_again = True
                self._hand_over(one)
            else:
                one.answer.errback(failure)


@implementer(IHandshakeListener)
class _Session(Int16StringReceiver):
    """One connection, from connect(2) to its end."""

    transport: Any

    def __init__(self, reactor: Any, handshakes: Handshakes, idle: float,
                 ended: Callable[["_Session", list[_Pending], ServerFailure], None]) -> None:
        self._reactor, self._handshakes, self._idle, self._ended = reactor, handshakes, idle, ended
        self.authenticated = False
        self.objection = ""
        "Of the check of its certificates."
        self.takes_questions = True
        self._unsent: list[_Pending] = []
        self._sent: dict[int, _Pending] = {}
        self._heard = 0
        self._connecting: Deferred[Any] | None = None
        self._timer: Any = None

    def connect(self, server: Endpoint, prepare: PrepareSocket) -> None:
        wrapped: Any = Factory.forProtocol(lambda: self)
        creator: Any = self._handshakes
        factory = TLSMemoryBIOFactory(creator, True, wrapped)
        factory.noisy = False
        self._set_timer(SETUP_PATIENCE, self.fail, "did not finish a TLS handshake: does it speak TLS at that port?")
        self._connecting = maybeDeferred(connect_tcp, self._reactor, server, factory, prepare)
        self._connecting.addErrback(lambda failure: self.fail(f"cannot be reached ({failure.getErrorMessage()})",
                                                              Unreachable))

    def holds(self, pending: _Pending) -> bool:
        return pending in self._unsent or pending in self._sent.values()

    def ask(self, pending: _Pending) -> None:
        if self.authenticated:
            self._send(pending)
        else:
            self._unsent.append(pending)

    def withdraw(self, pending: _Pending) -> str:
        """Nobody waits for it any more; why there was no answer."""
        if pending in self._unsent:
            self._unsent.remove(pending)
            if self.transport is None:
                return "did not answer to the request for a connection"
            return "did not finish a TLS handshake in time: does it speak TLS at that port?"
        self._sent = {identifier: one for identifier, one in self._sent.items() if one is not pending}
        if pending.heard == self._heard:
            # Nothing has come since: the connection may be dead without our knowing.
            self.fail("did not answer over TLS")
        elif not self._sent:
            self._rest()
        return "did not answer over TLS"

    def fail(self, reason: str, kind: type[ServerFailure] = ServerFailure) -> None:
        """End it at once."""
        self._end(reason, kind)
        if self.transport is not None:
            self.transport.abortConnection()
        elif self._connecting is not None:
            self._connecting.cancel()

    # Twisted calls

    def connectionMade(self) -> None:
        if not self.takes_questions:
            self.transport.abortConnection()
        else:
            self.transport.setTcpNoDelay(True)

    def handshakeCompleted(self) -> None:  # noqa: N802
        if not self.takes_questions:
            return
        objection = self._handshakes.objection(self.transport.getHandle())
        if objection:
            self.fail(_unproven(objection))
            return
        self.authenticated = True
        unsent, self._unsent = self._unsent, []
        self._set_timer(None)
        for pending in unsent:
            self._send(pending)
        if not unsent:
            self._rest()

    def stringReceived(self, string: bytes) -> None:
        """What answers no question, or not that one, is a late answer or nonsense: passed over."""
        self._heard += 1
        identifier = int.from_bytes(string[:2], "big")
        pending = self._sent.get(identifier)
        if pending is None or not answers_query(string, pending.query):
            return
        del self._sent[identifier]
        if not self._sent:
            self._rest()
        pending.answer.callback(string)

    def connectionLost(self, reason: Any = None) -> None:
        if self.authenticated:
            self._end("closed the connection without an answer")
            return
        if self.objection:
            self._end(_unproven(self.objection))
        elif isinstance(reason, Failure) and isinstance(reason.value, SSL.Error):
            self._end(f"speaks no TLS that we understand ({_openssl_text(reason.value)})")
        else:
            self._end("closed the connection in the TLS handshake: does it speak TLS at that port?")

    def _send(self, pending: _Pending) -> None:
        identifier = secrets.randbelow(1 << 16)
        while identifier in self._sent:
            identifier = secrets.randbelow(1 << 16)
        pending.query, pending.heard = pending.question.compose(identifier, padded=True), self._heard
        self._sent[identifier] = pending
        self._set_timer(None)
        self.sendString(pending.query)  # type: ignore[no-untyped-call,unused-ignore]

    def _rest(self) -> None:
        self._set_timer(self._idle, self._leave)

    def _leave(self) -> None:
        self.takes_questions = False
        self._set_timer(FAREWELL, self.fail, "")
        self.transport.loseConnection()

    def _end(self, reason: str, kind: type[ServerFailure] = ServerFailure) -> None:
        """Tell the channel, once."""
        self._set_timer(None)
        self.takes_questions = False
        pending, self._unsent, self._sent = [*self._unsent, *self._sent.values()], [], {}
        self._ended(self, pending, kind(reason))

    def _set_timer(self, seconds: float | None, call: Any = None, *args: Any) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None if seconds is None else self._reactor.callLater(seconds, call, *args)


def _unproven(objection: str) -> str:
    return f"did not prove who it is: {objection}"


def _openssl_text(error: SSL.Error) -> str:
    """The last words of OpenSSL's own."""
    queue = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return str(queue[-1][-1]) if queue else "no reason given"
