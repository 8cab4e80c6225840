"""Questions in clear: one UDP socket a try, TCP on truncation (RFC 7766), EDNS as far as the server knows it.

Twisted Names sends and keeps the time; it never parses an answer (its parser can be made to run for seconds, and takes
an answer for another question). What counts as an answer is decided on the octets: same peer, id and question, in the
letter case in which it was asked.
"""

import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred, DeferredSemaphore, inlineCallbacks, maybeDeferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import ConnectionClosed, ConnectionDone
from twisted.internet.protocol import Factory
from twisted.names.dns import DNSDatagramProtocol, DNSQueryTimeoutError
from twisted.protocols.basic import Int16StringReceiver

from oesvc.dns.failures import ServerFailure, Silence, Unreachable
from oesvc.dns.question import SMALL_PAYLOAD, Question
from oesvc.dns.sockets import ConnectedDatagrams, Endpoint, PrepareSocket, connect_tcp
from oesvc.dns.wire import Rcode, answers_in_other_case, answers_query, basic_rcode, is_truncated, rcode_text

MIN_TCP_PATIENCE = 2.0
"Seconds."
STREAMS_AT_ONCE = 5
"TCP connections to one server: many take ten in all and close what is more."
LARGE_ANSWERS_LOST = 3
"One after the other: then the path, and not chance, keeps them back."
SMALL_ANSWERS_FOR = 600.0
"Seconds until larger ones are tried again: it may have been an outage."


class PlainChannel:
    """The way to one server, and what it or the path cannot do."""

    def __init__(self, reactor: Any, server: Endpoint, prepare: PrepareSocket, report: Callable[[str], None]) -> None:
        """`report` is told once of each thing that the server cannot do."""
        self._reactor, self._server, self._prepare, self._report = reactor, server, prepare, report
        self._keeps_case = self._knows_edns = True
        self._lost, self._small_until = 0, 0.0
        self._streams = DeferredSemaphore(STREAMS_AT_ONCE)
        self._reported: set[str] = set()

    @inlineCallbacks
    def exchange(self, question: Question, patience: float) -> Any:
        """The octets of the answer; fails with ServerFailure."""
        try:
            fitted = self._fitted(question)
            data = yield self._ask(fitted, patience)
            if fitted.payload is not None and basic_rcode(data) in (Rcode.FORMERR, Rcode.NOTIMP):
                data = yield self._ask_without_edns(question, data, patience)
        except OSError as error:
            raise Unreachable(f"cannot be reached ({error})") from None
        except ConnectionClosed as error:
            # Servers close what is too much for them at once: worth another try.
            raise Silence(f"cannot be asked over TCP ({error})") from None
        except DeferredTimeout:
            raise Silence("did not answer over TCP") from None
        return data

    def close(self) -> None:
        """Nothing outlives an exchange here."""

    def _fitted(self, question: Question) -> Question:
        if not (self._knows_edns or question.style.dnssec_ok):
            return replace(question, payload=None)
        small = self._reactor.seconds() < self._small_until
        return replace(question, payload=SMALL_PAYLOAD) if small else question

    @inlineCallbacks
    def _ask(self, question: Question, patience: float) -> Any:
        data = yield self._ask_datagram(question, patience)
        if len(data) > SMALL_PAYLOAD:
            self._lost = 0
        if is_truncated(data):
            if question.payload == SMALL_PAYLOAD:
                self._count_lost()
            data = yield self._streams.run(self._ask_stream, question, max(patience, MIN_TCP_PATIENCE))
        return data

    @inlineCallbacks
    def _ask_without_edns(self, question: Question, refusal: bytes, patience: float) -> Any:
        """RFC 6891 section 7: who does not know OPT may say so by an error. DO, and so DNSSEC, goes with it."""
        rcode = rcode_text(basic_rcode(refusal))
        if question.style.dnssec_ok:
            raise ServerFailure(f"does not know EDNS (it answers {rcode}) and so hands on no DNSSEC")
        data = yield self._ask(replace(question, payload=None), patience)
        if basic_rcode(data) not in (Rcode.FORMERR, Rcode.NOTIMP):
            self._knows_edns = False
            self._report_once(f"does not know EDNS (it answers {rcode}): asked without")
        return data

    def _count_lost(self) -> None:
        """The Fetcher asks for less after silence; when there is a large answer then, one was lost before."""
        now = self._reactor.seconds()
        if now < self._small_until:
            return
        self._lost += 1
        if self._lost >= LARGE_ANSWERS_LOST:
            self._lost, self._small_until = 0, now + SMALL_ANSWERS_FOR
            self._report_once(f"sends answers of more than {SMALL_PAYLOAD} octets that do not arrive: they are fetched "
                              "over TCP; look for a firewall that drops large datagrams")

    def _report_once(self, what: str) -> None:
        if what not in self._reported:
            self._reported.add(what)
            self._report(what)

    @inlineCallbacks
    def _ask_datagram(self, question: Question, patience: float) -> Any:
        datagrams = _DatagramQuery(self._reactor,
                                   lambda identifier: question.compose(identifier, mixed_case=self._keeps_case))
        port = ConnectedDatagrams(self._reactor, self._server, datagrams, self._prepare)
        try:
            data = yield datagrams.query(self._server, [], patience)
        except DNSQueryTimeoutError:
            # Perhaps it is we who are late: on a busy machine timers ring before what has arrived is read.
            port.doRead()
            if datagrams.late is not None:
                return datagrams.late
            if not datagrams.other_case:
                raise Silence("did not answer") from None
            self._keeps_case = False
            self._report_once("does not keep the case of letters in questions: asked in lower case, which makes "
                              "answers easier to forge")
            raise Silence("does not keep the case of letters in questions") from None
        finally:
            port.stopListening()
        return data

    def _ask_stream(self, question: Question, patience: float) -> "Deferred[bytes]":
        # Nobody can guess his way into a connection: no mixed case here, and all servers keep that.
        stream = _StreamQuery(question.compose(secrets.randbelow(1 << 16)))
        factory = Factory.forProtocol(lambda: stream)
        factory.noisy = False
        connected = maybeDeferred(connect_tcp, self._reactor, self._server, factory, self._prepare)
        return connected.addCallback(lambda _: stream.answer).addTimeout(patience, self._reactor)


