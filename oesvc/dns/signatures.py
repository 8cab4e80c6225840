"""Signatures over RRsets, delegation signers over keys: RFC 4035 sections 5.2 and 5.3.

All that ldns leaves out: who may sign what, when, and how often we try. The time is an argument.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from oesvc.dns.answer import Name
from oesvc.dns.budget import Budget
from oesvc.dns.failures import Bogus, MalformedData
from oesvc.dns.ldns_binding import ALGORITHMS, signature_is_good
from oesvc.dns.name import WILDCARD, is_below, name_text, to_wire
from oesvc.dns.records import Dnskey, Ds, RecordType, Rrsig, parse_rrsig, type_text
from oesvc.dns.wire import RRset

_RSA = (5, 7, 8, 10)
# RFC 8624 section 3.3: what a validator must know.
_DIGESTS = {1: hashlib.sha1, 2: hashlib.sha256, 4: hashlib.sha384}

# Our choice, against KeyTrap: colliding key tags are rare, and so are more than two signatures.
MAX_KEYS_PER_SIGNATURE = 4
MAX_TRIES_PER_RRSET = 8
MAX_EXPONENT = 5
"Octets, of RSA: those of dnssec-keygen's largest."
MAX_MODULUS = 512
"Octets, of RSA: RFC 3110 section 2."
MAX_DELEGATION_SIGNERS = 16
"DS records of one zone that are looked at."


@dataclass(frozen=True, slots=True)
class Verified:
    """An RRset with a good signature."""

    expires: float
    encloser: Name | None = None
    "The closest encloser, when the RRset was expanded from the wildcard below it."


def parse_signatures(rrset: RRset) -> list[Rrsig]:
    """The signatures that can be read; a malformed one is none."""
    signatures = []
    for rdata in rrset.signatures:
        try:
            signatures.append(parse_rrsig(rdata))
        except MalformedData:
            continue
    return signatures


def verify(rrset: RRset, zone: Name, keys: Sequence[Dnskey], now: float, budget: Budget,
           clock_skew: int = 0) -> Verified:
    """RFC 4035 section 5.3: find a signature by one of the zone's keys that holds, or raise Bogus."""
    return _find_good(rrset, zone, [key for key in keys if key.may_sign], now, budget, clock_skew)


def revokes_itself(rrset: RRset, zone: Name, key: Dnskey, now: float, budget: Budget, clock_skew: int = 0) -> bool:
    """Whether `key` stands among the zone's DNSKEYs as revoked and signs that itself (RFC 5011 section 2.1)."""
    revoked = key.revoked
    if revoked.rdata not in rrset.rdatas:
        return False
    try:
        _find_good(rrset, zone, [revoked], now, budget, clock_skew)
    except Bogus:
        return False
    return True


def _find_good(rrset: RRset, zone: Name, keys: Sequence[Dnskey], now: float, budget: Budget,
               clock_skew: int) -> Verified:
    what = f"the {type_text(rrset.rdtype)} records of {name_text(rrset.owner)}"
    refusal = f"{what} have no signature by {name_text(zone)}"
    tries = 0
    for signature in parse_signatures(rrset):
        if signature.signer != zone:
            continue
        problem = _objection(rrset, signature, now, clock_skew)
        if problem:
            refusal = f"{what}: {problem}"
            continue
        candidates = [key for key in keys if key.tag == signature.tag and key.algorithm == signature.algorithm
                      and _is_affordable(key)]
        refusal = f"{what}: {signature} is by none of the keys of {name_text(zone)}"
        for key in candidates[:MAX_KEYS_PER_SIGNATURE]:
            tries += 1
            if tries > MAX_TRIES_PER_RRSET:
                raise Bogus(f"{what} have too many signatures that do not verify")
            budget.spend_signature()
            if signature_is_good(rrset, signature, key):
                return _verified(rrset, signature, now, clock_skew)
            refusal = f"{what}: {signature} of {name_text(zone)} does not verify"
    raise Bogus(refusal)


