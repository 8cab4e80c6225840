"""Chains over messages from the tree, some of them replaced: what an attacker or a lesser resolver would send."""

import struct
import time

import pytest
from twisted.internet.defer import succeed

from oesvc.dns.anchors import TrustAnchor, group_anchors, parse_anchors, read_anchors
from oesvc.dns.answer import AnswerKind, SecurityStatus
from oesvc.dns.budget import DEFAULT
from oesvc.dns.name import is_below, parse_name, to_wire
from oesvc.dns.question import UNFILTERED
from oesvc.dns.records import RecordType as T
from oesvc.dns.wire import Message, Rcode, RRset
from tests.dns.raw import Recorder, judge
from tests.dns.signing import ZoneKey

SECURE, INSECURE, BOGUS, INDETERMINATE = SecurityStatus


class Impostor:
    """Hands on what the tree says, but for some questions."""

    def __init__(self, servers):
        self.recorder = Recorder(servers.plain)
        self.instead = {}
        "Question -> message, or name -> message for whatever is below it."

    def fetch(self, name, rdtype):
        for (place, kind), message in self.instead.items():
            if (name, rdtype) == (place, kind) or (kind is None and is_below(name, place)):
                return succeed(message)
        return self.recorder.fetch(name, rdtype)

    def true(self, name, rdtype):
        return self.recorder.fetch(parse_name(name), rdtype).result


@pytest.fixture
def impostor(servers):
    return Impostor(servers)


@pytest.fixture
def verdict(servers, impostor):
    anchors = read_anchors([servers.anchor])
    return lambda name, rdtype=T.TXT, anchors=anchors: judge(
        impostor.fetch, anchors, parse_name(name), time.time(), rdtype)


def answer(*rrsets, rcode=Rcode.NOERROR, authority=()):
    return Message(7, 0, rcode, tuple(rrsets), tuple(authority))


def unsigned(name, rdtype=T.TXT, rdata=b"\6forged"):
    return RRset(parse_name(name), rdtype, 3600, (rdata,), ())


def signer_replaced(rrset, signer):
    """The same signatures, said to be another zone's."""
    return RRset(rrset.owner, rrset.rdtype, rrset.ttl, rrset.rdatas, tuple(
        rdata[:18] + to_wire(parse_name(signer)) + b"signature" for rdata in rrset.signatures))


def test_an_unsigned_record_in_a_signed_zone_is_bogus(impostor, verdict):
    name = "66.0.2.192.in-addr.arpa"
    impostor.instead[parse_name(name), T.TXT] = answer(unsigned(name))
    forged = verdict(name)
    assert forged.status is BOGUS and not forged.rdatas
    assert forged.reason == ("the TXT records of 66.0.2.192.in-addr.arpa. are not signed, "
                             "and no unsigned delegation is proven above")


def test_an_attackers_own_key_signs_nothing(impostor, verdict):
    name, zone, key, now = "1.2.192.in-addr.arpa", "2.192.in-addr.arpa", ZoneKey(0x0101), int(time.time())
    times = {"inception": now - 9, "expiration": now + 9}
    dnskey = key.sign(parse_name(zone), T.DNSKEY, (key.dnskey.rdata,), parse_name(zone), **times)
    forged = key.sign(parse_name(name), T.TXT, (b"\6forged",), parse_name(zone), **times)
    impostor.instead = {(parse_name(name), T.TXT): answer(forged), (parse_name(zone), T.DNSKEY): answer(dnskey)}
    assert verdict(name).reason == f"none of the keys of {zone}. is the one in the DS record at its parent"
    both = RRset(dnskey.owner, T.DNSKEY, 3600, (*impostor.true(zone, T.DNSKEY).answer[0].rdatas, *dnskey.rdatas),
                 (*impostor.true(zone, T.DNSKEY).answer[0].signatures, *dnskey.signatures))
    impostor.instead[parse_name(zone), T.DNSKEY] = answer(both)
    assert verdict(name).status is BOGUS


@pytest.mark.parametrize("signer", ["1.40.in-addr.arpa", "40.in-addr.arpa", "1.2.192.in-addr.arpa", "nowhere.test"])
def test_a_signature_of_another_place_takes_no_record_out_of_protection(impostor, verdict, signer):
    name = "1.2.192.in-addr.arpa"
    true = impostor.true(name, T.TXT).answer[0]
    impostor.instead[parse_name(name), T.TXT] = answer(signer_replaced(true, signer))
    assert verdict(name).status is BOGUS


