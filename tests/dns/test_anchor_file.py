"""The file of trust anchors: for people, always whole."""

import os
import signal
import sys

import pytest

from oesvc.dns import anchor_file
from oesvc.dns.anchor_file import format_points, parse_points, read_points, write_points
from oesvc.dns.anchors import AnchorError
from oesvc.dns.name import parse_name
from oesvc.dns.rollover import KeyState, KnownKey, TrustPoint
from tests.dns.signing import NOW, ZoneKey

KEYS = [ZoneKey(0x0101).dnskey for _ in KeyState]
POINTS = {
    (): TrustPoint((), tuple(KnownKey(key, state, NOW, NOW + 5 if state is KeyState.PENDING else 0)
                             for key, state in zip(KEYS, KeyState, strict=True)), NOW),
    parse_name("0/26.2.0.192.in-addr.arpa"): TrustPoint(parse_name("0/26.2.0.192.in-addr.arpa")),
}
TEXT = format_points(POINTS.values())


def test_what_is_written_is_read_again():
    assert parse_points(TEXT, "file") == POINTS
    assert "zone . validated 2027-01-15T08:00:00Z\n" in TEXT
    assert "key . pending since 2027-01-15T08:00:00Z until 2027-01-15T08:00:05Z DNSKEY 257 3 13 " in TEXT
    assert f"; tag {KEYS[0].tag}\n" in TEXT


def test_no_file_is_no_trust_point(tmp_path):
    assert read_points(tmp_path / "none") == {}


def test_a_file_cut_short_anywhere_is_never_taken_for_one_with_fewer_keys():
    for end in range(len(TEXT) - 1):
        with pytest.raises(AnchorError, match=r"^file"):
            parse_points(TEXT[:end], "file")
    assert parse_points(TEXT[:-1], "file") == POINTS


@pytest.mark.parametrize("line", [
    "key . valid", "zone ..", "key test. valid since - until - DNSKEY 257 3 13 AAAA",
    "key . known since - until - DNSKEY 257 3 13 AAAA", "key . valid since - until - DNSKEY 65536 3 13 AAAA",
    "key . valid since today until - DNSKEY 257 3 13 AAAA", "key . valid since - until - DNSKEY 257 3 13 A",
])
def test_a_spoiled_line_is_named(line):
    with pytest.raises(AnchorError, match=r"^file:2: .*remove the file to begin anew"):
        parse_points(f"zone . validated -\n{line}\nend 2\n", "file")


def test_a_kill_at_any_step_leaves_the_old_or_the_new_file(tmp_path):
    """The writing process kills itself before its first, second, third ... line, until it comes to its end."""
    file = tmp_path / "trust-anchors"
    older = {(): TrustPoint((), POINTS[()].keys[:2], NOW - 9)}
    found, steps = [], 0
    while not found or found[-1] != "finished":
        write_points(file, older.values())
        ended = _write_and_die(file, steps)
        there = read_points(file)
        assert there in (older, POINTS), f"killed before line {steps}"
        found.append("finished" if not ended else "old" if there == older else "new")
        steps += 1
    assert found.count("old") > 20 and found[-2] == "new"
    assert found == sorted(found, key=["old", "new", "finished"].index)


def _write_and_die(file, steps):
    """True when SIGKILL came first."""
    child = os.fork()
    if child == 0:
        left = [steps]

        def step(frame, event, _argument):
            if frame.f_code.co_filename != anchor_file.__file__:
                return None
            if event == "line":
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1
            return step

        sys.settrace(step)
        write_points(file, POINTS.values())
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)
