"""Absence proven by NSEC records: RFC 4035 section 5.4, RFC 6840 section 4. Pure.

`records` are owner and RDATA of NSEC records whose signatures by `zone` have been verified. Nothing is hashed here:
the budget is for `nsec3`, which has the same functions.
"""

from collections.abc import Iterable

from oesvc.dns.absence import Absence, denies_type, hides_descendants, is_delegation
from oesvc.dns.answer import AnswerKind, Name
from oesvc.dns.budget import Budget
from oesvc.dns.failures import Bogus
from oesvc.dns.name import WILDCARD, canonical_key, common_ancestor, is_below, name_text
from oesvc.dns.records import Nsec, parse_nsec, type_text

_Chain = list[tuple[Name, Nsec]]


def prove_absence(records: Iterable[tuple[Name, bytes]], zone: Name, name: Name, rdtype: int,
                  nxdomain: bool, _budget: Budget) -> Absence:
    """What the records prove of `name`, given the answer's code; Bogus when they do not prove it."""
    chain = _parse(records, zone)
    absence = _no_name(chain, zone, name) if nxdomain else None
    absence = absence or _no_data(chain, zone, name, rdtype)
    if absence is None:
        what = "does not exist" if nxdomain else f"has no {type_text(rdtype)} record"
        raise Bogus(f"the NSEC records of {name_text(zone)} do not prove that {name_text(name)} {what}")
    return absence


def prove_no_closer_match(records: Iterable[tuple[Name, bytes]], zone: Name, name: Name, encloser: Name,
                          _budget: Budget) -> str | None:
    """That a wildcard below `encloser` was rightly expanded to `name` (RFC 4035 section 5.3.4), or raise Bogus.

    Returns why the proof is insecure nevertheless: with NSEC never.
    """
    cover = _covering(_parse(records, zone), zone, name)
    if cover is None or len(_encloser(cover, name)) > len(encloser):
        raise Bogus(f"the NSEC records of {name_text(zone)} do not prove that a wildcard stands for {name_text(name)}")
    return None


def _parse(records: Iterable[tuple[Name, bytes]], zone: Name) -> _Chain:
    """Those that lie within the zone with both ends."""
    chain = [(owner, parse_nsec(rdata)) for owner, rdata in records]
    return [(owner, nsec) for owner, nsec in chain if is_below(owner, zone) and is_below(nsec.next, zone)]


def _no_name(chain: _Chain, zone: Name, name: Name) -> Absence | None:
    """RFC 4035 section 5.4: nothing at the name, and nothing at the wildcard that would stand for it."""
    cover = _covering(chain, zone, name)
    if cover is None:
        return None
    encloser = _encloser(cover, name)
    if encloser == name or _covering(chain, zone, (WILDCARD, *encloser)) is None:
        return None
    return Absence(AnswerKind.NXDOMAIN)


def _no_data(chain: _Chain, zone: Name, name: Name, rdtype: int) -> Absence | None:
    match = _matching(chain, name)
    if match is not None:
        if not denies_type(match.types, name, rdtype):
            return None
        return Absence(AnswerKind.NODATA, delegation=is_delegation(match.types))
    cover = _covering(chain, zone, name)
    if cover is None:
        return None
    encloser = _encloser(cover, name)
    if encloser == name:  # an empty non-terminal: nothing but names below it
        return Absence(AnswerKind.NODATA)
    wildcard = _matching(chain, (WILDCARD, *encloser))
    if wildcard is None or not denies_type(wildcard.types, name, rdtype):
        return None
    return Absence(AnswerKind.NODATA)


def _matching(chain: _Chain, name: Name) -> Nsec | None:
    return next((nsec for owner, nsec in chain if owner == name), None)


def _covering(chain: _Chain, zone: Name, name: Name) -> tuple[Name, Nsec] | None:
    """The record whose gap `name` falls into, if it may speak for that name."""
    for owner, nsec in chain:
        if _covers(owner, nsec.next, zone, name) and not (is_below(name, owner) and hides_descendants(nsec.types)):
            return owner, nsec
    return None


def _covers(owner: Name, following: Name, zone: Name, name: Name) -> bool:
    """RFC 4034 section 4.1.1: the last record of the zone leads back to its apex."""
    place = canonical_key(name)
    return (is_below(name, zone) and canonical_key(owner) < place
            and (place < canonical_key(following) or following == zone))


def _encloser(cover: tuple[Name, Nsec], name: Name) -> Name:
    """The closest name to `name` that exists, as both ends of the gap around it show."""
    owner, nsec = cover
    return max(common_ancestor(name, owner), common_ancestor(name, nsec.next), key=len)
