import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oesvc.dns.failures import MalformedData
from oesvc.dns.name import parse_name, to_wire
from oesvc.dns.records import (
    Key,
    parse_dnskey,
    parse_ds,
    parse_key,
    parse_nsec,
    parse_nsec3,
    parse_rrsig,
    parse_soa,
    parse_target,
    parse_txt,
)

PARSERS = (parse_dnskey, parse_ds, parse_key, parse_nsec, parse_nsec3, parse_rrsig, parse_soa, parse_target, parse_txt)


@pytest.mark.conformance("C-5.2.1-01")
@pytest.mark.conformance("C-5.2.1-03")
@given(st.lists(st.binary(max_size=255), min_size=1, max_size=8))
def test_character_strings_are_joined_however_they_were_cut(strings):
    assert parse_txt(b"".join(bytes([len(string)]) + string for string in strings)) == b"".join(strings)


def test_key_record_of_rfc_2535():
    assert parse_key(bytes.fromhex("42000401") + b"octets") == Key(0x4200, 4, 1, b"octets")


def test_key_tag_of_a_dnskey_is_that_of_rfc_4034():
    # RFC 4034 section 5.4 prints this key and its tag
    import base64
    key = base64.b64decode("AQOeiiR0GOMYkDshWoSKz9XzfwJr1AYtsmx3TGkJaNXVbfi/2pHm822aJ5iI9BMzNXxeYCmZDRD99WYwYqUSdjMmmAp"
                           "hXdvxegXd/M5+X7OrzKBaMbCVdFLUUh6DhweJBjEVv5f2wwjM9XzcnOf+EPbtG9DMBmADjFDc2w/rljwvFw==")
    dnskey = parse_dnskey(struct.pack("!HBB", 256, 3, 5) + key)
    assert dnskey.tag == 60485 and dnskey.may_sign


@pytest.mark.parametrize("flags, protocol", [(0, 3), (256 | 128, 3), (256, 2), (1, 3)])
def test_keys_that_may_not_sign_zones(flags, protocol):
    assert not parse_dnskey(struct.pack("!HBB", flags, protocol, 8) + b"key").may_sign


def test_type_bitmap_of_rfc_4034():
    # RFC 4034 section 4.3: host.example.com. NSEC for A MX RRSIG NSEC TYPE1234
    bitmap = bytes.fromhex("0006400100000003 041b" + "00" * 26 + "20")
    nsec = parse_nsec(to_wire(parse_name("host.example.com")) + bitmap)
    assert nsec.types == {1, 15, 46, 47, 1234}


@pytest.mark.parametrize("bitmap", ["00", "0000", "0021" + "00" * 33, "000280", "000180000180", "010180000180"])
def test_type_bitmaps_out_of_order_or_bounds_are_refused(bitmap):
    with pytest.raises(MalformedData):
        parse_nsec(b"\0" + bytes.fromhex(bitmap))


@given(st.sampled_from(PARSERS), st.binary(max_size=80))
def test_parsers_raise_nothing_but_malformed_data(parse, octets):
    try:
        parse(octets)
    except MalformedData as error:
        assert str(error)
