"""Records that speak for a host or a gateway: RFC 4322 sections 5.1 and 5.2."""

import base64
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oesvc.oe.authorization import read_txt
from oesvc.oe.delegation import Delegation, MalformedRecordError, parse_delegation, parse_key_record
from tests.oe.parts import KEY, OTHER_KEY, SG_A

WRITTEN = f"X-IPsec-Server(10)=192.1.1.4 {KEY.to_base64()}"


@pytest.mark.conformance("C-5.2-03", "C-5.2-12", "C-5.2-11", "C-5.2-10")
@pytest.mark.parametrize("text, delegation", [
    (WRITTEN, Delegation(10, SG_A, (KEY,))),
    (WRITTEN.replace(" ", "\t\r\n "), Delegation(10, SG_A, (KEY,))),
    ("X-IPsec-Server(9)=192.1.1.4", Delegation(9, SG_A)),
    ("x-ipsec-server(9)=192.1.1.4 ", Delegation(9, SG_A)),
    (f"X-IPsec-Server(0)=@GW.Example.com. {KEY.to_base64()}", Delegation(0, "gw.example.com", (KEY,))),
    ("X-IPsec-Server(65535)=2001:db8::4", Delegation(65535, ip_address("2001:db8::4"))),
    (f"X-IPsec-Server(10)=192.1.1.4 0s{KEY.to_base64()}", Delegation(10, SG_A, (KEY,))),
    (f"X-IPsec-Server(10)=192.1.1.4 {KEY.to_base64()[:200]} {KEY.to_base64()[200:]}", Delegation(10, SG_A, (KEY,))),
])
def test_delegation_is_read(text, delegation):
    assert parse_delegation(text) == delegation


@pytest.mark.conformance("C-5.2-04")
@pytest.mark.parametrize("text", ["v=spf1 -all", "", "google-site-verification=X-IPsec-Server", "\0\xff"])
def test_other_applications_records_are_ignored(text):
    assert parse_delegation(text) is None


@pytest.mark.conformance("C-5.2-06", "C-5.2-07", "C-5.2-09")
@pytest.mark.parametrize("text, complaint", [
    ("X-IPsec-Server=192.1.1.4", "is not of the form"),
    ("X-IPsec-Server()=192.1.1.4", "is not of the form"),
    ("X-IPsec-Server(-1)=192.1.1.4", "is not of the form"),
    ("X-IPsec-Server(ten)=192.1.1.4", "is not of the form"),
    ("X-IPsec-Gateway(10)=192.1.1.4", "is not of the form"),
    ("X-IPsec-Server(65536)=192.1.1.4", "precedence 65536 is above 65535"),
    ("X-IPsec-Server(10)=256.1.1.1", "neither an IP address nor @FQDN"),
    ("X-IPsec-Server(10)=1.2.3", "neither an IP address nor @FQDN"),
    ("X-IPsec-Server(10)=gw.example.com", "neither an IP address nor @FQDN"),
    ("X-IPsec-Server(10)=0.0.0.0", "not the address of one host"),
    ("X-IPsec-Server(10)=224.0.0.1", "not the address of one host"),
    ("X-IPsec-Server(10)=@-bad-", "no @FQDN"),
    ("X-IPsec-Server=192.1.1.4", "the precedence is missing"),
    ("X-IPsec-Gateway(10)=192.1.1.4", "the attribute is called X-IPsec-Server"),
    ("\"X-IPsec-Server(10)=192.1.1.4\"", "quotes belong to a zone file"),
    ("X-IPsec-Server(10) = 192.1.1.4", "no blank stands next to the `=`"),
    ("X-IPsec-Server(1.5)=192.1.1.4", "a number from 0 to 65535"),
    ("X-IPsec-Server (10)=192.1.1.4", "without blanks around it"),
    ("X-IPsec-Server(10)=gw.example.com", "a name is written with an @ before it"),
    (f"X-IPsec-Server(10)={'a.' * 30000}!", "of 60020 characters"),
    (WRITTEN.replace(" ", ""), "the blank before the key is missing"),
    ("X-IPsec-Server(10)=[2001:db8::4]", "without brackets"),
    ("X-IPsec-Server(10)=2001:db8::4%eth0", "neither an IP address nor @FQDN"),
    (f"{WRITTEN} {OTHER_KEY.to_base64()}", "publish one record a key"),
    (f"{WRITTEN} 0s{OTHER_KEY.to_base64()}", "publish one record a key"),
    ("X-IPsec-Server(10)=192.1.1.4 \u00e4", "the key is no base64"),
    ("X-IPsec-Server(10)=192.1.1.4 !!!!", "the key is no base64"),
    ("X-IPsec-Server(10)=192.1.1.4 AQM=", "cut short"),
    (f"X-IPsec-Server(10)=192.1.1.4 {base64.b64encode(bytes([1, 3]) + bytes([129] * 64)).decode()}", "512 bits"),
])
def test_malformed_delegation_is_refused_with_what_is_wrong(text, complaint):
    with pytest.raises(MalformedRecordError, match=complaint):
        parse_delegation(text)


@pytest.mark.conformance("C-5.2.1-01", "C-5.2.1-02", "C-5.2.1-03")
@given(st.lists(st.integers(1, 255), max_size=30))
def test_every_split_into_character_strings_reads_the_same(lengths):
    rdata, rest = b"", WRITTEN.encode()
    for length in [*lengths, *[255] * 4]:
        rdata += bytes([len(rest[:length])]) + rest[:length]
        rest = rest[length:]
    assert parse_delegation(read_txt(rdata)) == Delegation(10, SG_A, (KEY,))


def test_txt_cut_short_is_malformed():
    with pytest.raises(MalformedRecordError, match="cut short"):
        read_txt(b"\x05abcd")


@pytest.mark.conformance("C-5.1-02", "C-5.1-05")
def test_key_record_of_the_rfc_is_read():
    assert parse_key_record(bytes.fromhex("42000401") + KEY.to_rfc3110()) == KEY


@pytest.mark.conformance("C-5.1-03", "C-5.1-04")
@pytest.mark.parametrize("header, complaint", [("41000401", "flags 16640"), ("42000301", "protocol 3"),
                                               ("42000405", "algorithm 5"), ("4200", "cut short")])
def test_key_record_for_another_purpose_is_refused_with_the_reason(header, complaint):
    with pytest.raises(MalformedRecordError, match=complaint):
        parse_key_record(bytes.fromhex(header) + (KEY.to_rfc3110() if len(header) == 8 else b""))


def test_what_can_be_read_but_is_odd_is_remarked():
    assert parse_delegation(WRITTEN).remarks == ()
    odd = parse_delegation(f"X-IPsec-Server(10)=192.1.1.4 0s{KEY.to_base64()[:9]} {KEY.to_base64()[9:]}")
    assert odd == parse_delegation(WRITTEN) and len(odd.remarks) == 2


@given(st.binary(max_size=600))
def test_no_octets_do_worse_than_malformed(data):
    for read in (parse_key_record, lambda octets: parse_delegation(read_txt(octets)),
                 lambda octets: parse_delegation("X-IPsec-Server(1)=" + octets.decode("latin-1"))):
        try:
            read(data)
        except MalformedRecordError:
            continue
