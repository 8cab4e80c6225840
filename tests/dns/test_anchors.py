import pytest

from oesvc.dns.anchors import DEBIAN_ROOT_KEY, AnchorError, TrustAnchor, parse_anchors, read_anchors
from oesvc.dns.name import parse_name
from oesvc.dns.records import Ds, parse_dnskey
from oesvc.dns.signatures import delegated_keys

DS = ". IN DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D"
DNSKEY = (
    ". 172800 IN DNSKEY 257 3 8 AwEAAaz/tAm8yTn4Mfeh5eyI96WSVexTBAvkMgJzkKTOiW1vkIbzxeF3+/4RgWOq7HrxRixHl"
    "FlExOLAJr5emLvN7SWXgnLh4+B5xQlNVz8Og8kvArMtNROxVQuCaSnIDdD5LKyWbRd2n9WGe2R8PzgCmr3EgVLrjyBxWezF0jLHw"
    "VN8efS3rCj/EWgvIWgb9tarpVUDK/b58Da+sqqls3eNbuv7pr+eoZG+SrDK6nWeL3c6H5Apxz7LjVc1uTIdsIXxuOLYA4/ilBmSV"
    "IzuDWfdRUfhHdY6+cn8HFRm+2hM8AnXGXws9555KrUB5qihylGa8subX2Nn6UwNR1AkUTV74bU= ;{id = 20326 (ksk), size"
    " = 2048b}"
)


def test_debians_file_with_keys_and_a_ds_line_name_the_same_key():
    (zone, key), = parse_anchors(DNSKEY, "root.key")
    (_, ds), = parse_anchors(f"; the root\n\n{DS}", "root.ds")
    assert zone == () and key.tag == 20326
    assert delegated_keys((), [key], [ds]) == [key]
    assert TrustAnchor((), delegation=(ds,)).trusts(key) and TrustAnchor((), keys=(key,)).trusts(key)


def test_the_root_keys_of_the_package_dns_root_data():
    (root,) = read_anchors([DEBIAN_ROOT_KEY])
    assert root.zone == () and {key.tag for key in root.keys} >= {20326, 38696}


def test_a_revoked_or_another_key_is_not_trusted():
    (_, key), = parse_anchors(DNSKEY, "root.key")
    revoked = parse_dnskey(bytes([key.rdata[0], key.rdata[1] | 0x80]) + key.rdata[2:])
    other = parse_dnskey(key.rdata[:-1] + b"x")
    anchor = TrustAnchor((), keys=(key,))
    assert not anchor.trusts(revoked) and not anchor.trusts(other)


def test_anchors_of_one_zone_come_together(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text(f"{DS}\nexample. DS 1 13 2 {'ab' * 32}\n")
    two.write_text(DNSKEY + "\n")
    root, example = read_anchors([one, two])
    assert root.zone == () and len(root.delegation) == len(root.keys) == 1
    assert example == TrustAnchor(parse_name("example"), (Ds(1, 13, 2, b"\xab" * 32),))


@pytest.mark.parametrize("line, complaint", [
    (". IN A 192.0.2.1", "not a DS or DNSKEY record; right is, for example"),
    (".", "not a DS or DNSKEY record"),
    (". DS 1 8", "three numbers and the digest"),
    (". DS x 8 2 ab", "x is not a number from 0 to 65535"),
    (". DS 1 256 2 ab", "256 is not a number from 0 to 255"),
    (". DS 1 8 2 xy", "hexadecimal"),
    (". DS 1 8 99 ab", "not known here"),
    (". DNSKEY 257 3 8 !!!", "base64"),
    (". DNSKEY 385 3 8 AAAA", "revoked"),
    ("a..b DS 1 8 2 ab", "a label has 1 to 63 octets"),
])
def test_a_wrong_line_is_named_with_what_would_be_right(line, complaint):
    with pytest.raises(AnchorError, match=f"^anchors:2: .*{complaint}"):
        parse_anchors(f"; comment\n{line}", "anchors")


def test_a_missing_or_empty_file_is_named(tmp_path):
    with pytest.raises(AnchorError, match=r"nowhere: .*install dns-root-data"):
        read_anchors([tmp_path / "nowhere"])
    empty = tmp_path / "empty"
    empty.write_text("; nothing\n")
    with pytest.raises(AnchorError, match="empty: no DS or DNSKEY record"):
        read_anchors([empty])
