"""RSA signatures of RFC 2409 section 5.1: PKCS #1 padding around the bare hash."""

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from oesvc.ike.crypto.signatures import key_that_verifies, sign
from oesvc.ipsec.rsa_key import RsaPublicKey
from tests.ike.pair import private_key, public_key

DIGEST = bytes(range(20))


@pytest.mark.parametrize("octets", [16, 20, 32, 48, 64])
def test_signature_is_a_private_key_encryption_of_the_bare_hash(octets):
    key, digest = public_key("a"), bytes(range(octets))
    signature = sign(private_key("a"), digest)
    block = pow(int.from_bytes(signature, "big"), key.exponent, key.modulus).to_bytes(256, "big")
    assert block == b"\0\1" + b"\xff" * (256 - 3 - octets) + b"\0" + digest
    assert key_that_verifies([key], digest, signature) == key


def test_the_key_that_verifies_is_found_among_several():
    keys = [public_key("c"), public_key("b"), public_key("a")]
    assert key_that_verifies(keys, DIGEST, sign(private_key("b"), DIGEST)) == public_key("b")


def test_wrong_digest_wrong_key_and_wrong_length_do_not_verify():
    signature = sign(private_key("a"), DIGEST)
    assert key_that_verifies([public_key("a")], bytes(20), signature) is None
    assert key_that_verifies([public_key("b")], DIGEST, signature) is None
    assert key_that_verifies([public_key("a")], DIGEST, signature[:-1]) is None
    assert key_that_verifies([public_key("a")], DIGEST, b"") is None
    assert key_that_verifies([], DIGEST, signature) is None


def test_signature_with_digest_info_is_none_of_ikev1():
    signature = private_key("a").sign(DIGEST, padding.PKCS1v15(), hashes.SHA1())
    assert key_that_verifies([public_key("a")], DIGEST, signature) is None


def test_number_in_the_dns_that_is_no_rsa_key_verifies_nothing():
    for key in (RsaPublicKey(3, 2**1024 - 1), RsaPublicKey(2**64 - 1, 2**1023 + 1)):
        assert key_that_verifies([key], DIGEST, bytes(128)) is None


def test_digest_that_does_not_fit_into_the_key_cannot_be_signed():
    with pytest.raises(ValueError):
        sign(private_key("small", 1024), bytes(120))
