"""RSA keys of FreeS/WAN and Openswan: the `: RSA { ... }` entries of ipsec.secrets; or any unencrypted PEM file."""

import re
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import (
    RSAPrivateKey,
    RSAPrivateNumbers,
    RSAPublicNumbers,
    rsa_crt_dmp1,
    rsa_crt_dmq1,
    rsa_crt_iqmp,
    rsa_recover_prime_factors,
)
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from oesvc.keys.key_pair import KeyPairError

ENTRY = re.compile(r":\s*RSA\s*\{(?P<fields>[^}]*)\}", re.IGNORECASE)
FIELD = re.compile(r"^\s*(?P<name>\w+)\s*:\s*(?P<number>0x[0-9a-f]+|\d+)\s*$", re.IGNORECASE | re.MULTILINE)
NEEDED = ("Modulus", "PublicExponent", "PrivateExponent")


def read(file: Path) -> RSAPrivateKey:
    """The first RSA key of a file. Raises KeyPairError; the key itself is never in the text."""
    try:
        octets = file.read_bytes()
    except OSError as error:
        raise KeyPairError(f"{file}: {error.strerror}") from None
    try:
        if b"-----BEGIN" in octets:
            key = load_pem_private_key(octets, password=None)
            if not isinstance(key, RSAPrivateKey):
                raise KeyPairError(f"{file}: this is no RSA key; RFC 4322 knows no other kind")
            return key
        return _from_fields(file, octets.decode("ascii", "replace"))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyPairError(f"{file}: the numbers in it are no unencrypted RSA key") from None


def _from_fields(file: Path, text: str) -> RSAPrivateKey:
    entry = ENTRY.search(re.sub(r"(?m)#.*$", "", text))
    if entry is None:
        raise KeyPairError(f"{file}: there is no `: RSA {{ ... }}` in it; libreswan keeps keys in its NSS database: "
                           "`pk12util -o key.p12 ...` and `openssl pkcs12 -in key.p12 -nodes` make a PEM file of one")
    fields = {found["name"].lower(): int(found["number"], 0) for found in FIELD.finditer(entry["fields"])}
    if missing := [name for name in NEEDED if name.lower() not in fields]:
        raise KeyPairError(f"{file}: the RSA key has no {', '.join(missing)}; only a private key can be taken")
    n, e, d = (fields[name.lower()] for name in NEEDED)
    p, q = rsa_recover_prime_factors(n, e, d)
    return RSAPrivateNumbers(p, q, d, rsa_crt_dmp1(d, p), rsa_crt_dmq1(d, q), rsa_crt_iqmp(p, q),
                             RSAPublicNumbers(e, n)).private_key()
