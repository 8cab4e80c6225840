"""Trust anchors: DS or DNSKEY records as in zone files (RFC 4033 section 2), each zone's together."""

import base64
import binascii
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from oesvc.dns.answer import Name
from oesvc.dns.name import name_text, parse_name
from oesvc.dns.records import Dnskey, Ds, make_dnskey
from oesvc.dns.signatures import is_delegated_to, strongest

DEBIAN_ROOT_KEY = Path("/usr/share/dns/root.key")
"Of Debian's package dns-root-data."


class AnchorError(ValueError):
    """A file of trust anchors that cannot be used; the text names file and line and says what would be right."""


@dataclass(frozen=True, slots=True)
class TrustAnchor:
    """What is trusted of one zone without further proof."""

    zone: Name
    delegation: tuple[Ds, ...] = ()
    keys: tuple[Dnskey, ...] = ()

    def trusts(self, key: Dnskey) -> bool:
        return key.may_sign and (any(key.rdata == known.rdata for known in self.keys)
                                 or any(is_delegated_to(key, self.zone, ds) for ds in strongest(self.delegation)))


def read_anchors(paths: Iterable[Path]) -> tuple[TrustAnchor, ...]:
    """All anchors of the files."""
    records: list[tuple[Name, Ds | Dnskey]] = []
    for path in paths:
        try:
            text = path.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise AnchorError(f"{path}: {error}: install dns-root-data, or name another file of DS or DNSKEY records"
                              ) from error
        found = parse_anchors(text, str(path))
        if not found:
            raise AnchorError(f"{path}: no DS or DNSKEY record in it")
        records += found
    return group_anchors(records)


def group_anchors(records: Sequence[tuple[Name, Ds | Dnskey]]) -> tuple[TrustAnchor, ...]:
    zones: dict[Name, list[Ds | Dnskey]] = {}
    for zone, record in records:
        zones.setdefault(zone, []).append(record)
    return tuple(TrustAnchor(zone, tuple(record for record in found if isinstance(record, Ds)),
                             tuple(record for record in found if isinstance(record, Dnskey)))
                 for zone, found in zones.items())


def parse_anchors(text: str, source: str) -> list[tuple[Name, Ds | Dnskey]]:
    """One record a line, `;` begins a comment; AnchorError with `source` and line."""
    records = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition(";")[0].split()
        if words:
            try:
                records.append(_record(words))
            except ValueError as error:
                raise AnchorError(f"{source}:{number}: {error}") from error
    return records


def _record(words: Sequence[str]) -> tuple[Name, Ds | Dnskey]:
    owner, rest = words[0], list(words[1:])
    while rest and (rest[0].isdecimal() or rest[0].upper() == "IN"):
        del rest[0]
    kind, *fields = rest or [""]
    parsers: dict[str, Callable[[Sequence[str]], Ds | Dnskey]] = {"DS": _ds, "DNSKEY": _dnskey}
    parse = parsers.get(kind.upper())
    if parse is None:
        raise ValueError("not a DS or DNSKEY record; right is, for example: "
                         ". IN DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D")
    if len(fields) < 4:
        raise ValueError(f"{kind.upper()} takes three numbers and the {'digest' if parse is _ds else 'key'}")
    zone, record = parse_name(owner), parse(fields)
    if isinstance(record, Dnskey) and not record.may_sign:
        raise ValueError(f"this key of {name_text(zone)} is revoked or none of a zone, it can sign nothing")
    if isinstance(record, Ds) and not strongest([record]):
        raise ValueError(f"this DS of {name_text(zone)} is of an algorithm or digest that is not known here")
    return zone, record


def _ds(fields: Sequence[str]) -> Ds:
    tag, algorithm, digest_type = _numbers(fields, (0xFFFF, 0xFF, 0xFF))
    try:
        return Ds(tag, algorithm, digest_type, bytes.fromhex("".join(fields[3:])))
    except ValueError:
        raise ValueError("the digest of a DS is written in hexadecimal") from None


def _dnskey(fields: Sequence[str]) -> Dnskey:
    flags, protocol, algorithm = _numbers(fields, (0xFFFF, 0xFF, 0xFF))
    try:
        key = base64.b64decode("".join(fields[3:]), validate=True)
    except binascii.Error:
        raise ValueError("the key of a DNSKEY is written in base64") from None
    return make_dnskey(flags, protocol, algorithm, key)


def _numbers(fields: Sequence[str], limits: Sequence[int]) -> list[int]:
    for field, limit in zip(fields, limits, strict=False):
        if not field.isdecimal() or int(field) > limit:
            raise ValueError(f"{field} is not a number from 0 to {limit}")
    return [int(field) for field in fields[:len(limits)]]
