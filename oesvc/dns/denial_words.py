"""What each record of a denial of existence shows of a name, in words: RFC 4035 section 5.4, RFC 5155 section 8.

For reports: whether the records prove an absence is decided by `nsec` and `nsec3`, on their own.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from oesvc.dns.absence import is_delegation
from oesvc.dns.answer import Name
from oesvc.dns.name import WILDCARD, canonical_key, common_ancestor, name_text, to_wire
from oesvc.dns.nsec3 import MAX_ITERATIONS
from oesvc.dns.presentation import types_text
from oesvc.dns.records import Nsec, Nsec3, hash_label, parse_nsec, parse_nsec3
from oesvc.dns.trace import Denied

MAX_SHOWN = 16
"Records that are described: an honest proof has three, and hashing for hundreds would hold up the daemon."


class _Record(Protocol):
    """NSEC or NSEC3, as far as they say the same."""

    @property
    def owner(self) -> Name: ...

    @property
    def types(self) -> frozenset[int]: ...

    def matches(self, name: Name) -> bool: ...

    def covers(self, name: Name) -> bool: ...

    def encloser(self, name: Name) -> Name | None:
        """The closest name to `name` that this record shows to exist."""


@dataclass(frozen=True)
class _Plain:
    owner: Name
    nsec: Nsec
    zone: Name

    @property
    def types(self) -> frozenset[int]:
        return self.nsec.types

    def matches(self, name: Name) -> bool:
        return self.owner == name

    def covers(self, name: Name) -> bool:
        place = canonical_key(name)
        return canonical_key(self.owner) < place and (self.nsec.next == self.zone
                                                      or place < canonical_key(self.nsec.next))

    def encloser(self, name: Name) -> Name | None:
        if not self.covers(name):
            return None
        return max(common_ancestor(name, self.owner), common_ancestor(name, self.nsec.next), key=len)


@dataclass(frozen=True)
class _Hashed:
    owner: Name
    nsec3: Nsec3
    zone: Name

    @property
    def types(self) -> frozenset[int]:
        return self.nsec3.types

    def matches(self, name: Name) -> bool:
        return self.owner[:1] == (self._hash(name),)

    def covers(self, name: Name) -> bool:
        owner, following, place = self.owner[0], hash_label(self.nsec3.next), self._hash(name)
        return owner < place < following or (following <= owner and (place > owner or place < following))

    def encloser(self, name: Name) -> Name | None:
        within = len(name) - len(self.zone) + 1
        return next((name[depth:] for depth in range(1, within) if self.matches(name[depth:])), None)

    def _hash(self, name: Name) -> bytes:
        digest = to_wire(name)
        for _ in range(self.nsec3.iterations + 1):
            digest = hashlib.sha1(digest + self.nsec3.salt, usedforsecurity=False).digest()
        return hash_label(digest)


def describe(denied: Denied) -> list[tuple[str, str]]:
    """Each record's owner and what it shows."""
    records: list[_Record] = []
    for owner, rdata in denied.records[:MAX_SHOWN]:
        if not denied.hashed:
            records.append(_Plain(owner, parse_nsec(rdata), denied.zone))
            continue
        nsec3 = parse_nsec3(rdata)
        if nsec3.iterations > MAX_ITERATIONS:
            return [(name_text(owner), f"asks for {nsec3.iterations} iterations; up to {MAX_ITERATIONS} are looked at")]
        records.append(_Hashed(owner, nsec3, denied.zone))
    name = denied.name
    exists = any(record.matches(name) for record in records)
    encloser = None if exists else max((found for record in records if (found := record.encloser(name)) is not None),
                                       key=len, default=None)
    return [(name_text(record.owner), "; ".join(_shown(record, name, encloser)) or "shows nothing of this name")
            for record in records]


def _shown(record: _Record, name: Name, encloser: Name | None) -> Sequence[str]:
    if record.matches(name):
        cut = ", so it is delegated" if is_delegation(record.types) else ""
        return [f"{name_text(name)} exists with {types_text(record.types) or 'no type'} only{cut}"]
    if encloser is None:
        return []
    if encloser == name:
        return [f"{name_text(name)} has no record of its own, only names below it"] if record.covers(name) else []
    said = []
    next_closer, wildcard = name[len(name) - len(encloser) - 1:], (WILDCARD, *encloser)
    if record.matches(encloser):
        said.append(f"{name_text(encloser)} exists")
    if record.covers(next_closer):
        opt_out = isinstance(record, _Hashed) and record.nsec3.flags & Nsec3.OPT_OUT
        said.append(f"{name_text(next_closer)} does not exist"
                    + (", or is an unsigned delegation left out (opt-out)" if opt_out else ""))
    if record.matches(wildcard):
        said.append(f"the wildcard {name_text(wildcard)} exists with {types_text(record.types)} only")
    elif record.covers(wildcard):
        said.append(f"there is no wildcard {name_text(wildcard)}")
    return said


