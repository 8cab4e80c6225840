"""Diffie-Hellman groups by their IANA numbers: RFC 2409 section 6.2, RFC 3526 (MODP) and RFC 5903 (ECP).

The only file that knows of finite-field Diffie-Hellman in `cryptography`, which has announced to drop it one day.
"""

import warnings
from enum import IntEnum
from functools import cache
from typing import Protocol

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dh, ec

# The newest `cryptography` says at every use that finite fields will leave it; once is enough, above.
warnings.filterwarnings("ignore", message="Diffie-Hellman over finite fields")


class Group(IntEnum):
    MODP_1024 = 2
    MODP_1536 = 5
    MODP_2048 = 14
    MODP_3072 = 15
    MODP_4096 = 16
    MODP_6144 = 17
    MODP_8192 = 18
    ECP_256 = 19
    ECP_384 = 20
    ECP_521 = 21

    def __str__(self) -> str:
        return self.name.lower().replace("_", "")


MODP = {  # bits of the prime, and what the RFCs add to the digits of pi to make it a safe prime
    Group.MODP_1024: (1024, 129093),
    Group.MODP_1536: (1536, 741804),
    Group.MODP_2048: (2048, 124476),
    Group.MODP_3072: (3072, 1690314),
    Group.MODP_4096: (4096, 240904),
    Group.MODP_6144: (6144, 929484),
    Group.MODP_8192: (8192, 4743158),
}
GENERATOR = 2

ECP: dict[Group, ec.EllipticCurve] = {
    Group.ECP_256: ec.SECP256R1(),
    Group.ECP_384: ec.SECP384R1(),
    Group.ECP_521: ec.SECP521R1(),
}


class PublicValueError(ValueError):
    """The peer's public value is none of the group's (RFC 6989)."""


class KeyPair(Protocol):
    """Our ephemeral half of one exchange."""

    @property
    def public(self) -> bytes:
        """The KE payload's data, padded to the group's length."""

    def shared_secret(self, peer: bytes) -> bytes:
        """g^xy, padded to the group's length. Raises PublicValueError."""


def public_length(group: Group) -> int:
    """Octets of a public value."""
    return MODP[group][0] // 8 if group in MODP else 2 * _coordinate_length(group)


def generate(group: Group) -> KeyPair:
    return ModpKeyPair(group) if group in MODP else EcpKeyPair(group)


def respond(group: Group, peer: bytes) -> tuple[bytes, bytes]:
    """An ephemeral half that is needed once only: its public value, and the secret. Raises PublicValueError."""
    pair = generate(group)
    return pair.public, pair.shared_secret(peer)


class ModpKeyPair:
    """Modular exponentiation."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._private = _parameters(group).parameters().generate_private_key()
        self.public = self._private.public_key().public_numbers().y.to_bytes(public_length(group), "big")

    def shared_secret(self, peer: bytes) -> bytes:
        length, value = public_length(self._group), int.from_bytes(peer, "big")
        # In a safe-prime group only 1 and p-1 are of small order (RFC 6989 section 2.1).
        if len(peer) != length or not 1 < value < modp_prime(self._group) - 1:
            raise PublicValueError(f"{self._group}: {len(peer)} octets that are no public value of the group")
        try:
            public = dh.DHPublicNumbers(value, _parameters(self._group)).public_key()
            return self._private.exchange(public).rjust(length, b"\0")
        except ValueError as error:
            raise PublicValueError(f"{self._group}: {error}") from None


class EcpKeyPair:
    """Elliptic curves modulo a prime: the value is both coordinates, the secret is x alone (RFC 5903 section 7)."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._private = ec.generate_private_key(ECP[group])
        point = self._private.public_key().public_bytes(serialization.Encoding.X962,
                                                        serialization.PublicFormat.UncompressedPoint)
        self.public = point[1:]

    def shared_secret(self, peer: bytes) -> bytes:
        if len(peer) != public_length(self._group):
            raise PublicValueError(f"{self._group}: a public value of {len(peer)} octets")
        try:
            public = ec.EllipticCurvePublicKey.from_encoded_point(ECP[self._group], b"\4" + peer)
            return self._private.exchange(ec.ECDH(), public)
        except ValueError:
            raise PublicValueError(f"{self._group}: the public value is no point of the curve") from None


@cache
def modp_prime(group: Group) -> int:
    """2^n - 2^(n-64) - 1 + 2^64 * ([2^(n-130) pi] + k): RFC 2409 section 6.2, RFC 3526."""
    bits, offset = MODP[group]
    digits = (_pi(bits) >> 130) + offset
    return int(2**bits - 2 ** (bits - 64) - 1 + (digits << 64))


@cache
def _parameters(group: Group) -> dh.DHParameterNumbers:
    return dh.DHParameterNumbers(modp_prime(group), GENERATOR)


def _coordinate_length(group: Group) -> int:
    return (ECP[group].key_size + 7) // 8


def _pi(bits: int) -> int:
    """[2^bits pi], by Machin's formula."""
    guard = 64
    unity = 1 << (bits + guard)
    return (16 * _arctangent_of_inverse(5, unity) - 4 * _arctangent_of_inverse(239, unity)) >> guard


def _arctangent_of_inverse(x: int, unity: int) -> int:
    power = unity // x
    total, divisor, sign = power, 1, 1
    while power:
        power //= x * x
        divisor, sign = divisor + 2, -sign
        total += sign * (power // divisor)
    return total
