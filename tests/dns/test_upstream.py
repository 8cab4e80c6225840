"""The resolver's word: what AD, its absence and SERVFAIL mean when we do not validate."""

from dataclasses import replace

import pytest
from twisted.internet.defer import succeed

from oesvc.dns.answer import AnswerKind, SecurityStatus
from oesvc.dns.name import parse_name, to_wire
from oesvc.dns.question import TRUSTING, UNFILTERED
from oesvc.dns.records import RecordType
from oesvc.dns.upstream import Upstream
from oesvc.dns.validator import Validator
from oesvc.dns.wire import Flag, Message, Rcode, RRset

SECURE, INSECURE, BOGUS, INDETERMINATE = SecurityStatus
NAME, TARGET = parse_name("66.0.2.192.in-addr.arpa"), parse_name("66.0/26.2.192.in-addr.arpa")
TEXT = RRset(NAME, RecordType.TXT, 300, (b"\4text",), ())


class Resolver:
    """Answers by style, some questions apart; keeps a diary of how it was asked."""

    def __init__(self, trusting, unfiltered=None, **apart):
        self.trusting, self.unfiltered, self.apart, self.diary = trusting, unfiltered, apart, []

    def fetch(self, name, rdtype, style):
        self.diary.append(style)
        question = f"{'target' if name == TARGET else 'name'}_{RecordType(rdtype).name}"
        return succeed(self.apart.get(question) or (self.unfiltered if style is UNFILTERED else self.trusting))


def message(*rrsets, rcode=Rcode.NOERROR, flags=Flag.QR, authority=()):
    return Message(1, flags, rcode, tuple(rrsets), tuple(authority))


def verdict(resolver, believe=True, rdtype=RecordType.TXT):
    return Validator(Upstream(resolver, lambda: 1000.0, believe=believe), lambda: 1000.0).validate(NAME, rdtype).result


@pytest.mark.parametrize("flags, believe, status", [
    (Flag.AD, True, SECURE), (Flag(0), True, INSECURE), (Flag.AD, False, INSECURE)])
def test_ad_vouches_when_it_is_believed(flags, believe, status):
    answer = verdict(Resolver(message(TEXT, flags=flags)), believe)
    assert (answer.status, answer.kind, answer.rdatas, answer.expires) == (status, AnswerKind.DATA, TEXT.rdatas, 1300.0)


def test_it_vouches_for_absence_and_for_what_aliases_lead_to():
    soa = RRset(NAME[2:], RecordType.SOA, 900, (b"\0\0" + b"\0" * 19 + b"\x3c",), ())
    absent = verdict(Resolver(message(rcode=Rcode.NXDOMAIN, flags=Flag.AD, authority=[soa])))
    assert (absent.status, absent.kind, absent.expires) == (SECURE, AnswerKind.NXDOMAIN, 1060.0)
    alias = RRset(NAME, RecordType.CNAME, 60, (to_wire(TARGET),), ())
    text = RRset(TARGET, RecordType.TXT, 300, (b"\4text",), ())
    led = verdict(Resolver(message(alias, text, flags=Flag.AD)))
    assert (led.status, led.canonical, led.expires) == (SECURE, TARGET, 1060.0)


def test_what_it_holds_back_is_bogus_and_what_it_has_not_is_indeterminate():
    failing = message(rcode=Rcode.SERVFAIL)
    holding_back = Resolver(failing, unfiltered=message(TEXT))
    assert verdict(holding_back).status is BOGUS
    assert holding_back.diary == [TRUSTING, UNFILTERED]
    assert verdict(Resolver(failing, unfiltered=failing)).status is INDETERMINATE
    assert verdict(Resolver(failing), believe=False).status is INDETERMINATE


def test_keys_behind_an_alias_that_it_does_not_follow():
    alias = RRset(NAME, RecordType.CNAME, 60, (to_wire(TARGET),), ())
    key = RRset(TARGET, RecordType.KEY, 300, (b"\x42\0\4\1key",), ())
    failing = message(rcode=Rcode.SERVFAIL)
    found = verdict(Resolver(failing, failing, name_CNAME=message(alias, flags=Flag.AD),
                             target_KEY=message(key, flags=Flag.AD)), rdtype=RecordType.KEY)
    assert (found.status, found.canonical, found.rdatas) == (SECURE, TARGET, key.rdatas)


def test_the_resolvers_word_has_its_budget_too():
    endless = Resolver(replace(message(TEXT), size=300_000))
    answer = verdict(endless)
    assert answer.status is INDETERMINATE and answer.reason == "given up after 262144 octets of answers for one look-up"
