"""An authority of the test's own, and what it signs for servers of DNS over TLS."""

import base64
import datetime
import hashlib
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Certified:
    """A server's files, and the digest of its key as `tls-pin` wants it."""

    key: Path
    certificate: Path
    pin: bytes

    @property
    def pin_text(self) -> str:
        return base64.b64encode(self.pin).decode()


class Authority:
    """Signs certificates; its own is in `file`."""

    def __init__(self, directory: Path, name: str = "Test Authority") -> None:
        self._directory, self._key = directory, ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.file = directory / f"{name}.pem"
        own = self._signed(self._name, self._key.public_key(), datetime.datetime.utcnow() + 30 * DAY,
                           x509.BasicConstraints(ca=True, path_length=None))
        self.file.write_bytes(own.public_bytes(Encoding.PEM))

    def certify(self, name: str, days: int = 30) -> Certified:
        """A key and a certificate for a domain name, good until `days` from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a server")])
        certificate = self._signed(subject, key.public_key(), datetime.datetime.utcnow() + days * DAY,
                                   x509.SubjectAlternativeName([x509.DNSName(name)]))
        pin = hashlib.sha256(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
        stem = self._directory / pin.hex()
        files = Certified(stem.with_suffix(".key"), stem.with_suffix(".pem"), pin)
        files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        files.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
        return files

    def _signed(self, subject, key, until, extension) -> x509.Certificate:
        begin, serial = until - 60 * DAY, x509.random_serial_number()
        return (x509.CertificateBuilder(self._name, subject, key, serial, begin, until)
                .add_extension(extension, critical=False).sign(self._key, hashes.SHA256()))
