"""RSA public keys as the DNS carries them: RFC 3110 section 2."""

import base64
import binascii
from dataclasses import dataclass

MODULUS_BITS = range(1024, 8193)
EXPONENT_BITS = range(2, 65)


class KeyFormatError(ValueError):
    """The octets are no RSA public key that a gateway could use."""


@dataclass(frozen=True, slots=True)
class RsaPublicKey:
    """An RSA public key."""

    exponent: int
    modulus: int

    def __post_init__(self) -> None:
        for name, number, bits in (("exponent", self.exponent, EXPONENT_BITS),
                                   ("modulus", self.modulus, MODULUS_BITS)):
            if number % 2 == 0:
                raise KeyFormatError(f"the RSA {name} is even")
            if number.bit_length() not in bits:
                raise KeyFormatError(f"the RSA {name} has {number.bit_length()} bits; "
                                     f"{bits[0]} to {bits[-1]} are allowed")

    @classmethod
    def from_rfc3110(cls, data: bytes) -> "RsaPublicKey":
        """Read exponent length (1 octet, or 0 and 2 octets), exponent, modulus. Raises KeyFormatError."""
        length, start = (data[0], 1) if data[:1] != b"\0" and data else (int.from_bytes(data[1:3], "big"), 3)
        exponent, modulus = data[start:start + length], data[start + length:]
        if not exponent or not modulus:
            raise KeyFormatError(f"an RFC 3110 key of {len(data)} octets is cut short")
        if exponent[0] == 0 or modulus[0] == 0:
            raise KeyFormatError("an RFC 3110 number begins with a zero octet")
        return cls(int.from_bytes(exponent, "big"), int.from_bytes(modulus, "big"))

    @classmethod
    def from_base64(cls, text: str) -> "RsaPublicKey":
        """Read RFC 3110 octets from base64; white space in it is ignored (RFC 4322 section 5.2.1)."""
        try:
            octets = "".join(text.split()).encode("ascii", "replace")
            return cls.from_rfc3110(base64.b64decode(octets, validate=True))
        except binascii.Error as error:
            raise KeyFormatError(f"the key is no base64: {error}") from None

    def to_rfc3110(self) -> bytes:
        exponent = self.exponent.to_bytes((self.exponent.bit_length() + 7) // 8, "big")
        length = bytes([len(exponent)]) if len(exponent) < 256 else b"\0" + len(exponent).to_bytes(2, "big")
        return length + exponent + self.modulus.to_bytes((self.modulus.bit_length() + 7) // 8, "big")

    def to_base64(self) -> str:
        return base64.b64encode(self.to_rfc3110()).decode("ascii")

    def __str__(self) -> str:
        return f"RSA-{self.modulus.bit_length()} {self.to_base64()[5:14]}..."
