"""The resolver's word instead of our own proof: RFC 4035 section 4.9.3, for a path to it that can be trusted."""

from collections.abc import Callable, Generator
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks, succeed

from oesvc.dns.answer import AnswerKind, Name
from oesvc.dns.budget import Budget
from oesvc.dns.failures import Bogus
from oesvc.dns.fetch import Fetcher
from oesvc.dns.name import name_text
from oesvc.dns.proof import Denied, Proof, Signed, Unsigned, negative_ttl
from oesvc.dns.question import TRUSTING, UNFILTERED
from oesvc.dns.trace import Asked, Concluded
from oesvc.dns.wire import Flag, Message, Rcode, RRset, rcode_text


class Upstream:
    """A judge that believes the AD bit; or, with `believe` false, nothing: all is insecure then."""

    def __init__(self, fetcher: Fetcher, clock: Callable[[], float], *, believe: bool) -> None:
        self._fetcher, self._clock, self._believe = fetcher, clock, believe

    @inlineCallbacks
    def ask(self, name: Name, rdtype: int, budget: Budget) -> Generator[Any, Any, Message]:
        """What the resolver has, but holds back as SERVFAIL, is bogus."""
        budget.spend_query()
        message: Message = yield self._fetcher.fetch(name, rdtype, TRUSTING)
        budget.spend_octets(message.size)
        budget.note(Asked, name, rdtype, rcode_text(message.rcode) + (" AD" if message.flags & Flag.AD else ""))
        if message.rcode == Rcode.SERVFAIL and self._believe:
            budget.spend_query()
            unfiltered = yield self._fetcher.fetch(name, rdtype, UNFILTERED)
            budget.spend_octets(unfiltered.size)
            if unfiltered.rcode in (Rcode.NOERROR, Rcode.NXDOMAIN):
                budget.note(Concluded, name, "asked not to hold back anything, the resolver has an answer")
                raise Bogus(f"the resolver has an answer for {name_text(name)}, but finds it bogus")
        return message

    def authenticate(self, rrset: RRset, message: Message, budget: Budget) -> "Deferred[Proof]":
        return succeed(self._word(message, rrset.ttl))

    def absence(self, message: Message, name: Name, rdtype: int, budget: Budget) -> "Deferred[Denied]":
        kind = AnswerKind.NXDOMAIN if message.rcode == Rcode.NXDOMAIN else AnswerKind.NODATA
        return succeed(Denied(kind, self._word(message, negative_ttl(message.find_soa()))))

    def _word(self, message: Message, ttl: int) -> Proof:
        expires = self._clock() + ttl
        if not self._believe:
            return Unsigned("DNSSEC is switched off", expires)
        if message.flags & Flag.AD:
            return Signed("the resolver vouches for it (AD)", expires)
        return Unsigned("the resolver does not vouch for it (no AD)", expires)
