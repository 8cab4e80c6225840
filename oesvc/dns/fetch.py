"""Questions to the configured resolvers: each asked once at a time, server after server until one answers.

A server that fails where another answers is asked last from then on, and tried again with a question of ours that
nobody waits for. One that hands on no DNSSEC signatures would make every name look forged: it is found out by the
keys of the trust anchor's zone, which must be signed, and not believed.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, fail, gatherResults, inlineCallbacks

from oesvc.dns.answer import Name
from oesvc.dns.authentication import Authentication
from oesvc.dns.crowd import CrowdLimits
from oesvc.dns.failures import Indeterminate, MalformedData, ServerFailure, Silence, Unreachable
from oesvc.dns.plain import PlainChannel
from oesvc.dns.question import SMALL_PAYLOAD, TRUSTING, VALIDATING, Question, Style
from oesvc.dns.records import RecordType, type_text
from oesvc.dns.servers import DOUBT, Pool, Problem, Server, describe
from oesvc.dns.sockets import Endpoint, PrepareSocket
from oesvc.dns.tls import TLS_PORT, TlsChannel
from oesvc.dns.wire import Message, Rcode, parse_message, rcode_text

Observer = Callable[[Name, int, str], None]
"Told of each query sent and each answer judged: name, type, what happened."

DNS_PORT = 53
_ANSWERS = (Rcode.NOERROR, Rcode.NXDOMAIN, Rcode.YXDOMAIN)
_NO_SIGNATURES = ("hands on no DNSSEC signatures (it ignores DO): let it pass DNSSEC on, name another in [dns] "
                  "servers, or choose another [dns] mode than validate")


class Fetcher:
    """Asks the servers. The same question at the same time is asked once."""

    def __init__(self, reactor: Any, servers: Sequence[Endpoint], tries: Sequence[float], prepare: PrepareSocket,
                 observer: Observer, *, tls: Mapping[Endpoint, Authentication] | None = None,
                 proof: Name | None = None, crowd: CrowdLimits | None = None) -> None:
        """`tls`: who the servers must prove to be, if asked over TLS. `proof`: a zone that is surely signed."""
        self._reactor, self._tries, self._observer = reactor, tries, observer
        self._proof = Question(proof or (), RecordType.DNSKEY, TRUSTING if proof is None else VALIDATING)
        self._pool = Pool([_server(reactor, one, prepare, (tls or {}).get(one)) for one in servers], reactor.seconds)
        self._waiting: dict[tuple[Name, int, Style], list[Deferred[Message]]] = {}
        self._asking: set[Deferred[Any]] = set()
        crowd = crowd or CrowdLimits()
        self._max_waiting = crowd.questions
        self._sockets = DeferredSemaphore(crowd.sockets)

    def fetch(self, name: Name, rdtype: int, style: Style = VALIDATING) -> "Deferred[Message]":
        """An answer, of whatever code; fails with Indeterminate and nothing else."""
        key = (name, rdtype, style)
        answer: Deferred[Message] = Deferred()
        if key in self._waiting:
            self._waiting[key].append(answer)
            return answer
        if len(self._waiting) >= self._max_waiting:
            return fail(Indeterminate(f"more than {self._max_waiting} questions are waiting for an answer"))
        self._waiting[key] = [answer]
        self._begin(self._ask(Question(name, rdtype, style))).addBoth(self._deliver, key)
        return answer

    def survey(self) -> "Deferred[list[Problem]]":
        """Ask every server for the keys of the zone that is surely signed; tells of those that fail."""
        def problems(results: list[Problem | None]) -> list[Problem]:
            failing = {server: found for server, found in zip(self._pool.servers, results, strict=True) if found}
            if len(failing) < len(results):
                self._blame({server: found.what for server, found in failing.items()})
            return list(failing.values())

        examined = [self._begin(self._examine(server)) for server in self._pool.servers]
        return gatherResults(examined).addCallback(problems)

    def close(self) -> None:
        """Give up what is under way."""
        for asking in list(self._asking):
            asking.cancel()
        self._pool.close()

    def _begin(self, asking: "Deferred[Any]") -> "Deferred[Any]":
        """Remember it until it is done, so that `close` can end it."""
        def done(result: Any) -> Any:
            self._asking.discard(asking)
            return result

        self._asking.add(asking)
        return asking.addBoth(done)

    def _deliver(self, result: Any, key: tuple[Name, int, Style]) -> None:
        for answer in self._waiting.pop(key):
            answer.callback(result)

    @inlineCallbacks
    def _ask(self, question: Question) -> Generator[Any, Any, Message]:
        """Every server in turn, the silent ones again, until all tries are used."""
        for due in self._pool.due():
            self._begin(self._examine(due))
        servers, small = self._pool.in_order(), set[Server]()
        problems: dict[Server, str] = {}
        refusal: Message | None = None
        for number in range(max(len(self._tries), len(servers))):
            if not servers:
                break
            server = servers.pop(0)
            asked = replace(question, payload=SMALL_PAYLOAD) if server in small else question
            try:
                message: Message = yield self._ask_one(server, asked, self._tries[min(number, len(self._tries) - 1)])
            except Silence as silence:
                problems[server] = str(silence)
                servers.append(server)
                # Perhaps it was the answer that is too large for the path.
                small.add(server)
            except ServerFailure as failure:
                problems[server] = str(failure)
            except CancelledError:
                raise Indeterminate("the resolver was closed") from None
            else:
                if message.rcode in _ANSWERS:
                    # When all fail, it is not for one of them to be blamed.
                    problems.pop(server, None)
                    self._blame(problems)
                    server.answered()
                    return message
                refusal, problems[server] = message, f"answers {rcode_text(message.rcode)}"
        if refusal is not None:
            return refusal
        what = ", ".join(f"{server.text} {problem}" for server, problem in problems.items())
        raise Indeterminate(f"no answer for {type_text(question.rdtype)}: {what}")

    def _blame(self, problems: Mapping[Server, str]) -> None:
        for server, problem in problems.items():
            server.failed(problem, self._reactor.seconds())

    @inlineCallbacks
    def _ask_one(self, server: Server, question: Question, patience: float) -> Generator[Any, Any, Message]:
        """One try; fails with ServerFailure."""
        if question.style.dnssec_ok and server.doubted_until > self._reactor.seconds():
            raise ServerFailure(_NO_SIGNATURES)
        message: Message = yield self._exchange(server, question, patience)
        if _is_signed(message):
            server.signs = True
        elif self._proof.style.dnssec_ok and question.style.dnssec_ok and message.rcode in _ANSWERS:
            yield server.proving.run(self._prove, server, patience)
        return message

    @inlineCallbacks
    def _exchange(self, server: Server, question: Question, patience: float) -> Generator[Any, Any, Message]:
        self._observer(question.name, question.rdtype, f"query to {server.text}")
        data = yield self._sockets.run(server.channel.exchange, question, patience)
        try:
            return parse_message(data)
        except MalformedData as error:
            raise ServerFailure(f"sent {error}") from None

    @inlineCallbacks
    def _prove(self, server: Server, patience: float) -> Generator[Any, Any, None]:
        """That an answer without signatures is not unsigned because of the server."""
        if server.signs:
            return
        if server.doubted_until <= self._reactor.seconds():
            message = yield self._exchange(server, self._proof, patience)
            if message.rcode not in _ANSWERS:
                raise ServerFailure(f"answers {rcode_text(message.rcode)} for {self._proof}")
            server.signs = _is_signed(message)
        if not server.signs:
            server.doubted_until = self._reactor.seconds() + DOUBT
            raise ServerFailure(_NO_SIGNATURES)

    @inlineCallbacks
    def _examine(self, server: Server) -> Generator[Any, Any, Problem | None]:
        """What is wrong with a server. No look-up waits for that."""
        server.examined = True
        try:
            message = yield self._ask_one(server, self._proof, self._tries[-1])
            if message.rcode not in _ANSWERS:
                raise ServerFailure(f"answers {rcode_text(message.rcode)} for {self._proof}")
        except ServerFailure as failure:
            if server.resume is not None:
                server.failed(str(failure), self._reactor.seconds())
            return Problem(server.text, str(failure), isinstance(failure, (Silence, Unreachable)))
        except CancelledError:
            return Problem(server.text, "was not asked", silent=False)
        finally:
            server.examined = False
        server.answered()
        return None


def _server(reactor: Any, endpoint: Endpoint, prepare: PrepareSocket, authentication: Authentication | None) -> Server:
    address, port = endpoint
    if authentication is not None:
        server = Server(describe(address, port, TLS_PORT, authentication.name))
        server.channel = TlsChannel(reactor, endpoint, authentication, prepare)
    else:
        server = Server(describe(address, port, DNS_PORT, None))
        server.channel = PlainChannel(reactor, endpoint, prepare, server.report)
    return server


def _is_signed(message: Message) -> bool:
    return any(rrset.signatures for rrset in (*message.answer, *message.authority))
