"""The questions that keying asks of the DNS: RFC 4322 sections 2.3, 3.2.4, 3.3."""

import dataclasses

import pytest
from twisted.internet.defer import Deferred

from oesvc.discovery import IPSECKEY, TXT, Discovery
from oesvc.discovery import KEY as KEY_TYPE
from oesvc.dns.answer import Answer, AnswerKind, SecurityStatus
from oesvc.dns.name import parse_name, reverse_name
from oesvc.ike.identity import AddressIdentity, FqdnIdentity
from oesvc.oe import events as ev
from oesvc.oe.authorization import DnssecPolicy
from tests.fakes import FakeResolver
from tests.oe.parts import ALICE, BOB, KEY, OTHER_KEY, SG_A, SG_B
from tests.oe.test_authorization import KEY_RDATA, strings


class World:
    def __init__(self):
        self.resolver = FakeResolver()
        self.discovery = Discovery(self.resolver, DnssecPolicy.PREFER, lambda: 0.5)
        self.noted = []

    def publish(self, name, rdtype, *rdatas, status=SecurityStatus.SECURE, expires=3600.0):
        self.resolver.answers[name, rdtype] = Answer(name, rdtype, AnswerKind.DATA, status, "because", rdatas,
                                                     expires=expires)

    def result(self, job):
        results = []
        Deferred.fromCoroutine(job).addCallback(results.append)
        return results[0]

    def delegations(self, host):
        return self.result(self.discovery.delegations(host, self.noted.append))

    def keys(self, identity):
        return self.result(self.discovery.keys(identity, self.noted.append))

    def authorized(self, host, identity, key, calls_from_there=False):
        return self.result(self.discovery.authorization(host, identity, key, self.noted.append,
                                                        calls_from_there=calls_from_there))


@pytest.fixture
def world():
    return World()


def asked(name):
    return [("ask", rdtype, name) for rdtype in (TXT, IPSECKEY)]


def delegation(gateway, key=None, precedence=10):
    return strings(f"X-IPsec-Server({precedence})={gateway} {key.to_base64() if key else ''}".strip())


@pytest.mark.conformance("C-2.3.2-02", "C-2.3.1-03", "C-2.3.2-01")
def test_key_in_the_record_saves_the_second_question(world):
    world.publish(reverse_name(BOB), TXT, delegation(SG_B, KEY))
    found = world.delegations(BOB)
    assert [(d.gateway, d.keys) for d in found.delegations] == [(SG_B, (KEY,))]
    assert world.resolver.diary == asked("66.0.2.192.in-addr.arpa")


@pytest.mark.conformance("C-2.3.2-03", "C-5.2-08", "C-3.2.4-05")
def test_record_without_key_sends_for_the_gateways_key(world):
    world.publish(reverse_name(BOB), TXT, delegation(SG_B))
    world.publish(reverse_name(SG_B), KEY_TYPE, KEY_RDATA, expires=100.0)
    found = world.delegations(BOB)
    assert [(d.gateway, d.keys) for d in found.delegations] == [(SG_B, (KEY,))]
    assert found.expires == 100.0
    assert world.resolver.diary[2:] == [("ask", KEY_TYPE, "5.1.1.192.in-addr.arpa")]


@pytest.mark.conformance("C-3.2.4-06", "C-2.3.2-04", "C-5.2.2-02")
@pytest.mark.parametrize("status, event", [(None, ev.LookUpFailed), (SecurityStatus.BOGUS, ev.DelegationBad)])
def test_record_without_a_key_to_be_had_is_a_dns_failure(world, status, event):
    world.publish(reverse_name(BOB), TXT, delegation(SG_B))
    if status:
        world.publish(reverse_name(SG_B), KEY_TYPE, KEY_RDATA, status=status)
    found = world.delegations(BOB)
    assert type(found) is event
    assert "its gateway's key" in found.detail


@pytest.mark.conformance("C-5.2-14")
def test_gateways_come_by_precedence_and_at_random_among_equals(world):
    world.publish(reverse_name(BOB), TXT, delegation(SG_B, KEY, 20), delegation(SG_A, KEY, 9),
                  delegation(ALICE, KEY, 20))
    orders = set()
    for number in (0.9, 0.1, 0.9, 0.2):
        draws = iter([number, 0.5, 1 - number, 0.5])
        world.discovery._random = lambda draws=draws: next(draws)
        orders.add(tuple(d.gateway for d in world.delegations(BOB).delegations))
    assert orders == {(SG_A, SG_B, ALICE), (SG_A, ALICE, SG_B)}


@pytest.mark.conformance("C-3.3.1-01", "C-3.3.1-02", "C-4.4-02", "C-11.2-05")
@pytest.mark.parametrize("identity, name", [(AddressIdentity(SG_A), "4.1.1.192.in-addr.arpa"),
                                            (FqdnIdentity("gw.example.com"), "gw.example.com")])
def test_initiators_key_is_sought_at_the_name_of_its_identity(world, identity, name):
    labels = tuple(name.encode().split(b"."))
    world.publish(labels, KEY_TYPE, KEY_RDATA)
    assert world.keys(identity).keys == (KEY,)
    assert world.resolver.diary == [("ask", KEY_TYPE, name)]


