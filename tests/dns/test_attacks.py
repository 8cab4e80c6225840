"""Proofs and signatures that are arithmetically right, put where they must prove nothing. Keys of ours sign it all."""

import struct

import pytest
from twisted.internet.defer import succeed

from oesvc.dns.anchors import TrustAnchor
from oesvc.dns.answer import AnswerKind, SecurityStatus
from oesvc.dns.budget import Budget, Limits
from oesvc.dns.chain import Chain
from oesvc.dns.name import parse_name, to_wire
from oesvc.dns.records import RecordType as T
from oesvc.dns.records import make_dnskey
from oesvc.dns.validator import MAX_TTL, Validator
from oesvc.dns.wire import Message, Rcode, RRset
from tests.dns.signing import NOW, ZoneKey, dnskeys
from tests.dns.test_nsec import APEX, bitmap
from tests.dns.test_nsec3 import chain as nsec3_chain
from tests.dns.test_signatures import ds_of

SECURE, INSECURE, BOGUS, INDETERMINATE = SecurityStatus
TEXT = b"\4text"
CUT = [T.NS, T.DS, T.RRSIG, T.NSEC]


class World:
    """A few zones with one key each, and whatever an attacker answers besides."""

    def __init__(self, *zones, anchors=("example",), negative=()):
        self.keys = {parse_name(zone): ZoneKey(0x0101) for zone in zones}
        self.answers, self.asked = {}, []
        self.anchors = [TrustAnchor(zone, keys=(self.keys[zone].dnskey,)) for zone in map(parse_name, anchors)]
        self.negative = [parse_name(name) for name in negative]
        for zone, key in self.keys.items():
            self.answers[zone, T.DNSKEY] = message(dnskeys(zone, [key], [key]))
            parent = self.zone_above(zone)
            if parent is not None:
                ds = ds_of(key.dnskey, 2, zone)
                self.answers[zone, T.DS] = message(self.signed(zone, T.DS, ds_rdata(ds), parent))

    def zone_above(self, name):
        return next((name[i:] for i in range(1, len(name) + 1) if name[i:] in self.keys), None)

    def signed(self, owner, rdtype, rdata, zone, **changes):
        """By the key of `zone`."""
        zone, owner = (parse_name(one) if isinstance(one, str) else one for one in (zone, owner))
        return self.keys[zone].sign(owner, rdtype, (rdata,), zone, **changes)

    def nsec(self, zone, owner, following, *types):
        labels = len(parse_name(owner.removeprefix("*.")))
        return self.signed(owner, T.NSEC, to_wire(parse_name(following)) + bitmap(types), zone, labels=labels)

    def answer(self, name, *rrsets, rdtype=T.TXT, **values):
        self.answers[parse_name(name), rdtype] = message(*rrsets, **values)

    def deny(self, name, *authority, rdtype=T.TXT, rcode=Rcode.NXDOMAIN):
        self.answer(name, rdtype=rdtype, rcode=rcode, authority=authority)

    def fetch(self, name, rdtype):
        self.asked.append((name, rdtype))
        return succeed(self.answers.get((name, rdtype), message()))

    def verdict(self, name, rdtype=T.TXT, **limits):
        return self.remembering(**limits)(name, rdtype)

    def remembering(self, **limits):
        """`verdict` with caches; the clock stands at `now`."""
        self.now = NOW
        judge = Chain(self.fetch, self.anchors, lambda: self.now, 0, self.negative)
        validator = Validator(judge, lambda: self.now, Limits(**limits))
        return lambda name, rdtype=T.TXT: validator.validate(parse_name(name), rdtype).result


def message(*rrsets, rcode=Rcode.NOERROR, authority=(), size=0):
    return Message(7, 0, rcode, tuple(rrsets), tuple(authority), size)


def ds_rdata(ds):
    return struct.pack("!HBB", ds.tag, ds.algorithm, ds.digest_type) + ds.digest


def unsigned(name, rdtype=T.TXT, rdata=TEXT, ttl=3600):
    return RRset(parse_name(name), rdtype, ttl, (rdata,), ())


@pytest.fixture
def world():
    return World("example", "child.example", "other.example")


