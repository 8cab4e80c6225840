"""What DNS answers authorize: RFC 4322 sections 3.2.4, 3.2.4.1 and 5."""

import pytest

from oesvc.dns.answer import Answer, AnswerKind, SecurityStatus
from oesvc.oe import events as ev
from oesvc.oe.authorization import (
    DnssecPolicy,
    Standing,
    by_gateway,
    judge,
    judge_keys,
    read_delegations,
)
from oesvc.oe.delegation import Delegation
from tests.oe.parts import BOB, KEY, OTHER_KEY, SG_A, SG_B

SECURE, INSECURE, BOGUS, INDETERMINATE = SecurityStatus
REQUIRE, PREFER, OFF = DnssecPolicy
BY_GATEWAY = f"X-IPsec-Server(10)={SG_B} {KEY.to_base64()}"
BY_ITSELF = f"X-IPsec-Server(10)={BOB} {KEY.to_base64()}"
KEY_RDATA = bytes.fromhex("42000401") + KEY.to_rfc3110()


def strings(text):
    data = text.encode()
    return b"".join(bytes([len(part)]) + part for part in (data[i:i + 255] for i in range(0, len(data), 255)))


def answer(*texts, status=SECURE, kind=AnswerKind.DATA):
    return Answer((b"x",), 16, kind, status, "because", tuple(map(strings, texts)), expires=100.0)


def keys_answer(*rdatas, status=SECURE, kind=AnswerKind.DATA):
    return Answer((b"x",), 25, kind, status, "because", rdatas, expires=100.0)


@pytest.mark.conformance("C-3.2.4.1-01", "C-3.2.4.1-02", "C-3.2.4.1-03", "C-3.2.4.1-04", "C-1.3-04", "C-4.5-01")
@pytest.mark.parametrize("text, status, policy, event", [
    (BY_GATEWAY, SECURE, REQUIRE, ev.DelegationFound),
    (BY_GATEWAY, SECURE, PREFER, ev.DelegationFound),
    (BY_GATEWAY, INSECURE, REQUIRE, ev.DelegationAbsent),
    (BY_GATEWAY, INSECURE, PREFER, ev.DelegationAbsent),
    (BY_ITSELF, INSECURE, PREFER, ev.DelegationFound),
    (BY_ITSELF, INSECURE, REQUIRE, ev.DelegationAbsent),
    (BY_GATEWAY, INSECURE, OFF, ev.DelegationFound),
    (BY_GATEWAY, BOGUS, OFF, ev.DelegationBad),
    (BY_GATEWAY, BOGUS, PREFER, ev.DelegationBad),
    (BY_GATEWAY, INDETERMINATE, PREFER, ev.LookUpFailed),
    ("v=spf1 -all", SECURE, PREFER, ev.DelegationAbsent),
    ("X-IPsec-Server(10)=nonsense", SECURE, PREFER, ev.DelegationBad),
    ("X-IPsec-Server(10)=@gw.example.com", SECURE, PREFER, ev.DelegationAbsent),
])
def test_one_record_is_judged_by_its_status_and_the_policy(text, status, policy, event):
    judged = judge([answer(text, status=status)], BOB, policy)
    assert type(judged) is event
    assert judged.expires == 100.0
    assert judged.detail


@pytest.mark.conformance("C-3.2.4-03", "C-4.5-03")
@pytest.mark.parametrize("kind, status, event", [
    (AnswerKind.NODATA, SECURE, ev.DelegationAbsent), (AnswerKind.NXDOMAIN, SECURE, ev.DelegationAbsent),
    (AnswerKind.NXDOMAIN, INSECURE, ev.DelegationAbsent), (AnswerKind.NXDOMAIN, BOGUS, ev.DelegationBad),
    (AnswerKind.NONE, INDETERMINATE, ev.LookUpFailed)])
def test_absence_is_judged_by_how_far_it_is_proven(kind, status, event):
    assert type(judge([answer(kind=kind, status=status)], BOB, PREFER)) is event


def test_good_records_are_used_and_bad_ones_beside_them_reported():
    judged = judge([answer(BY_GATEWAY, "X-IPsec-Server(10)=nonsense")], BOB, PREFER)
    assert judged.delegations == (Delegation(10, SG_B, (KEY,)),)
    assert "nonsense" in judged.detail


def ipseckeys(*rdatas, status=SECURE, kind=AnswerKind.DATA, expires=50.0):
    return Answer((b"x",), 45, kind, status, "because", rdatas, expires=expires)


TYPE_1 = bytes([20, 1, 2]) + SG_A.packed + KEY.to_rfc3110()


