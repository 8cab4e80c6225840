"""IPSECKEY records as delegations: RFC 4025 section 2."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oesvc.oe.delegation import Delegation, ForeignRecordError, MalformedRecordError
from oesvc.oe.ipseckey import parse_ipseckey
from tests.oe.parts import BOB, KEY, SG_B

OCTETS = KEY.to_rfc3110()
IPV6 = ip_address("2001:db8::5")


@pytest.mark.parametrize("rdata, delegation", [
    (b"\x0a\0\2" + OCTETS, Delegation(10, BOB, (KEY,))),
    (b"\xff\0\0", Delegation(255, BOB)),
    (b"\0\1\2" + SG_B.packed + OCTETS, Delegation(0, SG_B, (KEY,))),
    (b"\x0a\1\0" + SG_B.packed, Delegation(10, SG_B)),
    (b"\x0a\2\2" + IPV6.packed + OCTETS, Delegation(10, IPV6, (KEY,))),
    (b"\x0a\3\2\2GW\7example\3com\0" + OCTETS, Delegation(10, "gw.example.com", (KEY,))),
    (b"\x0a\3\0\2gw\7example\3com\0", Delegation(10, "gw.example.com")),
])
def test_every_type_of_gateway_is_read(rdata, delegation):
    read = parse_ipseckey(rdata, BOB)
    assert read == delegation and str(read).startswith("IPSECKEY(")


def test_host_known_by_name_is_its_own_gateway():
    assert parse_ipseckey(b"\x0a\0\2" + OCTETS, "gw.example.com").gateway == "gw.example.com"


@pytest.mark.parametrize("rdata, complaint", [
    (b"", "of 0 octets is cut short"),
    (b"\x0a\1", "of 2 octets is cut short"),
    (b"\x0a\1\0\xc0\0\2", "has 3 octets; an IPv4 address has 4"),
    (b"\x0a\2\2" + SG_B.packed, "has 4 octets; an IPv6 address has 16"),
    (b"\x0a\1\0\0\0\0\0", "not the address of one host"),
    (b"\x0a\1\0\xe0\0\0\1", "not the address of one host"),
    (b"\x0a\2\0\xfe\x80" + bytes(14), "not the address of one host"),
    (b"\x0a\3\0", "no name"), (b"\x0a\3\0\2g", "no name"), (b"\x0a\3\0\2gw", "no name"),
    (b"\x0a\3\0\xc0\x0c", "no name"), (b"\x0a\3\0\x40" + b"a" * 64 + b"\0", "no name"),
    (b"\x0a\3\0" + b"\x3fa" + b"a" * 62 + b"\x3f" + b"b" * 63 + b"\x3f" + b"c" * 63 + b"\x3f" + b"d" * 63 + b"\0",
     "no @FQDN|no name"),
    (b"\x0a\3\0\0", "no @FQDN"), (b"\x0a\3\0\4gw.a\4test\0", "no name"), (b"\x0a\3\0\2g \4test\0", "no @FQDN"),
    (b"\x0a\3\0\2g\xff\4test\0", "no @FQDN"),
    (b"\x0a\0\0key", "algorithm 0, which says that it has none"),
    (b"\x0a\0\2", "algorithm 2, but no key"),
    (b"\x0a\0\2\3", "cut short"),
    (b"\x0a\0\2\1\3" + b"\x81" * 64, "has 512 bits; 1024 to"),
])
def test_malformed_record_is_refused_with_what_is_wrong(rdata, complaint):
    with pytest.raises(MalformedRecordError, match=complaint):
        parse_ipseckey(rdata, BOB)


@pytest.mark.parametrize("rdata, complaint", [
    (b"\x0a\4\2" + OCTETS, "gateway type 4; 0 to 3 are known"),
    (b"\x0a\0\1key", r"algorithm 1 \(DSA\); 2 \(RSA\)"), (b"\x0a\0\3key", r"\(ECDSA\)"),
    (b"\x0a\0\x63key", "algorithm 99; 2"),
])
def test_what_is_well_formed_but_not_known_here_is_of_no_use_and_no_fault(rdata, complaint):
    with pytest.raises(ForeignRecordError, match=complaint):
        parse_ipseckey(rdata, BOB)


@given(st.binary(max_size=400), st.sampled_from([b"", b"\x0a\0\2", b"\x0a\1\2", b"\x0a\2\2", b"\x0a\3\2", b"\x0a\3\0"]))
def test_no_octets_do_worse(data, beginning):
    try:
        parse_ipseckey(beginning + data, BOB)
    except (MalformedRecordError, ForeignRecordError) as error:
        assert str(error)