def test_the_world_is_sound(world):
    world.answer("a.child.example", world.signed("a.child.example", T.TXT, TEXT, "child.example"))
    assert world.verdict("a.child.example").status is SECURE
    world.deny("b.child.example", world.nsec("child.example", "child.example", "child.example", *APEX))
    absent = world.verdict("b.child.example")
    assert (absent.status, absent.kind) == (SECURE, AnswerKind.NXDOMAIN)


@pytest.mark.parametrize("name, rcode", [("child.example", Rcode.NOERROR), ("a.child.example", Rcode.NXDOMAIN)])
def test_the_parents_proof_at_the_cut_denies_nothing_of_the_childs(world, name, rcode):
    world.deny(name, world.nsec("example", "child.example", "other.example", *CUT),
               world.nsec("example", "example", "child.example", *APEX), rcode=rcode)
    assert world.verdict(name).status is BOGUS


def test_the_childs_proof_at_its_apex_denies_no_delegation_signer(world):
    world.deny("child.example", world.nsec("child.example", "child.example", "a.child.example", *APEX), rdtype=T.DS,
               rcode=Rcode.NOERROR)
    world.answer("a.child.example", unsigned("a.child.example"))
    assert world.verdict("a.child.example").status is BOGUS


def test_a_sibling_zone_denies_nothing(world):
    world.deny("a.child.example", world.nsec("other.example", "other.example", "other.example", *APEX))
    assert world.verdict("a.child.example").status is BOGUS
    foreign = world.signed("child.example", T.NSEC, to_wire(parse_name("child.example")) + bitmap(APEX),
                           "other.example")
    world.deny("a.child.example", foreign)
    assert world.verdict("a.child.example").status is BOGUS


@pytest.mark.parametrize("types", [[T.DNAME], [T.NS], [T.NS, T.DS]])
def test_below_a_redirection_or_a_cut_a_gap_denies_nothing(world, types):
    world.deny("x.b.example", world.nsec("example", "b.example", "c.example", *types),
               world.nsec("example", "example", "a.example", *APEX))
    assert world.verdict("x.b.example").status is BOGUS


@pytest.mark.parametrize("authority", [
    [("b.example", "c.example", T.TXT)],
    [("example", "a.example", *APEX), ("b.example", "c.example", T.CNAME)],
    [("example", "a.example", *APEX), ("c.example", "example", T.A)],
], ids=["the record is there", "an alias is there", "the gap is elsewhere"])
@pytest.mark.parametrize("rcode", [Rcode.NOERROR, Rcode.NXDOMAIN])
@pytest.mark.conformance("C-4.5-03")
def test_an_absence_that_the_records_do_not_show(world, authority, rcode):
    world.deny("b.example", *(world.nsec("example", *one) for one in authority), rcode=rcode)
    assert world.verdict("b.example").status is BOGUS


def test_the_wildcard_that_counts_is_the_one_at_the_closest_encloser(world):
    gap = world.nsec("example", "a.w.example", "z.w.example", T.A)
    world.deny("m.w.example", gap, world.nsec("example", "example", "a.example", *APEX))
    assert world.verdict("m.w.example").status is BOGUS, "*.example is denied, *.w.example is not"
    world.deny("m.w.example", gap, world.nsec("example", "w.example", "a.w.example", T.A))
    assert world.verdict("m.w.example").kind is AnswerKind.NXDOMAIN


def test_a_wildcard_further_up_does_not_stand_for_a_name_with_a_closer_one(world):
    expanded = world.signed("x.w.example", T.TXT, TEXT, "example", labels=1, signed_as=parse_name("*.example"))
    world.answer("x.w.example", expanded, authority=[world.nsec("example", "a.w.example", "z.w.example", T.A)])
    assert world.verdict("x.w.example").status is BOGUS
    world.answer("x.w.example", expanded, authority=[world.nsec("example", "*.example", "z.example", T.TXT)])
    assert world.verdict("x.w.example").status is SECURE
    world.answer("x.w.example", expanded)
    assert world.verdict("x.w.example").status is BOGUS, "without any proof"


