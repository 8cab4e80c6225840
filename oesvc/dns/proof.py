"""What is known of an RRset or its absence, short of trouble: RFC 4035 section 4.3's secure and insecure."""

from dataclasses import dataclass

from oesvc.dns.answer import AnswerKind
from oesvc.dns.records import parse_soa
from oesvc.dns.wire import RRset

MAX_NEGATIVE_TTL = 900
"Seconds that an absence is believed at most. Our choice; RFC 2308 section 5 would allow three hours."


@dataclass(frozen=True, slots=True)
class Signed:
    """Proven to be the zone's own word."""

    reason: str
    expires: float


@dataclass(frozen=True, slots=True)
class Unsigned:
    """Proven that nothing needs to be signed here."""

    reason: str
    expires: float


Proof = Signed | Unsigned


@dataclass(frozen=True, slots=True)
class Denied:
    """An absence."""

    kind: AnswerKind
    proof: Proof
    delegation: bool = False
    "Asked for DS: the name is an unsigned delegation."


def negative_ttl(soa: RRset | None) -> int:
    """How long an absence may be remembered: RFC 2308 section 5."""
    if soa is None:
        return MAX_NEGATIVE_TTL
    return min(soa.ttl, parse_soa(soa.rdatas[0]).minimum, MAX_NEGATIVE_TTL)
