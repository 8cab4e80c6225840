from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oesvc.dns.failures import MalformedData
from oesvc.dns.name import (
    ancestors,
    canonical_key,
    common_ancestor,
    is_below,
    name_text,
    parse_name,
    read_name,
    reverse_name,
    to_wire,
)

labels = st.lists(st.binary(min_size=1, max_size=20).map(bytes.lower), max_size=10).map(tuple)


@pytest.mark.conformance("C-2.3.1-04")
def test_an_address_stands_in_the_reverse_map_of_its_family():
    assert name_text(reverse_name(ip_address("192.2.0.66"))) == "66.0.2.192.in-addr.arpa."
    assert name_text(reverse_name(ip_address("2001:db8::1"))) == "1." + "0." * 23 + "8.b.d.0.1.0.0.2.ip6.arpa."


@given(labels)
def test_text_and_wire_give_back_the_name(name):
    assert parse_name(name_text(name)) == name
    assert read_name(to_wire(name) + b"rest", 0) == (name, len(to_wire(name)))


def test_a_name_in_text_is_read_as_zone_files_have_it():
    assert parse_name(".") == ()
    assert parse_name("WWW.Example") == parse_name("www.example.") == (b"www", b"example")
    assert parse_name(r"a\.b.\099\\") == (b"a.b", b"c\\")
    assert name_text((b"a.b", b"\0")) == r"a\046b.\000."


@pytest.mark.parametrize("text", ["a..b", ".a", r"\256.", "a\\", "x" * 64, ".".join(["x" * 63] * 4) + ".x", "ä"])
def test_what_is_no_name_is_refused(text):
    with pytest.raises(ValueError):
        parse_name(text)


@pytest.mark.parametrize("octets", [b"", b"\1", b"\1a", b"\3ab\0", b"\xc0\0", b"\x41" + b"a" * 65 + b"\0",
                                    b"\x3f" + b"a" * 63 + (b"\x3f" + b"a" * 63) * 3 + b"\0"])
def test_a_name_within_rdata_is_whole_and_uncompressed(octets):
    with pytest.raises(MalformedData):
        read_name(octets, 0)


def test_the_canonical_order_is_that_of_rfc_4034():
    ordered = [parse_name(text) for text in (
        "example", "a.example", "yljkjljk.a.example", "Z.a.example", "zABC.a.EXAMPLE", "z.example",
        r"\001.z.example", "*.z.example", r"\200.z.example")]
    assert sorted(set(ordered), key=canonical_key) == ordered


def test_family_relations_of_names():
    name = parse_name("66.0.2.192.in-addr.arpa")
    assert is_below(name, parse_name("in-addr.arpa")) and is_below(name, name) and is_below(name, ())
    assert not is_below(parse_name("arpa"), name)
    assert not is_below(parse_name("xin-addr.arpa"), parse_name("in-addr.arpa"))
    assert common_ancestor(name, parse_name("1.2.192.in-addr.arpa")) == parse_name("2.192.in-addr.arpa")
    assert common_ancestor(name, ()) == ()
    assert ancestors(parse_name("in-addr.arpa")) == [(), (b"arpa",), (b"in-addr", b"arpa")]