def test_a_proof_that_comes_out_of_a_wildcard_itself_is_none(world):
    rdata = to_wire(parse_name("z.example")) + bitmap([T.A])
    expanded = world.signed("b.example", T.NSEC, rdata, "example", labels=1, signed_as=parse_name("*.example"))
    world.deny("b.example", expanded, rcode=Rcode.NOERROR)
    assert world.verdict("b.example").status is BOGUS


def test_a_signature_for_one_type_or_name_does_not_serve_for_another(world):
    good = world.signed("a.example", T.A, TEXT, "example")
    world.answer("a.example", RRset(good.owner, T.TXT, 60, good.rdatas, good.signatures))
    assert world.verdict("a.example").status is BOGUS
    text = world.signed("a.example", T.TXT, TEXT, "example")
    world.answer("b.example", RRset(parse_name("b.example"), T.TXT, 60, text.rdatas, text.signatures))
    assert world.verdict("b.example").status is BOGUS


def test_a_key_of_the_zone_that_no_delegation_signer_names_begins_nothing(world):
    zone, ours, theirs = parse_name("child.example"), world.keys[parse_name("child.example")], ZoneKey(0x0101)
    world.answers[zone, T.DNSKEY] = message(dnskeys(zone, [ours, theirs], [theirs]))
    world.answer("a.child.example", theirs.sign(parse_name("a.child.example"), T.TXT, (TEXT,), zone))
    assert world.verdict("a.child.example").status is BOGUS


@pytest.mark.parametrize("flags, protocol", [(0x0181, 3), (0x0001, 3), (0x0101, 2)],
                         ids=["revoked", "no zone key", "no key for DNSSEC"])
def test_a_delegation_to_a_key_that_may_not_sign_is_bogus(world, flags, protocol):
    zone, key = parse_name("child.example"), ZoneKey(flags, protocol)
    world.answers[zone, T.DNSKEY] = message(dnskeys(zone, [key], [key]))
    world.answers[zone, T.DS] = message(world.signed(zone, T.DS, ds_rdata(ds_of(key.dnskey, 2, zone)), "example"))
    world.answer("a.child.example", key.sign(parse_name("a.child.example"), T.TXT, (TEXT,), zone))
    assert world.verdict("a.child.example").status is BOGUS


@pytest.mark.parametrize("algorithm, digest_type, status", [
    (15, 2, BOGUS), (99, 2, INSECURE), (13, 99, INSECURE), (13, 2, SECURE)],
    ids=["another algorithm, known", "unknown algorithm", "unknown digest", "as it is"])
def test_a_delegation_signer_of_another_algorithm(world, algorithm, digest_type, status):
    """RFC 4035 section 5.2: insecure only where nothing of it is known."""
    zone = parse_name("child.example")
    ds = ds_of(world.keys[zone].dnskey, 2, zone)
    rdata = struct.pack("!HBB", ds.tag, algorithm, digest_type) + ds.digest
    world.answers[zone, T.DS] = message(world.signed(zone, T.DS, rdata, "example"))
    world.answer("a.child.example", world.signed("a.child.example", T.TXT, TEXT, "child.example"))
    assert world.verdict("a.child.example").status is status


def test_an_alias_to_an_unsigned_end_is_insecure_and_one_that_is_forged_is_bogus(world):
    world.deny("unsigned.example", world.nsec("example", "unsigned.example", "z.example", T.NS), rdtype=T.DS,
               rcode=Rcode.NOERROR)
    target = to_wire(parse_name("x.unsigned.example"))
    world.answer("a.example", world.signed("a.example", T.CNAME, target, "example"), unsigned("x.unsigned.example"))
    led = world.verdict("a.example")
    assert (led.status, led.canonical) == (INSECURE, parse_name("x.unsigned.example"))
    world.answer("a.example", unsigned("a.example", T.CNAME, target), unsigned("x.unsigned.example"))
    world.deny("a.example", world.nsec("example", "a.example", "b.example", T.TXT), rdtype=T.DS, rcode=Rcode.NOERROR)
    assert world.verdict("a.example").status is BOGUS


