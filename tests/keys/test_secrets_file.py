"""Keys of FreeS/WAN and Openswan, and in PEM form, are taken as they are."""

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from oesvc.keys import key_pair, secrets_file
from oesvc.keys.key_pair import KeyPairError
from oesvc.operator import main


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    return key_pair.generate(tmp_path_factory.mktemp("key") / "key.pem")


def fields(key):
    numbers = key.private_numbers()
    public = numbers.public_numbers
    return {"Modulus": public.n, "PublicExponent": public.e, "PrivateExponent": numbers.d, "Prime1": numbers.p,
            "Prime2": numbers.q, "Exponent1": numbers.dmp1, "Exponent2": numbers.dmq1, "Coefficient": numbers.iqmp}


def secrets(fields):
    lines = "\n".join(f"\t{name}: {number:#x}" for name, number in fields.items())
    return (f"# ipsec.secrets of `ipsec newhostkey` }} with comments\n192.0.2.1 198.51.100.1 : PSK \"shared\"\n"
            f"@gw.example.com : RSA {{\n\t# RSA 2048 bits\n\t#pubkey=0sAQ...\n{lines}\n\t# do not change\n\t}}\n")


def test_key_of_freeswan_is_read(tmp_path, key):
    file = tmp_path / "ipsec.secrets"
    file.write_text(secrets(fields(key)))
    assert secrets_file.read(file).private_numbers() == key.private_numbers()


def test_key_without_its_primes_is_whole_again(tmp_path, key):
    file = tmp_path / "ipsec.secrets"
    file.write_text(secrets({name: number for name, number in fields(key).items() if "Exponent" in name or
                             name == "Modulus"}))
    assert key_pair.public_key(secrets_file.read(file)) == key_pair.public_key(key)


def test_pem_of_any_form_is_read(tmp_path, key):
    file = tmp_path / "key.pem"
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
    assert key_pair.public_key(secrets_file.read(file)) == key_pair.public_key(key)


@pytest.mark.parametrize("text, complaint", [
    ("", "pk12util"), (": PSK \"SECRET\"", "there is no `: RSA"),
    (": RSA {\n Modulus: 0x10\n PublicExponent: 3\n}", "no PrivateExponent"),
    (": RSA {\n Modulus: 15\n PublicExponent: 3\n PrivateExponent: 77777777\n}", "no unencrypted RSA key"),
    ("-----BEGIN PRIVATE KEY-----\nSECRET\n-----END PRIVATE KEY-----", "no unencrypted RSA key")])
def test_what_is_no_key_is_named_and_never_quoted(tmp_path, text, complaint):
    file = tmp_path / "ipsec.secrets"
    file.write_text(text)
    with pytest.raises(KeyPairError, match=complaint) as refused:
        secrets_file.read(file)
    assert str(refused.value).startswith(str(file))
    assert "SECRET" not in str(refused.value) and "7777" not in str(refused.value)


def test_import_command_makes_it_ours_and_overwrites_nothing(tmp_path, key, capsys):
    (tmp_path / "policies").mkdir()
    conf, file = tmp_path / "oegw.conf", tmp_path / "ipsec.secrets"
    conf.write_text(f"[ike]\nprivate-key = {tmp_path}/private/key.pem\n[paths]\npolicies = {tmp_path}/policies\n")
    file.write_text(secrets(fields(key)))
    assert main.main(["keys", "import", "--config", str(conf), str(file)]) == 0
    assert key_pair.public_key(key_pair.load(tmp_path / "private" / "key.pem")) == key_pair.public_key(key)
    assert main.main(["keys", "import", "--config", str(conf), str(file)]) == 2
    assert "there is a key already" in capsys.readouterr().err
