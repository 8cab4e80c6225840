"""The resolver that the daemon asks: RFC 4322 section 4.5's stub that can tell authenticated records from others."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from oesvc.dns.anchors import TrustAnchor
from oesvc.dns.answer import Answer, AnswerKind, Name, SecurityStatus
from oesvc.dns.authentication import Authentication
from oesvc.dns.budget import Budget, Limits
from oesvc.dns.cache import ExpiringCache
from oesvc.dns.chain import Chain
from oesvc.dns.crowd import Crowd, CrowdLimits
from oesvc.dns.failures import INDETERMINATE_TTL, Indeterminate
from oesvc.dns.fetch import Fetcher, Observer
from oesvc.dns.name import name_text, parse_name
from oesvc.dns.records import RecordType, type_text
from oesvc.dns.servers import Problem
from oesvc.dns.sockets import Endpoint, PrepareSocket, leave_as_is
from oesvc.dns.trace import Link, Trace
from oesvc.dns.upstream import Upstream
from oesvc.dns.validator import Judge, Validator
from oesvc.dns.wire import Message
from oesvc.ipsec.flow import Address

MAX_ANSWERS = 10000
MAX_REMEMBERED = 4096
"Octets of an answer that is remembered: some delegations with large keys. The cache stays below 50 MB."
APEXES = tuple(parse_name(name) for name in (".", "arpa.", "in-addr.arpa.", "ip6.arpa."))
"What every look-up in the reverse map goes through."


class Mode(Enum):
    """Who decides whether records are authentic."""

    VALIDATE = "validate"
    "We do, from the trust anchors."
    TRUST_AD = "trust-ad"
    "The resolver does; only over a path that nobody else is on."
    OFF = "off"
    "Nobody: every answer is insecure."


@dataclass(frozen=True, slots=True)
class DnsConfig:
    """ValueError when the values do not go together."""

    servers: tuple[Endpoint, ...]
    "Addresses and ports of recursive resolvers, the preferred one first."
    anchors: tuple[TrustAnchor, ...] = ()
    negative_anchors: tuple[Name, ...] = ()
    "Below these names nothing is validated (RFC 7646)."
    mode: Mode = Mode.VALIDATE
    tls: Mapping[Endpoint, Authentication] = field(default_factory=dict)
    "Who the servers must prove to be (RFC 8310): all of them, or none, which are asked in clear then."
    trusted_path: bool = False
    "The operator's word that nobody can forge what the servers send; for TRUST_AD off this host, in clear."
    clock_skew: int = 0
    "Seconds by which signatures may be too early or too late."
    tries: tuple[float, ...] = (1.0, 1.5, 2.5)
    "Seconds to wait for each datagram's answer; the servers take turns."
    patience: float = 8.0
    "Seconds after which a look-up is answered with INDETERMINATE (RFC 4322 section 3.2.4: DNS times out)."
    limits: Limits = field(default_factory=Limits)
    "What one look-up may cost."
    crowd: CrowdLimits = field(default_factory=CrowdLimits)
    "How many may be under way."

    def __post_init__(self) -> None:
        if not self.servers:
            raise ValueError("no DNS server: at least one address of a recursive resolver is needed")
        if self.mode is Mode.VALIDATE and not self.anchors:
            raise ValueError("no trust anchor to validate from: install dns-root-data, or name a file of anchors")
        if self.tls and set(self.tls) != set(self.servers):
            raise ValueError("some DNS servers are to be asked over TLS and others in clear: it must be all or none")
        for address, _port in self.servers:
            trusted = ip_address(address).is_loopback or self.trusted_path or self.tls
            if self.mode is Mode.TRUST_AD and not trusted:
                raise ValueError(f"trust-ad believes whoever can answer for {address}: use a resolver on this host, "
                                 "TLS, declare the path to it trusted, or validate")


def _ignore(name: Name, rdtype: int, what: str) -> None:
    """For owners who keep no journal."""


class ValidatingResolver:
    """oesvc.interfaces.Resolver, on Twisted Names and ldns."""

    _log = Logger()

    def __init__(self, config: DnsConfig, reactor: Any, clock: Callable[[], float] = time.time,
                 prepare_socket: PrepareSocket = leave_as_is, observer: Observer = _ignore) -> None:
        """`clock` tells UNIX time; `prepare_socket` sees each socket before it speaks."""
        self._config, self._reactor, self._clock, self._observer = config, reactor, clock, observer
        proof = min((anchor.zone for anchor in config.anchors), key=len) if config.mode is Mode.VALIDATE else None
        self._fetcher = Fetcher(reactor, config.servers, config.tries, prepare_socket, observer,
                                tls=config.tls, proof=proof, crowd=config.crowd)
        self._judge = self._make_judge()
        self._validator = Validator(self._judge, clock, config.limits)
        self._crowd = Crowd(config.crowd)
        self._answers: ExpiringCache[tuple[Name, int], Answer] = ExpiringCache(MAX_ANSWERS, clock)
        self._waiting: dict[tuple[Name, int], list[Deferred[Answer]]] = {}
        self._closed = False

    def look_up(self, name: Name, rdtype: int, client: Address | None = None) -> "Deferred[Answer]":
        """Ask for one RRset, or remember it. Never fails."""
        if self._closed:
            return succeed(self._nothing(name, rdtype, "the resolver is closed"))
        known = self._answers.get((name, rdtype))
        if known is not None:
            return succeed(known)
        try:
            place = self._crowd.enter(client, len(self._waiting))
        except Indeterminate as refusal:
            return succeed(self._nothing(name, rdtype, str(refusal)))
        answer: Deferred[Answer] = Deferred()
        answer.addBoth(self._leave, place)
        answer.addTimeout(self._config.patience, self._reactor,
                          onTimeoutCancel=lambda _, seconds: self._out_of_patience(name, rdtype, seconds))
        if (name, rdtype) in self._waiting:
            self._waiting[name, rdtype].append(answer)
            return answer
        self._waiting[name, rdtype] = [answer]
        validated = self._validator.validate(name, rdtype)
        validated.addErrback(self._our_error, name, rdtype)
        validated.addCallback(self._deliver, self._answers)
        return answer

    def trace(self, name: Name, rdtype: int, fresh: bool = False) -> "Deferred[Trace]":
        """Look one RRset up anew and tell every link of its chain; nothing of it is remembered. Never fails.

        What is remembered of zones is used and told as such; not when all is to be `fresh`.
        """
        if self._closed:
            return succeed(Trace(self._nothing(name, rdtype, "the resolver is closed"), (), None))
        judge = self._judge.afresh() if fresh and isinstance(self._judge, Chain) else self._judge
        links: list[Link] = []
        validated = Validator(judge, self._clock).validate(name, rdtype, Budget(self._config.limits, links))
        validated.addErrback(self._our_error, name, rdtype)
        answer: Deferred[Answer] = Deferred()
        answer.addTimeout(self._config.patience, self._reactor,
                          onTimeoutCancel=lambda _, seconds: self._out_of_patience(name, rdtype, seconds))
        validated.chainDeferred(answer)
        return answer.addCallback(lambda found: Trace(found, tuple(links), self._answers.get((name, rdtype))))

    def prime(self) -> "Deferred[list[Answer]]":
        """Fetch the keys of the apexes, so that look-ups need not wait for them; tells how far each is believed."""
        return gatherResults([self.look_up(apex, RecordType.DNSKEY) for apex in APEXES])

    def fetch_keys(self, zone: Name) -> "Deferred[Message]":
        """The DNSKEYs of a zone as the resolver has them now; fails with Indeterminate. For RFC 5011."""
        return self._fetcher.fetch(zone, RecordType.DNSKEY)

    def trust(self, anchors: Sequence[TrustAnchor]) -> None:
        """Begin with these anchors from now on; all that is remembered is forgotten. For RFC 5011."""
        if isinstance(self._judge, Chain):
            self._judge.trust(anchors)
        self._answers = ExpiringCache(MAX_ANSWERS, self._clock)

    def survey(self) -> "Deferred[list[Problem]]":
        """Ask every server; tells of those that cannot be used what is wrong."""
        return self._fetcher.survey()

    def bounds(self) -> dict[str, tuple[int, int, int]]:
        """See oesvc.interfaces.Bounds."""
        return self._crowd.bounds(len(self._waiting))

    def close(self) -> "Deferred[None]":
        """Look-ups under way end as INDETERMINATE."""
        self._closed = True
        self._fetcher.close()
        return succeed(None)

    def _make_judge(self) -> Judge:
        if self._config.mode is Mode.VALIDATE:
            return Chain(self._fetcher.fetch, self._config.anchors, self._clock, self._config.clock_skew,
                         self._config.negative_anchors)
        return Upstream(self._fetcher, self._clock, believe=self._config.mode is Mode.TRUST_AD)

    def _leave(self, result: Any, place: str | None) -> Any:
        self._crowd.leave(place)
        return result

    def _deliver(self, answer: Answer, answers: ExpiringCache[tuple[Name, int], Answer]) -> None:
        """To all that wait, and into the store that was there at the beginning: `trust` may have made another."""
        if sum(map(len, answer.rdatas)) <= MAX_REMEMBERED:
            answers.put((answer.name, answer.rdtype), answer, answer.expires)
        self._observer(answer.name, answer.rdtype,
                       f"{answer.status.value}: {answer.kind.value}, {answer.reason}")
        for waiting in self._waiting.pop((answer.name, answer.rdtype)):
            waiting.callback(answer)

    def _out_of_patience(self, name: Name, rdtype: int, seconds: float) -> Answer:
        """The look-up goes on, so that the next one finds what this one did not wait for."""
        return self._nothing(name, rdtype, f"no answer within {seconds:g} seconds")

    def _our_error(self, failure: Failure, name: Name, rdtype: int) -> Answer:
        self._log.failure("Looking up {rdtype} of {name}", failure, name=name_text(name), rdtype=type_text(rdtype))
        return self._nothing(name, rdtype, f"an error in oegw itself: {failure.getErrorMessage()}")

    def _nothing(self, name: Name, rdtype: int, reason: str) -> Answer:
        return Answer(name, rdtype, AnswerKind.NONE, SecurityStatus.INDETERMINATE, reason,
                      expires=self._clock() + INDETERMINATE_TTL)
