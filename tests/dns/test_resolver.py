"""The resolver as the daemon has it: modes, caches by its clock, merging, patience, orderly ends."""

import socket
import time
from ipaddress import ip_address

import pytest
from twisted.internet import reactor
from twisted.internet.defer import gatherResults

from oesvc.dns.anchors import TrustAnchor, read_anchors
from oesvc.dns.answer import AnswerKind, SecurityStatus
from oesvc.dns.crowd import CrowdLimits
from oesvc.dns.name import parse_name
from oesvc.dns.records import RecordType, parse_key, parse_txt
from oesvc.dns.resolver import APEXES, DnsConfig, Mode, ValidatingResolver
from oesvc.dns.servers import Problem
from tests.dns.conftest import await_result
from tests.dns.tree import LONG, OE

SECURE, INSECURE, BOGUS, INDETERMINATE = SecurityStatus
TXT, KEY = RecordType.TXT, RecordType.KEY


@pytest.fixture
def make(servers):
    """Makes resolvers; the clock can be moved, the diary tells what was asked and judged."""
    made = []

    class Made:
        def __init__(self, endpoint=None, **values):
            config = {"servers": (endpoint or servers.plain,), "anchors": read_anchors([servers.anchor]), **values}
            self.now, self.diary = time.time(), []
            self.resolver = ValidatingResolver(DnsConfig(**config), reactor, clock=lambda: self.now,
                                               observer=lambda *event: self.diary.append(event))
            made.append(self.resolver)

        def look_up(self, name, rdtype=TXT):
            return await_result(self.resolver.look_up(parse_name(name), rdtype))

        def queries(self):
            """What was asked since the last call."""
            asked = [(name, rdtype) for name, rdtype, what in self.diary if what.startswith("query")]
            self.diary.clear()
            return asked

    yield Made
    for resolver in made:
        await_result(resolver.close())


