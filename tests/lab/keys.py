"""The gateways' RSA keys, made once and kept in .cache/lab-keys: under emulation making one takes 5 s."""

from pathlib import Path

from oesvc.ipsec.rsa_key import RsaPublicKey
from oesvc.keys import key_pair

FOLDER = Path(__file__).resolve().parents[2] / ".cache/lab-keys"
GATEWAYS = ("sg-a", "sg-b", "sg-d", "laptop")


def private_key_file(name: str, bits: int = key_pair.BITS) -> Path:
    """The PEM file of a gateway's key, made if it is not there."""
    file = FOLDER / (f"{name}.pem" if bits == key_pair.BITS else f"{name}-{bits}.pem")
    if not file.exists():
        key_pair.generate(file, bits)
    return file


def public_keys(bits: int = key_pair.BITS) -> dict[str, RsaPublicKey]:
    """The public halves, by gateway."""
    return {name: key_pair.public_key(key_pair.load(private_key_file(name, bits))) for name in GATEWAYS}
