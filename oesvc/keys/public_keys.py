"""A peer's public keys in a file: PEM, or as the DNS has them (RFC 3110 in base64)."""

import re
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from oesvc.ipsec.rsa_key import KeyFormatError, RsaPublicKey

PEM = re.compile(rb"-----BEGIN [^-]+-----.*?-----END [^-]+-----", re.DOTALL)
RECORD = re.compile(r".*?\sKEY\s+\d+\s+\d+\s+\d+\s+")
"What a KEY record, as `oegw records` prints it, has before its key."


def read_public_keys(path: Path) -> tuple[RsaPublicKey, ...]:
    """All RSA keys of a file: PEM blocks, or lines of base64 or KEY records. Raises ValueError."""
    try:
        octets = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    try:
        found = [_from_pem(block) for block in PEM.findall(octets)] or [
            RsaPublicKey.from_base64(RECORD.sub("", line)) for line in octets.decode("ascii", "replace").splitlines()
            if line.strip() and not line.lstrip().startswith((";", "#"))]
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"{path}: {error}; write the peer's key as PEM (`-----BEGIN PUBLIC KEY-----`), or the base64 "
                         "of its KEY record on one line") from None
    if not found:
        raise ValueError(f"{path}: no key is in it")
    return tuple(found)


def _from_pem(block: bytes) -> RsaPublicKey:
    if b"PRIVATE" in block:
        raise KeyFormatError("this is a private key; only the peer should have it")
    key = load_pem_public_key(block)
    if not isinstance(key, RSAPublicKey):
        raise KeyFormatError("the key is no RSA key")
    numbers = key.public_numbers()
    return RsaPublicKey(numbers.e, numbers.n)
