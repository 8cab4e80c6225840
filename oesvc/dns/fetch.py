"""Questions to the configured resolvers, over Twisted Names: one socket a try, TCP on truncation, the raw answer kept.

Twisted sends and keeps the time; it never parses an answer (its parser can be made to run for seconds, and takes an
answer for another question). What counts as an answer is decided on the octets: same peer, id and question.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, fail, inlineCallbacks
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import ConnectionClosed, ConnectionDone
from twisted.internet.protocol import Factory
from twisted.names.dns import DNSDatagramProtocol, DNSQueryTimeoutError
from twisted.protocols.basic import Int16StringReceiver

from oesvc.dns.answer import Name
from oesvc.dns.failures import Indeterminate, MalformedData
from oesvc.dns.records import type_text
from oesvc.dns.sockets import ConnectedDatagrams, Endpoint, PrepareSocket, connect_tcp
from oesvc.dns.wire import (
    Flag,
    Message,
    Rcode,
    answers_query,
    is_truncated,
    parse_message,
    write_query,
)

Observer = Callable[[Name, int, str], None]
"Told of each query sent and each answer judged: name, type, what happened."

UDP_PAYLOAD = 1232
"Our choice, as resolvers' authors agreed in 2020: fits an unfragmented datagram everywhere."
MIN_TCP_PATIENCE = 2.0
"Seconds."
MAX_SOCKETS = 200
"At the same time: a process may commonly have 1024 files open."
MAX_WAITING = 2000
"Questions at the same time, those that wait for a socket included; more are turned away."

_ANSWERS = (Rcode.NOERROR, Rcode.NXDOMAIN, Rcode.YXDOMAIN)
_SILENCE = (DNSQueryTimeoutError, DeferredTimeout)


@dataclass(frozen=True, slots=True)
class Style:
    """How to ask: RFC 4035 section 3.2, RFC 6840 section 5.7."""

    flags: Flag
    dnssec_ok: bool


VALIDATING = Style(Flag.RD | Flag.CD, dnssec_ok=True)
"Everything, unfiltered: we judge."
TRUSTING = Style(Flag.RD | Flag.AD, dnssec_ok=False)
"The resolver judges, and says so by AD."
UNFILTERED = Style(Flag.RD | Flag.CD, dnssec_ok=False)
"What the resolver holds back as bogus, too."


class Fetcher:
    """Asks the servers in turn. The same question at the same time is asked once."""

    def __init__(self, reactor: Any, servers: Sequence[Endpoint], tries: Sequence[float], prepare: PrepareSocket,
                 observer: Observer) -> None:
        self._reactor, self._servers, self._tries = reactor, list(servers), tries
        self._prepare, self._observer = prepare, observer
        self._waiting: dict[tuple[Name, int, Style], list[Deferred[Message]]] = {}
        self._asking: set[Deferred[Message]] = set()
        self._sockets = DeferredSemaphore(MAX_SOCKETS)

    def fetch(self, name: Name, rdtype: int, style: Style = VALIDATING) -> "Deferred[Message]":
        """An answer, of whatever code; fails with Indeterminate and nothing else."""
        key = (name, rdtype, style)
        answer: Deferred[Message] = Deferred()
        if key in self._waiting:
            self._waiting[key].append(answer)
            return answer
        if len(self._waiting) >= MAX_WAITING:
            return fail(Indeterminate(f"more than {MAX_WAITING} questions are waiting for an answer"))
        self._waiting[key] = [answer]
        asking = self._ask(name, rdtype, style)
        self._asking.add(asking)
        asking.addBoth(self._deliver, key, asking)
        return answer

    def close(self) -> None:
        """Give up what is under way."""
        for asking in list(self._asking):
            asking.cancel()

    def _deliver(self, result: Any, key: tuple[Name, int, Style], asking: "Deferred[Message]") -> None:
        self._asking.discard(asking)
        for answer in self._waiting.pop(key):
            answer.callback(result)

    @inlineCallbacks
    def _ask(self, name: Name, rdtype: int, style: Style) -> Any:
        """Try after try over the servers; one that answers with an error is not asked again."""
        servers, message, problems = list(self._servers), None, {}
        for patience, server in zip(self._tries, cycle(list(servers)), strict=False):
            if server not in servers:
                continue
            self._observer(name, rdtype, f"query to {server[0]}")
            try:
                data = yield self._sockets.run(self._exchange, server, name, rdtype, style, patience)
                message = parse_message(data)
            except _SILENCE:
                problems[server] = "did not answer"
            except (OSError, ConnectionClosed) as error:
                problems[server] = f"cannot be reached ({error})"
            except MalformedData as error:
                problems[server] = f"sent {error}"
            except CancelledError:
                raise Indeterminate("the resolver was closed") from None
            else:
                if message.rcode in _ANSWERS:
                    return message
                servers.remove(server)
            self._demote(server)
        if message is not None:
            return message
        what = ", ".join(f"{server[0]} {problem}" for server, problem in problems.items())
        raise Indeterminate(f"no answer for {type_text(rdtype)}: {what}")

    def _demote(self, server: Endpoint) -> None:
        """The next look-up begins with another server."""
        if self._servers[0] == server:
            self._servers.append(self._servers.pop(0))

    @inlineCallbacks
    def _exchange(self, server: Endpoint, name: Name, rdtype: int, style: Style, patience: float) -> Any:
        def compose(identifier: int) -> bytes:
            return write_query(identifier, name, rdtype, style.flags, dnssec_ok=style.dnssec_ok, payload=UDP_PAYLOAD)

        datagrams = _DatagramQuery(self._reactor, compose)
        port = ConnectedDatagrams(self._reactor, server, datagrams, self._prepare)
        try:
            data = yield datagrams.query(server, [], patience)
        finally:
            port.stopListening()
        if is_truncated(data):
            data = yield self._exchange_tcp(server, compose(secrets.randbelow(1 << 16)), patience)
        return data

    def _exchange_tcp(self, server: Endpoint, query: bytes, patience: float) -> "Deferred[bytes]":
        stream = _StreamQuery(query)
        factory = Factory.forProtocol(lambda: stream)
        factory.noisy = False
        connected = connect_tcp(self._reactor, server, factory, self._prepare)
        return connected.addCallback(lambda _: stream.answer).addTimeout(max(patience, MIN_TCP_PATIENCE), self._reactor)


class _DatagramQuery(DNSDatagramProtocol):
    """One question on one connected socket."""

    noisy = False
    transport: Any
    liveMessages: Any  # noqa: N815

    def __init__(self, reactor: Any, compose: Callable[[int], bytes]) -> None:
        super().__init__(None, reactor)  # type: ignore[no-untyped-call,unused-ignore]
        self._compose = compose
        self._octets = b""

    def writeMessage(self, message: Any, address: Endpoint) -> None:  # noqa: N802 - Twisted's name
        """Twisted Names: send. Only the id is its choice; the octets are ours."""
        self._octets = self._compose(message.id)
        self.transport.write(self._octets)

    def datagramReceived(self, data: bytes, addr: Endpoint) -> None:
        """What does not answer our question is passed over; the right answer may still come."""
        if self.liveMessages and answers_query(data, self._octets):
            self._end(data)

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
