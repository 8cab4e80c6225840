"""Key pairs on disk and the records made of them."""

import os
import subprocess
from ipaddress import ip_address

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from oesvc.ipsec.rsa_key import RsaPublicKey
from oesvc.keys import key_pair
from oesvc.keys.records import delegation_record, ipseckey_record, key_record, records
from oesvc.oe.authorization import read_txt
from oesvc.oe.delegation import Delegation, parse_delegation
from tests.oe.parts import ALICE, KEY, SG_A

FOUR_KBIT = RsaPublicKey(65537, (1 << 4095) + 1)


def test_generated_key_is_private_and_reads_back(tmp_path):
    file = tmp_path / "private" / "gateway.pem"
    made = key_pair.generate(file)
    assert key_pair.public_key(key_pair.load(file)) == key_pair.public_key(made)
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_key_that_root_makes_belongs_to_the_owner_of_its_folder(tmp_path):
    folder = tmp_path / "private"
    folder.mkdir(mode=0o700)
    os.chown(folder, 4322, 4500)
    key_pair.generate(folder / "gateway.pem")
    made = (folder / "gateway.pem").stat()
    assert (made.st_uid, made.st_gid, made.st_mode & 0o777) == (4322, 4500, 0o600)


def test_existing_key_is_never_overwritten(tmp_path):
    file = tmp_path / "gateway.pem"
    file.write_text("precious")
    with pytest.raises(key_pair.KeyPairError, match="there is a key already"):
        key_pair.generate(file)
    assert file.read_text() == "precious"


def elliptic():
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize("pem, mode, complaint", [
    (b"", 0o600, "no unencrypted private key"), (b"-----BEGIN PRIVATE KEY-----\nSECRET", 0o600, "no unencrypted"),
    (elliptic(), 0o600, "no RSA key"), (elliptic(), 0o640, "chmod 600")])
def test_unusable_key_file_is_named_and_never_quoted(tmp_path, pem, mode, complaint):
    file = tmp_path / "gateway.pem"
    file.write_bytes(pem)
    file.chmod(mode)
    with pytest.raises(key_pair.KeyPairError, match=complaint) as refused:
        key_pair.load(file)
    assert str(refused.value).startswith(str(file))
    assert "SECRET" not in str(refused.value)


def test_missing_key_file_says_how_to_make_one(tmp_path):
    with pytest.raises(key_pair.KeyPairError, match="oegw keys gen"):
        key_pair.load(tmp_path / "gateway.pem")


@pytest.mark.conformance("C-5.1-01", "C-4.6.1-11")
def test_key_record_stands_in_the_reverse_zone():
    assert key_record(SG_A, KEY) == f"4.1.1.192.in-addr.arpa. IN KEY 16896 4 1 {KEY.to_base64()}"


@pytest.mark.conformance("C-5.2-11")
def test_delegation_record_reads_back_and_its_strings_fit():
    line = delegation_record(ALICE, SG_A, KEY)
    assert line.startswith('65.0.1.192.in-addr.arpa. IN TXT "X-IPsec-Server(10)=192.1.1.4 ')
    parts = line.split('"')[1::2]
    rdata = b"".join(bytes([len(part)]) + part.encode() for part in parts)
    assert parse_delegation(read_txt(rdata)) == Delegation(10, SG_A, (KEY,))


@pytest.mark.conformance("C-1.1-01")
def test_all_records_of_a_gateway_and_its_hosts():
    assert [line.split()[:3:2] for line in records(SG_A, [ALICE, SG_A], KEY)] == [
        ["4.1.1.192.in-addr.arpa.", "KEY"], ["4.1.1.192.in-addr.arpa.", "TXT"], ["4.1.1.192.in-addr.arpa.", "IPSECKEY"],
        ["65.0.1.192.in-addr.arpa.", "TXT"], ["65.0.1.192.in-addr.arpa.", "IPSECKEY"]]
    assert [line.split()[2] for line in records(SG_A, [ALICE], KEY, ["KEY"])] == ["KEY"]


@pytest.mark.parametrize("host, gateway, fields", [
    (SG_A, SG_A, "10 0 2 ."), (ALICE, SG_A, "10 1 2 192.1.1.4"),
    (ALICE, ip_address("2001:db8::4"), "10 2 2 2001:db8::4"), (ALICE, "gw.example.com", "10 3 2 gw.example.com."),
    ("gw.example.com", "gw.example.com", "10 0 2 .")])
def test_ipseckey_record_has_the_type_of_its_gateway(host, gateway, fields):
    assert ipseckey_record(host, gateway, KEY).partition(" IN IPSECKEY ")[2] == f"{fields} {KEY.to_base64()}"


@pytest.mark.conformance("C-5.3-01")
def test_gateway_known_by_name_has_its_keys_at_that_name_and_delegates_nothing_there():
    assert [line.split()[:3:2] for line in records("gw.example.com", [ALICE], KEY)] == [
        ["gw.example.com.", "KEY"], ["gw.example.com.", "IPSECKEY"],
        ["65.0.1.192.in-addr.arpa.", "TXT"], ["65.0.1.192.in-addr.arpa.", "IPSECKEY"]]


@pytest.mark.parametrize("tool", [["named-checkzone", "-k", "fail", "."], ["nsd-checkzone", "."]])
@pytest.mark.parametrize("gateway", [SG_A, ip_address("2001:db8::4"), "gw.example.com"])
def test_records_are_accepted_by_the_tools_of_name_servers(tmp_path, tool, gateway):
    zone = tmp_path / "zone"
    head = "$TTL 60\n. IN SOA ns. host. 1 2 3 4 5\n. IN NS ns.\nns. IN A 192.0.2.1\n"
    zone.write_text(head + "\n".join(records(gateway, [ALICE, ip_address("2001:db8::9")], FOUR_KBIT)) + "\n")
    done = subprocess.run([*tool, str(zone)], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
