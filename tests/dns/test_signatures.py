"""Signatures that are arithmetically right, each wrong in one other way."""

import dataclasses
import hashlib
import subprocess
import sys

import pytest

from oesvc.dns.answer import Name
from oesvc.dns.budget import DEFAULT, Budget
from oesvc.dns.failures import Bogus, Indeterminate
from oesvc.dns.name import parse_name, to_wire
from oesvc.dns.records import Dnskey, Ds, RecordType
from oesvc.dns.signatures import (
    MAX_TRIES_PER_RRSET,
    Verified,
    delegated_keys,
    is_delegated_to,
    strongest,
    verify,
)
from tests.dns.signing import NOW, ZoneKey

ZONE = parse_name("2.192.in-addr.arpa")
OWNER = parse_name("66.0.2.192.in-addr.arpa")
TXT = (b"\3one", b"\5three", b"\3two")


@pytest.fixture(scope="module")
def key():
    return ZoneKey()


def check(rrset, *keys, zone=ZONE, now=NOW, skew=0):
    return verify(rrset, zone, [key.dnskey for key in keys], now, Budget(), skew)


def test_a_right_signature_holds_until_the_least_of_its_times(key):
    assert check(key.sign(OWNER, 16, TXT, ZONE), key) == Verified(NOW + 3600)
    assert check(key.sign(OWNER, 16, TXT, ZONE, ttl=60), key) == Verified(NOW + 60)
    assert check(key.sign(OWNER, 16, TXT, ZONE, ttl=999, original_ttl=70), key) == Verified(NOW + 70)
    assert check(key.sign(OWNER, 16, TXT, ZONE, expiration=NOW + 5), key) == Verified(NOW + 5)


def test_records_in_any_order_and_one_good_signature_among_bad_ones(key):
    rrset = key.sign(OWNER, 16, TXT, ZONE)
    good, = rrset.signatures
    mixed = dataclasses.replace(rrset, rdatas=TXT[::-1], signatures=(b"junk", good[:-1] + b"x", good))
    assert check(mixed, ZoneKey(), key) == Verified(NOW + 3600)


@pytest.mark.parametrize("complaint, changes", [
    ("counts more labels", {"labels": 7}),
    ("expired on 2027-01-15 07:59:59 UTC", {"expiration": NOW - 1}),
    ("not valid before 2027-01-15 08:00:01 UTC", {"inception": NOW + 1}),
    ("covers another type", {"covered": RecordType.A}),
    ("have no signature by 2.192.in-addr.arpa", {"signer": parse_name("3.192.in-addr.arpa")}),
    ("does not verify", {"signed_as": parse_name("67.0.2.192.in-addr.arpa")}),
    ("above its own zone", {"labels": 3, "signed_as": parse_name("*.192.in-addr.arpa")}),
])
def test_what_a_signature_must_say(key, complaint, changes):
    with pytest.raises(Bogus, match=complaint):
        check(key.sign(OWNER, 16, TXT, **{"signer": ZONE, **changes}), key)


def test_a_zone_signs_nothing_outside_of_itself(key):
    with pytest.raises(Bogus, match="is not a zone above it"):
        check(key.sign(parse_name("66.0.3.192.in-addr.arpa"), 16, TXT, ZONE), key)


@pytest.mark.parametrize("flags, protocol", [(0, 3), (0x0180, 3), (0x0100, 4)])
def test_keys_that_are_none_of_a_zone_or_revoked_do_not_count(flags, protocol):
    wrong = ZoneKey(flags, protocol)
    with pytest.raises(Bogus, match="by none of the keys"):
        check(wrong.sign(OWNER, 16, TXT, ZONE), wrong)


def test_clock_skew_is_an_option(key):
    late = key.sign(OWNER, 16, TXT, ZONE, expiration=NOW - 60)
    early = key.sign(OWNER, 16, TXT, ZONE, inception=NOW + 60)
    for rrset in (late, early):
        with pytest.raises(Bogus):
            check(rrset, key, skew=59)
        assert check(rrset, key, skew=60)


