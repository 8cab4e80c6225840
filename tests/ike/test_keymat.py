"""Known answers: NIST's SP 800-135 vectors for SKEYID and its children, SP 800-38A for AES-CBC, FIPS 46-3's DES."""

import hmac
import json
from pathlib import Path

import pytest

from oesvc.ike.crypto.cipher import BlockLengthError, CbcCipher, CbcState
from oesvc.ike.crypto.keymat import Cookies, Hash, cipher_key, derive_secrets, phase2_keymat

VECTOR = json.loads((Path(__file__).parent / "vectors" / "ike_kdf.json").read_text())["ikev1_signature"]


def octets(name: str) -> bytes:
    return bytes.fromhex(VECTOR[name])


def nist_secrets():
    return derive_secrets(Hash.SHA1, "aes-cbc", 16, octets("Ni") + octets("Nr"), octets("g^xy"),
                          Cookies(octets("CKY_I"), octets("CKY_R")))


def test_skeyid_and_its_children_are_nists():
    secrets = nist_secrets()
    assert secrets.skeyid == octets("SKEYID")
    assert secrets.skeyid_d == octets("SKEYID_d")
    assert secrets.skeyid_a == octets("SKEYID_a")
    assert secrets.cipher.key == octets("SKEYID_e")[:16]


def test_cipher_key_is_stretched_by_appendix_b_only_where_skeyid_e_is_too_short():
    skeyid_e = octets("SKEYID_e")
    k1 = hmac.digest(skeyid_e, b"\0", "sha1")
    k2 = hmac.digest(skeyid_e, k1, "sha1")
    assert cipher_key(Hash.SHA1, skeyid_e, 20) == skeyid_e
    assert cipher_key(Hash.SHA1, skeyid_e, 24) == (k1 + k2)[:24]
    assert cipher_key(Hash.MD5, skeyid_e[:16], 32)[:16] == hmac.digest(skeyid_e[:16], b"\0", "md5")


@pytest.mark.parametrize("octets_wanted", [16, 20, 36, 40, 96])
def test_phase_2_keymat_is_section_5_5s(octets_wanted):
    secrets, shared, spi, nonces = nist_secrets(), b"g(qm)^xy", b"\1\2\3\4", b"Ni_bNr_b"
    seed = shared + b"\3" + spi + nonces
    blocks = [hmac.digest(secrets.skeyid_d, seed, "sha1")]
    while len(b"".join(blocks)) < octets_wanted:
        blocks.append(hmac.digest(secrets.skeyid_d, blocks[-1] + seed, "sha1"))
    assert phase2_keymat(secrets, shared, 3, spi, nonces, octets_wanted) == b"".join(blocks)[:octets_wanted]


def test_ivs_are_appendix_bs():
    secrets = nist_secrets()
    assert secrets.first_state(b"g^xi", b"g^xr").iv == Hash.SHA1.digest(b"g^xig^xr")[:16]
    assert secrets.phase2_state(b"last block", 0x01020304).iv == Hash.SHA1.digest(b"last block\1\2\3\4")[:16]


SP800_38A_PLAIN = bytes.fromhex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51")


@pytest.mark.parametrize("key, ciphertext", [
    ("2b7e151628aed2a6abf7158809cf4f3c", "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2"),
    ("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
     "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d"),
])
def test_aes_cbc_is_nists(key, ciphertext):
    state = CbcState(CbcCipher("aes-cbc", bytes.fromhex(key)), bytes(range(16)))
    assert state.encrypt(SP800_38A_PLAIN)[0].hex() == ciphertext


def test_triple_des_with_one_key_is_des():
    """The classic DES example: 0123456789abcdef under 133457799bbcdff1."""
    state = CbcState(CbcCipher("3des-cbc", bytes.fromhex("133457799bbcdff1") * 3), bytes(8))
    assert state.encrypt(bytes.fromhex("0123456789abcdef"))[0].hex() == "85e813540f0ab405"


@pytest.mark.parametrize("name, key", [("aes-cbc", bytes(32)), ("3des-cbc", bytes(range(24)))])
def test_messages_chain_by_their_last_blocks(name, key):
    cipher = CbcCipher(name, key)
    start = CbcState(cipher, bytes(cipher.block))
    first, middle = start.encrypt(b"one message")
    second, _ = middle.encrypt(b"another")
    plain, after = start.decrypt(first)
    assert plain.rstrip(b"\0") == b"one message" and after == middle
    assert after.decrypt(second)[0].rstrip(b"\0") == b"another"
    assert middle.iv == first[-cipher.block:]


def test_parts_of_blocks_are_refused():
    with pytest.raises(BlockLengthError):
        CbcState(CbcCipher("aes-cbc", bytes(16)), bytes(16)).decrypt(bytes(17))


def test_secrets_do_not_show_themselves():
    text = repr(nist_secrets())
    assert "skeyid" not in text and "key=" not in text