class _DatagramQuery(DNSDatagramProtocol):
    """One question on one connected socket."""

    noisy = False
    transport: Any
    liveMessages: Any  # noqa: N815

    def __init__(self, reactor: Any, compose: Callable[[int], bytes]) -> None:
        super().__init__(None, reactor)  # type: ignore[no-untyped-call,unused-ignore]
        self._compose = compose
        self._octets = b""
        self.other_case = False
        self.late: bytes | None = None
        "The answer, also when its time was over."

    def writeMessage(self, message: Any, address: Endpoint) -> None:  # noqa: N802 - Twisted's name
        """Twisted Names: send. Only the id is its choice; the octets are ours."""
        self._octets = self._compose(message.id)
        self.transport.write(self._octets)

    def datagramReceived(self, data: bytes, addr: Endpoint) -> None:
        """What does not answer our question is passed over; the right answer may still come."""
        if answers_query(data, self._octets):
            self.late = data
            self._end(data)
        elif answers_in_other_case(data, self._octets):
            self.other_case = True

    def connectionRefused(self) -> None:
        """The kernel: an ICMP error came back. Nobody listens there."""
        self._end(ConnectionRefusedError("connection refused"))

    def stopProtocol(self) -> None:
        """The port closed, perhaps without being asked: epoll reports an ICMP error so."""
        self._end(ConnectionRefusedError("connection refused"))
        super().stopProtocol()

    def _end(self, result: bytes | Exception) -> None:
        live, self.liveMessages = self.liveMessages, {}
        for waiting, timeout in live.values():
            timeout.cancel()
            if isinstance(result, Exception):
                waiting.errback(result)
            else:
                waiting.callback(result)


class _StreamQuery(Int16StringReceiver):
    """One question on one connection: RFC 7766 section 8."""

    transport: Any

    def __init__(self, query: bytes) -> None:
        self._query = query
        self.answer: Deferred[bytes] = Deferred(lambda _: self._abort())

    def connectionMade(self) -> None:
        self.sendString(self._query)  # type: ignore[no-untyped-call,unused-ignore]

    def stringReceived(self, string: bytes) -> None:
        if not self.answer.called and answers_query(string, self._query):
            self.answer.callback(string)
        self.transport.loseConnection()

    def connectionLost(self, reason: Any = None) -> None:
        if not self.answer.called:
            self.answer.errback(ConnectionDone("closed without an answer"))

    def _abort(self) -> None:
        if self.transport is not None:
            self.transport.abortConnection()
