"""DNS messages on the wire: RFC 1035 section 4, EDNS0 of RFC 6891. The only reader of octets from the network.

Strict: every name and record within bounds, compression pointers only backwards, a cap on records, nothing behind the
last record. Records of other classes than IN are left out. Pure.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from oesvc.dns.answer import Name
from oesvc.dns.failures import MalformedData
from oesvc.dns.name import MAX_NAME, to_wire
from oesvc.dns.records import RecordType

# From the protocol
IN = 1
MAX_MESSAGE = 65535
_HEADER = struct.Struct("!6H")
_RECORD = struct.Struct("!HHIH")
_QUESTION = struct.Struct("!HH")
_OPTION = struct.Struct("!HH")
_EDNS_DO = 0x8000
_OPT_PADDING = 12
_POINTER = 0xC0
_MAX_TTL = 0x7FFFFFFF

# Our choice
MAX_RECORDS = 256
"Of all sections together: KeyTrap and compression bombs live of many."
MAX_POINTERS = 16
"In one name; real servers need one."

# Where the names stand in RDATA of types that servers may compress (RFC 3597 section 4): octets before, names.
_COMPRESSIBLE: dict[int, tuple[int, int]] = {
    RecordType.NS: (0, 1), RecordType.CNAME: (0, 1), RecordType.SOA: (0, 2), RecordType.PTR: (0, 1),
    RecordType.MX: (2, 1), RecordType.DNAME: (0, 1)}


class Flag(IntFlag):
    """The header's second word, RFC 1035 section 4.1.1 and RFC 4035 section 3."""

    QR = 0x8000
    AA = 0x0400
    TC = 0x0200
    RD = 0x0100
    RA = 0x0080
    AD = 0x0020
    CD = 0x0010


_FLAGS = sum(Flag)
_OPCODE = 0x7800


class Rcode(IntEnum):
    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    YXDOMAIN = 6


def rcode_text(rcode: int) -> str:
    return Rcode(rcode).name if rcode in Rcode.__members__.values() else f"code {rcode}"


@dataclass(frozen=True, slots=True)
class RRset:
    """Records of one owner and type, with the signatures over them."""

    owner: Name
    rdtype: int
    ttl: int
    "The least of its records' and signatures'."
    rdatas: tuple[bytes, ...]
    "Without duplicates (RFC 4034 section 6.3), in the order in which they came."
    signatures: tuple[bytes, ...]
    "RDATA of its RRSIGs."


@dataclass(frozen=True, slots=True)
class Message:
    id: int
    flags: Flag
    rcode: int
    answer: tuple[RRset, ...]
    authority: tuple[RRset, ...]
    size: int = 0
    "Octets on the wire."

    def find(self, owner: Name, rdtype: int) -> RRset | None:
        """An RRset of the answer section."""
        return next((rrset for rrset in self.answer if (rrset.owner, rrset.rdtype) == (owner, rdtype)), None)

    def find_soa(self) -> RRset | None:
        """The SOA that comes with a negative answer."""
        return next((rrset for rrset in self.authority if rrset.rdtype == RecordType.SOA), None)


@dataclass(frozen=True, slots=True)
class _Record:
    owner: Name
    rdtype: int
    rdclass: int
    ttl: int
    rdata: bytes


def parse_message(data: bytes) -> Message:
    """Read an answer to a question of ours; MalformedData for everything that is not one whole message."""
    if not _HEADER.size <= len(data) <= MAX_MESSAGE:
        raise MalformedData(f"a message of {len(data)} octets")
    identifier, flags, questions, *counts = _HEADER.unpack_from(data)
    if questions != 1 or sum(counts) > MAX_RECORDS:
        raise MalformedData(f"a message with {questions} questions and {sum(counts)} records")
    _name, offset = _read_name(data, _HEADER.size)
    offset += _QUESTION.size
    sections: list[list[_Record]] = []
    for count in counts:
        records = []
        for _ in range(count):
            record, offset = _read_record(data, offset)
            records.append(record)
        sections.append(records)
    if offset != len(data):
        raise MalformedData(f"{len(data) - offset} octets behind the last record")
    answer, authority, additional = sections
    return Message(identifier, Flag(flags & _FLAGS), _extended_rcode(flags, additional),
                   _rrsets(answer), _rrsets(authority), len(data))


def write_query(identifier: int, name: Name, rdtype: int, flags: Flag, *, dnssec_ok: bool, payload: int | None,
                block: int = 0) -> bytes:
    """A question, its name in the case that it has here.

    `payload` is the largest UDP answer that we take; None leaves out the OPT record. `block` pads the message to a
    multiple of its octets (RFC 7830, RFC 8467 section 4.1).
    """
    query = _HEADER.pack(identifier, flags, 1, 0, 0, payload is not None) + to_wire(name) + _QUESTION.pack(rdtype, IN)
    if payload is None:
        return query
    options = b""
    if block:
        room = -(len(query) + 1 + _RECORD.size + _OPTION.size) % block
        options = _OPTION.pack(_OPT_PADDING, room) + bytes(room)
    return query + b"\0" + _RECORD.pack(RecordType.OPT, payload, _EDNS_DO if dnssec_ok else 0, len(options)) + options


