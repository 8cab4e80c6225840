"""The gateway's own RSA key pair on disk: PEM (PKCS#8), readable by its owner only."""

import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from oesvc.ipsec.rsa_key import RsaPublicKey
from oesvc.set_up import SetUpError

BITS = 2048
EXPONENT = 65537


class KeyPairError(SetUpError):
    """A key file cannot be used; the text begins with its path."""


def generate(file: Path, bits: int = BITS) -> RSAPrivateKey:
    """Make a new key pair in a new file of mode 0600. Raises KeyPairError; an existing file is left as it is."""
    key = generate_private_key(EXPONENT, bits)
    store(key, file)
    return key


def store(key: RSAPrivateKey, file: Path) -> None:
    """Write a key into a new file, likewise."""
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise KeyPairError(f"{file}: there is a key already; move it away first") from None
    except OSError as error:
        raise KeyPairError(f"{file}: {error.strerror}") from None
    with os.fdopen(descriptor, "wb") as opened:
        if os.geteuid() == 0:
            # For the daemon's own user, whose folder it is.
            folder = file.parent.stat()
            os.fchown(descriptor, folder.st_uid, folder.st_gid)
        give_to_owner(opened.fileno(), file.parent)
        opened.write(pem)
        opened.flush()
        os.fsync(opened.fileno())


def give_to_owner(descriptor: int, folder: Path) -> None:
    """What root makes belongs to whoever owns its folder: the daemon has a user of its own."""
    if os.geteuid() == 0:
        owner = folder.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def load(file: Path) -> RSAPrivateKey:
    """Read a key pair. Raises KeyPairError; the key itself is never in the text."""
    try:
        pem = file.read_bytes()
        mode = file.stat().st_mode
    except FileNotFoundError:
        raise KeyPairError(f"{file}: there is no such file; make a key with `oegw keys gen`") from None
    except OSError as error:
        raise KeyPairError(f"{file}: {error.strerror}") from None
    if mode & 0o077:
        raise KeyPairError(f"{file}: others may read it (mode {mode & 0o777:04o}); say `chmod 600 {file}`")
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyPairError(f"{file}: this is no unencrypted private key in PEM form") from None
    if not isinstance(key, RSAPrivateKey):
        raise KeyPairError(f"{file}: this is no RSA key; RFC 4322 knows no other kind")
    return key


def public_key(key: RSAPrivateKey) -> RsaPublicKey:
    numbers = key.public_key().public_numbers()
    return RsaPublicKey(numbers.e, numbers.n)
