"""RSA keys as the DNS carries them: RFC 3110."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oesvc.ipsec.rsa_key import KeyFormatError, RsaPublicKey

MODULUS = (1 << 2047) + 1


@pytest.mark.conformance("C-5.1-05")
@given(st.sampled_from([1024, 2048, 4096, 8192]), st.sampled_from([3, 17, 65537, (1 << 63) + 1]))
def test_round_trip_is_exact(bits, exponent):
    key = RsaPublicKey(exponent, (1 << (bits - 1)) + 1)
    assert RsaPublicKey.from_rfc3110(key.to_rfc3110()) == key
    assert RsaPublicKey.from_base64(key.to_base64()) == key


@pytest.mark.conformance("C-5.1-05")
def test_long_form_of_the_exponent_length_is_read():
    data = b"\0\0\3\1\0\1" + MODULUS.to_bytes(256, "big")
    assert RsaPublicKey.from_rfc3110(data) == RsaPublicKey(65537, MODULUS)


def test_base64_may_hold_white_space():
    text = RsaPublicKey(3, MODULUS).to_base64()
    assert RsaPublicKey.from_base64(f"{text[:9]} \t{text[9:99]}\r\n{text[99:]}") == RsaPublicKey(3, MODULUS)


@pytest.mark.parametrize("data", [b"", b"\1", b"\0", b"\0\0", b"\0\0\0", b"\3\1\0\1", b"\1\3\0" + b"\x81" * 256,
                                  b"\2\0\3" + b"\x81" * 256, b"\1\4" + b"\x81" * 256, b"\1\3" + b"\x80" * 256,
                                  b"\1\3" + b"\x81" * 127, b"\1\3" + b"\x81" * 1025, b"\xff" * 300])
def test_what_is_no_usable_key_is_refused(data):
    with pytest.raises(KeyFormatError):
        RsaPublicKey.from_rfc3110(data)


@given(st.binary(max_size=1200))
def test_no_octets_do_worse_than_a_format_error(data):
    with contextlib.suppress(KeyFormatError):
        assert RsaPublicKey.from_rfc3110(data).modulus
