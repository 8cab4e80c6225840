"""RDATA as values: one parser a type. All names in it are uncompressed (`wire` sees to that).

Every parser raises MalformedData and nothing else.
"""

import base64
import struct
from dataclasses import dataclass
from enum import IntEnum

from oesvc.dns.answer import Name
from oesvc.dns.failures import MalformedData
from oesvc.dns.name import read_name


class RecordType(IntEnum):
    """IANA's registry, as far as it is used here."""

    A = 1
    NS = 2
    CNAME = 5
    SOA = 6
    PTR = 12
    MX = 15
    TXT = 16
    KEY = 25
    AAAA = 28
    DNAME = 39
    OPT = 41
    DS = 43
    IPSECKEY = 45
    RRSIG = 46
    NSEC = 47
    DNSKEY = 48
    NSEC3 = 50


def type_text(rdtype: int) -> str:
    return RecordType(rdtype).name if rdtype in RecordType.__members__.values() else f"TYPE{rdtype}"


def fixed_fields(layout: str, rdata: bytes, what: str) -> tuple[int, ...]:
    """The fixed part at the beginning of an RDATA."""
    if len(rdata) < struct.calcsize(layout):
        raise MalformedData(f"{what} record of {len(rdata)} octets")
    return struct.unpack_from(layout, rdata)


def parse_txt(rdata: bytes) -> bytes:
    """The character-strings joined without a separator (RFC 4322 section 5.2.1)."""
    strings, offset = [], 0
    while offset < len(rdata):
        end = offset + 1 + rdata[offset]
        if end > len(rdata):
            raise MalformedData("TXT record whose last character-string is cut short")
        strings.append(rdata[offset + 1:end])
        offset = end
    if not strings:
        raise MalformedData("TXT record without a character-string")
    return b"".join(strings)


@dataclass(frozen=True, slots=True)
class Key:
    """KEY, RFC 2535 section 3."""

    flags: int
    protocol: int
    algorithm: int
    public_key: bytes
    "Per algorithm; for RSA as RFC 3110 says."


def parse_key(rdata: bytes) -> Key:
    flags, protocol, algorithm = fixed_fields("!HBB", rdata, "KEY")
    return Key(flags, protocol, algorithm, rdata[4:])


@dataclass(frozen=True, slots=True)
class Dnskey:
    """DNSKEY, RFC 4034 section 2."""

    flags: int
    protocol: int
    algorithm: int
    rdata: bytes

    ZONE = 0x0100
    REVOKE = 0x0080
    SEP = 0x0001

    @property
    def may_sign(self) -> bool:
        """A zone key for DNSSEC that is not revoked (RFC 4034 section 2.1, RFC 5011 section 2.1)."""
        return self.protocol == 3 and self.flags & (self.ZONE | self.REVOKE) == self.ZONE

    @property
    def revoked(self) -> "Dnskey":
        """The same key as it is published when it is revoked; its tag is another."""
        return make_dnskey(self.flags | self.REVOKE, self.protocol, self.algorithm, self.rdata[4:])

    @property
    def tag(self) -> int:
        """RFC 4034 appendix B."""
        padded = self.rdata + b"\0" * (len(self.rdata) % 2)
        total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
        return (total + (total >> 16)) & 0xFFFF


def parse_dnskey(rdata: bytes) -> Dnskey:
    flags, protocol, algorithm = fixed_fields("!HBB", rdata, "DNSKEY")
    return Dnskey(flags, protocol, algorithm, rdata)


def make_dnskey(flags: int, protocol: int, algorithm: int, public_key: bytes) -> Dnskey:
    return Dnskey(flags, protocol, algorithm, struct.pack("!HBB", flags, protocol, algorithm) + public_key)


@dataclass(frozen=True, slots=True)
class Ds:
    """DS, RFC 4034 section 5."""

    tag: int
    algorithm: int
    digest_type: int
    digest: bytes