def test_an_alias_beside_the_data_is_passed_over_and_one_of_two_targets_refused(world):
    text = world.signed("a.example", T.TXT, TEXT, "example")
    world.answer("a.example", text, unsigned("a.example", T.CNAME, to_wire(parse_name("evil.test"))))
    assert world.verdict("a.example").rdatas == (TEXT,)
    zone = parse_name("example")
    two = world.keys[zone].sign(parse_name("a.example"), T.CNAME, (to_wire(zone), to_wire((b"b", *zone))), zone)
    world.answer("a.example", two)
    assert world.verdict("a.example").status is BOGUS


def test_a_redirection_out_of_a_wildcard_is_bogus(world):
    expanded = world.signed("b.example", T.DNAME, to_wire(parse_name("other.example")), "example", labels=1,
                            signed_as=parse_name("*.example"))
    world.answer("x.b.example", expanded, authority=[world.nsec("example", "a.example", "z.example", T.A)])
    assert world.verdict("x.b.example").status is BOGUS


def test_times_to_live_are_not_made_longer_on_the_way(world):
    text = world.signed("a.example", T.TXT, TEXT, "example", ttl=0x7FFFFFFF, original_ttl=600)
    world.answer("a.example", text)
    assert world.verdict("a.example").expires == NOW + 600
    island = World("example", negative=("loose.example",))
    island.answer("a.loose.example", unsigned("a.loose.example", ttl=0x7FFFFFFF))
    assert island.verdict("a.loose.example").expires <= NOW + MAX_TTL
    soa = RRset(parse_name("example"), T.SOA, 0x7FFFFFFF, (b"\0\0" + struct.pack("!5I", 1, 1, 1, 1, 0x7FFFFFFF),), ())
    world.deny("b.example", world.nsec("example", "example", "example", *APEX), soa)
    assert world.verdict("b.example").expires == NOW + 900


class Opting:
    """A zone with NSEC3, signed by a world's key."""

    def __init__(self, world, **parameters):
        names = {"example": APEX, "secure.example": [T.NS, T.DS], "a.example": [T.TXT], "w.example": [T.A],
                 "*.w.example": [T.TXT]}
        self.world, self.records = world, nsec3_chain(names=names, **parameters)

    def signed(self, *left_out):
        return [self.world.signed(owner, T.NSEC3, rdata, "example")
                for name, (owner, rdata) in self.records.items() if name not in left_out]


def test_opt_out_takes_no_signed_delegation_away():
    world = World("example", "secure.example")
    zone = Opting(world, flags=1)
    for left_out in ((), ("secure.example",), ("a.example", "secure.example")):
        world.deny("secure.example", *zone.signed(*left_out), rdtype=T.DS, rcode=Rcode.NOERROR)
        world.answer("x.secure.example", unsigned("x.secure.example"))
        assert world.verdict("x.secure.example").status is BOGUS, left_out


def test_opt_out_lets_no_forged_record_stand_at_a_name_that_is_there():
    world = World("example")
    zone = Opting(world, flags=1)
    world.answer("a.example", unsigned("a.example"))
    world.deny("a.example", *zone.signed(), rdtype=T.DS, rcode=Rcode.NOERROR)
    assert world.verdict("a.example").status is BOGUS


def test_records_of_two_salts_prove_nothing_together():
    world = World("example")
    mixed = [*Opting(world).signed("a.example"), *Opting(world, salt=b"").signed("example")]
    world.deny("n.example", *mixed)
    assert world.verdict("n.example").status is BOGUS


def test_a_proof_of_hashes_for_one_name_does_not_serve_for_another():
    world = World("example")
    for name in ("a.example", "x.w.example"):
        world.deny(name, *Opting(world).signed(), rcode=Rcode.NXDOMAIN)
        assert world.verdict(name).kind is not AnswerKind.NXDOMAIN
        assert world.verdict(name).status is BOGUS


def colliding(key, count):
    """Keys with the tag of `key`: its public key's first and one more pair of octets changed against one another."""
    words = list(struct.unpack("!34H", key.dnskey.rdata))
    made = []
    for i in range(count):
        other = list(words)
        step = min(i + 1, words[2], 0xFFFF - words[3])
        other[2], other[3] = words[2] - step, words[3] + step
        made.append(make_dnskey(0x0101, 3, 13, struct.pack("!34H", *other)[4:]))
    assert {one.tag for one in made} <= {key.dnskey.tag}
    return made