@pytest.mark.conformance("C-1.1-04")
def test_gateway_without_key_record_is_known_by_its_delegation_to_itself(world):
    world.publish(reverse_name(SG_A), TXT, delegation(SG_A, KEY), delegation(SG_B, OTHER_KEY))
    assert world.keys(AddressIdentity(SG_A)).keys == (KEY,)


def test_gateway_without_any_key_says_what_was_looked_for(world):
    found = world.keys(AddressIdentity(SG_A))
    assert found.keys == ()
    assert found.detail.startswith("KEY: ") and "TXT and IPSECKEY: " in found.detail


@pytest.mark.conformance("C-4.4-04")
@pytest.mark.parametrize("slowest", ["TXT", "IPSECKEY"])
def test_txt_and_ipseckey_are_asked_for_at_the_same_time_and_count_together(world, slowest):
    world.publish(reverse_name(BOB), TXT, delegation(SG_B, KEY, 20))
    world.publish(reverse_name(BOB), IPSECKEY, bytes([10, 1, 2]) + SG_A.packed + KEY.to_rfc3110(),
                  bytes([5, 1, 2]) + SG_B.packed + OTHER_KEY.to_rfc3110())
    world.resolver.waiting, results = [], []
    looking_up = Deferred.fromCoroutine(world.discovery.delegations(BOB, world.noted.append))
    looking_up.addCallback(results.append)
    assert [answer.rdtype for _, answer in world.resolver.waiting] == [TXT, IPSECKEY]
    for waiting, answer in world.resolver.waiting[::-1 if slowest == "TXT" else 1]:
        assert results == [], "nothing is decided before both have answered"
        waiting.callback(answer)
    assert [(d.precedence, d.gateway, d.keys) for d in results[0].delegations] == [
        (5, SG_B, (OTHER_KEY, KEY)), (10, SG_A, (KEY,))]


def test_host_that_does_ipsec_by_itself_is_keyed_with_by_ipseckey_alone(world):
    """Gateway type 0, as libreswan publishes it; unsigned too, for it speaks for its own address only."""
    world.publish(reverse_name(BOB), IPSECKEY, b"\x0a\0\2" + KEY.to_rfc3110(), status=SecurityStatus.INSECURE)
    found = world.delegations(BOB)
    assert [(d.gateway, d.keys) for d in found.delegations] == [(BOB, (KEY,))]


@pytest.mark.parametrize("identity, name, gateway", [
    (AddressIdentity(SG_A), reverse_name(SG_A), b"\0"), (AddressIdentity(SG_A), reverse_name(SG_A), b"\1"),
    (FqdnIdentity("gw.example.com"), (b"gw", b"example", b"com"), b"\0"),
    (FqdnIdentity("gw.example.com"), (b"gw", b"example", b"com"), b"\3")])
def test_gateway_without_key_record_is_known_by_its_ipseckey(world, identity, name, gateway):
    places = {b"\0": b"", b"\1": SG_A.packed, b"\3": b"\2gw\7example\3com\0"}
    world.publish(name, IPSECKEY, b"\x0a" + gateway + b"\2" + places[gateway] + KEY.to_rfc3110(),
                  b"\x0a\1\2" + SG_B.packed + OTHER_KEY.to_rfc3110())
    assert world.keys(identity).keys == (KEY,)


@pytest.mark.conformance("C-5.2.2-01")
def test_records_of_other_types_authorize_nobody(world):
    for rdtype in (36, 37, 41):  # KX, CERT, OPT
        world.publish(reverse_name(BOB), rdtype, delegation(SG_B, KEY))
    assert type(world.delegations(BOB)) is ev.DelegationAbsent


def test_txt_at_a_name_of_the_forward_map_is_no_key(world):
    world.publish((b"gw", b"example", b"com"), TXT, delegation("@gw.example.com", KEY))
    assert world.keys(FqdnIdentity("gw.example.com")).keys == ()
    assert TXT not in [rdtype for _, rdtype, _ in world.resolver.diary]


def test_forged_records_beside_an_absent_key_make_the_gateway_bad(world):
    world.publish(reverse_name(BOB), TXT, delegation(SG_B))
    world.publish(reverse_name(SG_B), IPSECKEY, b"", status=SecurityStatus.BOGUS)
    assert type(world.delegations(BOB)) is ev.DelegationBad


def test_record_without_key_lets_any_key_of_its_gateway_speak_whatever_stands_beside_it(world):
    world.publish(reverse_name(ALICE), TXT, delegation(SG_A))
    world.publish(reverse_name(ALICE), IPSECKEY, bytes([10, 1, 2]) + SG_A.packed + OTHER_KEY.to_rfc3110())
    world.publish(reverse_name(SG_A), KEY_TYPE, KEY_RDATA)
    assert world.authorized(ALICE, AddressIdentity(SG_A), KEY).authorized


