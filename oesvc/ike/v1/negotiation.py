"""What both phases' proposals share: reading attributes, choosing, and saying what did not match."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cache

from oesvc.ike.v1.constants import (
    MAX_KILOBYTES,
    MAX_NUMBER_OCTETS,
    EspAttribute,
    LifeType,
    NotifyType,
    Phase1Attribute,
    Protocol,
    name_of,
)
from oesvc.ike.v1.errors import MalformedError, NoProposalChosenError
from oesvc.ike.v1.wire.message import Message
from oesvc.ike.v1.wire.payloads import Notification
from oesvc.ike.v1.wire.proposals import Attribute, Transform
from oesvc.ipsec.sa import Lifetime

LIFE_ATTRIBUTES: dict[int, tuple[int, int]] = {
    Protocol.ISAKMP: (Phase1Attribute.LIFE_TYPE, Phase1Attribute.LIFE_DURATION),
    Protocol.ESP: (EspAttribute.LIFE_TYPE, EspAttribute.LIFE_DURATION),
}
UNLIMITED = 1 << 64
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
    unknown = sorted(numbers.keys() - _numbers_of(known))
    if unknown:
        raise MismatchError(f"attributes {unknown} are unknown")
    return Attributes(numbers, Lifetime(seconds, kilobytes if kilobytes < MAX_KILOBYTES else 0))


@cache
def _numbers_of(kinds: type[IntEnum]) -> frozenset[int]:
    return frozenset(kinds)


def lifetime_attributes(life_type: int, life_duration: int, lifetime: Lifetime) -> tuple[Attribute, ...]:
    pairs = [(LifeType.SECONDS, lifetime.seconds), (LifeType.KILOBYTES, lifetime.kilobytes)]
    return tuple(attribute for unit, amount in pairs if amount
                 for attribute in (Attribute.of(life_type, unit), Attribute.of(life_duration, amount)))


def within(ours: Lifetime, theirs: Lifetime, floor: Lifetime) -> tuple[Lifetime, bool]:
    """The lifetime that satisfies both, and whether it is shorter than theirs. Raises MismatchError below the floor.

    Whoever is to make new keys every few seconds has been made to work for somebody else.
    """
    agreed = ours.shorter(theirs)
    for name, amount, least in (("seconds", agreed.seconds, min(floor.seconds, ours.seconds)),
                                ("kilobytes", agreed.kilobytes, min(floor.kilobytes, ours.kilobytes or UNLIMITED))):
        if 0 < amount < least:
            raise MismatchError(f"a lifetime of {amount} {name}; {least} are the least")
    return agreed, agreed.seconds < theirs.seconds or 0 < agreed.kilobytes < (theirs.kilobytes or UNLIMITED)


def lifetime_notice(protocol: int, spi: bytes, lifetime: Lifetime) -> Notification:
    """Tells an initiator that we let keys end earlier than it has offered (RFC 2407 section 4.6.3.1)."""
    attributes = lifetime_attributes(*LIFE_ATTRIBUTES[protocol], lifetime)
    return Notification(protocol, NotifyType.RESPONDER_LIFETIME, spi,
                        b"".join(attribute.pack() for attribute in attributes))


def not_below(floor: Lifetime, agreed: Lifetime, ours: Lifetime) -> Lifetime:
    """What a responder lets our lifetime be, but no less than the floor: to make new keys is work for both.

    One that has its keys end before that says so by a delete.
    """
    seconds, kilobytes = (max(amount, min(least, own or least)) if amount else 0 for amount, least, own in (
        (agreed.seconds, floor.seconds, ours.seconds), (agreed.kilobytes, floor.kilobytes, ours.kilobytes)))
    return Lifetime(seconds, kilobytes)


def responder_lifetime(notices: Iterable[Notification], protocol: int, agreed: Lifetime,
                       floor: Lifetime) -> Lifetime:
    """What is agreed, or less where the responder says so, but not below the floor. Raises MalformedError."""
    for notification in notices:
        if notification.type == NotifyType.RESPONDER_LIFETIME and notification.protocol == protocol:
            said = read_lifetime(notification.data, protocol)
            agreed = not_below(floor, agreed.shorter(said), agreed)
    return agreed


def read_lifetime(data: bytes, protocol: int) -> Lifetime:
    """What a RESPONDER-LIFETIME says; what else it may say is not asked for. Raises MalformedError."""
    transform, types = Transform.parse(bytes(4) + data), LIFE_ATTRIBUTES[protocol]
    known = tuple(attribute for attribute in transform.attributes if attribute.type in types)
    try:
        return read_attributes(replace(transform, attributes=known), LifeType, *types).lifetime
    except MismatchError as error:
        raise MalformedError(f"a responder's lifetime: {error}") from None


def read_notices(message: Message) -> tuple[Notification, ...]:
    """The notifications of an authentic message, all of which can be acted on. Raises MalformedError."""
    notices = message.notifications()
    for notice in notices:
        if notice.type == NotifyType.RESPONDER_LIFETIME and notice.protocol in LIFE_ATTRIBUTES:
            read_lifetime(notice.data, notice.protocol)
    return notices


def differences(parts: Iterable[tuple[str, object, Iterable[object]]]) -> str:
    """What is offered and what would match, part by part, of those that do not."""
    return " and ".join(f"{what} {part} instead of {' or '.join(sorted(map(str, acceptable)))}"
                        for what, part, acceptable in parts if part not in acceptable)


def refusal(mismatches: Iterable[str], acceptable: str) -> NoProposalChosenError:
    """The error that says, transform by transform, what was offered and why it did not match."""
    said = list(mismatches)
    more = [f"and {len(said) - MAX_SAID} more"] if len(said) > MAX_SAID else []
    return NoProposalChosenError("no proposal is acceptable: " + "; ".join(said[:MAX_SAID] + more)
                                 + f"; acceptable would be {acceptable}")
