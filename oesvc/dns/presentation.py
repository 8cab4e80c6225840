"""Records as people write them: RDATA in zone-file form, algorithms by name, times in UTC. For reports only."""

import base64
from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address

from oesvc.dns.failures import MalformedData
from oesvc.dns.name import name_text
from oesvc.dns.records import (
    RecordType,
    parse_dnskey,
    parse_ds,
    parse_key,
    parse_nsec,
    parse_nsec3,
    parse_soa,
    parse_target,
    type_text,
)

ALGORITHMS = {1: "RSAMD5", 3: "DSA", 5: "RSASHA1", 6: "DSA-NSEC3-SHA1", 7: "RSASHA1-NSEC3-SHA1", 8: "RSASHA256",
              10: "RSASHA512", 12: "ECC-GOST", 13: "ECDSAP256SHA256", 14: "ECDSAP384SHA384", 15: "ED25519",
              16: "ED448"}
DIGESTS = {1: "SHA-1", 2: "SHA-256", 3: "GOST", 4: "SHA-384"}
"IANA's registries, as far as they can be met."

_HALF_OF_SERIALS = 1 << 31


def algorithm_text(number: int) -> str:
    return ALGORITHMS.get(number, f"algorithm {number}")


def digest_text(number: int) -> str:
    return DIGESTS.get(number, f"digest {number}")


def serial_time(serial: int, now: float) -> float:
    """The UNIX time nearest to `now` that a signature's 32 bits can mean (RFC 4034 section 3.1.5)."""
    return int(now) + (serial - int(now) + _HALF_OF_SERIALS) % (2 * _HALF_OF_SERIALS) - _HALF_OF_SERIALS


def time_text(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def types_text(types: frozenset[int]) -> str:
    """A type bitmap."""
    return " ".join(type_text(rdtype) for rdtype in sorted(types))


def rdata_text(rdtype: int, rdata: bytes) -> str:
    """Zone-file form; that of RFC 3597 for what is malformed, or of a type not known here. Never fails."""
    try:
        return _WRITERS[rdtype](rdata)
    except (KeyError, MalformedData, ValueError):
        return f"\\# {len(rdata)} {rdata.hex()}"


def _txt(rdata: bytes) -> str:
    strings, offset = [], 0
    while offset < len(rdata):
        string = rdata[offset + 1:offset + 1 + rdata[offset]]
        if len(string) < rdata[offset]:
            raise MalformedData("a character-string is cut short")
        strings.append(f'"{_escaped(string)}"')
        offset += 1 + len(string)
    return " ".join(strings)


def _escaped(string: bytes) -> str:
    return "".join(f"\\{chr(octet)}" if octet in b'"\\' else chr(octet) if 32 <= octet < 127 else f"\\{octet:03d}"
                   for octet in string)


def _ds(rdata: bytes) -> str:
    ds = parse_ds(rdata)
    return f"{ds.tag} {ds.algorithm} {ds.digest_type} {ds.digest.hex().upper()}"


def _dnskey(rdata: bytes) -> str:
    key = parse_dnskey(rdata)
    return f"{key.flags} {key.protocol} {key.algorithm} {_base64(rdata[4:])}"


def _key(rdata: bytes) -> str:
    key = parse_key(rdata)
    return f"{key.flags} {key.protocol} {key.algorithm} {_base64(key.public_key)}".rstrip()


def _nsec(rdata: bytes) -> str:
    nsec = parse_nsec(rdata)
    return f"{name_text(nsec.next)} {types_text(nsec.types)}".rstrip()


def _nsec3(rdata: bytes) -> str:
    nsec3 = parse_nsec3(rdata)
    following = base64.b32hexencode(nsec3.next).decode().rstrip("=").lower()
    return (f"{nsec3.hash_algorithm} {nsec3.flags} {nsec3.iterations} {nsec3.salt.hex() or '-'} {following} "
            f"{types_text(nsec3.types)}").rstrip()


def _soa(rdata: bytes) -> str:
    soa = parse_soa(rdata)
    return f"serial {soa.serial} minimum {soa.minimum}"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


_WRITERS: dict[int, Callable[[bytes], str]] = {
    RecordType.A: lambda rdata: str(IPv4Address(rdata)),
    RecordType.AAAA: lambda rdata: str(IPv6Address(rdata)),
    RecordType.NS: lambda rdata: name_text(parse_target(rdata)),
    RecordType.CNAME: lambda rdata: name_text(parse_target(rdata)),
    RecordType.DNAME: lambda rdata: name_text(parse_target(rdata)),
    RecordType.PTR: lambda rdata: name_text(parse_target(rdata)),
    RecordType.SOA: _soa,
    RecordType.TXT: _txt,
    RecordType.KEY: _key,
    RecordType.DS: _ds,
    RecordType.DNSKEY: _dnskey,
    RecordType.NSEC: _nsec,
    RecordType.NSEC3: _nsec3,
}
