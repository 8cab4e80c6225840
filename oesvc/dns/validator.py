"""From a question to an Answer: aliases followed, each link judged, the worst link's verdict (RFC 4035 section 4.3).

RFC 2317 puts aliases into the reverse map, so they are the rule here and not the exception.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Protocol

from twisted.internet.defer import Deferred, inlineCallbacks

from oesvc.dns.answer import Answer, AnswerKind, Name, SecurityStatus
from oesvc.dns.budget import DEFAULT, Budget, Limits
from oesvc.dns.failures import BOGUS_TTL, INDETERMINATE_TTL, Bogus, Indeterminate, MalformedData
from oesvc.dns.name import MAX_NAME, is_below, name_text, to_wire
from oesvc.dns.proof import Denied, Proof, Unsigned
from oesvc.dns.records import RecordType, parse_target, type_text
from oesvc.dns.wire import Message, Rcode, RRset, rcode_text

# Our choice
MAX_ALIASES = 9
MAX_TTL = 86400
"Seconds that data is believed at most: a forger of an unsigned record would make it last for ever."


class Judge(Protocol):
    """Who says whether records are to be believed: `chain` proves it, `upstream` takes the resolver's word."""

    def ask(self, name: Name, rdtype: int, budget: Budget) -> "Deferred[Message]": ...

    def authenticate(self, rrset: RRset, message: Message, budget: Budget) -> "Deferred[Proof]": ...

    def absence(self, message: Message, name: Name, rdtype: int, budget: Budget) -> "Deferred[Denied]": ...


@dataclass
class _Trail:
    """One look-up on its way along the aliases."""

    name: Name
    rdtype: int
    current: Name
    message: Message
    budget: Budget
    fresh: bool = True
    "Whether `message` is the answer to a question for `current`, not only for an alias of it."
    proofs: list[Proof] = field(default_factory=list)
    expires: float = float("inf")


class Validator:
    def __init__(self, judge: Judge, clock: Callable[[], float], limits: Limits = DEFAULT) -> None:
        self._judge, self._clock, self._limits = judge, clock, limits

    @inlineCallbacks
    def validate(self, name: Name, rdtype: int, budget: Budget | None = None) -> Generator[Any, Any, Answer]:
        """Every failure of the DNS is an answer; others are errors of this program."""
        budget = budget or Budget(self._limits)
        try:
            message = yield self._judge.ask(name, rdtype, budget)
            answer: Answer = yield self._follow(_Trail(name, rdtype, name, message, budget))
            return answer
        except Indeterminate as failure:
            return self._failed(name, rdtype, SecurityStatus.INDETERMINATE, failure, INDETERMINATE_TTL)
        except (Bogus, MalformedData) as failure:
            return self._failed(name, rdtype, SecurityStatus.BOGUS, failure, BOGUS_TTL)

    def _failed(self, name: Name, rdtype: int, status: SecurityStatus, failure: Exception, ttl: float) -> Answer:
        return Answer(name, rdtype, AnswerKind.NONE, status, str(failure), expires=self._clock() + ttl)

    @inlineCallbacks
    def _follow(self, trail: _Trail) -> Generator[Any, Any, Answer]:
        while True:
            found = _pertinent(trail)
            if found is None and not trail.fresh:
                yield self._ask_afresh(trail)
            elif found is None:
                if not (yield self._ask_for_alias(trail)):
                    absent: Answer = yield self._absent(trail)
                    return absent
            elif (yield self._authenticated(found, trail)):
                if (found.owner, found.rdtype) == (trail.current, trail.rdtype):
                    return _answer(trail, AnswerKind.DATA, found.rdatas)
                if len(trail.proofs) > MAX_ALIASES:
                    raise Indeterminate(f"more than {MAX_ALIASES} aliases one after the other")
                trail.current, trail.fresh = _aliased(trail.current, found), False

    @inlineCallbacks
    def _authenticated(self, found: RRset, trail: _Trail) -> Generator[Any, Any, bool]:
        """False: the proof did not come along with the alias, so that the name itself had to be asked for."""
        try:
            proof = yield self._judge.authenticate(found, trail.message, trail.budget)
        except Bogus:
            if trail.fresh:
                raise
            yield self._ask_afresh(trail)
            return False
        trail.proofs.append(proof)
        trail.expires = min(trail.expires, proof.expires, self._clock() + min(found.ttl, MAX_TTL))
        return True

    @inlineCallbacks
    def _ask_afresh(self, trail: _Trail) -> Generator[Any, Any, None]:
        trail.message = yield self._judge.ask(trail.current, trail.rdtype, trail.budget)
        trail.fresh = True

    @inlineCallbacks
    def _ask_for_alias(self, trail: _Trail) -> Generator[Any, Any, bool]:
        """BIND does not follow an alias for KEY (it answers NODATA or SERVFAIL): ask for the alias itself."""
        if trail.rdtype != RecordType.KEY or trail.message.rcode not in (Rcode.NOERROR, Rcode.SERVFAIL):
            return False
        message = yield self._judge.ask(trail.current, RecordType.CNAME, trail.budget)
        if message.find(trail.current, RecordType.CNAME) is None:
            return False
        trail.message = message
        return True

    @inlineCallbacks
    def _absent(self, trail: _Trail) -> Generator[Any, Any, Answer]:
        message = trail.message
        if message.rcode not in (Rcode.NOERROR, Rcode.NXDOMAIN):
            what = f"{type_text(trail.rdtype)} of {name_text(trail.current)}"
            raise Indeterminate(f"the resolver answers {rcode_text(message.rcode)} for {what}")
        denied = yield self._judge.absence(message, trail.current, trail.rdtype, trail.budget)
        trail.proofs.append(denied.proof)
        trail.expires = min(trail.expires, denied.proof.expires)
        return _answer(trail, denied.kind, ())


def _pertinent(trail: _Trail) -> RRset | None:
    """The records asked for, or the alias that leads on. DNAME first: a CNAME made from it has no signature."""
    data = trail.message.find(trail.current, trail.rdtype)
    renamed = [rrset for rrset in trail.message.answer if rrset.rdtype == RecordType.DNAME
               and rrset.owner != trail.current and is_below(trail.current, rrset.owner)]
    return data or max(renamed, key=lambda rrset: len(rrset.owner), default=None) \
        or trail.message.find(trail.current, RecordType.CNAME)


def _aliased(name: Name, alias: RRset) -> Name:
    """Where an alias leads: CNAME of RFC 1034 section 3.6.2, DNAME of RFC 6672 section 2.2."""
    if len(alias.rdatas) != 1:
        raise Bogus(f"{name_text(alias.owner)} is an alias of several names")
    target = parse_target(alias.rdatas[0])
    if alias.rdtype == RecordType.DNAME:
        target = name[:len(name) - len(alias.owner)] + target
        if len(to_wire(target)) > MAX_NAME:
            raise Indeterminate(f"the alias at {name_text(alias.owner)} makes a name that is too long")
    return target


def _answer(trail: _Trail, kind: AnswerKind, rdatas: tuple[bytes, ...]) -> Answer:
    weak = next((proof for proof in trail.proofs if isinstance(proof, Unsigned)), None)
    status = SecurityStatus.INSECURE if weak else SecurityStatus.SECURE
    return Answer(trail.name, trail.rdtype, kind, status, (weak or trail.proofs[-1]).reason, rdatas,
                  canonical=trail.current, expires=trail.expires)
