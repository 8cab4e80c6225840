"""RSA signatures of IKEv1: PKCS #1 v1.5 padding around the bare hash, without DigestInfo (RFC 2409 section 5.1)."""

import hmac
from collections.abc import Iterable
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from oesvc.ipsec.rsa_key import RsaPublicKey

try:
    from cryptography.hazmat.primitives.asymmetric.utils import NoDigestInfo
except ImportError:  # Debian 12's version: the OpenSSL binding that pyOpenSSL stands on can do it
    from OpenSSL._util import ffi, lib
    from OpenSSL.crypto import PKey

    RSA_PKCS1_PADDING = 1

    # A key of `cryptography` gets there by being written out and read in again, which costs more than a signature.
    _pkey = lru_cache(maxsize=4)(PKey.from_cryptography_key)

    def sign(key: rsa.RSAPrivateKey, digest: bytes) -> bytes:
        """Sign a bare hash."""
        context = ffi.gc(lib.EVP_PKEY_CTX_new(_pkey(key)._pkey, ffi.NULL), lib.EVP_PKEY_CTX_free)
        length = ffi.new("size_t *", (key.key_size + 7) // 8)
        signature = ffi.new("unsigned char[]", length[0])
        if (lib.EVP_PKEY_sign_init(context) != 1
                or lib.EVP_PKEY_CTX_set_rsa_padding(context, RSA_PKCS1_PADDING) != 1
                or lib.EVP_PKEY_sign(context, signature, length, digest, len(digest)) != 1):
            raise ValueError(f"OpenSSL cannot sign {len(digest)} octets with an RSA key of {key.key_size} bits")
        return bytes(ffi.buffer(signature, length[0]))
else:
    def sign(key: rsa.RSAPrivateKey, digest: bytes) -> bytes:
        """Sign a bare hash."""
        return key.sign(digest, padding.PKCS1v15(), NoDigestInfo())


def key_that_verifies(keys: Iterable[RsaPublicKey], digest: bytes, signature: bytes) -> RsaPublicKey | None:
    """The first of several keys that a signature of `digest` was made with, if there is one."""
    return next((key for key in keys if _verifies(key, digest, signature)), None)


def _verifies(key: RsaPublicKey, digest: bytes, signature: bytes) -> bool:
    try:
        public = rsa.RSAPublicNumbers(key.exponent, key.modulus).public_key()
        signed = public.recover_data_from_signature(signature, padding.PKCS1v15(), None)
    except (InvalidSignature, ValueError):  # ValueError: a number in the DNS that is no key of RSA
        return False
    return hmac.compare_digest(signed, digest)
