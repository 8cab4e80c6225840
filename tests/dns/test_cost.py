"""What a look-up costs in queries and round trips: numbers that no machine's speed changes."""

import time

import pytest
from twisted.internet.defer import Deferred

from oesvc.dns.anchors import read_anchors
from oesvc.dns.answer import SecurityStatus
from oesvc.dns.chain import Chain
from oesvc.dns.name import parse_name
from oesvc.dns.records import RecordType
from oesvc.dns.resolver import APEXES
from oesvc.dns.validator import Validator
from tests.dns.raw import Recorder

SECURE, INSECURE, BOGUS, INDETERMINATE = SecurityStatus


class Rounds:
    """A validator whose questions are answered in rounds: all that wait at the same time."""

    def __init__(self, servers):
        now = time.time()
        self.recorder = Recorder(servers.plain)
        self.waiting = {}
        self.validator = Validator(Chain(self.fetch, read_anchors([servers.anchor]), lambda: now, 0), lambda: now)

    def fetch(self, name, rdtype):
        self.waiting.setdefault((name, rdtype), []).append(answer := Deferred())
        return answer

    def look_up(self, name, rdtype=RecordType.TXT):
        """Status, queries, round trips. The same question at the same time is one query, as the fetcher has it."""
        answers, queries, rounds = [], 0, 0
        self.validator.validate(parse_name(name), rdtype).addCallback(answers.append)
        while not answers:
            due, self.waiting = self.waiting, {}
            queries, rounds = queries + len(due), rounds + 1
            for question, asked in due.items():
                for one in asked:
                    self.recorder.fetch(*question).chainDeferred(one)
        return answers[0].status, queries, rounds


@pytest.mark.parametrize("name, status, queries, rounds", [
    ("1.2.192.in-addr.arpa", SECURE, 8, 5),
    ("77.2.192.in-addr.arpa", SECURE, 8, 5),
    ("77.3.192.in-addr.arpa", SECURE, 8, 5),
    ("x.wild.2.192.in-addr.arpa", SECURE, 8, 5),
    (f"1{'.0' * 23}.8.b.d.0.f.f.f.3.ip6.arpa", SECURE, 8, 5),
    ("5.0.20.in-addr.arpa", SECURE, 10, 6),
    ("1.40.in-addr.arpa", INSECURE, 9, 6),
    ("1.8.30.in-addr.arpa", BOGUS, 11, 10),
], ids=["data", "absence", "absence by NSEC3", "wildcard", "IPv6", "RFC 2317", "unsigned", "stripped"])
def test_a_cold_look_up_of_four_levels(servers, name, status, queries, rounds):
    found = Rounds(servers).look_up(name)
    assert found[0] is status and found[1] <= queries and found[2] <= rounds, found


def test_a_warm_zone_takes_one_query_and_a_new_one_below_what_is_primed_three_in_two_rounds(servers):
    resolver = Rounds(servers)
    for apex in APEXES:
        resolver.look_up(".".join(label.decode() for label in apex) or ".", RecordType.DNSKEY)
    assert resolver.look_up("1.2.192.in-addr.arpa") == (SECURE, 3, 2)
    for host in ("3", "77", "x.wild", "alias"):
        assert resolver.look_up(f"{host}.2.192.in-addr.arpa") == (SECURE, 1, 1), host
    assert resolver.look_up("1.2.192.in-addr.arpa", RecordType.KEY) == (SECURE, 1, 1)
