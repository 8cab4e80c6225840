"""Trust points on disk: a text for people, one key a line, always whole (RFC 5011 section 2.3 wants them kept)."""

import base64
import binascii
import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from oesvc.dns.anchors import AnchorError
from oesvc.dns.answer import Name
from oesvc.dns.name import name_text, parse_name
from oesvc.dns.records import make_dnskey
from oesvc.dns.rollover import KeyState, KnownKey, TrustPoint

_HEAD = """\
; Trust anchors, which oegw keeps as RFC 5011 says: a new key is trusted after 30 days, a revoked one never again.
; zone ZONE validated TIME
; key ZONE STATE since TIME until TIME DNSKEY FLAGS PROTOCOL ALGORITHM KEY
;     pending: not trusted before the second time. valid, missing: trusted. revoked: never trusted again.
"""
_NEVER = "-"


def read_points(file: Path) -> dict[Name, TrustPoint]:
    """What was kept; nothing where there is no file. Raises AnchorError."""
    try:
        return parse_points(file.read_text("ascii"), str(file))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise AnchorError(f"{file}: {error}; remove it to begin anew from the configured trust anchors") from None


def write_points(file: Path, points: Iterable[TrustPoint]) -> None:
    """Replace the file: whenever the machine stops, the old or the new one is there. Raises OSError."""
    file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    beside = file.with_name(file.name + ".new")
    with beside.open("w", encoding="ascii") as new:
        new.write(format_points(points))
        new.flush()
        os.fsync(new.fileno())
    beside.replace(file)
    directory = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def format_points(points: Iterable[TrustPoint]) -> str:
    lines = []
    for point in points:
        lines.append(f"zone {name_text(point.zone)} validated {_time_text(point.refreshed)}")
        lines += (_key_line(point.zone, one) for one in point.keys)
    # A file that was cut short, by whatever hand, must not pass for one with fewer revoked keys.
    return "\n".join([_HEAD, *lines, f"end {len(lines)}", ""])


def parse_points(text: str, source: str) -> dict[Name, TrustPoint]:
    """Raises AnchorError with `source` and line."""
    lines = [(number, line.partition(";")[0].split()) for number, line in enumerate(text.splitlines(), 1)]
    lines = [(number, words) for number, words in lines if words]
    if not lines or lines[-1][1] != ["end", str(len(lines) - 1)]:
        raise AnchorError(f"{source}: its end is missing; remove it to begin anew from the configured trust anchors")
    points: dict[Name, TrustPoint] = {}
    for number, words in lines[:-1]:
        try:
            _read_line(words, points)
        except (ValueError, KeyError, binascii.Error) as error:
            raise AnchorError(f"{source}:{number}: {error}; "
                              "remove the file to begin anew from the configured trust anchors") from None
    return points


def _key_line(zone: Name, one: KnownKey) -> str:
    public_key = base64.b64encode(one.key.rdata[4:]).decode()
    return (f"key {name_text(zone)} {one.state.value} since {_time_text(one.since)} until "
            f"{_time_text(one.trusted_from)} DNSKEY {one.key.flags} {one.key.protocol} {one.key.algorithm} "
            f"{public_key} ; tag {one.key.tag}")


def _read_line(words: Sequence[str], points: dict[Name, TrustPoint]) -> None:
    if words[0] == "zone" and len(words) == 4:
        zone = parse_name(words[1])
        points[zone] = TrustPoint(zone, refreshed=_time(words[3]))
    elif words[0] == "key" and len(words) == 12:
        point = points[parse_name(words[1])]
        flags, protocol, algorithm = (int(word) for word in words[8:11])
        if not (0 <= flags <= 0xFFFF and 0 <= protocol <= 0xFF and 0 <= algorithm <= 0xFF):
            raise ValueError("a number of the key is too large")
        key = make_dnskey(flags, protocol, algorithm, base64.b64decode(words[11], validate=True))
        one = KnownKey(key, KeyState(words[2]), _time(words[4]), _time(words[6]))
        points[point.zone] = TrustPoint(point.zone, (*point.keys, one), point.refreshed)
    else:
        raise ValueError("neither a zone nor a key")


def _time_text(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if moment else _NEVER


def _time(text: str) -> int:
    return 0 if text == _NEVER else int(datetime.fromisoformat(text).timestamp())
