"""Records that speak for a host or a gateway: RFC 4322 sections 5.1 and 5.2."""

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, ip_address

from oesvc.ipsec.flow import Address
from oesvc.ipsec.rsa_key import KeyFormatError, RsaPublicKey

KEY_FLAGS_HOST_AUTHENTICATION_ONLY = 0x4200
KEY_PROTOCOL_IPSEC = 4
KEY_ALGORITHM_RSA = 1

DELEGATION = re.compile(r"X-IPsec-Server\((\d{1,5})\)=(\S+)(?:\s+(\S.*))?", re.IGNORECASE | re.DOTALL)
LOOKS_LIKE_ONE = re.compile(r"\s*[\"']?X-IPsec", re.IGNORECASE)
LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
FQDN = re.compile(rf"(?=.{{1,253}}$)({LABEL}\.)+{LABEL}", re.IGNORECASE)


class MalformedRecordError(ValueError):
    """A record is meant for us and cannot be read; the text says what is wrong and what would be right."""


@dataclass(frozen=True, slots=True)
class Delegation:
    """`X-IPsec-Server(P)=GATEWAY KEY`: who may act for the host at whose name it stands."""

    precedence: int
    "0 to 65535; the lower, the stronger."
    gateway: Address | str
    "An address, or the FQDN by which the gateway will identify itself."
    keys: tuple[RsaPublicKey, ...] = ()
    """The gateway's keys, any of which may verify (5.4): one in a record as it stands in the DNS, more once records
    of one gateway are taken together, none when they are to be looked up at the gateway's own name."""

    def __str__(self) -> str:
        gateway = f"@{self.gateway}" if isinstance(self.gateway, str) else str(self.gateway)
        return " ".join([f"X-IPsec-Server({self.precedence})={gateway}", *map(str, self.keys)])


def parse_delegation(text: str) -> Delegation | None:
    """Read one TXT record's joined strings; None when it is another application's. Raises MalformedRecordError."""
    if not LOOKS_LIKE_ONE.match(text):
        return None
    match = DELEGATION.fullmatch(text.strip(" \t\r\n"))
    if match is None:
        raise MalformedRecordError(f"{text[:60]!r} is not of the form X-IPsec-Server(PRECEDENCE)=GATEWAY KEY")
    precedence = int(match[1])
    if precedence > 0xFFFF:
        raise MalformedRecordError(f"precedence {precedence} is above 65535")
    return Delegation(precedence, _gateway(match[2]), (_key(match[3]),) if match[3] else ())


def _gateway(text: str) -> Address | str:
    if text.startswith("@"):
        fqdn = text[1:].rstrip(".").lower()
        if not FQDN.fullmatch(fqdn):
            raise MalformedRecordError(f"{text[:60]!r} is no @FQDN")
        return fqdn
    try:
        address = ip_address(text)
    except (ValueError, AddressValueError):
        raise MalformedRecordError(f"gateway {text[:60]!r} is neither an IP address nor @FQDN") from None
    if address.is_multicast or address.is_unspecified or address.is_loopback or address.is_link_local:
        raise MalformedRecordError(f"gateway {address} is not the address of one host on the Internet")
    return address


def _key(text: str) -> RsaPublicKey:
    # FreeS/WAN's tools printed keys with the prefix "0s" of their own configuration files.
    try:
        return RsaPublicKey.from_base64(text[2:] if text.startswith("0s") else text)
    except KeyFormatError as error:
        raise MalformedRecordError(f"the gateway's key: {error}") from None


def parse_key_record(rdata: bytes) -> RsaPublicKey:
    """Read a KEY record's RDATA (RFC 2535 section 3). Raises MalformedRecordError."""
    if len(rdata) < 5:
        raise MalformedRecordError(f"a KEY record of {len(rdata)} octets is cut short")
    flags, protocol, algorithm = int.from_bytes(rdata[:2], "big"), rdata[2], rdata[3]
    for what, found, right in (("protocol", protocol, KEY_PROTOCOL_IPSEC),
                               ("algorithm", algorithm, KEY_ALGORITHM_RSA),
                               ("flags", flags, KEY_FLAGS_HOST_AUTHENTICATION_ONLY)):
        if found != right:
            raise MalformedRecordError(f"a KEY record has {what} {found}; {right} is that of an RSA key for IPsec")
    try:
        return RsaPublicKey.from_rfc3110(rdata[4:])
    except KeyFormatError as error:
        raise MalformedRecordError(f"a KEY record: {error}") from None
