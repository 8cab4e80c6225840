"""Absence proven by NSEC3 records: RFC 5155 section 8. Pure; of the same shape as `nsec`."""

import hashlib
from collections.abc import Iterable

from oesvc.dns.absence import Absence, denies_type, hides_descendants, is_delegation
from oesvc.dns.answer import AnswerKind, Name
from oesvc.dns.budget import Budget
from oesvc.dns.failures import Bogus
from oesvc.dns.name import WILDCARD, name_text, to_wire
from oesvc.dns.records import Nsec3, RecordType, hash_label, parse_nsec3, type_text

MAX_ITERATIONS = 150
"More are insecure: RFC 9276 section 3.2 leaves the number to us; unbound and BIND take this one."
_SHA1 = 1
_HASH_LENGTH = 20


class _TooCostly(Exception):  # noqa: N818 - an outcome, no error
    """The zone hashes more often than we will."""


class _Chain:
    """The records of one zone with the hashed owners for keys; hashes of names are remembered."""

    def __init__(self, records: Iterable[tuple[Name, bytes]], zone: Name, budget: Budget) -> None:
        self.zone, self._budget = zone, budget
        parsed = [(owner, parse_nsec3(rdata)) for owner, rdata in records]
        self._records = {owner[0]: nsec3 for owner, nsec3 in parsed if owner[1:] == zone and _is_known(nsec3)}
        parameters = {(nsec3.salt, nsec3.iterations) for nsec3 in self._records.values()}
        if len(parameters) != 1:
            raise Bogus(f"{name_text(zone)} sent NSEC3 records that do not belong together")
        (self._salt, self._iterations), = parameters
        if self._iterations > MAX_ITERATIONS:
            raise _TooCostly
        self._hashes: dict[Name, bytes] = {}

    def matching(self, name: Name) -> Nsec3 | None:
        return self._records.get(self._hash(name))

    def covering(self, name: Name) -> Nsec3 | None:
        """The record whose gap the name's hash falls into; the last one leads round to the first."""
        place = self._hash(name)
        for owner, nsec3 in self._records.items():
            following = hash_label(nsec3.next)
            if owner < place < following or (following <= owner and (place > owner or place < following)):
                return nsec3
        return None

    def enclose(self, name: Name) -> tuple[Name, Nsec3] | None:
        """The closest encloser, and the record that covers the next closer name (RFC 5155 section 8.3)."""
        for depth in range(1, len(name) - len(self.zone) + 1):
            match = self.matching(name[depth:])
            if match is not None:
                cover = self.covering(name[depth - 1:])
                return (name[depth:], cover) if cover and not hides_descendants(match.types) else None
        return None

    def _hash(self, name: Name) -> bytes:
        """RFC 5155 section 5."""
        if name not in self._hashes:
            self._budget.spend_hashes(self._iterations + 1)
            digest = to_wire(name)
            for _ in range(self._iterations + 1):
                digest = hashlib.sha1(digest + self._salt, usedforsecurity=False).digest()
            self._hashes[name] = hash_label(digest)
        return self._hashes[name]


def prove_absence(records: Iterable[tuple[Name, bytes]], zone: Name, name: Name, rdtype: int,
                  nxdomain: bool, budget: Budget) -> Absence:
    """What the records prove of `name`, given the answer's code; Bogus when they do not prove it."""
    try:
        chain = _Chain(records, zone, budget)
    except _TooCostly:
        return Absence(AnswerKind.NXDOMAIN if nxdomain else AnswerKind.NODATA, delegation=True, unsigned=_costly(zone))
    absence = _no_name(chain, name) if nxdomain else None
    absence = absence or _no_data(chain, name, rdtype)
    if absence is None:
        what = "does not exist" if nxdomain else f"has no {type_text(rdtype)} record"
        raise Bogus(f"the NSEC3 records of {name_text(zone)} do not prove that {name_text(name)} {what}")
    return absence


def prove_no_closer_match(records: Iterable[tuple[Name, bytes]], zone: Name, name: Name, encloser: Name,
                          budget: Budget) -> str | None:
    """That a wildcard below `encloser` was rightly expanded to `name` (RFC 5155 section 8.8), or raise Bogus.

    Returns why the proof is insecure nevertheless.
    """
    try:
        cover = _Chain(records, zone, budget).covering(name[len(name) - len(encloser) - 1:])
    except _TooCostly:
        return _costly(zone)
    if cover is None:
        raise Bogus(f"the NSEC3 records of {name_text(zone)} do not prove that a wildcard stands for {name_text(name)}")
    return _opt_out(cover, zone)


def _no_name(chain: _Chain, name: Name) -> Absence | None:
    """RFC 5155 section 8.4."""
    enclosed = chain.enclose(name)
    if enclosed is None or chain.matching(name) or not chain.covering((WILDCARD, *enclosed[0])):
        return None
    return Absence(AnswerKind.NXDOMAIN, unsigned=_opt_out(enclosed[1], chain.zone))


def _no_data(chain: _Chain, name: Name, rdtype: int) -> Absence | None:
    """RFC 5155 sections 8.5 to 8.7."""
    match = chain.matching(name)
    if match is not None:
        if not denies_type(match.types, name, rdtype):
            return None
        return Absence(AnswerKind.NODATA, delegation=is_delegation(match.types))
    enclosed = chain.enclose(name)
    if enclosed is None:
        return None
    encloser, cover = enclosed
    opt_out = _opt_out(cover, chain.zone)
    if rdtype == RecordType.DS and opt_out:
        return Absence(AnswerKind.NODATA, delegation=True, unsigned=opt_out)
    wildcard = chain.matching((WILDCARD, *encloser))
    if wildcard is None or not denies_type(wildcard.types, name, rdtype):
        return None
    return Absence(AnswerKind.NODATA, unsigned=opt_out)


def _is_known(nsec3: Nsec3) -> bool:
    """RFC 5155 sections 8.1 and 8.2: others are ignored."""
    return nsec3.hash_algorithm == _SHA1 and not nsec3.flags & ~Nsec3.OPT_OUT and len(nsec3.next) == _HASH_LENGTH


def _opt_out(cover: Nsec3, zone: Name) -> str | None:
    return f"{name_text(zone)} leaves unsigned delegations out (NSEC3 opt-out)" if cover.flags & Nsec3.OPT_OUT else None


def _costly(zone: Name) -> str:
    return f"{name_text(zone)} asks for more than {MAX_ITERATIONS} NSEC3 iterations"
