"""Cold chains with one message spoiled: never a forged answer believed, never a downgrade, never an exception."""

import os
import random
import struct
import time
from collections import Counter
from dataclasses import astuple

import pytest

from oesvc.dns.anchors import read_anchors
from oesvc.dns.answer import Answer, SecurityStatus
from oesvc.dns.budget import Budget, Limits
from oesvc.dns.name import parse_name
from tests.dns.raw import Player, Recorder, judge

SECURE, INSECURE, BOGUS, INDETERMINATE = SecurityStatus
CHAINS = int(os.environ.get("OEGW_CHAINS", "4000"))
"`make check-dns` tries 20,000."
ENOUGH = Limits(queries=20, signatures=24, depth=6, hashes=1000, octets=8192)
"Far below the budgets of a look-up: of 20,000 chains the dearest cost 19, 21, 5, 453 and 5208."
NAMES = ("1.2.192.in-addr.arpa.", "9.2.192.in-addr.arpa.", "77.2.192.in-addr.arpa.", "x.wild.2.192.in-addr.arpa.",
         "1.1.192.in-addr.arpa.", "77.3.192.in-addr.arpa.", "3.3.192.in-addr.arpa.", "y.x.wild.3.192.in-addr.arpa.",
         "5.0.20.in-addr.arpa.", "8.0.20.in-addr.arpa.", "1.x.0.20.in-addr.arpa.",
         "1.1.40.in-addr.arpa.", "77.40.in-addr.arpa.", "77.4.192.in-addr.arpa.", "1.30.in-addr.arpa.",
         "1.4.30.in-addr.arpa.", "77.9.30.in-addr.arpa.",
         "1.1.50.in-addr.arpa.", "1.2.50.in-addr.arpa.", "77.4.50.in-addr.arpa.", "77.5.50.in-addr.arpa.",
         "x.n.7.50.in-addr.arpa.", "77.d.7.50.in-addr.arpa.", "u.7.50.in-addr.arpa.", "9.0.20.in-addr.arpa.",
         "x.wild.4.192.in-addr.arpa.", f"1{'.0' * 23}.8.b.d.0.f.f.f.3.ip6.arpa.")


@pytest.fixture(scope="module")
def recorded(servers):
    """A judge, and for each name the true verdict and all messages that led to it."""
    anchors, now = read_anchors([servers.anchor]), time.time()
    cases = []
    for name in NAMES:
        recorder = Recorder(servers.authority)  # fresh from there: no TTL has begun to run down
        cases.append((name, judge(recorder.fetch, anchors, parse_name(name), now), recorder.tape))
    return lambda player, name, budget: judge(player.fetch, anchors, parse_name(name), now, budget=budget), cases


def test_the_recorded_chains_are_of_every_kind(recorded):
    _, cases = recorded
    assert Counter(answer.status for _, answer, _ in cases) == {SECURE: 15, INSECURE: 8, BOGUS: 4}
    assert all(4 <= len(tape) <= 18 for _, _, tape in cases)


def test_one_spoiled_message_never_makes_a_forgery_believed(recorded):
    judge_again, cases = recorded
    dice = random.Random(4035)
    outcomes: Counter[tuple[SecurityStatus, SecurityStatus]] = Counter()
    spent = []
    for _ in range(CHAINS):
        name, truth, tape = dice.choice(cases)
        question = dice.choice(list(tape))
        spoiled = {**tape, question: spoil(tape[question], dice)}
        player, budget = Player(spoiled), Budget()
        answer = judge_again(player, name, budget)
        assert isinstance(answer, Answer), (name, question, answer)
        assert not answer.reason.startswith("given up"), (name, question, answer)
        assert (player.asked, player.octets) == (budget.spent.queries, budget.spent.octets)
        spent.append(astuple(budget.spent))
        outcomes[truth.status, answer.status] += 1
        if answer.status is SECURE:
            assert truth.status is SECURE, (name, question, answer)
            assert (answer.kind, answer.rdatas, answer.canonical) == (truth.kind, truth.rdatas, truth.canonical)
            assert answer.expires <= truth.expires
        if answer.status is INSECURE:
            assert truth.status is INSECURE, (name, question, answer)
    assert outcomes[SECURE, BOGUS] > CHAINS / 10 and outcomes[INSECURE, INSECURE] > CHAINS / 100
    dearest = [max(each) for each in zip(*spent, strict=True)]
    assert all(0 < most <= enough for most, enough in zip(dearest, astuple(ENOUGH), strict=True)), dearest


def spoil(data: bytes, dice: random.Random) -> bytes:
    """One octet changed, or a piece cut out, or the message cut short, or a section left out."""
    spoiled = bytearray(data)
    way = dice.randrange(6)
    if way == 0:
        return data[:dice.randrange(12, len(data))]
    if way == 1:
        return empty_a_section(data, dice.randrange(3))
    place = dice.randrange(2, len(data))
    if way == 2:
        spoiled[place] = dice.randrange(256)
    else:
        spoiled[place] ^= 1 << dice.randrange(8)
    return bytes(spoiled)


def empty_a_section(data: bytes, section: int) -> bytes:
    """Cut a section's records out, by a walk of its own over the message."""
    counts = list(struct.unpack_from("!3H", data, 6))
    offset = skip_name(data, 12) + 4
    bounds = [offset]
    for count in counts:
        for _ in range(count):
            offset = skip_name(data, offset)
            offset += 10 + int.from_bytes(data[offset + 8:offset + 10], "big")
        bounds.append(offset)
    counts[section] = 0
    # Names in what follows would point to the wrong place: only the sections before keep theirs.
    kept = data[12:bounds[section]]
    for later in range(section + 1, 3):
        if not any(counts[section:later]) and bounds[section] == bounds[later]:
            kept += data[bounds[later]:bounds[later + 1]]
        else:
            counts[later] = 0
    return data[:6] + struct.pack("!3H", *counts) + kept


def skip_name(data: bytes, offset: int) -> int:
    while data[offset]:
        if data[offset] >= 0xC0:
            return offset + 2
        offset += 1 + data[offset]
    return offset + 1
