"""Trust anchors that follow the keys of their zone: RFC 5011. Pure; `anchor_keeper` asks, waits and keeps the file.

        new key seen         hold-down over         gone
    -------------------> PENDING -------> VALID <--------> MISSING
                            | gone          |     back        |
                            v               | revoked         | revoked
                        (forgotten)         +---> REVOKED <---+        for ever

VALID and MISSING keys are trusted. What the administrator has configured is VALID at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from oesvc.dns.anchors import TrustAnchor
from oesvc.dns.answer import Name
from oesvc.dns.budget import Budget
from oesvc.dns.records import Dnskey, make_dnskey, parse_dnskey
from oesvc.dns.signatures import is_delegated_to, parse_signatures, remaining, revokes_itself, verify
from oesvc.dns.wire import RRset

HOUR, DAY = 3600, 86400
HOLD_DOWN = 30 * DAY
"RFC 5011 section 2.4.1."


class KeyState(Enum):
    """RFC 5011 section 4.2; its Start and Removed are keys that are not known."""

    PENDING = "pending"
    VALID = "valid"
    MISSING = "missing"
    REVOKED = "revoked"


TRUSTED = (KeyState.VALID, KeyState.MISSING)


@dataclass(frozen=True, slots=True)
class KnownKey:
    """One key of a trust point. Times are UNIX times in whole seconds."""

    key: Dnskey
    "As it is without the REVOKE bit."
    state: KeyState
    since: int
    trusted_from: int = 0
    "The end of a PENDING key's hold-down."


@dataclass(frozen=True, slots=True)
class TrustPoint:
    """All that is known of the keys of one zone with a trust anchor."""

    zone: Name
    keys: tuple[KnownKey, ...] = ()
    refreshed: int = 0
    "When the zone's keys were last seen and validated; 0: never."

    def anchor(self, configured: TrustAnchor) -> TrustAnchor:
        """What is trusted now. A revoked key is not, whoever names it."""
        revoked = [known.key for known in self.keys if known.state is KeyState.REVOKED]
        own = [known.key for known in self.keys if known.state in TRUSTED]
        return TrustAnchor(
            self.zone,
            tuple(ds for ds in configured.delegation
                  if not any(is_delegated_to(key, self.zone, ds) for key in revoked)),
            tuple(dict.fromkeys(key for key in (*configured.keys, *own) if key not in revoked)))


def resume(kept: TrustPoint | None, configured: TrustAnchor) -> TrustPoint:
    """The trust point at the start of the daemon.

    Where what was kept and what is configured have no key in common, the administrator has changed the anchor, and
    only what is revoked is remembered.
    """
    kept = kept or TrustPoint(configured.zone)
    if any(configured.trusts(known.key) for known in kept.keys):
        return kept
    return TrustPoint(kept.zone, tuple(known for known in kept.keys if known.state is KeyState.REVOKED))


def note_revocations(point: TrustPoint, configured: TrustAnchor, rrset: RRset, now: int, clock_skew: int) -> TrustPoint:
    """A key that revokes itself is believed without further proof, and for ever (RFC 5011 section 2.1)."""
    known = {one.key: one for one in _with_configured(point, configured, rrset, now)}
    for key, one in known.items():
        if one.state is not KeyState.REVOKED and revokes_itself(rrset, point.zone, key, now, Budget(), clock_skew):
            known[key] = KnownKey(key, KeyState.REVOKED, now)
    revoked = tuple(one for one in known.values() if one.state is KeyState.REVOKED)
    others = tuple(one for one in point.keys if known[one.key].state is not KeyState.REVOKED)
    return replace(point, keys=(*others, *revoked))


def follow(point: TrustPoint, configured: TrustAnchor, rrset: RRset, now: int, clock_skew: int) -> TrustPoint:
    """What the zone's DNSKEY RRset changes (RFC 5011 section 4); Bogus when no trusted key signed it."""
    published = [parse_dnskey(rdata) for rdata in rrset.rdatas]
    anchor = point.anchor(configured)
    verify(rrset, point.zone, [key for key in published if anchor.trusts(key)], now, Budget(), clock_skew)
    trusted_from = now + max(HOLD_DOWN, _original_ttl(rrset))
    known = {one.key: one for one in _with_configured(point, configured, rrset, now)}
    for key in published:
        if key.may_sign and key.flags & Dnskey.SEP:
            known.setdefault(key, KnownKey(key, KeyState.PENDING, now, trusted_from))
    moved = (_moved(one, one.key in published, now) for one in known.values())
    return TrustPoint(point.zone, tuple(one for one in moved if one is not None), now)


def refresh_interval(rrset: RRset, now: int) -> int:
    """Seconds until the zone's keys are asked for again: RFC 5011 section 2.3."""
    return max(HOUR, min(15 * DAY, _original_ttl(rrset) // 2, _remaining(rrset, now) // 2))


def retry_interval(rrset: RRset | None, now: int) -> int:
    """The same where there was no answer, or none that can be believed."""
    return HOUR if rrset is None else max(HOUR, min(DAY, _original_ttl(rrset) // 10, _remaining(rrset, now) // 10))


def _with_configured(point: TrustPoint, configured: TrustAnchor, rrset: RRset, now: int) -> Sequence[KnownKey]:
    """The point's keys, and those in `rrset` (perhaps revoked there) that the administrator vouches for."""
    known = {one.key: one for one in point.keys}
    for key in map(_unrevoked, map(parse_dnskey, rrset.rdatas)):
        before = known.get(key)
        if configured.trusts(key) and (before is None or before.state is KeyState.PENDING):
            known[key] = KnownKey(key, KeyState.VALID, now)
    return tuple(known.values())


def _unrevoked(key: Dnskey) -> Dnskey:
    return make_dnskey(key.flags & ~Dnskey.REVOKE, key.protocol, key.algorithm, key.rdata[4:])


def _moved(one: KnownKey, there: bool, now: int) -> KnownKey | None:
    """RFC 5011 section 4.1's table, but for RevBit."""
    if one.state is KeyState.REVOKED:
        return one
    if one.state is KeyState.PENDING:
        if not there:
            return None
        return KnownKey(one.key, KeyState.VALID, now) if now >= one.trusted_from else one
    state = KeyState.VALID if there else KeyState.MISSING
    return one if one.state is state else KnownKey(one.key, state, now)


def _original_ttl(rrset: RRset) -> int:
    return min((signature.original_ttl for signature in parse_signatures(rrset)), default=0)


def _remaining(rrset: RRset, now: int) -> int:
    return min((remaining(signature, now) for signature in parse_signatures(rrset)), default=0)