def test_times_are_compared_in_serial_arithmetic(key):
    after_2106 = (1 << 32) + 1000
    rrset = key.sign(OWNER, 16, TXT, ZONE, inception=after_2106 - 5000, expiration=after_2106 + 50)
    assert check(rrset, key, now=after_2106) == Verified(after_2106 + 50)
    with pytest.raises(Bogus, match="expired"):
        check(rrset, key, now=after_2106 + 51)


def test_a_wildcard_names_its_closest_encloser(key):
    zone = parse_name("2.192.in-addr.arpa")
    wildcard = parse_name("*.0.2.192.in-addr.arpa")
    expanded = key.sign(OWNER, 16, TXT, ZONE, labels=5, signed_as=wildcard)
    assert check(expanded, key) == Verified(NOW + 3600, parse_name("0.2.192.in-addr.arpa"))
    assert check(key.sign(wildcard, 16, TXT, zone, labels=5), key) == Verified(NOW + 3600), "asked for by its own name"


@pytest.mark.parametrize("rdtype", [RecordType.NSEC, RecordType.DS, RecordType.DNAME])
def test_some_types_never_come_from_a_wildcard(key, rdtype):
    rdata = {RecordType.NSEC: to_wire(ZONE) + bytes.fromhex("000140"), RecordType.DS: b"\0\1\x0d\2" + b"d" * 32,
             RecordType.DNAME: to_wire(ZONE)}[rdtype]
    expanded = key.sign(OWNER, rdtype, (rdata,), ZONE, labels=5, signed_as=parse_name("*.0.2.192.in-addr.arpa"))
    with pytest.raises(Bogus, match="comes from a wildcard"):
        check(expanded, key)


def test_colliding_keys_and_many_signatures_are_bounded(key):
    rrset = key.sign(OWNER, 16, TXT, ZONE)
    spoiled = dataclasses.replace(rrset, signatures=tuple(rrset.signatures[0][:-1] + bytes([i]) for i in range(50)))
    budget = Budget()
    with pytest.raises(Bogus, match="too many signatures"):
        verify(spoiled, ZONE, [key.dnskey] * 50, NOW, budget)
    for _ in range(DEFAULT.signatures - MAX_TRIES_PER_RRSET):
        budget.spend_signature()
    with pytest.raises(Indeterminate, match=f"after {DEFAULT.signatures} signature checks"):
        verify(rrset, ZONE, [key.dnskey], NOW, budget)


def ds_of(key: Dnskey, digest_type: int, zone: Name = ZONE) -> Ds:
    function = {1: hashlib.sha1, 2: hashlib.sha256, 4: hashlib.sha384}[digest_type]
    return Ds(key.tag, key.algorithm, digest_type, function(to_wire(zone) + key.rdata).digest())


def test_a_delegation_signer_names_one_key_of_one_zone(key):
    for digest_type in (1, 2, 4):
        ds = ds_of(key.dnskey, digest_type)
        assert is_delegated_to(key.dnskey, ZONE, ds)
        assert not is_delegated_to(key.dnskey, ZONE[1:], ds)
        assert not is_delegated_to(ZoneKey().dnskey, ZONE, dataclasses.replace(ds))
    keys = [ZoneKey().dnskey, key.dnskey]
    assert delegated_keys(ZONE, keys, [ds_of(key.dnskey, 2)]) == [key.dnskey]


def test_sha1_does_not_count_beside_a_better_digest(key):
    weak, strong = ds_of(key.dnskey, 1), ds_of(ZoneKey().dnskey, 2)
    assert strongest([weak, strong]) == [strong]
    assert strongest([weak]) == [weak]
    assert strongest([dataclasses.replace(weak, algorithm=12), dataclasses.replace(strong, digest_type=3)]) == []


def test_what_checks_signatures_does_not_fill_the_log_with_warnings_of_libraries():
    """Importing ldns alone has them all shown."""
    inside = "import warnings; before = list(warnings.filters); {}; print(before == warnings.filters)"
    said = [subprocess.run([sys.executable, "-c", inside.format(statement)], capture_output=True, text=True).stdout
            for statement in ("import ldns", "import oesvc.dns.ldns_binding")]
    assert said == ["False\n", "True\n"]
