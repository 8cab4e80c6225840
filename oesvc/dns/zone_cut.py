"""Where zones begin, and whether signed: delegations as RFC 4035 section 5.2 sees them. Pure values."""

from dataclasses import dataclass
from enum import Enum

from oesvc.dns.answer import AnswerKind, Name
from oesvc.dns.name import name_text
from oesvc.dns.proof import Denied, Proof, Unsigned
from oesvc.dns.records import Dnskey, Ds, RecordType, parse_ds
from oesvc.dns.signatures import MAX_DELEGATION_SIGNERS, strongest
from oesvc.dns.wire import RRset

MAX_SHOWN = 4096
"Octets of an RRset that are remembered for people; those of a hostile zone could be sixteen times as large."


def kept_to_show(rrset: RRset) -> RRset | None:
    """The RRset with its signatures, if it is not too large to be remembered."""
    return rrset if sum(map(len, rrset.rdatas + rrset.signatures)) <= MAX_SHOWN else None


@dataclass(frozen=True, slots=True)
class ZoneKeys:
    """A zone whose keys are believed."""

    zone: Name
    keys: tuple[Dnskey, ...]
    expires: float
    shown: RRset | None = None
    "The DNSKEY records and their signatures, for people."


class CutKind(Enum):
    SIGNED = "a signed delegation"
    UNSIGNED = "an unsigned delegation"
    OPEN = "nothing that is signed"
    NONE = "no delegation for it"
    NO_NAME = "no such name"


@dataclass(frozen=True, slots=True)
class Cut:
    """What the parent's side says of a name, all of it proven."""

    kind: CutKind
    proof: Proof
    delegation: tuple[Ds, ...] = ()
    shown: RRset | None = None
    "The DS records and their signatures, for people."


def cut_shown(rrset: RRset, proof: Proof) -> Cut:
    """By the DS records, or the alias, that the parent has at a name."""
    if isinstance(proof, Unsigned):
        return Cut(CutKind.OPEN, proof)
    if rrset.rdtype == RecordType.CNAME:
        return Cut(CutKind.NONE, proof)
    delegation = tuple(strongest([parse_ds(rdata) for rdata in rrset.rdatas])[:MAX_DELEGATION_SIGNERS])
    if not delegation:
        reason = f"{name_text(rrset.owner)} is signed only with algorithms that are not known here"
        return Cut(CutKind.UNSIGNED, Unsigned(reason, proof.expires))
    return Cut(CutKind.SIGNED, proof, delegation, kept_to_show(rrset))


def cut_denied(name: Name, denied: Denied) -> Cut:
    """By the absence of DS records at a name."""
    if isinstance(denied.proof, Unsigned):
        return Cut(CutKind.OPEN, denied.proof)
    if denied.delegation:
        reason = f"{name_text(name)} is delegated without a DS record, as its parent proves"
        return Cut(CutKind.UNSIGNED, Unsigned(reason, denied.proof.expires))
    if denied.kind is AnswerKind.NXDOMAIN:
        return Cut(CutKind.NO_NAME, denied.proof)
    return Cut(CutKind.NONE, denied.proof)