@pytest.mark.parametrize("txt, ipseckey, event, expires", [
    (answer(BY_GATEWAY), ipseckeys(TYPE_1), ev.DelegationFound, 50.0),
    (answer(BY_GATEWAY), ipseckeys(kind=AnswerKind.NODATA), ev.DelegationFound, 100.0),
    (answer(kind=AnswerKind.NODATA), ipseckeys(TYPE_1), ev.DelegationFound, 50.0),
    (answer(kind=AnswerKind.NODATA), ipseckeys(kind=AnswerKind.NODATA), ev.DelegationAbsent, 50.0),
    (answer(BY_GATEWAY, status=BOGUS), ipseckeys(TYPE_1), ev.DelegationBad, 100.0),
    (answer(BY_GATEWAY), ipseckeys(TYPE_1, status=BOGUS), ev.DelegationBad, 50.0),
    (answer(BY_GATEWAY), ipseckeys(kind=AnswerKind.NONE, status=INDETERMINATE), ev.DelegationFound, 100.0),
    (answer(kind=AnswerKind.NONE, status=INDETERMINATE), ipseckeys(TYPE_1), ev.DelegationFound, 50.0),
    (answer(kind=AnswerKind.NODATA), ipseckeys(kind=AnswerKind.NONE, status=INDETERMINATE), ev.LookUpFailed, 50.0),
    (answer("X-IPsec-Server(10)=nonsense"), ipseckeys(TYPE_1), ev.DelegationFound, 50.0),
    (answer(kind=AnswerKind.NODATA), ipseckeys(b"\x0a\1\2\xc0"), ev.DelegationBad, 50.0),
    (answer(kind=AnswerKind.NODATA), ipseckeys(b"\x0a\0\3key"), ev.DelegationAbsent, 50.0),
    (answer(kind=AnswerKind.NODATA), ipseckeys(b"\x0a\3\0\2gw\0"), ev.DelegationBad, 50.0),
    (answer(kind=AnswerKind.NODATA), ipseckeys(b"\x0a\3\0\2gw\4test\0"), ev.DelegationAbsent, 50.0),
])
def test_two_answers_count_together_and_a_forged_one_spoils_both(txt, ipseckey, event, expires):
    judged = judge([txt, ipseckey], BOB, PREFER)
    assert (type(judged), judged.expires) == (event, expires)
    assert judged.detail


def test_absence_of_both_tells_the_reasons_of_both():
    other = Answer((b"x",), 45, AnswerKind.NODATA, INSECURE, "an unsigned zone", expires=1.0)
    assert judge([answer(kind=AnswerKind.NXDOMAIN), other], BOB, PREFER).detail == (
        "no such name, secure: because; no such record, insecure: an unsigned zone")


def test_what_was_not_used_and_what_is_to_be_mended_is_told():
    judged = judge([answer(f"X-IPsec-Server(10)={SG_B} 0s{KEY.to_base64()}"), ipseckeys(b"\x0a\0\4key")], BOB, PREFER)
    assert "not used: an IPSECKEY record's key is of algorithm 4 (EdDSA); 2 (RSA) is known here" in judged.detail
    assert "to be mended: " in judged.detail and "the prefix 0s" in judged.detail


def test_every_record_is_read_with_what_it_is_worth():
    read = read_delegations(answer(BY_GATEWAY, "v=spf1 -all", "X-IPsec-Server(1)=x", "X-IPsec-Server(1)=@gw.test"),
                            BOB, PREFER)
    assert [reading.standing for reading in read] == [
        Standing.USED, Standing.FOREIGN, Standing.MALFORMED, Standing.SKIPPED]


@pytest.mark.conformance("C-5.2-05", "C-5.4-05", "C-5.4-06", "C-8-04")
def test_records_of_one_gateway_are_taken_together_and_sorted_by_number():
    merged = by_gateway([Delegation(10, SG_A, (KEY,)), Delegation(9, SG_B, (KEY,)), Delegation(10, SG_B, (OTHER_KEY,))])
    assert merged == (Delegation(9, SG_B, (KEY, OTHER_KEY)), Delegation(10, SG_A, (KEY,)))


@pytest.mark.conformance("C-5.1-06", "C-5.4-07")
def test_all_keys_of_a_gateway_are_available():
    other = bytes.fromhex("42000401") + OTHER_KEY.to_rfc3110()
    assert judge_keys(keys_answer(KEY_RDATA, b"\0\0\0\0\0", other), PREFER).keys == (KEY, OTHER_KEY)


@pytest.mark.conformance("C-3.3.1-05", "C-3.3.1-06")
@pytest.mark.parametrize("found, complaint", [
    (keys_answer(kind=AnswerKind.NXDOMAIN), "no such name"),
    (keys_answer(b"\1\0\4\1AQ"), "flags 256"),
    (keys_answer(KEY_RDATA, status=BOGUS), "DNSSEC validation failed"),
    (keys_answer(kind=AnswerKind.NONE, status=INDETERMINATE), "because")])
def test_keys_that_cannot_be_relied_on_are_none_and_say_why(found, complaint):
    judged = judge_keys(found, PREFER)
    assert judged.keys == ()
    assert complaint in judged.detail




@pytest.mark.conformance("C-8-04")
def test_two_gateways_of_one_host_with_the_same_weight():
    """The figure of section 8 (with .4 for SG-A, whose address it gives wrongly: decisions.md 1B)."""
    found = judge([answer(f"X-IPsec-Server(10)={SG_A} {KEY.to_base64()}",
                          f"X-IPsec-Server(10)={SG_A + 2} {OTHER_KEY.to_base64()}")], BOB, REQUIRE)
    assert isinstance(found, ev.DelegationFound)
    assert found.delegations == (Delegation(10, SG_A, (KEY,)), Delegation(10, SG_A + 2, (OTHER_KEY,)))
