"""From trust anchors to an RRset: RFC 4035 section 5. Bottom up: the signer of what came says which zone to ask about.

Recursion leads strictly towards the root; every zone met on the way is remembered. Secure and insecure are values
(`Proof`); what cannot be believed raises Bogus, what cannot be known Indeterminate.
"""

from collections.abc import Callable, Generator, Sequence
from types import ModuleType
from typing import Any

from twisted.internet.defer import Deferred, FirstError, fail, gatherResults, inlineCallbacks
from twisted.python.failure import Failure

from oesvc.dns import nsec, nsec3, trace
from oesvc.dns.anchors import TrustAnchor
from oesvc.dns.answer import AnswerKind, Name
from oesvc.dns.budget import Budget
from oesvc.dns.cache import ExpiringCache
from oesvc.dns.failures import BOGUS_TTL, Bogus, Indeterminate
from oesvc.dns.local_zones import local_zone
from oesvc.dns.name import ancestors, is_below, name_text
from oesvc.dns.proof import Denied, Proof, Signed, Unsigned, negative_ttl
from oesvc.dns.records import Dnskey, RecordType, parse_dnskey, type_text
from oesvc.dns.signatures import Verified, delegated_keys, parse_signatures, verify
from oesvc.dns.wire import Message, Rcode, RRset, rcode_text
from oesvc.dns.zone_cut import Cut, CutKind, ZoneKeys, cut_denied, cut_shown, kept_to_show

# Our choice
MAX_ZONES = 2000
MAX_CUTS = 5000
MAX_KEYS = 32
"Of one zone; with roll-overs in all its algorithms under way it has eight."
EXEMPT_TTL = 3600
"Seconds for which a zone that we do not validate by our own decision counts as such, before it is asked about again."

_DENIALS: dict[int, ModuleType] = {RecordType.NSEC: nsec, RecordType.NSEC3: nsec3}


