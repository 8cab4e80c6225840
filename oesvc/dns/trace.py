"""What one look-up met on its way, link by link, for people who ask why. Pure values, in the order of their proof.

A look-up that nobody watches has no trace; one that is watched has a list in its budget, which `Budget.note` fills.
"""

from dataclasses import dataclass
from typing import NamedTuple

from oesvc.dns.answer import Answer, Name
from oesvc.dns.records import Dnskey, Ds
from oesvc.dns.wire import RRset


@dataclass(frozen=True, slots=True)
class Asked:
    """A question went to the resolvers, and this came back."""

    name: Name
    rdtype: int
    outcome: str
    "The response code, or why there was none."


@dataclass(frozen=True, slots=True)
class Anchored:
    """Here the chain begins."""

    zone: Name
    delegation: tuple[Ds, ...]
    keys: tuple[Dnskey, ...]


@dataclass(frozen=True, slots=True)
class Checked:
    """The signatures of an RRset were checked against keys of a zone."""

    rrset: RRset
    zone: Name
    keys: tuple[Dnskey, ...]
    "Those that could have made a good signature: of a DNSKEY RRset, those that the delegation or the anchor names."
    problem: str = ""
    "Empty: a signature holds."
    remembered: bool = False
    "It was proven by an earlier look-up."


@dataclass(frozen=True, slots=True)
class Denied:
    """Records of denial, themselves checked, were taken for a proof of absence."""

    zone: Name
    name: Name
    rdtype: int
    hashed: bool
    "NSEC3 and not NSEC."
    records: tuple[tuple[Name, bytes], ...]
    "Owner and RDATA."
    problem: str = ""
    "Empty: they prove it."
    expanded: bool = False
    "The absence of a name of its own, for which a wildcard stands."


@dataclass(frozen=True, slots=True)
class Concluded:
    """Something that follows for a name: it needs no signature, or is not signed and ought to be."""

    name: Name
    reason: str
    remembered: bool = False


Link = Asked | Anchored | Checked | Denied | Concluded


class Trace(NamedTuple):
    """A look-up with all that led to its answer."""

    answer: Answer
    links: tuple[Link, ...]
    remembered: Answer | None
    "What look-ups that are not watched are told without asking anew."
