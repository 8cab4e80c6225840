"""What a proof of absence comes to, and which type bitmaps may serve in one: RFC 4035 section 5.4, RFC 6840."""

from dataclasses import dataclass

from oesvc.dns.answer import AnswerKind, Name
from oesvc.dns.name import ROOT
from oesvc.dns.records import RecordType


@dataclass(frozen=True, slots=True)
class Absence:
    """Proven by signed NSEC or NSEC3 records."""

    kind: AnswerKind
    "NODATA or NXDOMAIN."
    delegation: bool = False
    "The name is a zone cut: for DS, an unsigned delegation."
    unsigned: str | None = None
    "Why the proof leaves room for unsigned data (opt-out, too many iterations); it is insecure then."


def denies_type(types: frozenset[int], name: Name, rdtype: int) -> bool:
    """Whether the bitmap at `name` (or at the wildcard that stands for it) shows that there is no `rdtype`."""
    if rdtype in types or (RecordType.CNAME in types and rdtype != RecordType.CNAME):
        return False
    if rdtype == RecordType.DS:
        # The child's apex knows nothing of the DS; only the parent does (RFC 4035 section 5.2).
        return RecordType.SOA not in types or name == ROOT
    return not is_delegation(types)


def is_delegation(types: frozenset[int]) -> bool:
    """The parent's side of a zone cut: it can deny nothing of the child's but the DS (RFC 6840 section 4.1)."""
    return RecordType.NS in types and RecordType.SOA not in types


def hides_descendants(types: frozenset[int]) -> bool:
    """Names below are another zone's or are redirected: their absence proves nothing (RFC 6840 section 4.1)."""
    return is_delegation(types) or RecordType.DNAME in types