def test_a_signer_above_an_anchored_island_does_not_take_it_out_of_protection(servers, impostor, verdict):
    name, zone = "1.1.40.in-addr.arpa", "1.40.in-addr.arpa"
    ds = (servers.directory / f"dsset-{zone}.").read_text()
    anchors = group_anchors(parse_anchors(f"{servers.tree.anchor}\n{ds}", "island"))
    assert verdict(name, anchors=anchors).status is SECURE
    true = impostor.true(name, T.TXT).answer[0]
    impostor.instead[parse_name(name), T.TXT] = answer(signer_replaced(true, "40.in-addr.arpa"))
    assert verdict(name).status is INSECURE, "without the island's anchor it is in an unsigned zone"
    assert verdict(name, anchors=anchors).status is BOGUS


@pytest.mark.parametrize("message", [
    answer(), answer(rcode=Rcode.NXDOMAIN), answer(unsigned("2.192.in-addr.arpa", T.DS, b"\0\1\x0d\2" + b"d" * 32)),
], ids=["no DS", "no zone", "another DS"])
def test_a_delegation_signer_cannot_be_taken_away_or_replaced(impostor, verdict, message):
    impostor.instead[parse_name("2.192.in-addr.arpa"), T.DS] = message
    assert verdict("1.2.192.in-addr.arpa").status is BOGUS


def test_the_proof_of_an_unsigned_delegation_does_not_serve_for_another(impostor, verdict):
    true = impostor.true("40.in-addr.arpa", T.DS)
    impostor.instead = {(parse_name("2.192.in-addr.arpa"), T.DS): true,
                        (parse_name("1.2.192.in-addr.arpa"), T.TXT): answer(unsigned("1.2.192.in-addr.arpa"))}
    assert verdict("1.2.192.in-addr.arpa").status is BOGUS


@pytest.mark.parametrize("name, proof_of", [
    ("1.2.192.in-addr.arpa", "77.2.192.in-addr.arpa"), ("1.3.192.in-addr.arpa", "77.3.192.in-addr.arpa"),
    ("1.2.192.in-addr.arpa", "2.in-addr.arpa"), ("1.2.192.in-addr.arpa", "3.2.192.in-addr.arpa"),
])
def test_the_proof_of_one_absence_does_not_serve_for_another(impostor, verdict, name, proof_of):
    impostor.instead[parse_name(name), T.TXT] = impostor.true(proof_of, T.TXT)
    assert verdict(name).status is BOGUS


def test_an_alias_of_the_attackers_is_bogus(impostor, verdict):
    name = "66.0.2.192.in-addr.arpa"
    alias = unsigned(name, T.CNAME, to_wire(parse_name("1.1.192.in-addr.arpa")))
    impostor.instead[parse_name(name), T.TXT] = answer(alias, *impostor.true("1.1.192.in-addr.arpa", T.TXT).answer)
    assert verdict(name).status is BOGUS


def test_an_alias_where_a_delegation_is_asked_for_leads_in_no_circle(impostor, verdict):
    name = parse_name("66.0.2.192.in-addr.arpa")
    alias = unsigned("66.0.2.192.in-addr.arpa", T.CNAME, to_wire(name[1:]))
    own = signer_replaced(impostor.true("5.0.20.in-addr.arpa", T.TXT).answer[0], "66.0.2.192.in-addr.arpa")
    impostor.instead[name, T.TXT] = answer(unsigned("66.0.2.192.in-addr.arpa"))
    for deceit in (alias, RRset(name, T.CNAME, 60, alias.rdatas, own.signatures)):
        impostor.instead[name, T.DS] = impostor.instead[name, T.SOA] = answer(deceit)
        assert verdict("66.0.2.192.in-addr.arpa").status is BOGUS


def test_what_comes_along_with_an_alias_is_asked_for_again_when_it_cannot_be_believed(impostor, verdict):
    name, target = "5.0.20.in-addr.arpa", "5.0/26.0.20.in-addr.arpa"
    true = impostor.true(name, T.TXT)
    impostor.instead[parse_name(name), T.TXT] = answer(true.find(parse_name(name), T.CNAME), unsigned(target))
    honest = verdict(name)
    assert honest.status is SECURE and honest.canonical == parse_name(target)


