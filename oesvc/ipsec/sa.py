"""Phase 2 security associations and the tunnels they form: RFC 4322 section 2.2."""

from dataclasses import dataclass, field, replace
from enum import Enum

from oesvc.ipsec.flow import Address, Flow


class Encryption(Enum):
    """Encryption of ESP; the value is the name that people read."""

    DES3_CBC = "3des-cbc"
    AES_CBC = "aes-cbc"
    AES_GCM_16 = "aes-gcm"


class Integrity(Enum):
    """Integrity of ESP; the value is the name that people read."""

    HMAC_MD5_96 = "hmac-md5"
    HMAC_SHA1_96 = "hmac-sha1"
    HMAC_SHA2_256_128 = "hmac-sha2-256"
    HMAC_SHA2_384_192 = "hmac-sha2-384"
    HMAC_SHA2_512_256 = "hmac-sha2-512"


@dataclass(frozen=True, slots=True)
class EspTransform:
    """How one SA protects its datagrams; integrity is None only where the cipher brings its own (AES-GCM)."""

    encryption: Encryption
    key_bits: int
    integrity: Integrity | None

    def __str__(self) -> str:
        name = f"{self.encryption.value}-{self.key_bits}"
        return f"{name} {self.integrity.value}" if self.integrity else name


@dataclass(frozen=True, slots=True)
class Lifetime:
    """How long keys are good, as negotiated: the hard limits. 0 kilobytes is no limit by volume."""

    seconds: int
    kilobytes: int = 0

    def shorter(self, other: "Lifetime") -> "Lifetime":
        """What satisfies both; what is 0 in one is not limited there."""
        return Lifetime(min(self.seconds or other.seconds, other.seconds or self.seconds),
                        min(self.kilobytes or other.kilobytes, other.kilobytes or self.kilobytes))


VOLUMES = {Encryption.DES3_CBC: Lifetime(0, 1 << 22)}
"""How much a cipher may protect with one key, be it negotiated or not.

3DES (RFC 8221 section 5): among the 2**29 blocks of 2**32 octets two are alike with a chance of 1 in 128.
With blocks of 128 bits the sequence numbers end an SA long before that (RFC 4303 section 3.3.3).
"""


@dataclass(frozen=True, slots=True)
class UdpPorts:
    """Between which UDP ports the datagrams of an SA travel that goes through a NAT (RFC 3948 section 2.1)."""

    source: int
    destination: int

    def reversed(self) -> "UdpPorts":
        return UdpPorts(self.destination, self.source)


@dataclass(frozen=True, slots=True)
class IpsecSa:
    """One phase 2 SA: ESP in tunnel mode, one way."""

    spi: int
    "32 bits, chosen by the receiver."
    source: Address
    "The gateway that encrypts (outer address)."
    destination: Address
    "The gateway that decrypts (outer address)."
    flow: Flow
    "The inner addresses, in the direction in which this SA carries datagrams."
    transform: EspTransform
    encryption_key: bytes = field(repr=False)
    "For AES-GCM the salt of 4 octets stands at its end (RFC 4106 section 8.1)."
    integrity_key: bytes = field(repr=False)
    lifetime: Lifetime
    udp: UdpPorts | None = None
    "None: its datagrams are ESP as it is."

    def moved(self, flow: Flow, gateways: Flow, udp: UdpPorts) -> "IpsecSa":
        """The same SA, after a NAT has changed the address or port of the peer.

        All are those of the outbound direction; an inbound SA takes them the other way round.
        """
        if self.flow != flow:
            gateways, udp = gateways.reversed(), udp.reversed()
        return replace(self, source=gateways.source, destination=gateways.destination, udp=udp)
