"""Records that speak for a host or a gateway: RFC 4322 sections 5.1 and 5.2."""

import re
from dataclasses import dataclass, field
from ipaddress import ip_address

from oesvc.ipsec.flow import Address
from oesvc.ipsec.rsa_key import KeyFormatError, RsaPublicKey

KEY_FLAGS_HOST_AUTHENTICATION_ONLY = 0x4200
KEY_PROTOCOL_IPSEC = 4
KEY_ALGORITHM_RSA = 1

DELEGATION = re.compile(r"X-IPsec-Server\((\d{1,5})\)=(\S+)(?:\s+(\S.*))?", re.IGNORECASE | re.DOTALL)
LOOKS_LIKE_ONE = re.compile(r"\s*[\"']?X-IPsec", re.IGNORECASE)
LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
FQDN = re.compile(rf"(?=.{{1,253}}$)({LABEL}\.)+{LABEL}", re.IGNORECASE)

NEAR_MISSES = tuple((re.compile(pattern, re.IGNORECASE), what) for pattern, what in (
    (r"[\"']", "quotes belong to a zone file, not into the text itself"),
    (r"X-IPsec-(?!Server)", "the attribute is called X-IPsec-Server"),
    (r"X-IPsec-Server\s*=", "the precedence is missing"),
    (r"X-IPsec-Server\(\d{1,5}\)\s*=", "no blank stands next to the `=`"),
    (r"X-IPsec-Server\s*\(", "the precedence is a number from 0 to 65535, without blanks around it"),
))
"How a record that is meant for us begins when it is written wrong; the first that matches tells what is wrong."

GATEWAY_NEAR_MISSES = tuple((re.compile(pattern, re.IGNORECASE), what) for pattern, what in (
    (r"\[", "an IPv6 address is written without brackets"),
    (r"\d+(\.\d+){3}(0s)?A[Qw]", "the blank before the key is missing; character-strings are joined without one"),
    (rf"(?!.*\d\.?$)({LABEL}\.)+{LABEL}\.?$", "a name is written with an @ before it"),
))

MAX_TEXT = 4096
"Our choice: a hostile record costs no more than an honest one."
COMMON_EXPONENTS = (3, 17, 65537)


class MalformedRecordError(ValueError):
    """A record is meant for us and cannot be read; the text says what is wrong and what would be right."""


class ForeignRecordError(ValueError):
    """A record is well-formed and of no use here; the text says why."""


@dataclass(frozen=True, slots=True)
class Delegation:
    """Who may act for the host at whose name it stands: `X-IPsec-Server(P)=GATEWAY KEY`, or IPSECKEY's like."""

    precedence: int
    "0 to 65535; the lower, the stronger."
    gateway: Address | str
    "An address, or the FQDN by which the gateway will identify itself."
    keys: tuple[RsaPublicKey, ...] = ()
    """The gateway's keys, any of which may verify (5.4): one in a record as it stands in the DNS, more once records
    of one gateway are taken together, none when they are to be looked up at the gateway's own name."""
    written_as: str = field(default="X-IPsec-Server", compare=False)
    "What kind of record said so, for people."
    remarks: tuple[str, ...] = field(default=(), compare=False)
    "What its writer should mend, though it can be read."

    def __str__(self) -> str:
        gateway = f"@{self.gateway}" if isinstance(self.gateway, str) else str(self.gateway)
        return " ".join([f"{self.written_as}({self.precedence})={gateway}", *map(str, self.keys)])


def parse_delegation(text: str) -> Delegation | None:
    """Read one TXT record's joined strings; None when it is another application's. Raises MalformedRecordError."""
    if not LOOKS_LIKE_ONE.match(text):
        return None
    if len(text) > MAX_TEXT:
        raise MalformedRecordError(f"a record of {len(text)} characters: the largest key takes 1400")
    stripped = text.strip(" \t\r\n")
    match = DELEGATION.fullmatch(stripped)
    if match is None:
        what = next((what for pattern, what in NEAR_MISSES if pattern.match(stripped)), "")
        raise MalformedRecordError(f"{text[:60]!r} is not of the form X-IPsec-Server(PRECEDENCE)=GATEWAY KEY"
                                   + (f": {what}" if what else ""))
    precedence = int(match[1])
    if precedence > 0xFFFF:
        raise MalformedRecordError(f"precedence {precedence} is above 65535")
    keys, remarks = _key(match[3]) if match[3] else ((), ())
    return Delegation(precedence, _gateway(match[2]), keys, remarks=remarks)


def one_host(address: Address) -> Address:
    """The address, if a gateway can have it. Raises MalformedRecordError."""
    if address.is_multicast or address.is_unspecified or address.is_loopback or address.is_link_local:
        raise MalformedRecordError(f"gateway {address} is not the address of one host on the Internet")
    return address


def gateway_name(text: str) -> str:
    """An FQDN as we compare it: lower case, without a final dot. Raises MalformedRecordError."""
    fqdn = text.rstrip(".").lower()
    if not FQDN.fullmatch(fqdn):
        raise MalformedRecordError(f"gateway {text[:60]!r} is no @FQDN")
    return fqdn


def _gateway(text: str) -> Address | str:
    if text.startswith("@"):
        return gateway_name(text[1:])
    try:
        address = ip_address(text.replace("%", " "))  # an interface's name behind it says nothing to others
    except ValueError:
        hint = next((f"; {what}" for pattern, what in GATEWAY_NEAR_MISSES if pattern.match(text)), "")
        raise MalformedRecordError(f"gateway {text[:60]!r} is neither an IP address nor @FQDN{hint}") from None
    return one_host(address)


def _key(text: str) -> tuple[tuple[RsaPublicKey, ...], tuple[str, ...]]:
    """The key of a record, and what is odd about the way it is written."""
    words, remarks = text.split(), []
    if words[0].startswith("0s"):
        words[0] = words[0][2:]
        remarks.append("the prefix 0s before the key is that of ipsec.conf and does not belong into the DNS")
    if len(words) > 1:
        if sum(map(_is_whole_key, words)) > 1:
            raise MalformedRecordError("the gateway's key: there are several in one record; publish one record a key")
        remarks.append("blanks within the key are ignored")
    try:
        return (RsaPublicKey.from_base64("".join(words)),), tuple(remarks)
    except KeyFormatError as error:
        raise MalformedRecordError(f"the gateway's key: {error}") from None


def _is_whole_key(word: str) -> bool:
    try:
        return RsaPublicKey.from_base64(word.removeprefix("0s")).exponent in COMMON_EXPONENTS
    except KeyFormatError:
        return False


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