@pytest.mark.parametrize("refusal", [Rcode.NOERROR, Rcode.SERVFAIL], ids=["NODATA", "SERVFAIL"])
def test_bind_does_not_follow_aliases_for_key_so_we_do(impostor, verdict, refusal):
    name = parse_name("5.0.20.in-addr.arpa")
    impostor.instead[name, T.KEY] = answer(rcode=refusal)
    found = verdict("5.0.20.in-addr.arpa", T.KEY)
    assert found.status is SECURE and found.kind is AnswerKind.DATA
    impostor.instead[name, T.CNAME] = answer(unsigned("5.0.20.in-addr.arpa", T.CNAME, to_wire(name)))
    assert verdict("5.0.20.in-addr.arpa", T.KEY).status is BOGUS


@pytest.mark.conformance("C-9.1-04")
@pytest.mark.parametrize("rcode", [Rcode.SERVFAIL, Rcode.REFUSED, 22])
def test_an_error_code_says_nothing(impostor, verdict, rcode):
    for question in (("1.2.192.in-addr.arpa", T.TXT), ("2.192.in-addr.arpa", T.DS)):
        impostor.instead = {(parse_name(question[0]), question[1]): answer(rcode=rcode)}
        assert verdict("1.2.192.in-addr.arpa").status is INDETERMINATE


def test_a_resolver_that_hands_on_no_signatures_is_recognised(servers):
    blind = Recorder(servers.plain, UNFILTERED)
    said = judge(blind.fetch, read_anchors([servers.anchor]), parse_name("1.2.192.in-addr.arpa"), time.time())
    assert said.status is INDETERMINATE and said.reason.endswith("so it knows no DNSSEC")


def test_an_anchor_that_is_no_longer_the_zones_key_is_bogus_and_says_so(servers, verdict):
    anchors = (TrustAnchor((), keys=(ZoneKey().dnskey,)),)
    assert verdict("1.2.192.in-addr.arpa", anchors=anchors).reason == "none of the keys of . is its trust anchor"


@pytest.mark.parametrize("name, status", [("5.1.168.192.in-addr.arpa", INSECURE), ("5.1.169.192.in-addr.arpa", BOGUS),
                                          ("1.0.0.10.in-addr.arpa", INSECURE), ("1.0.15.172.in-addr.arpa", BOGUS)])
def test_resolvers_that_answer_for_private_addresses_themselves_are_not_attackers(impostor, verdict, name, status):
    impostor.instead[parse_name(name)[2:], None] = answer(rcode=Rcode.NXDOMAIN)
    assert verdict(name).status is status


def test_a_ladder_of_signers_is_left_after_a_bounded_number_of_zones(impostor, verdict):
    def lead_up(name, rdtype):
        rdata = {T.DS: b"\0\1\x0d\2" + b"d" * 32, T.DNSKEY: b"\1\1\3\x0d" + b"k" * 64}.get(rdtype, b"\1x")
        signer = name[1:] if rdtype == T.DS else name
        signature = struct.pack("!HBBIIIH", rdtype, 13, len(name), 60, 2**31, 0, 1) + to_wire(signer) + b"signature"
        return succeed(answer(RRset(name, rdtype, 60, (rdata,), (signature,))))

    impostor.fetch = lead_up
    given_up = verdict(".".join("x" * 100))
    assert given_up.status is INDETERMINATE and given_up.reason.startswith("given up after")


@pytest.mark.parametrize("count, status", [(32, SECURE), (33, BOGUS)])
def test_more_keys_than_any_zone_has_are_not_looked_at(impostor, verdict, count, status):
    zone, key, now = parse_name("arpa"), ZoneKey(0x0101), int(time.time())
    others = tuple(ZoneKey().dnskey.rdata for _ in range(count - 1))
    root = TrustAnchor(zone, keys=(key.dnskey,))
    impostor.instead[zone, T.DNSKEY] = answer(key.sign(
        zone, T.DNSKEY, (key.dnskey.rdata, *others), zone, inception=now - 9, expiration=now + 9))
    impostor.instead[(b"x", *zone), T.TXT] = answer(key.sign(
        (b"x", *zone), T.TXT, (b"\1x",), zone, inception=now - 9, expiration=now + 9))
    assert verdict("x.arpa", anchors=(root,)).status is status


def test_a_resolver_that_always_leads_on_is_left_after_a_bounded_number_of_queries(impostor, verdict):
    asked = []

    def lead_on(name, rdtype):
        asked.append((name, rdtype))
        soa = b"\0\0" + struct.pack("!5I", 1, 1, 1, 1, 0)
        return succeed(answer(authority=[RRset(name, T.SOA, 0, (soa,), ())]))

    impostor.fetch = lead_on
    long_name = ".".join("0123456789abcdef" * 2) + ".ip6.arpa"
    assert verdict(long_name).status in (BOGUS, INDETERMINATE)
    assert len(asked) <= DEFAULT.queries
