"""What fails, what comes of it, how it heals: RFC 4322 sections 3.2.4, 3.2.5 and 9.1, whole but for kernel and DNS."""

from dataclasses import replace

import pytest
from twisted.logger import LogLevel, formatEvent, globalLogPublisher

from oesvc.discovery import IPSECKEY, TXT
from oesvc.dns.answer import Answer, AnswerKind, SecurityStatus
from oesvc.dns.name import reverse_name
from oesvc.ipsec.flow import Flow
from oesvc.keys.key_pair import public_key
from oesvc.oe.classes import ConnectionClass
from oesvc.oe.machine import State
from oesvc.oe.reasons import Because
from tests.oe.parts import ALICE, BOB, CLEAR, PARANOID, PERMISSIVE, SG_A, SG_B
from tests.oe.test_authorization import strings
from tests.operator.test_metrics import answer, samples, site
from tests.pair import Gateway, Pair, private_key

THERE, BACK = Flow(ALICE, BOB), Flow(BOB, ALICE)
FALLEN = {PERMISSIVE: State.CLEAR_TEXT, PARANOID: State.DENY}
EVERY_CLASS = pytest.mark.parametrize("of_class", [PERMISSIVE, PARANOID])
NAME = reverse_name(BOB)


def ours(pair: Pair):
    return pair.a.daemon.connections.get(THERE)


def call(pair: Pair, seconds: float = 1.0) -> Pair:
    pair.a.daemon.acquired(THERE)
    pair.run(seconds)
    return pair


def text(record: str, status: SecurityStatus = SecurityStatus.SECURE) -> Answer:
    return Answer(NAME, TXT, AnswerKind.DATA, status, "a test says so", (strings(record),), NAME, expires=36000.0)


def silence(rdtype: int) -> Answer:
    return Answer(NAME, rdtype, AnswerKind.NONE, SecurityStatus.INDETERMINATE, "no server answered", (), NAME,
                  expires=30.0)


@pytest.mark.conformance("C-3.2.4-04")
@pytest.mark.parametrize("record, status, keyed", [
    pytest.param("X-IPsec-Server(10)={gateway} {key}", SecurityStatus.SECURE, True, id="all three"),
    pytest.param("v=spf1 -all", SecurityStatus.SECURE, False, id="not appropriate"),
    pytest.param("X-IPsec-Server(10={gateway} {key}", SecurityStatus.SECURE, False, id="not well formed"),
    pytest.param("X-IPsec-Server(10)={gateway} {key}", SecurityStatus.BOGUS, False, id="not vouched for"),
])
def test_keying_begins_only_with_a_record_that_is_appropriate_well_formed_and_vouched_for(record, status, keyed):
    pair = Pair()
    pair.resolver.answers[NAME, TXT] = text(record.format(gateway=SG_B, key=pair.b.key.to_base64()), status)
    call(pair)
    assert bool(pair.wire.sent) is (ours(pair).state is State.KEYED) is keyed


@pytest.mark.conformance("C-3.2.4-11")
@EVERY_CLASS
@pytest.mark.parametrize("record, status, why", [
    ("X-IPsec-Server(10={gateway} AQO", SecurityStatus.SECURE, "is not of the form X-IPsec-Server(PRECEDENCE)=GATEWAY"),
    ("X-IPsec-Server(10)={gateway} AQO", SecurityStatus.BOGUS, "DNSSEC validation failed: a test says so"),
])
def test_denial_for_a_bad_record_is_logged_with_the_record_and_the_reason(record, status, why, of_class):
    pair, lines = Pair(class_a=of_class), []
    pair.resolver.answers[NAME, TXT] = text(record.format(gateway=SG_B), status)

    def hear(event):
        lines.append(formatEvent(event)) if event["log_level"] >= LogLevel.info else None
    globalLogPublisher.addObserver(hear)
    try:
        call(pair)
    finally:
        globalLogPublisher.removeObserver(hear)
    (line,) = [line for line in lines if line.startswith(f"{THERE}: deny")]
    assert "the destination's delegation record cannot be used" in line and why in line


