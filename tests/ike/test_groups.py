"""Diffie-Hellman groups: their constants by what they must be, their arithmetic both ways, and hostile values."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oesvc.ike.crypto.groups import ECP, MODP, Group, PublicValueError, generate, modp_prime, public_length


def is_probably_prime(n: int) -> bool:
    """Miller and Rabin's test with the first bases."""
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in (2, 3, 5, 7):
        x = pow(base, odd, n)
        if x in (1, n - 1):
            continue
        for _ in range(twos - 1):
            x = x * x % n
            if x == n - 1:
                break
        else:
            return False
    return True


@pytest.mark.parametrize("group", MODP, ids=str)
def test_modp_prime_has_the_form_of_its_rfc(group):
    bits, _ = MODP[group]
    prime = modp_prime(group)
    assert prime.bit_length() == bits
    assert prime >> (bits - 64) == prime & (2**64 - 1) == 2**64 - 1


@pytest.mark.parametrize("group", [group for group in MODP if MODP[group][0] <= 4096], ids=str)
def test_modp_prime_is_a_safe_prime(group):
    prime = modp_prime(group)
    assert is_probably_prime(prime) and is_probably_prime(prime // 2)


@pytest.mark.parametrize("group", [Group.MODP_6144, Group.MODP_8192], ids=str)
def test_large_modp_prime_passes_fermats_test_as_a_safe_prime(group):
    prime = modp_prime(group)
    assert pow(2, prime // 2, prime) == 1, "2 generates the subgroup of order (p-1)/2"


def test_second_oakley_group_is_the_one_of_rfc_2409():
    digits = f"{modp_prime(Group.MODP_1024):X}"
    assert digits.startswith("FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD1")
    assert digits.endswith("49286651ECE65381FFFFFFFFFFFFFFFF")


@pytest.mark.parametrize("group", Group, ids=str)
def test_both_sides_come_to_the_same_secret(group):
    ours, theirs = generate(group), generate(group)
    secret = ours.shared_secret(theirs.public)
    assert secret == theirs.shared_secret(ours.public)
    assert len(ours.public) == public_length(group)
    assert len(secret) == (public_length(group) if group in MODP else public_length(group) // 2)


@pytest.mark.parametrize("group", [Group.MODP_1024, Group.MODP_2048, Group.MODP_8192], ids=str)
def test_values_of_small_order_and_out_of_range_are_refused(group):
    pair, prime, length = generate(group), modp_prime(group), public_length(group)
    for value in (0, 1, prime - 1, prime, prime + 1, 2**(8 * length) - 1):
        with pytest.raises(PublicValueError):
            pair.shared_secret(value.to_bytes(length, "big"))


@pytest.mark.parametrize("group", ECP, ids=str)
def test_points_off_the_curve_are_refused(group):
    pair, length = generate(group), public_length(group)
    public = generate(group).public
    for hostile in (bytes(length), b"\xff" * length, public[:-1] + bytes([public[-1] ^ 1])):
        with pytest.raises(PublicValueError):
            pair.shared_secret(hostile)


@pytest.mark.parametrize("group", [Group.MODP_2048, Group.ECP_256], ids=str)
@settings(max_examples=30, deadline=None)
@given(data=st.binary(max_size=300))
def test_values_of_other_lengths_are_refused(group, data):
    if len(data) != public_length(group):
        with pytest.raises(PublicValueError):
            generate(group).shared_secret(data)
