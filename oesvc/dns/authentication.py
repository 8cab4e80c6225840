"""Who a server of DNS over TLS must prove to be: the strict profile of RFC 8310, the pins of RFC 7858 section 4.2."""

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from OpenSSL import SSL
from service_identity.exceptions import CertificateError, VerificationError
from service_identity.pyopenssl import verify_hostname
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from zope.interface import implementer

OBJECTIONS = {
    9: "its certificate is not valid yet",
    10: "its certificate has expired",
    18: "its certificate is self-signed and no authority that we trust",
    19: "its certificate comes from an authority that we do not trust (self-signed)",
    20: "its certificate comes from an authority that we do not trust",
    21: "its certificate comes from an authority that we do not trust",
    26: "its certificate is not one for servers",
    68: "its certificate is signed with an algorithm that is too weak",
}
"By OpenSSL's X509_V_ERR_...; what is not here is rare."


@dataclass(frozen=True, slots=True)
class Authentication:
    """By the name in the server's certificate, by its key, or (with both) by both. ValueError without either."""

    name: str | None
    pins: tuple[bytes, ...] = ()
    "SHA-256 of its SubjectPublicKeyInfo: one of them must be that of the key. Without a name, that is enough."
    authorities: Path | None = None
    "A file of certificates in PEM; None: those that this system trusts."

    def __post_init__(self) -> None:
        if not (self.name or self.pins):
            raise ValueError("a server asked over TLS must prove who it is: its name or its key has to be known")
        if self.authorities:
            _load_authorities(SSL.Context(SSL.TLS_METHOD), self.authorities)


@implementer(IOpenSSLClientConnectionCreator)
class Handshakes:
    """Makes OpenSSL's side of connections to one server, and judges them.

    What the check of the certificates objects to is put into `objection` of the protocol that speaks over TLS: Twisted
    may report the failed handshake as nothing but a lost connection.
    """

    def __init__(self, authentication: Authentication) -> None:
        self._authentication = authentication
        self._context = SSL.Context(SSL.TLS_METHOD)
        # RFC 9325 section 3.1.1; what else is too weak, the system's OpenSSL knows.
        self._context.set_min_proto_version(SSL.TLS1_2_VERSION)
        if authentication.name is None:
            return
        if authentication.authorities:
            _load_authorities(self._context, authentication.authorities)
        else:
            self._context.set_default_verify_paths()
        self._context.set_verify(SSL.VERIFY_PEER, _verified)

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:  # noqa: N802 - Twisted's name
        connection = SSL.Connection(self._context, None)
        # As Twisted's own creators do, and newer versions of it by themselves.
        connection.set_app_data(tlsProtocol)
        if self._authentication.name:
            connection.set_tlsext_host_name(self._authentication.name.encode("ascii"))
        return connection

    def objection(self, connection: SSL.Connection) -> str:
        """After the handshake: why this is not the server; empty if it is."""
        certificate = connection.get_peer_certificate()
        if certificate is None:
            return "it shows no certificate"
        shown = certificate.to_cryptography()
        return self._objection_to_key(shown) or self._objection_to_name(connection, shown)

    def _objection_to_key(self, certificate: x509.Certificate) -> str:
        key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        digest = hashlib.sha256(key).digest()
        if self._authentication.pins and digest not in self._authentication.pins:
            return f"its key is none of those in tls-pin but {base64.b64encode(digest).decode()}"
        return ""

    def _objection_to_name(self, connection: SSL.Connection, certificate: x509.Certificate) -> str:
        if self._authentication.name is None:
            return ""
        try:
            verify_hostname(connection, self._authentication.name)
        except (VerificationError, CertificateError):
            return f"its certificate is for {_names(certificate)}"
        return ""


def _verified(connection: SSL.Connection, certificate: Any, code: int, depth: int, fine: int) -> bool:
    """OpenSSL: one certificate of the chain was looked at."""
    if not fine:
        speaker = connection.get_app_data().wrappedProtocol
        objection = OBJECTIONS.get(code, f"its certificate does not hold (OpenSSL's verify error {code})")
        speaker.objection = speaker.objection or objection
    return bool(fine)


def _load_authorities(context: SSL.Context, file: Path) -> None:
    try:
        context.load_verify_locations(str(file))
    except SSL.Error:
        raise ValueError(f"{file}: no certificates of authorities, in PEM, can be read from it") from None


def _names(certificate: x509.Certificate) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return "no name"
    return ", ".join(names.get_values_for_type(x509.DNSName)) or "no domain name"