@pytest.fixture
def silent():
    """A server that takes every query and answers none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()


def test_the_delegation_record_of_an_address(make, servers):
    resolver = make(servers.authority)
    answer = resolver.look_up("66.0.2.192.in-addr.arpa")
    assert (answer.kind, answer.status) == (AnswerKind.DATA, SECURE)
    assert [parse_txt(rdata).decode() for rdata in answer.rdatas] == [OE]
    assert answer.canonical == answer.name
    assert answer.expires == resolver.now + 3600
    assert answer.reason == "signed by 2.192.in-addr.arpa. under the trust anchor of ."


@pytest.mark.conformance("C-5.2.1-01")
@pytest.mark.conformance("C-5.2.1-04")
def test_a_long_record_comes_whole_over_tcp(make):
    answer = make().look_up("2.2.192.in-addr.arpa")
    assert answer.status is SECURE and parse_txt(answer.rdatas[0]).decode() == LONG


@pytest.mark.conformance("C-2.3.2-04")
def test_keys_are_validated_too_and_found_behind_an_alias(make):
    resolver = make()
    own, behind = resolver.look_up("1.2.192.in-addr.arpa", KEY), resolver.look_up("5.0.20.in-addr.arpa", KEY)
    assert own.status is behind.status is SECURE
    assert parse_key(own.rdatas[0]).flags == 0x4200 and own.rdatas == behind.rdatas
    assert behind.canonical == parse_name("5.0/26.0.20.in-addr.arpa")


def test_a_cold_chain_of_four_zones_takes_eight_queries_and_a_warm_zone_one(make):
    resolver = make()
    resolver.look_up("1.2.192.in-addr.arpa")
    assert len(resolver.queries()) == 8
    resolver.look_up("3.2.192.in-addr.arpa")
    assert resolver.queries() == [(parse_name("3.2.192.in-addr.arpa"), TXT)]


def test_primed_apexes_spare_most_of_the_cold_chain(make):
    resolver = make()
    primed = await_result(resolver.resolver.prime())
    assert [(answer.name, answer.status) for answer in primed] == [(apex, SECURE) for apex in APEXES]
    resolver.queries()
    resolver.look_up("1.2.192.in-addr.arpa")
    assert len(resolver.queries()) == 3


@pytest.mark.conformance("C-3.2.7-04")
def test_an_answer_is_remembered_until_its_time_is_over(make):
    resolver = make()
    first = resolver.look_up("66.0.2.192.in-addr.arpa")
    resolver.queries()
    resolver.now = first.expires - 5
    assert resolver.look_up("66.0.2.192.in-addr.arpa") is first and not resolver.queries()
    resolver.now += 10
    assert resolver.look_up("66.0.2.192.in-addr.arpa").expires > first.expires
    assert resolver.queries()


def test_an_absence_is_remembered_as_long_as_the_soa_says(make, servers):
    resolver = make(servers.authority)
    for name, seconds in (("77.2.192.in-addr.arpa", 300), ("1.ip6.arpa", 60)):
        answer = resolver.look_up(name)
        assert answer.kind is AnswerKind.NXDOMAIN and answer.status is SECURE
        assert answer.expires == resolver.now + seconds


def test_no_answer_outlives_a_signature(make):
    resolver = make()
    resolver.now += 30 * 86400 - 1800
    answer = resolver.look_up("1.2.192.in-addr.arpa")
    assert answer.status is SECURE and answer.expires <= resolver.now + 1800
    resolver.now += 1801
    late = resolver.look_up("1.2.192.in-addr.arpa")
    assert late.status is BOGUS and "expired on" in late.reason
    skewed = make(clock_skew=3600)
    skewed.now = resolver.now
    assert skewed.look_up("1.2.192.in-addr.arpa").status is SECURE


def test_large_answers_are_not_remembered(make):
    resolver = make()
    resolver.look_up("2.2.192.in-addr.arpa")
    resolver.queries()
    resolver.look_up("2.2.192.in-addr.arpa")
    assert resolver.queries() == [(parse_name("2.2.192.in-addr.arpa"), TXT)]


@pytest.mark.conformance("C-9.1-04")
def test_failures_are_remembered_for_a_short_time(make):
    resolver = make()
    bogus = resolver.look_up("1.7.30.in-addr.arpa")
    assert bogus.status is BOGUS and bogus.expires == resolver.now + 60
    loop = resolver.look_up("loop.2.192.in-addr.arpa")
    assert loop.status is INDETERMINATE and loop.expires == resolver.now + 5
    resolver.queries()
    resolver.look_up("1.7.30.in-addr.arpa")
    assert resolver.queries() == []


def test_the_same_look_up_at_the_same_time_is_one(make):
    resolver = make()
    name = parse_name("66.0.2.192.in-addr.arpa")
    answers = await_result(gatherResults([resolver.resolver.look_up(name, TXT) for _ in range(50)]))
    assert len({id(answer) for answer in answers}) == 1 and len(resolver.queries()) == 8


@pytest.mark.conformance("C-4.2-02")
def test_a_hundred_look_ups_at_a_silent_server_time_out_together(make, silent):
    resolver = make(silent, tries=(600.0,), patience=0.3)
    answers = await_result(gatherResults([
        resolver.resolver.look_up(parse_name(f"{host}.2.192.in-addr.arpa"), TXT) for host in range(100)]))
    assert {(answer.status, answer.reason) for answer in answers} == {
        (INDETERMINATE, "no answer within 0.3 seconds")}


def test_the_diary_tells_queries_and_verdicts_in_order(make, servers):
    resolver = make()
    name = parse_name("66.0.2.192.in-addr.arpa")
    resolver.look_up("66.0.2.192.in-addr.arpa")
    server = "127.0.0.54@" + str(servers.plain[1])
    own = [what for asked, rdtype, what in resolver.diary if (asked, rdtype) == (name, TXT)]
    assert own == [f"query to {server}",
                   "secure: data, signed by 2.192.in-addr.arpa. under the trust anchor of ."]


def test_each_mode_says_how_far_it_believes(make, servers):
    expected = {Mode.VALIDATE: (SECURE, INSECURE, BOGUS), Mode.TRUST_AD: (SECURE, INSECURE, BOGUS),
                Mode.OFF: (INSECURE, INSECURE, INDETERMINATE)}
    for mode, statuses in expected.items():
        resolver = make(servers.oracle, mode=mode)
        names = ("1.2.192.in-addr.arpa", "1.1.40.in-addr.arpa", "1.7.30.in-addr.arpa")
        assert tuple(resolver.look_up(name).status for name in names) == statuses, mode
    off = make(mode=Mode.OFF).look_up("1.7.30.in-addr.arpa")
    assert (off.status, off.kind, off.reason) == (INSECURE, AnswerKind.DATA, "DNSSEC is switched off")


def test_without_an_anchor_above_nothing_can_be_said(make, servers):
    island = TrustAnchor(parse_name("2.192.in-addr.arpa"), read_anchors([servers.anchor])[0].delegation)
    answer = make(anchors=(island,)).look_up("1.3.192.in-addr.arpa")
    assert answer.status is INDETERMINATE and "no trust anchor at or above" in answer.reason


def test_an_anchored_island_below_an_unsigned_zone_is_protected(make, servers):
    ds = (servers.directory / "dsset-1.40.in-addr.arpa.").read_text()
    anchors = servers.directory / "island"
    anchors.write_text(f"{servers.tree.anchor}\n{ds}\n")
    resolver = make(anchors=read_anchors([anchors]))
    assert resolver.look_up("1.1.40.in-addr.arpa").status is SECURE
    assert resolver.look_up("77.1.40.in-addr.arpa").status is SECURE
    assert resolver.look_up("77.40.in-addr.arpa").status is INSECURE


def test_close_ends_look_ups_and_refuses_new_ones(make, silent):
    resolver = make(silent, tries=(600.0,), patience=600.0).resolver
    waiting = resolver.look_up(parse_name("1.2.192.in-addr.arpa"), TXT)
    await_result(resolver.close())
    assert await_result(waiting).status is INDETERMINATE
    assert await_result(resolver.look_up(parse_name("1.2.192.in-addr.arpa"), TXT)).reason == "the resolver is closed"


@pytest.mark.parametrize("values, complaint", [
    ({"servers": ()}, "no DNS server"),
    ({"servers": (("127.0.0.1", 53),)}, "no trust anchor"),
    ({"servers": (("192.0.2.53", 53),), "mode": Mode.TRUST_AD}, "trust-ad believes whoever can answer for 192.0.2.53"),
])
def test_configurations_that_do_not_go_together_are_refused(values, complaint):
    with pytest.raises(ValueError, match=complaint):
        DnsConfig(**values)


def test_trust_ad_off_this_host_needs_the_operators_word():
    assert DnsConfig((("192.0.2.53", 53),), mode=Mode.TRUST_AD, trusted_path=True)
    assert DnsConfig((("127.0.0.1", 53), ("::1", 53)), mode=Mode.TRUST_AD)


def test_look_ups_for_one_client_are_limited_and_others_are_not(make, silent):
    resolver = make(silent, tries=(600.0,), patience=0.3, crowd=CrowdLimits(per_client=10)).resolver
    alice, bob = ip_address("192.1.0.65"), ip_address("192.1.1.65")
    waiting = [resolver.look_up(parse_name(f"{host}.2.192.in-addr.arpa"), TXT, alice) for host in range(12)]
    for refused in waiting[10:]:
        answer = await_result(refused)
        assert (answer.status, answer.kind) == (INDETERMINATE, AnswerKind.NONE)
        assert answer.reason == "10 look-ups for 192.1.0.0/24 are under way, no more are begun"
    assert not resolver.look_up(parse_name("77.2.192.in-addr.arpa"), TXT, bob).called
    await_result(gatherResults(waiting))
    assert not resolver.look_up(parse_name("13.2.192.in-addr.arpa"), TXT, alice).called, "there is room again"


def test_a_survey_tells_which_server_cannot_be_used(make, servers, silent):
    resolver = make(servers=(servers.plain, silent), tries=(0.3,)).resolver
    assert await_result(resolver.survey()) == [Problem(f"127.0.0.1@{silent[1]}", "did not answer", silent=True)]