@pytest.mark.parametrize("signatures", [1, 60])
def test_many_keys_of_one_tag_and_many_signatures_cost_little(world, signatures):
    """KeyTrap, CVE-2023-50387: each key would have to be tried with each signature."""
    zone, name = parse_name("child.example"), parse_name("a.child.example")
    key = world.keys[zone]
    trap = colliding(key, 20)
    rdatas = (key.dnskey.rdata, *(one.rdata for one in trap))
    good = key.sign(zone, T.DNSKEY, rdatas, zone)
    world.answers[zone, T.DNSKEY] = message(good)
    text = ZoneKey(0x0101).sign(name, T.TXT, (TEXT,), zone).signatures[0]
    forged = tuple(text[:16] + key.dnskey.tag.to_bytes(2, "big") + text[18:-1] + bytes([i]) for i in range(signatures))
    world.answers[name, T.TXT] = message(RRset(name, T.TXT, 60, (TEXT,), forged))
    cost = 2 + 1 + 8  # the anchor's keys and the DS, the child's keys, and no more than so many tries
    assert world.verdict("a.child.example", signatures=cost).status is BOGUS
    assert world.verdict("a.child.example", signatures=3).status is INDETERMINATE


def test_keys_that_cost_much_are_not_tried(world):
    zone, name = parse_name("child.example"), parse_name("a.child.example")
    for exponent, modulus in ((b"\xff" * 128, b"\xff" * 128), (b"\1\0\1", b"\xff" * 1025)):
        rsa = make_dnskey(0x0101, 3, 8, bytes([len(exponent)]) + exponent + modulus)
        rdata = struct.pack("!HBBIIIH", T.DNSKEY, 8, 2, 3600, NOW + 9, NOW - 9, rsa.tag) + to_wire(zone) + b"s" * 128
        world.answers[zone, T.DNSKEY] = message(RRset(zone, T.DNSKEY, 60, (rsa.rdata,), (rdata,)))
        ds = world.signed(zone, T.DS, ds_rdata(ds_of(rsa, 2, zone)), "example")
        world.answers[zone, T.DS] = message(ds)
        world.answers[name, T.TXT] = message(world.signed(name, T.TXT, TEXT, zone))
        assert world.verdict("a.child.example", signatures=2).status is BOGUS, "two: the anchor's keys and the DS"


def test_hashes_are_bounded():
    """CVE-2023-50868: every label of a long name hashed 151 times."""
    world = World("example")
    long_name = ".".join("x" * 50) + ".example"
    world.deny(long_name, *Opting(world, iterations=150).signed())
    assert world.verdict(long_name).status is SECURE
    given_up = world.verdict(long_name, hashes=51 * 151 - 1)
    assert given_up.status is INDETERMINATE and given_up.reason == "given up after 7700 NSEC3 hashes for one look-up"


def test_octets_are_bounded(world):
    world.answer("a.example", world.signed("a.example", T.TXT, TEXT, "example"), size=65535)
    assert world.verdict("a.example", octets=65535).status is SECURE
    given_up = world.verdict("a.example", octets=65534)
    assert given_up.status is INDETERMINATE and "octets of answers" in given_up.reason


def test_each_budget_counts_what_was_spent(world):
    world.answer("a.child.example", world.signed("a.child.example", T.TXT, TEXT, "child.example"), size=700)
    budget = Budget()
    judge = Chain(world.fetch, world.anchors, lambda: NOW, 0)
    Validator(judge, lambda: NOW).validate(parse_name("a.child.example"), T.TXT, budget)
    assert budget.spent == Limits(queries=4, signatures=4, depth=2, hashes=0, octets=700)
    long_name = ".".join("x" * 9) + ".example"
    lone = World("example")
    lone.deny(long_name, *Opting(lone, iterations=10).signed())
    Validator(Chain(lone.fetch, lone.anchors, lambda: NOW, 0), lambda: NOW).validate(
        parse_name(long_name), T.TXT, budget := Budget())
    assert budget.spent.hashes == 11 * 11, "nine labels, the zone and its wildcard, each so often"


