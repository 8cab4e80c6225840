"""The profiles: what we offer, in which order, and what we accept (RFC 4322 section 4.6).

Nothing weaker than triple DES can be named here: neither the suites' types nor their numbers have it.
"""

from dataclasses import dataclass
from enum import Enum
from functools import cached_property

from oesvc.ike.crypto.groups import Group
from oesvc.ike.crypto.keymat import Hash
from oesvc.ipsec.sa import Encryption, EspTransform, Integrity


class Cipher(Enum):
    """Ciphers of phase 1 with their key lengths; the value is the cipher's name and the bits of its key."""

    DES3_CBC = ("3des-cbc", 192)
    AES_128_CBC = ("aes-cbc", 128)
    AES_256_CBC = ("aes-cbc", 256)

    def __str__(self) -> str:
        return f"{self.algorithm}-{self.key_bits}"

    @property
    def algorithm(self) -> str:
        return self._value_[0]

    @property
    def key_bits(self) -> int:
        return self._value_[1]


@dataclass(frozen=True, slots=True)
class Phase1Suite:
    """How a keying channel is protected; authentication is by RSA signatures always."""

    cipher: Cipher
    hash: Hash
    group: Group

    def __str__(self) -> str:
        return f"{self.cipher} {self.hash} {self.group}"


@dataclass(frozen=True, eq=False)
class Profile:
    """Our offers in order of preference. As responder every combination of their parts is acceptable.

    There are few, and each is equal to itself only: what is made of one is found again at once.
    """

    name: str
    phase1: tuple[Phase1Suite, ...]
    esp: tuple[EspTransform, ...]

    @cached_property
    def ciphers(self) -> frozenset[Cipher]:
        return frozenset(suite.cipher for suite in self.phase1)

    @cached_property
    def hashes(self) -> frozenset[Hash]:
        return frozenset(suite.hash for suite in self.phase1)

    @cached_property
    def groups(self) -> frozenset[Group]:
        """Of phase 1 and of phase 2's perfect forward secrecy."""
        return frozenset(suite.group for suite in self.phase1)

    def accepts_esp(self, transform: EspTransform) -> bool:
        needs_none = transform.encryption is Encryption.AES_GCM_16
        return (any((offer.encryption, offer.key_bits) == (transform.encryption, transform.key_bits)
                    for offer in self.esp)
                and any(offer.integrity is transform.integrity for offer in self.esp)
                and needs_none == (transform.integrity is None))


MODERN = Profile(
    "modern",
    phase1=(
        Phase1Suite(Cipher.AES_128_CBC, Hash.SHA2_256, Group.ECP_256),
        Phase1Suite(Cipher.AES_256_CBC, Hash.SHA2_384, Group.ECP_384),
        Phase1Suite(Cipher.AES_256_CBC, Hash.SHA2_512, Group.ECP_521),
        Phase1Suite(Cipher.AES_128_CBC, Hash.SHA2_256, Group.MODP_2048),
        Phase1Suite(Cipher.AES_256_CBC, Hash.SHA2_256, Group.MODP_2048),
        Phase1Suite(Cipher.AES_256_CBC, Hash.SHA2_256, Group.MODP_3072),
        Phase1Suite(Cipher.AES_256_CBC, Hash.SHA2_512, Group.MODP_4096),
        Phase1Suite(Cipher.AES_256_CBC, Hash.SHA2_512, Group.MODP_6144),
        Phase1Suite(Cipher.AES_256_CBC, Hash.SHA2_512, Group.MODP_8192),
        Phase1Suite(Cipher.AES_128_CBC, Hash.SHA1, Group.MODP_2048),
    ),
    esp=(
        EspTransform(Encryption.AES_GCM_16, 128, None),
        EspTransform(Encryption.AES_GCM_16, 256, None),
        EspTransform(Encryption.AES_CBC, 128, Integrity.HMAC_SHA2_256_128),
        EspTransform(Encryption.AES_CBC, 256, Integrity.HMAC_SHA2_256_128),
        EspTransform(Encryption.AES_CBC, 256, Integrity.HMAC_SHA2_384_192),
        EspTransform(Encryption.AES_CBC, 256, Integrity.HMAC_SHA2_512_256),
        EspTransform(Encryption.AES_CBC, 128, Integrity.HMAC_SHA1_96),
    ),
)

RFC4322 = Profile(
    "rfc4322",
    phase1=(
        *MODERN.phase1,
        Phase1Suite(Cipher.DES3_CBC, Hash.SHA1, Group.MODP_1536),
        Phase1Suite(Cipher.DES3_CBC, Hash.MD5, Group.MODP_1536),
        Phase1Suite(Cipher.DES3_CBC, Hash.SHA1, Group.MODP_1024),
        Phase1Suite(Cipher.DES3_CBC, Hash.MD5, Group.MODP_1024),
    ),
    esp=(
        *MODERN.esp,
        EspTransform(Encryption.DES3_CBC, 192, Integrity.HMAC_SHA1_96),
        EspTransform(Encryption.DES3_CBC, 192, Integrity.HMAC_MD5_96),
    ),
)

PROFILES = {profile.name: profile for profile in (MODERN, RFC4322)}