class Chain:
    """Builds chains of trust; knows nothing of aliases and verdicts."""

    def __init__(self, fetch: Callable[[Name, int], "Deferred[Message]"], anchors: Sequence[TrustAnchor],
                 clock: Callable[[], float], clock_skew: int, negative: Sequence[Name] = ()) -> None:
        """Below the names of `negative` nothing is validated (RFC 7646), but under an anchor of its own."""
        self._fetch, self._clock, self._clock_skew = fetch, clock, clock_skew
        self._anchors = {anchor.zone: anchor for anchor in anchors}
        self._negative = frozenset(negative)
        self._zones: ExpiringCache[Name, ZoneKeys | Unsigned | Bogus] = ExpiringCache(MAX_ZONES, clock)
        self._cuts: ExpiringCache[Name, Cut] = ExpiringCache(MAX_CUTS, clock)

    def trust(self, anchors: Sequence[TrustAnchor]) -> None:
        """These from now on. What was built on others is forgotten."""
        self._anchors = {anchor.zone: anchor for anchor in anchors}
        # New stores: what a look-up still under way has built on the old anchors goes into those that are left behind.
        self._zones = ExpiringCache(MAX_ZONES, self._clock)
        self._cuts = ExpiringCache(MAX_CUTS, self._clock)

    def afresh(self) -> "Chain":
        """One that trusts the same and remembers nothing."""
        return Chain(self._fetch, tuple(self._anchors.values()), self._clock, self._clock_skew, tuple(self._negative))

    def ask(self, name: Name, rdtype: int, budget: Budget) -> "Deferred[Message]":
        """One query out of the look-up's budget."""
        try:
            budget.spend_query()
        except Indeterminate:
            return fail()
        return _witnessed(self._fetch(name, rdtype), name, rdtype, budget).addCallback(_weighed, budget)

    @inlineCallbacks
    def authenticate(self, rrset: RRset, message: Message, budget: Budget,
                     side: Name | None = None) -> Generator[Any, Any, Proof]:
        """Of an RRset in the answer section of `message`; zones at or above `side` may have signed it."""
        side = _asked_side(rrset.owner, rrset.rdtype) if side is None else side
        exempted = self._exempted(side)
        if exempted is not None:
            return exempted
        signer = self._signer([rrset], side)
        if signer is None:
            what = f"the {type_text(rrset.rdtype)} records of {name_text(rrset.owner)} are not signed"
            budget.note(trace.Concluded, rrset.owner, what)
            unsigned: Unsigned = yield self._prove_unsigned(side, None, what, budget)
            return unsigned
        between = self._cut_between(signer, side, budget)
        zone: ZoneKeys | Unsigned = between or (yield self.zone_keys(signer, budget))
        if isinstance(zone, Unsigned):
            return zone
        verified = self._verify(rrset, zone, budget)
        if verified.encloser is None:
            return self._signed(zone, verified.expires)
        denial, records, expires = self._denial(message, zone, budget)
        shown = (zone.zone, rrset.owner, rrset.rdtype, denial is nsec3, tuple(records))
        try:
            room = denial.prove_no_closer_match(records, zone.zone, rrset.owner, verified.encloser, budget)
        except Bogus as failure:
            budget.note(trace.Denied, *shown, str(failure), True)
            raise
        budget.note(trace.Denied, *shown, "", True)
        expires = min(expires, verified.expires)
        return Unsigned(room, expires) if room else self._signed(zone, expires)

    @inlineCallbacks
    def absence(self, message: Message, name: Name, rdtype: int, budget: Budget) -> Generator[Any, Any, Denied]:
        """Of what was asked for in a negative answer."""
        nxdomain = message.rcode == Rcode.NXDOMAIN
        kind = AnswerKind.NXDOMAIN if nxdomain else AnswerKind.NODATA
        denials = [rrset for rrset in message.authority if rrset.rdtype in _DENIALS]
        soa = message.find_soa()
        # The SOA can only shorten: it needs no signature of its own here.
        limit = self._clock() + negative_ttl(soa)
        side = _asked_side(name, rdtype)
        if _is_referral(message):
            raise Indeterminate(f"the server refers to others for {name_text(name)}, so it is no recursive resolver")
        exempted = self._exempted(side)
        if exempted is not None:
            return Denied(kind, Unsigned(exempted.reason, min(exempted.expires, limit)))
        signer = self._signer(denials, side)
        if signer is None:
            what = f"the absence of {type_text(rdtype)} at {name_text(name)} is not signed"
            budget.note(trace.Concluded, name, what)
            unsigned = yield self._prove_unsigned(side, soa.owner if soa else None, what, budget)
            return Denied(kind, Unsigned(unsigned.reason, min(unsigned.expires, limit)))
        zone = self._cut_between(signer, side, budget) or (yield self.zone_keys(signer, budget))
        if isinstance(zone, Unsigned):
            return Denied(kind, Unsigned(zone.reason, min(zone.expires, limit)))
        denial, records, expires = self._denial(message, zone, budget)
        shown = (zone.zone, name, rdtype, denial is nsec3, tuple(records))
        try:
            absence = denial.prove_absence(records, zone.zone, name, rdtype, nxdomain, budget)
        except Bogus as failure:
            budget.note(trace.Denied, *shown, str(failure))
            raise
        budget.note(trace.Denied, *shown)
        expires = min(expires, limit)
        proof = Unsigned(absence.unsigned, expires) if absence.unsigned else self._signed(zone, expires)
        return Denied(absence.kind, proof, absence.delegation)

    @inlineCallbacks
    def zone_keys(self, zone: Name, budget: Budget) -> Generator[Any, Any, ZoneKeys | Unsigned]:
        """The keys that sign a zone, or the proof that none need to."""
        zones = self._zones
        known = zones.get(zone)
        if known is not None:
            self._recall(zone, known, budget)
        if isinstance(known, Bogus):
            raise Bogus(*known.args)
        if known is not None:
            return known
        find = self._anchored_keys if zone in self._anchors else self._delegated_keys
        try:
            with budget.descend():
                found: ZoneKeys | Unsigned = yield find(zone, budget)
        except Bogus as failure:
            zones.put(zone, failure, self._clock() + BOGUS_TTL)
            raise
        zones.put(zone, found, found.expires)
        return found

    @inlineCallbacks
    def cut_at(self, name: Name, budget: Budget) -> Generator[Any, Any, Cut]:
        """Whether a zone begins at `name`, and how."""
        cuts = self._cuts
        known = cuts.get(name)
        if known is not None:
            if known.kind is not CutKind.SIGNED:
                budget.note(trace.Concluded, name, f"{known.kind.value}: {known.proof.reason}", True)
            return known
        message = yield self.ask(name, RecordType.DS, budget)
        rrset = message.find(name, RecordType.DS) or message.find(name, RecordType.CNAME)
        if rrset is not None:
            # An alias too is the parent's here: asking its own zone would lead back to this very question.
            cut = cut_shown(rrset, (yield self.authenticate(rrset, message, budget, side=name[1:])))
        elif message.rcode in (Rcode.NOERROR, Rcode.NXDOMAIN):
            cut = cut_denied(name, (yield self.absence(message, name, RecordType.DS, budget)))
        else:
            raise Indeterminate(f"the resolver answers {rcode_text(message.rcode)} for the DS of {name_text(name)}")
        cuts.put(name, cut, cut.proof.expires)
        return cut

    def anchor_above(self, name: Name) -> Name:
        """The nearest zone at or above `name` that has a trust anchor."""
        for place in reversed(ancestors(name)):
            if place in self._anchors:
                return place
        raise Indeterminate(f"there is no trust anchor at or above {name_text(name)}")

    def _exempted(self, name: Name) -> Unsigned | None:
        """Whether a negative trust anchor is the nearest of all anchors (RFC 7646 section 2)."""
        for place in reversed(ancestors(name)):
            if place in self._negative:
                reason = f"{name_text(place)} has a negative trust anchor: nothing below it is validated"
                return Unsigned(reason, self._clock() + EXEMPT_TTL)
            if place in self._anchors:
                break
        return None

    @inlineCallbacks
    def _anchored_keys(self, zone: Name, budget: Budget) -> Generator[Any, Any, ZoneKeys]:
        anchor = self._anchors[zone]
        if not anchor.keys and not anchor.delegation:
            raise Indeterminate(f"every trust anchor of {name_text(zone)} has been revoked")
        message = yield self.ask(zone, RecordType.DNSKEY, budget)
        rrset = message.find(zone, RecordType.DNSKEY)
        if rrset is None or not rrset.signatures:
            raise Indeterminate(f"the resolver hands on no signed DNSKEY of {name_text(zone)}, so it knows no DNSSEC")
        keys = _keys_in(rrset)
        trusted = tuple(key for key in keys if anchor.trusts(key))
        budget.note(trace.Anchored, zone, anchor.delegation, anchor.keys)
        if not trusted:
            reason = f"none of the keys of {name_text(zone)} is its trust anchor"
            budget.note(trace.Checked, rrset, zone, trusted, reason)
            raise Bogus(reason)
        verified = self._verify(rrset, ZoneKeys(zone, trusted, float("inf")), budget)
        return ZoneKeys(zone, keys, verified.expires, kept_to_show(rrset))

    @inlineCallbacks
    def _delegated_keys(self, zone: Name, budget: Budget) -> Generator[Any, Any, ZoneKeys | Unsigned]:
        self.anchor_above(zone)
        cut, message = yield _together(self.cut_at(zone, budget), self.ask(zone, RecordType.DNSKEY, budget))
        if isinstance(cut.proof, Unsigned):
            return cut.proof
        if cut.kind is not CutKind.SIGNED:
            raise Bogus(f"{name_text(zone)} is named as a signer, but its parent has {cut.kind.value}")
        rrset = message.find(zone, RecordType.DNSKEY)
        if rrset is None:
            raise Bogus(f"{name_text(zone)} has a DS record at its parent but no DNSKEY")
        keys = _keys_in(rrset)
        trusted = tuple(delegated_keys(zone, keys, cut.delegation))
        if not trusted:
            reason = f"none of the keys of {name_text(zone)} is the one in the DS record at its parent"
            budget.note(trace.Checked, rrset, zone, trusted, reason)
            raise Bogus(reason)
        verified = self._verify(rrset, ZoneKeys(zone, trusted, cut.proof.expires), budget)
        return ZoneKeys(zone, keys, verified.expires, kept_to_show(rrset))

    @inlineCallbacks
    def _prove_unsigned(self, name: Name, apex: Name | None, what: str,
                        budget: Budget) -> Generator[Any, Any, Unsigned]:
        """That there is an unsigned delegation at or above `name`; Bogus(`what`) when there is none.

        `apex` is an unproven word on where the zone of `name` begins: asking there first spares the walk.
        """
        anchor = self.anchor_above(name)
        local = local_zone(name)
        if local is not None and not is_below(anchor, local):
            return Unsigned(f"{name_text(local)} is for private addresses, resolvers answer for it themselves",
                            self._clock() + EXEMPT_TTL)
        # A resolver that leaves all signatures out is no attacker: there, this says so.
        yield self.zone_keys(anchor, budget)
        apex = apex if apex is not None else (yield self._probable_apex(name, budget))
        walk = [place for place in ancestors(name) if len(place) > len(anchor)]
        for place in sorted(walk, key=lambda place: place != apex):
            cut: Cut = yield self.cut_at(place, budget)
            if isinstance(cut.proof, Unsigned):
                budget.note(trace.Concluded, place, cut.proof.reason)
                return cut.proof
            if cut.kind is CutKind.NO_NAME or (cut.kind is CutKind.SIGNED and place == apex):
                break
        raise Bogus(f"{what}, and no unsigned delegation is proven above")

    @inlineCallbacks
    def _probable_apex(self, name: Name, budget: Budget) -> Generator[Any, Any, Name | None]:
        """The owner of the SOA that the resolver sends for `name`, or (at an alias) for its parent."""
        for place in (name, name[1:]):
            message: Message = yield self.ask(place, RecordType.SOA, budget)
            for rrset in (*message.answer, *message.authority):
                if rrset.rdtype == RecordType.SOA and is_below(name, rrset.owner):
                    return rrset.owner
        return None

    def _signer(self, rrsets: Sequence[RRset], side: Name) -> Name | None:
        """The nearest zone at or above `side` that signed.

        A signer above the nearest anchor counts for nothing: it could take an anchored island out of protection.
        """
        anchor = self.anchor_above(side)
        signers = [signature.signer for rrset in rrsets for signature in parse_signatures(rrset)]
        return max((signer for signer in signers if is_below(side, signer) and is_below(signer, anchor)),
                   key=len, default=None)

    def _cut_between(self, signer: Name, side: Name, budget: Budget) -> Unsigned | None:
        """RFC 4035 section 5.3.1: the signer is the zone that holds the records; a zone above it has no say any more.

        Without a query: a cut that nothing is remembered of goes unnoticed, see docs/architecture.md. Remembered is an
        unsigned delegation (it is returned) or a signed one (Bogus), as long as its own records are good for.
        """
        for place in reversed(ancestors(side)):
            if len(place) <= len(signer):
                break
            cut = self._cuts.get(place)
            if cut is None or cut.kind not in (CutKind.SIGNED, CutKind.UNSIGNED):
                continue
            if isinstance(cut.proof, Unsigned):
                budget.note(trace.Concluded, place, cut.proof.reason, True)
                return cut.proof
            raise Bogus(f"{name_text(signer)} has signed for {name_text(side)}, but has delegated {name_text(place)}")
        return None

    def _verify(self, rrset: RRset, zone: ZoneKeys, budget: Budget) -> Verified:
        """What is verified lasts no longer than the keys."""
        try:
            verified = verify(rrset, zone.zone, zone.keys, self._clock(), budget, self._clock_skew)
        except Bogus as failure:
            budget.note(trace.Checked, rrset, zone.zone, zone.keys, str(failure))
            raise
        budget.note(trace.Checked, rrset, zone.zone, zone.keys)
        return Verified(min(verified.expires, zone.expires), verified.encloser)

    def _denial(self, message: Message, zone: ZoneKeys,
                budget: Budget) -> tuple[ModuleType, list[tuple[Name, bytes]], float]:
        """The zone's own records of denial in `message`: who can read them, the records, until when they hold."""
        signed = [rrset for rrset in message.authority if rrset.rdtype in _DENIALS
                  and any(signature.signer == zone.zone for signature in parse_signatures(rrset))]
        if not signed:
            raise Bogus(f"the proof of absence by {name_text(zone.zone)} is missing")
        rdtype = signed[0].rdtype
        chosen = [rrset for rrset in signed if rrset.rdtype == rdtype]
        expires = min(self._verify(rrset, zone, budget).expires for rrset in chosen)
        return _DENIALS[rdtype], [(rrset.owner, rdata) for rrset in chosen for rdata in rrset.rdatas], expires

    def _recall(self, zone: Name, known: ZoneKeys | Unsigned | Bogus | None, budget: Budget) -> None:
        """Tell those who watch how a zone was proven when that was."""
        if budget.trace is None or any(isinstance(link, trace.Checked) and link.rrset.rdtype == RecordType.DNSKEY
                                       and link.rrset.owner == zone for link in budget.trace):
            return
        if not isinstance(known, ZoneKeys) or known.shown is None:
            reason = known.reason if isinstance(known, Unsigned) else str(known) if isinstance(known, Bogus) else ""
            budget.note(trace.Concluded, zone, reason or "its keys were proven", True)
            return
        anchor, cut = self._anchors.get(zone), self._cuts.get(zone)
        trusted: Sequence[Dnskey] = [key for key in known.keys if anchor and anchor.trusts(key)]
        if anchor is not None:
            budget.note(trace.Anchored, zone, anchor.delegation, anchor.keys)
        elif cut is not None and cut.shown is not None:
            parent = self._signer([cut.shown], zone[1:]) or zone[1:]
            above = self._zones.get(parent)
            self._recall(parent, above, budget)
            budget.note(trace.Checked, cut.shown, parent, above.keys if isinstance(above, ZoneKeys) else (), "", True)
            trusted = delegated_keys(zone, known.keys, cut.delegation)
        budget.note(trace.Checked, known.shown, zone, tuple(trusted), "", True)

    def _signed(self, zone: ZoneKeys, expires: float) -> Signed:
        anchor = self.anchor_above(zone.zone)
        return Signed(f"signed by {name_text(zone.zone)} under the trust anchor of {name_text(anchor)}", expires)


