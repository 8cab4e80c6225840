"""A chain of trust as plain values for JSON: one object a link, in the order of their proof."""

from functools import singledispatch
from typing import Any

from oesvc.dns.budget import Budget
from oesvc.dns.denial_words import describe
from oesvc.dns.examine import examine
from oesvc.dns.failures import MalformedData
from oesvc.dns.name import name_text
from oesvc.dns.presentation import algorithm_text, digest_text, rdata_text, serial_time, time_text
from oesvc.dns.records import Dnskey, Ds, RecordType, parse_dnskey, parse_ds, type_text
from oesvc.dns.trace import Anchored, Asked, Checked, Concluded, Denied, Link

Values = dict[str, Any]


def chain(links: tuple[Link, ...], now: float, clock_skew: int) -> list[Values]:
    """Every link but the questions; `now` is UNIX time."""
    budget = Budget()
    return [_checked(link, now, clock_skew, budget) if isinstance(link, Checked) else _link(link)
            for link in links if not isinstance(link, Asked)]


def questions(links: tuple[Link, ...]) -> list[Values]:
    """What was asked of the resolvers, and what came back."""
    return [{"name": name_text(link.name), "type": type_text(link.rdtype), "outcome": link.outcome}
            for link in links if isinstance(link, Asked)]


@singledispatch
def _link(link: Link) -> Values:
    raise TypeError(f"nobody reports {link}")


@_link.register
def _(link: Anchored) -> Values:
    return {"link": "anchor", "zone": name_text(link.zone), "ds": [_ds(ds) for ds in link.delegation],
            "dnskeys": [_dnskey(key) for key in link.keys]}


@_link.register
def _(link: Denied) -> Values:
    try:
        shown = describe(link)
    except MalformedData as error:
        shown = [(name_text(link.zone), str(error))]
    return {"link": "absence", "zone": name_text(link.zone), "name": name_text(link.name),
            "type": type_text(link.rdtype), "by": "NSEC3" if link.hashed else "NSEC",
            "expanded": link.expanded, "problem": link.problem or None,
            "records": [{"owner": owner, "shows": shows} for owner, shows in shown]}


@_link.register
def _(link: Concluded) -> Values:
    return {"link": "conclusion", "name": name_text(link.name), "reason": link.reason, "remembered": link.remembered}


def _checked(link: Checked, now: float, clock_skew: int, budget: Budget) -> Values:
    rrset = link.rrset
    # What was proven before, by keys that are forgotten meanwhile, cannot be examined again.
    examined = examine(link, now, clock_skew, budget)
    forgotten = link.remembered and not link.keys
    return {"link": "records", "name": name_text(rrset.owner), "type": type_text(rrset.rdtype),
            "zone": name_text(link.zone), "ttl": rrset.ttl, "remembered": link.remembered,
            "problem": link.problem or None, "records": [_record(rrset.rdtype, rdata, link) for rdata in rrset.rdatas],
            "signatures": [{
                "signer": name_text(seen.signature.signer), "tag": seen.signature.tag,
                "algorithm": algorithm_text(seen.signature.algorithm),
                "inception": time_text(serial_time(seen.signature.inception, now)),
                "expiration": time_text(serial_time(seen.signature.expiration, now)),
                "problem": None if forgotten else seen.problem or None} for seen in examined]}


def _record(rdtype: int, rdata: bytes, link: Checked) -> Values:
    try:
        if rdtype == RecordType.DNSKEY:
            key = parse_dnskey(rdata)
            return _dnskey(key) | {"trusted": key in link.keys}
        if rdtype == RecordType.DS:
            return _ds(parse_ds(rdata))
    except MalformedData:
        pass  # its octets say enough
    return {"text": rdata_text(rdtype, rdata)}


def _dnskey(key: Dnskey) -> Values:
    return {"tag": key.tag, "algorithm": algorithm_text(key.algorithm), "flags": key.flags}


def _ds(ds: Ds) -> Values:
    return {"tag": ds.tag, "algorithm": algorithm_text(ds.algorithm), "digest": digest_text(ds.digest_type)}
