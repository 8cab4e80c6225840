"""Domain names: RFC 1034 section 3.1, RFC 4343 (letter case), RFC 4034 section 6.1 (canonical order)."""

import re
from functools import lru_cache

from oesvc.dns.answer import Name
from oesvc.dns.failures import MalformedData
from oesvc.ipsec.flow import Address

ROOT: Name = ()
WILDCARD = b"*"
MAX_LABEL = 63
MAX_NAME = 255
"Octets of a name on the wire, RFC 1035 section 2.3.4."

_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_/*")
_TEXT = re.compile(rb"\\([0-9]{3})|\\(.)|(\.)|([^\\.])", re.DOTALL)


def parse_name(text: str) -> Name:
    """A name from its zone-file form, with or without the final dot; ValueError says what is wrong."""
    if text == ".":
        return ROOT
    labels, label, end = [], bytearray(), 0
    for match in _TEXT.finditer(text.encode("ascii")):
        if match.start() != end:
            break
        end = match.end()
        decimal, escaped, dot, plain = match.groups()
        if dot:
            labels.append(bytes(label))
            label.clear()
        elif decimal and int(decimal) > 255:
            raise ValueError(f"{text}: \\{decimal.decode()} is not an octet")
        else:
            label += bytes([int(decimal)]) if decimal else escaped or plain
    if end != len(text):
        raise ValueError(f"{text}: a backslash at the end escapes nothing")
    if label:
        labels.append(bytes(label))
    return make_name(labels)


def make_name(labels: "list[bytes] | tuple[bytes, ...]") -> Name:
    """Labels, checked and in lower case."""
    if any(not 0 < len(label) <= MAX_LABEL for label in labels):
        raise ValueError(f"{b'.'.join(labels)!r}: a label has 1 to {MAX_LABEL} octets")
    if sum(len(label) + 1 for label in labels) + 1 > MAX_NAME:
        raise ValueError(f"{b'.'.join(labels)!r}: a name has at most {MAX_NAME} octets")
    return tuple(label.lower() for label in labels)


def name_text(name: Name) -> str:
    r"""Zone-file form with the final dot; what is not a letter, digit or one of -_/* becomes \DDD."""
    if _PLAIN.issuperset(b"".join(name)):
        return b".".join(name).decode("ascii") + "."
    return "".join("".join(chr(octet) if octet in _PLAIN else f"\\{octet:03d}" for octet in label) + "."
                   for label in name)


@lru_cache(maxsize=2048)
def reverse_name(address: Address) -> Name:
    """Where an address stands in the reverse map: in-addr.arpa (RFC 1035 section 3.5) or ip6.arpa (RFC 3596)."""
    return tuple(label.encode() for label in address.reverse_pointer.split("."))


def is_below(name: Name, ancestor: Name) -> bool:
    """Whether `name` is `ancestor` or a name under it."""
    return len(name) >= len(ancestor) and name[len(name) - len(ancestor):] == ancestor


def common_ancestor(one: Name, other: Name) -> Name:
    """The longest name that both are below."""
    shared = 0
    for a, b in zip(reversed(one), reversed(other), strict=False):
        if a != b:
            break
        shared += 1
    return one[len(one) - shared:]


def canonical_key(name: Name) -> Name:
    """Sorts names in the canonical order of RFC 4034 section 6.1."""
    return name[::-1]


def ancestors(name: Name) -> list[Name]:
    """The root first, `name` itself last."""
    return [name[i:] for i in range(len(name), -1, -1)]


def to_wire(name: Name) -> bytes:
    """Uncompressed."""
    return b"".join(bytes([len(label)]) + label for label in name) + b"\0"


def read_name(data: bytes, offset: int) -> tuple[Name, int]:
    """An uncompressed name within RDATA; returns it and the offset behind it."""
    labels: list[bytes] = []
    while offset < len(data):
        length = data[offset]
        if length > MAX_LABEL:
            raise MalformedData("a compressed name where none may be")
        label = data[offset + 1:offset + 1 + length]
        offset += 1 + len(label)
        if not length:
            return _checked(labels), offset
        if len(label) != length:
            break
        labels.append(label)
    raise MalformedData("a name is cut short")


def _checked(labels: list[bytes]) -> Name:
    try:
        return make_name(labels)
    except ValueError as error:
        raise MalformedData(str(error)) from error