def _witnessed(answer: "Deferred[Message]", name: Name, rdtype: int, budget: Budget) -> "Deferred[Message]":
    def note(result: Message | Failure) -> Message | Failure:
        outcome = result.getErrorMessage() if isinstance(result, Failure) else rcode_text(result.rcode)
        budget.note(trace.Asked, name, rdtype, outcome)
        return result

    return answer if budget.trace is None else answer.addBoth(note)


def _weighed(message: Message, budget: Budget) -> Message:
    budget.spend_octets(message.size)
    return message


def _asked_side(name: Name, rdtype: int) -> Name:
    """Zones that answer for `name` lie at or above this: a DS is the parent's (RFC 4035 section 3.1.4.1)."""
    return name[1:] if rdtype == RecordType.DS else name


def _is_referral(message: Message) -> bool:
    """RFC 1034 section 4.3.1: not the name's own zone speaks, but one above it that knows whom to ask."""
    return (message.rcode == Rcode.NOERROR and not message.answer and message.find_soa() is None
            and any(rrset.rdtype == RecordType.NS for rrset in message.authority))


def _keys_in(rrset: RRset) -> tuple[Dnskey, ...]:
    if len(rrset.rdatas) > MAX_KEYS:
        raise Bogus(f"{name_text(rrset.owner)} has {len(rrset.rdatas)} keys, more than {MAX_KEYS} are not looked at")
    return tuple(parse_dnskey(rdata) for rdata in rrset.rdatas)


def _together(*deferreds: "Deferred[Any]") -> "Deferred[list[Any]]":
    """All results; the first failure is the failure."""
    def unwrap(failure: Failure) -> Failure:
        first: Failure = failure.value.subFailure if isinstance(failure.value, FirstError) else failure
        return first

    return gatherResults(deferreds, consumeErrors=True).addErrback(unwrap)