def test_a_referral_is_no_absence(world):
    referral = world.signed("child.example", T.NS, to_wire(parse_name("ns.test")), "example")
    for authority in ([unsigned("child.example", T.NS, to_wire(parse_name("ns.test")))], [referral]):
        world.deny("a.child.example", *authority, rcode=Rcode.NOERROR)
        said = world.verdict("a.child.example")
        assert said.status is INDETERMINATE and "no recursive resolver" in said.reason


@pytest.mark.parametrize("name, status", [
    ("a.child.example", INSECURE), ("child.example", INSECURE), ("a.example", SECURE),
    ("a.island.child.example", SECURE)])
def test_below_a_negative_anchor_nothing_is_validated_but_under_an_anchor_of_its_own(name, status):
    world = World("example", "child.example", "island.child.example", anchors=("example", "island.child.example"),
                  negative=("child.example",))
    zone = world.zone_above((b"", *parse_name(name)))
    forged = ZoneKey(0x0101).sign(parse_name(name), T.TXT, (TEXT,), zone)
    world.answer(name, world.signed(name, T.TXT, TEXT, zone) if status is SECURE else forged)
    said = world.verdict(name)
    assert said.status is status and said.rdatas == (TEXT,)
    if status is INSECURE:
        assert said.reason == "child.example. has a negative trust anchor: nothing below it is validated"
        world.answer(name, rcode=Rcode.NXDOMAIN)
        assert (world.verdict(name).status, world.verdict(name).kind) == (INSECURE, AnswerKind.NXDOMAIN)
        assert world.asked == [(parse_name(name), T.TXT)] * 3, "nothing else is asked for"
    else:
        world.answer(name, forged)
        assert world.verdict(name).status is BOGUS


def test_a_zone_above_a_cut_that_is_remembered_signs_nothing_below_it(world):
    """Signed before the name was delegated away, and replayed; the signature is good for a week still."""
    look_up, week = world.remembering(), NOW + 7 * 86400
    world.answer("a.child.example", world.signed("a.child.example", T.TXT, TEXT, "child.example"))
    old = world.signed("b.child.example", T.TXT, TEXT, "example", expiration=week)
    world.answer("b.child.example", old)
    world.deny("c.child.example", world.nsec("example", "example", "other.example", *APEX))
    assert look_up("a.child.example").status is SECURE
    for name in ("b.child.example", "c.child.example"):
        world.asked.clear()
        said = look_up(name)
        assert (said.status, said.reason) == (
            BOGUS, f"example. has signed for {name}., but has delegated child.example.")
        assert world.asked == [(parse_name(name), T.TXT)], "that costs no query"
    world.now += 3601
    assert look_up("b.child.example").status is SECURE, "nothing is remembered of the cut: as anybody would have it"


def test_a_zone_above_an_unsigned_cut_that_is_remembered_makes_nothing_secure_below_it(world):
    look_up = world.remembering()
    world.deny("plain.example", world.nsec("example", "plain.example", "z.example", T.NS, T.RRSIG, T.NSEC),
               rdtype=T.DS, rcode=Rcode.NOERROR)
    world.answer("a.plain.example", unsigned("a.plain.example"))
    world.answer("b.plain.example", world.signed("b.plain.example", T.TXT, TEXT, "example"))
    assert look_up("a.plain.example").status is INSECURE
    said = look_up("b.plain.example")
    assert said.status is INSECURE and "plain.example. is delegated without a DS record" in said.reason
    world.deny("c.plain.example", world.nsec("example", "plain.example", "z.example", T.NS, T.RRSIG, T.NSEC))
    assert look_up("c.plain.example").status is INSECURE


def test_a_signed_zone_below_a_cut_that_is_remembered_still_speaks():
    """A cut at the signer's own name is no obstacle, nor one that opt-out leaves open."""
    world = World("example", "child.example", "sub.child.example")
    look_up = world.remembering()
    for zone in ("child.example", "sub.child.example", "example"):
        world.answer(f"a.{zone}", world.signed(f"a.{zone}", T.TXT, TEXT, zone))
        assert look_up(f"a.{zone}").status is SECURE
        world.answer(zone, world.signed(zone, T.TXT, TEXT, zone))
        assert look_up(zone).status is SECURE
