"""The gateways' RSA keys, made once and kept in .cache/lab-keys: under emulation making one takes 5 s.

`python3 -m tests.lab.keys` makes them all; do so before the lab's kernel is booted, which sees them read-only.
"""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from oesvc.ipsec.rsa_key import RsaPublicKey

FOLDER = Path(__file__).resolve().parents[2] / ".cache/lab-keys"
GATEWAYS = ("sg-a", "sg-b")


def private_key_file(name: str) -> Path:
    """The PEM file (PKCS #8) of a gateway's key, made if it is not there."""
    file = FOLDER / f"{name}.pem"
    if not file.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        file.chmod(0o600)
    return file


def public_key(name: str) -> RsaPublicKey:
    """The public half of it."""
    key = load_pem_private_key(private_key_file(name).read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    numbers = key.public_key().public_numbers()
    return RsaPublicKey(numbers.e, numbers.n)


if __name__ == "__main__":
    for gateway in GATEWAYS:
        private_key_file(gateway)
