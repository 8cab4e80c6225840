"""ESP as a gateway would send it, by arithmetic of our own: RFC 4303, with RFC 4106, 3602, 2451 and 4868."""

import hashlib
import hmac
import struct

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from oesvc.ike.crypto.cipher import CbcCipher
from oesvc.ipsec.sa import Encryption, Integrity, IpsecSa

IPV4 = 4
"Next header, in tunnel mode."
NAMES = {Encryption.DES3_CBC: "3des-cbc", Encryption.AES_CBC: "aes-cbc"}
INTEGRITY = {
    Integrity.HMAC_MD5_96: (hashlib.md5, 12), Integrity.HMAC_SHA1_96: (hashlib.sha1, 12),
    Integrity.HMAC_SHA2_256_128: (hashlib.sha256, 16), Integrity.HMAC_SHA2_384_192: (hashlib.sha384, 24),
    Integrity.HMAC_SHA2_512_256: (hashlib.sha512, 32)}
"The hash, and octets of the ICV."


def protect(sa: IpsecSa, sequence: int, inner: bytes) -> bytes:
    """An IPv4 datagram in tunnel mode: all that follows the outer IP header."""
    header = struct.pack(">LL", sa.spi, sequence)
    if sa.transform.encryption is Encryption.AES_GCM_16:
        key, salt, iv = sa.encryption_key[:-4], sa.encryption_key[-4:], struct.pack(">Q", sequence)
        return header + iv + AESGCM(key).encrypt(salt + iv, _padded(inner, 4), header)
    cipher = CbcCipher(NAMES[sa.transform.encryption], sa.encryption_key)
    iv = hashlib.sha256(header).digest()[:cipher.block]
    encryptor = cipher.with_iv(iv).encryptor()
    covered = header + iv + encryptor.update(_padded(inner, cipher.block)) + encryptor.finalize()
    made_by, octets = INTEGRITY[sa.transform.integrity]
    return covered + hmac.digest(sa.integrity_key, covered, made_by)[:octets]


def _padded(inner: bytes, block: int) -> bytes:
    """With the trailer of section 2: padding that counts, its length, what is inside."""
    padding = bytes(range(1, 1 + -(len(inner) + 2) % block))
    return inner + padding + bytes([len(padding), IPV4])