def _is_affordable(key: Dnskey) -> bool:
    """RSA keys can be made that cost a hundred times as much as honest ones; RFC 3110 section 2 has their form."""
    if key.algorithm not in _RSA:
        return True
    public_key = key.rdata[4:]
    length, offset = (public_key[0], 1) if public_key[:1] != b"\0" else (int.from_bytes(public_key[1:3], "big"), 3)
    return length <= MAX_EXPONENT and len(public_key) - offset - length <= MAX_MODULUS


def delegated_keys(zone: Name, keys: Sequence[Dnskey], delegation: Sequence[Ds]) -> list[Dnskey]:
    """Those of the zone's keys that its DS records name (RFC 4035 section 5.2)."""
    named = strongest(delegation)
    return [key for key in keys if key.may_sign and any(is_delegated_to(key, zone, ds) for ds in named)]


def is_delegated_to(key: Dnskey, zone: Name, ds: Ds) -> bool:
    """Whether a DS record is the digest of this key (RFC 4034 section 5.1.4)."""
    return (ds.tag == key.tag and ds.algorithm == key.algorithm
            and ds.digest == _DIGESTS[ds.digest_type](to_wire(zone) + key.rdata).digest())


def strongest(delegation: Sequence[Ds]) -> list[Ds]:
    """Those with an algorithm and a digest known here; SHA-1 only without a better one (RFC 4509 section 3)."""
    known = [ds for ds in delegation if ds.algorithm in ALGORITHMS and ds.digest_type in _DIGESTS]
    return [ds for ds in known if ds.digest_type != 1] or known


def remaining(signature: Rrsig, now: float) -> int:
    """Seconds until a signature expires."""
    return _distance(int(now), signature.expiration)


def _objection(rrset: RRset, signature: Rrsig, now: float, clock_skew: int) -> str | None:
    """What RFC 4035 section 5.3.1 has against a signature, the cryptography aside."""
    if signature.type_covered != rrset.rdtype:
        return f"{signature} covers another type"
    if not is_below(rrset.owner, signature.signer):
        return f"its signer {name_text(signature.signer)} is not a zone above it"
    if signature.labels > len(_without_wildcard(rrset.owner)):
        return f"{signature} counts more labels than the name has"
    if signature.labels < len(signature.signer):
        return f"{signature} is of a wildcard above its own zone"
    if signature.algorithm not in ALGORITHMS:
        return f"{signature} is of an algorithm not known here"
    if _serial_later(signature.inception, int(now) + clock_skew):
        return f"{signature} is not valid before {_date(signature.inception, now)}"
    if _serial_later(int(now) - clock_skew, signature.expiration):
        return f"{signature} expired on {_date(signature.expiration, now)}"
    return None


def _verified(rrset: RRset, signature: Rrsig, now: float, clock_skew: int) -> Verified:
    ttl = min(rrset.ttl, signature.original_ttl, max(remaining(signature, now), 0))
    owner = _without_wildcard(rrset.owner)
    if signature.labels == len(owner):
        return Verified(now + ttl)
    if rrset.rdtype in (RecordType.NSEC, RecordType.NSEC3, RecordType.DNSKEY, RecordType.DS, RecordType.DNAME):
        raise Bogus(f"the {type_text(rrset.rdtype)} record of {name_text(rrset.owner)} comes from a wildcard")
    return Verified(now + ttl, encloser=owner[len(owner) - signature.labels:])


def _without_wildcard(owner: Name) -> Name:
    """RFC 4034 section 3.1.3: a wildcard's own label does not count."""
    return owner[1:] if owner[:1] == (WILDCARD,) else owner


def _distance(start: int, end: int) -> int:
    """Seconds from `start` to `end` in the serial arithmetic of RFC 1982, as RFC 4034 section 3.1.5 asks."""
    return (end - start + 0x80000000) % 0x100000000 - 0x80000000


def _serial_later(one: int, other: int) -> bool:
    return _distance(other, one) > 0


def _date(serial: int, now: float) -> str:
    moment = int(now) + _distance(int(now), serial)
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
