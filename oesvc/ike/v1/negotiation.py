"""What both phases' proposals share: reading attributes, choosing, and saying what did not match."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum

from oesvc.ike.v1.constants import MAX_KILOBYTES, MAX_NUMBER_OCTETS, LifeType, name_of
from oesvc.ike.v1.errors import NoProposalChosenError
from oesvc.ike.v1.wire.proposals import Attribute, Transform
from oesvc.ipsec.sa import Lifetime

MAX_SAID = 16
"Transforms that a refusal tells of, one by one."


class MismatchError(Exception):
    """Why one transform is not acceptable."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """The attributes of one transform by type, with its lifetime taken out of the pairs that carry it."""

    numbers: Mapping[int, int]
    lifetime: Lifetime


def read_attributes(transform: Transform, known: type[IntEnum], life_type: int, life_duration: int) -> Attributes:
    """Raises MismatchError for attributes that we do not know (RFC 2408 section 4.2) or that contradict."""
    numbers: dict[int, int] = {}
    seconds = kilobytes = 0
    unit = None
    for attribute in transform.attributes:
        kind, number = attribute.type, attribute.number
        if len(attribute.value) > MAX_NUMBER_OCTETS:
            raise MismatchError(f"attribute {name_of(known, kind)} has {len(attribute.value)} octets")
        if kind == life_type:
            unit = number
        elif kind == life_duration:
            seconds = number if unit == LifeType.SECONDS else seconds
            kilobytes = number if unit == LifeType.KILOBYTES else kilobytes
        elif numbers.setdefault(kind, number) != number:
            raise MismatchError(f"attribute {name_of(known, kind)} stands there twice")
    unknown = sorted(kind for kind in numbers if kind not in set(known))
    if unknown:
        raise MismatchError(f"attributes {unknown} are unknown")
    return Attributes(numbers, Lifetime(seconds, kilobytes if kilobytes < MAX_KILOBYTES else 0))


def lifetime_attributes(life_type: int, life_duration: int, lifetime: Lifetime) -> tuple[Attribute, ...]:
    pairs = [(LifeType.SECONDS, lifetime.seconds), (LifeType.KILOBYTES, lifetime.kilobytes)]
    return tuple(attribute for unit, amount in pairs if amount
                 for attribute in (Attribute.of(life_type, unit), Attribute.of(life_duration, amount)))


def shorter(ours: Lifetime, theirs: Lifetime) -> Lifetime:
    """The lifetime that satisfies both; what is 0 is not limited, and seconds of ours always are."""
    return Lifetime(min(ours.seconds, theirs.seconds or ours.seconds),
                    min(filter(None, (ours.kilobytes, theirs.kilobytes)), default=0))


def refusal(mismatches: Iterable[str], acceptable: str) -> NoProposalChosenError:
    """The error that says, transform by transform, what was offered and why it did not match."""
    said = list(mismatches)
    more = [f"and {len(said) - MAX_SAID} more"] if len(said) > MAX_SAID else []
    return NoProposalChosenError("no proposal is acceptable: " + "; ".join(said[:MAX_SAID] + more)
                                 + f"; acceptable would be {acceptable}")
