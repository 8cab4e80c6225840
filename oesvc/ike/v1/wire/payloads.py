"""The chain of payloads of a message, and the insides of the small ones: RFC 2408 sections 3.2 to 3.15."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from oesvc.ike.v1.constants import IPSEC_DOI, MAX_PAYLOADS, NotifyType, PayloadType, Protocol, name_of
from oesvc.ike.v1.errors import MalformedError
from oesvc.ike.v1.wire.reader import Reader

GENERIC_HEADER = struct.Struct(">BBH")
HEADER_OCTETS = GENERIC_HEADER.size
IDENTIFICATION = struct.Struct(">BBH")
NOTIFICATION = DELETION = struct.Struct(">LBBH")


@dataclass(frozen=True, slots=True)
class Payload:
    """A payload's type and all that follows its generic header (section 3.2)."""

    type: int
    body: bytes


def parse_chain(first: int, data: bytes) -> tuple[tuple[Payload, ...], int]:
    """The payloads in `data`, and how many octets they take; what follows is padding. Raises MalformedError."""
    payloads: list[Payload] = []
    position, kind = 0, first
    while kind:
        if len(payloads) == MAX_PAYLOADS:
            raise MalformedError(f"more than {MAX_PAYLOADS} payloads")
        _check_end(data, position + HEADER_OCTETS)
        following, reserved, length = GENERIC_HEADER.unpack_from(data, position)
        begins, position = position + HEADER_OCTETS, position + length
        if reserved:
            raise MalformedError(f"the reserved octet of payload {name_of(PayloadType, kind)} is {reserved}")
        if position < begins:
            raise MalformedError(f"payload {name_of(PayloadType, kind)} of {length} octets is shorter than its header")
        _check_end(data, position)
        payloads.append(Payload(kind, data[begins:position]))
        kind = following
    return tuple(payloads), position


def _check_end(data: bytes, end: int) -> None:
    if end > len(data):
        raise MalformedError(f"the chain of payloads ends after {len(data)} octets, {end - len(data)} too early")


def pack_chain(payloads: Sequence[Payload]) -> bytes:
    chain, following = b"", int(PayloadType.NONE)
    for payload in reversed(payloads):
        chain = GENERIC_HEADER.pack(following, 0, HEADER_OCTETS + len(payload.body)) + payload.body + chain
        following = payload.type
    return chain


@dataclass(frozen=True, slots=True)
class Identification:
    """Section 3.8, with the protocol and port of RFC 2407 section 4.6.2."""

    type: int
    protocol: int
    port: int
    data: bytes

    @classmethod
    def parse(cls, body: bytes) -> "Identification":
        reader = Reader(body, "an identification payload")
        type, protocol, port = reader.fields(IDENTIFICATION)
        return cls(type, protocol, port, reader.rest())

    def pack(self) -> bytes:
        return IDENTIFICATION.pack(self.type, self.protocol, self.port) + self.data


@dataclass(frozen=True, slots=True)
class Notification:
    """Section 3.14."""

    protocol: int
    type: int
    spi: bytes = b""
    data: bytes = b""

    @classmethod
    def parse(cls, body: bytes) -> "Notification":
        reader = Reader(body, "a notification payload")
        doi, protocol, spi_length, type = reader.fields(NOTIFICATION)
        _check_doi(doi)
        return cls(protocol, type, reader.take(spi_length), reader.rest())

    def pack(self) -> bytes:
        head = NOTIFICATION.pack(IPSEC_DOI, self.protocol, len(self.spi), self.type)
        return head + self.spi + self.data

    @property
    def name(self) -> str:
        return name_of(NotifyType, self.type)


@dataclass(frozen=True, slots=True)
class Deletion:
    """Section 3.15: SPIs by which the sender receives no longer (cookies, for protocol ISAKMP)."""

    protocol: int
    spis: tuple[bytes, ...]

    @classmethod
    def parse(cls, body: bytes) -> "Deletion":
        reader = Reader(body, "a delete payload")
        doi, protocol, length, count = reader.fields(DELETION)
        _check_doi(doi)
        if length != SPI_LENGTHS.get(protocol, length) or reader.left != length * count:
            raise MalformedError(f"a delete payload with {reader.left} octets for {count} SPIs of {length}")
        return cls(protocol, tuple(reader.take(length) for _ in range(count if length else 0)))

    def pack(self) -> bytes:
        length = SPI_LENGTHS[self.protocol]
        return DELETION.pack(IPSEC_DOI, self.protocol, length, len(self.spis)) + b"".join(self.spis)


SPI_LENGTHS: dict[int, int] = {Protocol.ISAKMP: 16, Protocol.AH: 4, Protocol.ESP: 4}
"Octets of an SPI in a delete payload; ISAKMP's are both cookies."


def _check_doi(doi: int) -> None:
    if doi not in (0, IPSEC_DOI):
        raise MalformedError(f"DOI {doi} instead of {IPSEC_DOI}, IPsec's")