@pytest.mark.conformance("C-3.3.2-07", "C-7-03")
def test_host_that_speaks_for_itself_needs_no_delegation(world):
    world.publish(reverse_name(SG_A), KEY_TYPE, KEY_RDATA)
    assert world.authorized(SG_A, AddressIdentity(SG_A), KEY).authorized
    assert world.resolver.diary == [("ask", KEY_TYPE, "4.1.1.192.in-addr.arpa")]
    assert world.noted == []


@pytest.mark.parametrize("host", [SG_A, ALICE])
def test_key_that_only_somebody_elses_record_gives_a_gateway_proves_nothing_for_other_hosts(world, host):
    """Who called a host of Mallory's has seen SG-A prove itself by what Mallory's record says is SG-A's key."""
    world.publish(reverse_name(ALICE), TXT, delegation(SG_A))
    world.publish(reverse_name(SG_A), KEY_TYPE, KEY_RDATA)
    verdict = world.authorized(host, AddressIdentity(SG_A), OTHER_KEY)
    assert not verdict.authorized and "not its own in the DNS" in verdict.detail


@pytest.mark.conformance("C-3.3.2-06", "C-3.3.3-01", "C-3.3.3-02", "C-5.2-01", "C-11.2-07", "C-4.6.2-06", "C-8-05")
@pytest.mark.parametrize("gateway, key, status, authorized", [
    (SG_A, KEY, SecurityStatus.SECURE, True), (SG_B, KEY, SecurityStatus.SECURE, False),
    (SG_A, OTHER_KEY, SecurityStatus.SECURE, False), (SG_A, None, SecurityStatus.SECURE, True),
    (SG_A, KEY, SecurityStatus.BOGUS, False), (SG_A, KEY, SecurityStatus.INSECURE, False)])
def test_gateway_may_act_for_a_host_that_names_it_and_its_key(world, gateway, key, status, authorized):
    world.publish(reverse_name(ALICE), TXT, delegation(gateway, key), status=status)
    world.publish(reverse_name(SG_A), KEY_TYPE, KEY_RDATA)
    verdict = world.authorized(ALICE, AddressIdentity(SG_A), KEY)
    assert verdict.authorized is authorized
    assert verdict.detail
    own = [] if key else [("ask", KEY_TYPE, "4.1.1.192.in-addr.arpa")]
    assert world.resolver.diary == asked("65.0.1.192.in-addr.arpa") + own


@pytest.mark.conformance("C-5.3-01", "C-5.3-05")
def test_gateway_known_by_name_may_act_for_the_host_that_names_it(world):
    world.publish(reverse_name(ALICE), TXT, delegation("@gw.example.com", KEY))
    assert world.authorized(ALICE, FqdnIdentity("gw.example.com"), KEY).authorized
    assert not world.authorized(ALICE, FqdnIdentity("other.example.com"), KEY).authorized


@pytest.mark.conformance("C-7-03", "C-5.3-06")
def test_host_known_by_name_speaks_for_the_address_that_it_calls_from_and_no_other(world):
    world.publish(parse_name("laptop.example.com"), KEY_TYPE, KEY_RDATA)
    laptop = FqdnIdentity("laptop.example.com")
    assert world.authorized(ALICE, laptop, KEY, calls_from_there=True).authorized
    assert not world.authorized(ALICE, laptop, KEY).authorized
    assert not world.authorized(ALICE, laptop, OTHER_KEY, calls_from_there=True).authorized
    assert not world.authorized(ALICE, AddressIdentity(SG_A), KEY, calls_from_there=True).authorized


def test_host_known_by_name_needs_a_delegation_where_the_administrator_says_so(world):
    world.publish(parse_name("laptop.example.com"), KEY_TYPE, KEY_RDATA)
    world.discovery = Discovery(world.resolver, DnssecPolicy.PREFER, lambda: 0.5, hosts_by_name=False)
    assert not world.authorized(ALICE, FqdnIdentity("laptop.example.com"), KEY, calls_from_there=True).authorized


@pytest.mark.parametrize("status", [SecurityStatus.SECURE, SecurityStatus.INSECURE, SecurityStatus.BOGUS])
def test_name_that_calls_from_a_host_which_delegates_to_another_gateway_is_refused(world, status):
    """Whoever sits on the path to it, or has come to its address, does not take its place."""
    world.publish(parse_name("laptop.example.com"), KEY_TYPE, KEY_RDATA)
    world.publish(reverse_name(ALICE), TXT, delegation(SG_A, OTHER_KEY), status=status)
    assert not world.authorized(ALICE, FqdnIdentity("laptop.example.com"), KEY, calls_from_there=True).authorized


def test_each_question_and_answer_is_noted(world):
    world.delegations(BOB)
    assert [str(note) for note in world.noted] == [
        "TXT 66.0.2.192.in-addr.arpa.?", "TXT 66.0.2.192.in-addr.arpa.: no such name, secure: proven",
        "IPSECKEY 66.0.2.192.in-addr.arpa.?", "IPSECKEY 66.0.2.192.in-addr.arpa.: no such name, secure: proven"]


def test_answers_are_values(world):
    assert dataclasses.replace(world.delegations(BOB), detail="") == ev.DelegationAbsent("", 900.0)