def answers_query(data: bytes, query: bytes) -> bool:
    """Whether a datagram can be the answer to `query`: same id, a standard response, the question octet by octet."""
    question = _question(query)
    return _responds(data, query) and data[_HEADER.size:_HEADER.size + len(question)] == question


def answers_in_other_case(data: bytes, query: bytes) -> bool:
    """Whether it would be the answer, had its sender kept the case of the letters in the question."""
    question = _question(query)
    theirs = data[_HEADER.size:_HEADER.size + len(question)]
    return _responds(data, query) and theirs != question and theirs.lower() == question.lower()


def _responds(data: bytes, query: bytes) -> bool:
    if len(data) < _HEADER.size:
        return False
    identifier, flags, questions = struct.unpack_from("!3H", data)
    return (identifier == struct.unpack_from("!H", query)[0] and bool(flags & Flag.QR) and not flags & _OPCODE
            and questions == 1)


def _question(query: bytes) -> bytes:
    """The question section of a query of ours."""
    offset = _HEADER.size
    while query[offset]:
        offset += 1 + query[offset]
    return query[_HEADER.size:offset + 1 + _QUESTION.size]


def is_truncated(data: bytes) -> bool:
    """TC; `data` has a whole header."""
    return bool(data[2] << 8 & Flag.TC)


def basic_rcode(data: bytes) -> int:
    """Without its extension in the OPT record; `data` has a whole header."""
    return data[3] & 0xF


def _read_record(data: bytes, offset: int) -> tuple[_Record, int]:
    owner, offset = _read_name(data, offset)
    if offset + _RECORD.size > len(data):
        raise MalformedData("a record is cut short")
    rdtype, rdclass, ttl, length = _RECORD.unpack_from(data, offset)
    offset += _RECORD.size
    end = offset + length
    if end > len(data):
        raise MalformedData("a record's data is cut short")
    rdata = _uncompressed(data, offset, end, *_COMPRESSIBLE.get(rdtype, (0, 0)))
    # RFC 2181 section 8: a TTL with the highest bit set counts as zero. In OPT the field is something else.
    if ttl > _MAX_TTL and rdtype != RecordType.OPT:
        ttl = 0
    return _Record(owner, rdtype, rdclass, ttl, rdata), end


def _uncompressed(data: bytes, offset: int, end: int, before: int, names: int) -> bytes:
    parts = [data[offset:offset + before]]
    offset += before
    for _ in range(names):
        labels, offset = _read_labels(data, offset)
        parts.append(b"".join(bytes([len(label)]) + label for label in labels) + b"\0")
    if offset > end:
        raise MalformedData("a name runs out of its record")
    return b"".join([*parts, data[offset:end]])


def _read_name(data: bytes, offset: int) -> tuple[Name, int]:
    labels, offset = _read_labels(data, offset)
    return tuple(label.lower() for label in labels), offset


def _read_labels(data: bytes, offset: int) -> tuple[list[bytes], int]:
    """The labels in the case in which they came, and the offset behind the name (its first pointer)."""
    labels: list[bytes] = []
    size, pointers, end, floor = 1, 0, 0, offset
    while True:
        if offset >= len(data):
            raise MalformedData("a name is cut short")
        length = data[offset]
        if length >= _POINTER:
            if offset + 1 >= len(data):
                raise MalformedData("a compression pointer is cut short")
            target = (length & ~_POINTER) << 8 | data[offset + 1]
            pointers += 1
            if not _HEADER.size <= target < floor or pointers > MAX_POINTERS:
                raise MalformedData("a compression pointer that does not lead back")
            end, offset, floor = end or offset + 2, target, target
            continue
        if length >= 0x40:
            raise MalformedData("a label of an unknown kind")
        offset += 1
        if not length:
            return labels, end or offset
        size += length + 1
        if size > MAX_NAME or offset + length > len(data):
            raise MalformedData("a name is too long or cut short")
        labels.append(data[offset:offset + length])
        offset += length


def _rrsets(records: list[_Record]) -> tuple[RRset, ...]:
    """Group the records of one section by owner and type, each with the RRSIGs that cover it."""
    groups: dict[tuple[Name, int], list[_Record]] = {}
    signatures: dict[tuple[Name, int], list[_Record]] = {}
    for record in records:
        if record.rdclass != IN:
            continue
        if record.rdtype != RecordType.RRSIG:
            groups.setdefault((record.owner, record.rdtype), []).append(record)
        elif len(record.rdata) >= 2:
            covered = int.from_bytes(record.rdata[:2], "big")
            signatures.setdefault((record.owner, covered), []).append(record)
    return tuple(RRset(*key, ttl=min(record.ttl for record in group + signatures.get(key, [])),
                       rdatas=_distinct(group), signatures=_distinct(signatures.get(key, [])))
                 for key, group in groups.items())


def _distinct(records: list[_Record]) -> tuple[bytes, ...]:
    return tuple(dict.fromkeys(record.rdata for record in records))


def _extended_rcode(flags: int, additional: list[_Record]) -> int:
    """RFC 6891 section 6.1.3: the upper eight bits stand in the OPT record."""
    opt = next((record for record in additional if record.rdtype == RecordType.OPT), None)
    return flags & 0xF | (opt.ttl >> 24 << 4 if opt else 0)