def parse_ds(rdata: bytes) -> Ds:
    tag, algorithm, digest_type = fixed_fields("!HBB", rdata, "DS")
    return Ds(tag, algorithm, digest_type, rdata[4:])


@dataclass(frozen=True, slots=True)
class Rrsig:
    """RRSIG, RFC 4034 section 3."""

    type_covered: int
    algorithm: int
    labels: int
    original_ttl: int
    expiration: int
    inception: int
    tag: int
    signer: Name
    rdata: bytes

    def __str__(self) -> str:
        return f"{type_text(self.type_covered)} signature by key {self.tag} of algorithm {self.algorithm}"


def parse_rrsig(rdata: bytes) -> Rrsig:
    covered, algorithm, labels, ttl, expiration, inception, tag = fixed_fields("!HBBIIIH", rdata, "RRSIG")
    signer, end = read_name(rdata, 18)
    if end == len(rdata):
        raise MalformedData("RRSIG record without a signature")
    return Rrsig(covered, algorithm, labels, ttl, expiration, inception, tag, signer, rdata)


@dataclass(frozen=True, slots=True)
class Nsec:
    """NSEC, RFC 4034 section 4."""

    next: Name
    types: frozenset[int]


def parse_nsec(rdata: bytes) -> Nsec:
    next_name, end = read_name(rdata, 0)
    return Nsec(next_name, _type_bitmap(rdata[end:]))


@dataclass(frozen=True, slots=True)
class Nsec3:
    """NSEC3, RFC 5155 section 3."""

    hash_algorithm: int
    flags: int
    iterations: int
    salt: bytes
    next: bytes
    "The next hashed owner, raw."
    types: frozenset[int]

    OPT_OUT = 0x01


def parse_nsec3(rdata: bytes) -> Nsec3:
    hash_algorithm, flags, iterations, salt_length = fixed_fields("!BBHB", rdata, "NSEC3")
    salt, rest = rdata[5:5 + salt_length], rdata[5 + salt_length:]
    hash_length = rest[0] if rest else 0
    next_hash = rest[1:1 + hash_length]
    if not hash_length or len(next_hash) != hash_length:
        raise MalformedData("NSEC3 record that is cut short")
    return Nsec3(hash_algorithm, flags, iterations, salt, next_hash, _type_bitmap(rest[1 + hash_length:]))


def hash_label(digest: bytes) -> bytes:
    """The owner's first label of an NSEC3 record: base32 with the extended hex alphabet (RFC 4648 section 7)."""
    return base64.b32hexencode(digest).rstrip(b"=").lower()


def parse_target(rdata: bytes) -> Name:
    """The one name that CNAME and DNAME hold."""
    target, end = read_name(rdata, 0)
    if end != len(rdata):
        raise MalformedData("octets behind the target of an alias")
    return target


@dataclass(frozen=True, slots=True)
class Soa:
    """SOA, RFC 1035 section 3.3.13; only what RFC 2308 needs."""

    serial: int
    minimum: int


def parse_soa(rdata: bytes) -> Soa:
    _primary, offset = read_name(rdata, 0)
    _mailbox, offset = read_name(rdata, offset)
    if len(rdata) != offset + 20:
        raise MalformedData("SOA record of a wrong length")
    serial, _refresh, _retry, _expire, minimum = struct.unpack_from("!5I", rdata, offset)
    return Soa(serial, minimum)


def _type_bitmap(data: bytes) -> frozenset[int]:
    """RFC 4034 section 4.1.2."""
    types: set[int] = set()
    last, offset = -1, 0
    while offset < len(data):
        window, length = data[offset], data[offset + 1] if offset + 1 < len(data) else 0
        bitmap = data[offset + 2:offset + 2 + length]
        if window <= last or not 1 <= length <= 32 or len(bitmap) != length:
            raise MalformedData("a type bitmap that is not one")
        types.update(window * 256 + octet * 8 + bit for octet, bits in enumerate(bitmap) for bit in range(8)
                     if bits & 0x80 >> bit)
        last, offset = window, offset + 2 + length
    return frozenset(types)
