"""Keys out of nonces and secrets: RFC 2409 section 5 and appendix B, for authentication with signatures."""

import hmac
from dataclasses import dataclass, field
from enum import Enum
from hashlib import new as new_hash

from oesvc.ike.crypto.cipher import CbcCipher, CbcState


class Hash(Enum):
    """A negotiated hash; its HMAC is the prf. The value is hashlib's name."""

    MD5 = "md5"
    SHA1 = "sha1"
    SHA2_256 = "sha256"
    SHA2_384 = "sha384"
    SHA2_512 = "sha512"

    def __str__(self) -> str:
        return self.value

    def digest(self, data: bytes) -> bytes:
        return new_hash(self._value_, data).digest()

    def prf(self, key: bytes, data: bytes) -> bytes:
        return hmac.digest(key, data, self._value_)


@dataclass(frozen=True, slots=True)
class Cookies:
    """CKY-I and CKY-R, which name a keying channel (RFC 2408 section 2.5.3)."""

    initiator: bytes
    responder: bytes

    def __bytes__(self) -> bytes:
        return self.initiator + self.responder


@dataclass(frozen=True, slots=True)
class Secrets:
    """SKEYID and its children; `cipher` holds the key that appendix B makes of SKEYID_e."""

    hash: Hash
    skeyid: bytes = field(repr=False)
    skeyid_d: bytes = field(repr=False)
    skeyid_a: bytes = field(repr=False)
    cipher: CbcCipher = field(repr=False)

    def prf_a(self, data: bytes) -> bytes:
        """The HASH payloads of phase 2 and informational exchanges (section 5.5)."""
        return self.hash.prf(self.skeyid_a, data)

    def first_state(self, public_i: bytes, public_r: bytes) -> CbcState:
        """The IV of the first encrypted message of main mode."""
        return CbcState(self.cipher, self.hash.digest(public_i + public_r)[:self.cipher.block])

    def phase2_state(self, last_block: bytes, message_id: int) -> CbcState:
        """The IV of another exchange: from the last block of phase 1 and the exchange's message ID."""
        seed = self.hash.digest(last_block + message_id.to_bytes(4, "big"))
        return CbcState(self.cipher, seed[:self.cipher.block])


def derive_secrets(hash: Hash, algorithm: str, key_octets: int, nonces: bytes, shared: bytes,
                   cookies: Cookies) -> Secrets:
    """SKEYID = prf(Ni_b | Nr_b, g^xy), and SKEYID_d, _a, _e of it. `nonces` is Ni_b | Nr_b."""
    skeyid = hash.prf(nonces, shared)
    tail = shared + bytes(cookies)
    skeyid_d = hash.prf(skeyid, tail + b"\0")
    skeyid_a = hash.prf(skeyid, skeyid_d + tail + b"\1")
    skeyid_e = hash.prf(skeyid, skeyid_a + tail + b"\2")
    return Secrets(hash, skeyid, skeyid_d, skeyid_a,
                   CbcCipher(algorithm, cipher_key(hash, skeyid_e, key_octets)))


def cipher_key(hash: Hash, skeyid_e: bytes, octets: int) -> bytes:
    """Appendix B: SKEYID_e itself where it is long enough, else K1 | K2 | ... with K1 = prf(SKEYID_e, 0)."""
    if octets <= len(skeyid_e):
        return skeyid_e[:octets]
    block = hash.prf(skeyid_e, b"\0")
    key = block
    while len(key) < octets:
        block = hash.prf(skeyid_e, block)
        key += block
    return key[:octets]


def phase2_keymat(secrets: Secrets, shared: bytes, protocol: int, spi: bytes, nonces: bytes, octets: int) -> bytes:
    """KEYMAT of one SA, with perfect forward secrecy (section 5.5); `spi` is the receiver's."""
    seed = shared + bytes([protocol]) + spi + nonces
    block = secrets.hash.prf(secrets.skeyid_d, seed)
    keymat = block
    while len(keymat) < octets:
        block = secrets.hash.prf(secrets.skeyid_d, block + seed)
        keymat += block
    return keymat[:octets]
