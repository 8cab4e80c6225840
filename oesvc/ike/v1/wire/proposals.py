"""Security association payloads: proposals, their transforms, and the attributes of those (RFC 2408 3.3 to 3.6)."""

import struct
from dataclasses import dataclass
from functools import lru_cache

from oesvc.ike.v1.constants import IPSEC_DOI, MAX_ATTRIBUTES, MAX_TRANSFORMS, SIT_IDENTITY_ONLY, PayloadType
from oesvc.ike.v1.errors import MalformedError, NoProposalChosenError
from oesvc.ike.v1.wire.payloads import Payload, pack_chain, parse_chain
from oesvc.ike.v1.wire.reader import Reader

SITUATION, PROPOSAL = struct.Struct(">LL"), struct.Struct(">BBBB")
TRANSFORM, WORD = struct.Struct(">BBH"), struct.Struct(">H")
BASIC = 0x8000
"The AF bit: the value stands where the length would."
USUAL = 512
"Octets of the transforms of a proposal that are worth to be remembered: the same few come again and again."


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute; its value is either two octets (basic) or any number of them (section 3.3)."""

    type: int
    value: bytes
    basic: bool

    @classmethod
    def of(cls, type: int, number: int) -> "Attribute":
        """Basic where the number fits, as RFC 2409 appendix A demands."""
        basic = number < 1 << 16
        return cls(type, number.to_bytes(2 if basic else 4, "big"), basic)

    @property
    def number(self) -> int:
        return int.from_bytes(self.value, "big")

    def pack(self) -> bytes:
        if self.basic:
            return struct.pack(">H", self.type | BASIC) + self.value
        return struct.pack(">HH", self.type, len(self.value)) + self.value


@dataclass(frozen=True, slots=True)
class Transform:
    """One way to protect (section 3.6)."""

    number: int
    id: int
    attributes: tuple[Attribute, ...]

    @classmethod
    def parse(cls, body: bytes) -> "Transform":
        """Raises MalformedError."""
        reader = Reader(body, "a transform payload")
        number, id, reserved = reader.fields(TRANSFORM)
        if reserved:
            raise MalformedError(f"the reserved field of transform {number} is {reserved}")
        attributes: list[Attribute] = []
        while reader.left:
            if len(attributes) == MAX_ATTRIBUTES:
                raise MalformedError(f"transform {number} has more than {MAX_ATTRIBUTES} attributes")
            (kind,) = reader.fields(WORD)
            basic = bool(kind & BASIC)
            value = reader.take(2 if basic else reader.fields(WORD)[0])
            attributes.append(Attribute(kind & ~BASIC, value, basic))
        return cls(number, id, tuple(attributes))

    def pack(self) -> bytes:
        return TRANSFORM.pack(self.number, self.id, 0) + b"".join(attribute.pack() for attribute in self.attributes)


@dataclass(frozen=True, slots=True)
class Proposal:
    """One protocol with the transforms to choose one of (section 3.5)."""

    number: int
    protocol: int
    spi: bytes
    transforms: tuple[Transform, ...]

    @classmethod
    def parse(cls, body: bytes) -> "Proposal":
        reader = Reader(body, "a proposal payload")
        number, protocol, spi_length, count = reader.fields(PROPOSAL)
        spi = reader.take(spi_length)
        transforms = (_parse_usual if reader.left <= USUAL else _parse_transforms)(reader.rest())
        if len(transforms) != count:
            raise MalformedError(f"proposal {number} says {count} transforms and has {len(transforms)}")
        return cls(number, protocol, spi, transforms)

    def pack(self) -> bytes:
        head = PROPOSAL.pack(self.number, self.protocol, len(self.spi), len(self.transforms))
        return head + self.spi + pack_chain([Payload(PayloadType.TRANSFORM, transform.pack())
                                             for transform in self.transforms])


def _parse_transforms(data: bytes) -> tuple[Transform, ...]:
    return tuple(map(Transform.parse, _parse_all(PayloadType.TRANSFORM, data, "a proposal")))


_parse_usual = lru_cache(64)(_parse_transforms)


def parse_sa(body: bytes) -> tuple[Proposal, ...]:
    """The proposals of an SA payload for IPsec's DOI. Raises MalformedError, NoProposalChosenError."""
    reader = Reader(body, "an SA payload")
    doi, situation = reader.fields(SITUATION)
    if doi != IPSEC_DOI or situation != SIT_IDENTITY_ONLY:
        raise NoProposalChosenError(f"DOI {doi} with situation {situation} instead of IPsec's "
                                    f"{IPSEC_DOI} with {SIT_IDENTITY_ONLY}, identity only")
    proposals, transforms = [], 0
    for body in _parse_all(PayloadType.PROPOSAL, reader.rest(), "an SA payload"):
        proposals.append(Proposal.parse(body))
        transforms += len(proposals[-1].transforms)
        if transforms > MAX_TRANSFORMS:
            raise MalformedError(f"an SA payload with more than {MAX_TRANSFORMS} transforms")
    return tuple(proposals)


def pack_sa(proposals: tuple[Proposal, ...]) -> bytes:
    return SITUATION.pack(IPSEC_DOI, SIT_IDENTITY_ONLY) + pack_chain(
        [Payload(PayloadType.PROPOSAL, proposal.pack()) for proposal in proposals])


def _parse_all(kind: PayloadType, data: bytes, where: str) -> list[bytes]:
    """The bodies of a chain that must be of one kind and fill all of `data`."""
    payloads, used = parse_chain(kind, data)
    if used != len(data):
        raise MalformedError(f"{where} has {len(data) - used} octets too many")
    if any(payload.type != kind for payload in payloads):
        raise MalformedError(f"{where} holds something else than {kind.name.lower()}s")
    return [payload.body for payload in payloads]