@pytest.mark.conformance("C-9.1-03")
@EVERY_CLASS
def test_silence_of_the_dns_is_told_apart_from_absence_of_records(of_class):
    """An attack on the reverse map's servers shows."""
    pair = Pair(class_a=of_class)
    for rdtype in (TXT, IPSECKEY):
        pair.resolver.answers[NAME, rdtype] = silence(rdtype)
    call(pair)
    neighbour = Flow(ALICE, BOB + 1)
    pair.a.daemon.acquired(neighbour)
    pair.run(1.0)
    assert ours(pair).state is pair.a.daemon.connections.get(neighbour).state is FALLEN[of_class]
    assert (ours(pair).reason.because, ours(pair).deadline) == (Because.DNS_FAILED, 600.0)
    told = samples(answer(site(pair.a))[1])
    assert [told["oegw_flows_by_reason", because] for because in ("dns-failed", "not-oe-capable")] == [1, 1]


@pytest.mark.conformance("C-2.3.3-04", "C-3.4.1-05")
@pytest.mark.parametrize("of_class", [CLEAR, ConnectionClass.DENY])
def test_flow_that_is_not_used_any_more_is_forgotten_after_its_lifespan(of_class):
    pair = call(Pair(class_a=of_class))
    pair.a.plane.last_used = 55.0
    pair.run(61.0)
    assert ours(pair) is not None
    pair.run(20 * 60.0)
    assert ours(pair) is None and ("forget", str(THERE)) in pair.a.diary


@pytest.mark.conformance("C-3.2.5-12", "C-5.4-09")
@EVERY_CLASS
def test_key_that_was_replaced_in_the_dns_is_found_when_the_old_answer_is_stale(of_class):
    """What was remembered of Bob's gateway's key was right no more: nobody has to do anything."""
    pair = Pair(class_a=of_class)
    right = pair.resolver.answers[NAME, TXT]
    pair.publish_delegation(BOB, SG_B, public_key(private_key("yesterday's")))
    pair.resolver.answers[NAME, TXT] = replace(pair.resolver.answers[NAME, TXT], expires=700.0)
    pair.a.plane.last_used = 1e9
    call(pair, 10.0)
    assert (ours(pair).state, ours(pair).deadline) == (FALLEN[of_class], 700.0)
    pair.resolver.answers[NAME, TXT] = right
    pair.run(700.0)
    assert ours(pair).state is State.KEYED


@EVERY_CLASS
def test_gateway_whose_own_key_the_peer_finds_late_is_keyed_with_after_the_low_lifespan(of_class):
    """SG-B still had our former key: it refused the channel, which is no reason to wait for hours."""
    pair = Pair(class_a=of_class)
    pair.publish_key(SG_A, public_key(private_key("yesterday's")))
    pair.a.plane.last_used = 1e9
    call(pair, 10.0)
    assert ours(pair).state is FALLEN[of_class] and ours(pair).deadline < 610.0
    pair.publish_key(SG_A, pair.a.key)
    pair.run(610.0)
    assert ours(pair).state is State.KEYED


@pytest.mark.conformance("C-3.2.5-15")
def test_sign_of_an_unknown_spi_while_keys_are_negotiated_changes_nothing():
    pair = Pair()
    pair.wire.loses = lambda datagram: True
    call(pair, 3.0)
    sent = len(pair.wire.sent)
    pair.a.daemon.recovery.spi_refused(SG_B, THERE, "a test says so")
    pair.run(2.0)
    assert ours(pair).state is State.PENDING_OE and ours(pair).reason.because is Because.KEYING
    assert len(pair.wire.sent) > sent, "it goes on repeating"
    pair.wire.loses = lambda datagram: False
    pair.run(4.0)
    assert ours(pair).state is State.KEYED


@pytest.mark.conformance("C-3.2.6-04", "C-5.4-09")
def test_tunnel_of_a_gateway_that_has_rolled_its_key_over_is_renewed_with_the_new_one():
    pair = call(Pair())
    pair.a.plane.last_used = pair.b.plane.last_used = 1e9
    old, = pair.a.daemon.tunnels.get(ours(pair).tunnel).outbound
    pair.b.alive = False
    pair.b = Gateway("b with a new key", SG_B, BOB, pair.wire, pair.resolver, PERMISSIVE)
    pair.publish_key(SG_B, pair.b.key)
    pair.publish_delegation(BOB, SG_B, pair.b.key)
    pair.a.daemon.sa_expired(THERE, old.spi, hard=False)
    pair.run(60.0)
    assert ours(pair).state is State.KEYED
    assert pair.a.daemon.tunnels.get(ours(pair).tunnel).outbound != [old]
