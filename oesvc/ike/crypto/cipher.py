"""The CBC ciphers that protect IKE's own messages: RFC 2409 appendix B, RFC 3602."""

from dataclasses import dataclass, field

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

try:
    from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
except ImportError:  # Debian 12's version has it among the others
    from cryptography.hazmat.primitives.ciphers.algorithms import TripleDES

ALGORITHMS = {"3des-cbc": (TripleDES, 8), "aes-cbc": (algorithms.AES, 16)}
"By name: the block cipher and the octets of its block."


class BlockLengthError(ValueError):
    """A ciphertext's length is no multiple of the cipher's block."""


@dataclass(frozen=True, slots=True)
class CbcCipher:
    """A cipher with its key."""

    name: str
    key: bytes = field(repr=False)

    @property
    def block(self) -> int:
        return ALGORITHMS[self.name][1]

    def with_iv(self, iv: bytes) -> "Cipher[modes.CBC]":
        return Cipher(ALGORITHMS[self.name][0](self.key), modes.CBC(iv))


@dataclass(frozen=True, slots=True)
class CbcState:
    """Where an exchange is: the last block of one message is the IV of the next (appendix B).

    Of whole blocks nothing is left for a cipher to give out at the end.
    """

    cipher: CbcCipher
    iv: bytes = field(repr=False)

    def encrypt(self, plaintext: bytes) -> "tuple[bytes, CbcState]":
        """Pad with zeros to whole blocks, as section 5.5 wants it, and encrypt."""
        padded = plaintext + bytes(-len(plaintext) % self.cipher.block)
        ciphertext = self.cipher.with_iv(self.iv).encryptor().update(padded)
        return ciphertext, self._after(ciphertext)

    def decrypt(self, ciphertext: bytes) -> "tuple[bytes, CbcState]":
        """The plaintext still has its padding. Raises BlockLengthError."""
        if not ciphertext or len(ciphertext) % self.cipher.block:
            raise BlockLengthError(f"{len(ciphertext)} octets are no whole blocks of {self.cipher.block}")
        return self.cipher.with_iv(self.iv).decryptor().update(ciphertext), self._after(ciphertext)

    def _after(self, ciphertext: bytes) -> "CbcState":
        return CbcState(self.cipher, ciphertext[-self.cipher.block:])
