"""How the values of options are read: text to value; ValueError says what would be right."""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from oesvc.dns.answer import Name
from oesvc.dns.name import parse_name
from oesvc.ike.identity import AddressIdentity, FqdnIdentity, Identity
from oesvc.ipsec.flow import Address
from oesvc.ipsec.translation import Translation
from oesvc.oe.classes import Network
from oesvc.oe.delegation import FQDN
from oesvc.set_up import SetUpError

Reader = Callable[[str], Any]
YES_NO = {"yes": True, "no": False}
CLASS_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


class ConfigError(SetUpError):
    """The configuration cannot be used; the text begins with the place."""


@dataclass(frozen=True, slots=True)
class NameServer:
    """A resolver, in unbound's form: ADDRESS[@PORT][#NAME]."""

    address: Address
    port: int | None = None
    name: str | None = None
    "That it must prove to have (RFC 8310 section 7.1)."

    def __str__(self) -> str:
        return f"{self.address}{f'@{self.port}' if self.port else ''}{f'#{self.name}' if self.name else ''}"


def words(read: Reader) -> Reader:
    return lambda text: tuple(read(word) for word in re.split(r"[,\s]+", text) if word)


def one_of(kind: type[Enum]) -> Reader:
    return choice({str(member.value): member for member in kind})


def choice(choices: Mapping[str, Any]) -> Reader:
    def read(text: str) -> Any:
        if text not in choices:
            raise ValueError(f"{text!r} is none of {', '.join(choices)}")
        return choices[text]
    return read


def between(kind: type[float] | type[int], least: float, most: float, unit: str = "seconds") -> Reader:
    def read(text: str) -> float:
        try:
            number = kind(text)
        except ValueError:
            raise ValueError(f"{text!r} is no number{unit and ' of '}{unit}") from None
        if not least <= number <= most:
            raise ValueError(f"{text} is not between {least} and {most}{unit and ' '}{unit}")
        return number
    return read


def address(text: str) -> Address:
    try:
        return ip_address(text)
    except ValueError:
        raise ValueError(f"{text!r} is no IP address") from None


def interface(text: str) -> str:
    if not re.fullmatch(r"[\w.:@-]{1,15}", text, re.ASCII):
        raise ValueError(f"{text!r} is no name of a network interface")
    return text


def network(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no network prefix: {error}") from None


def part_of_the_internet(text: str) -> Network:
    found = network(text)
    if not found.prefixlen:
        raise ValueError(f"{text} is everybody; what clients send to each other is left alone, so write their networks")
    return found


def translation(text: str) -> Translation:
    """INSIDE[=OUTSIDE]."""
    inside, equals, outside = text.partition("=")
    return Translation(part_of_the_internet(inside), part_of_the_internet(outside) if equals else None)


def identity(text: str) -> Identity | None:
    if not text:
        return None
    name = text.removeprefix("@").rstrip(".").lower()
    if text.startswith("@") and FQDN.fullmatch(name):
        return FqdnIdentity(name)
    try:
        return AddressIdentity(ip_address(text))
    except ValueError:
        raise ValueError(f"{text!r} is no name of the form @gateway.example.com, and no IP address") from None


def path(text: str) -> Path:
    if not text.startswith("/"):
        raise ValueError(f"{text!r} is no absolute path")
    return Path(text)


def optional(read: Reader) -> Reader:
    return lambda text: read(text) if text else None


def loopback(text: str) -> tuple[Address, int] | Path:
    """Where only this host can ask: ADDRESS:PORT or a UNIX socket."""
    if text.startswith("/"):
        return Path(text)
    form = re.fullmatch(r"\[([^]]+)\]:(\d+)|([^:]+):(\d+)", text)
    if form is None or not 0 < int(form[2] or form[4]) < 65536:
        raise ValueError(f"{text!r} is neither an absolute path nor ADDRESS:PORT, such as 127.0.0.1:9722 or [::1]:9722")
    host = address(form[1] or form[3])
    if not host.is_loopback:
        raise ValueError(f"{host} can be reached from elsewhere; write 127.0.0.1, and let a proxy that asks for a "
                         "password or a certificate hand it on")
    return host, int(form[2] or form[4])


def count(text: str) -> int:
    if not (text.isdecimal() and int(text)):
        raise ValueError(f"{text!r} is no number of 1 or more")
    return int(text)


def name_server(text: str) -> NameServer:
    form = re.fullmatch(r"([^@#]+)(?:@([^#]*))?(?:#(.*))?", text)
    if form is None:
        raise ValueError(f"{text!r} is not of the form ADDRESS[@PORT][#NAME]")
    host, port, name = form.groups()
    if port is not None and not (port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError(f"{text!r}: {port!r} is no port, that is a number from 1 to 65535")
    name = name if name is None else name.rstrip(".").lower()
    if name is not None and not FQDN.fullmatch(name):
        raise ValueError(f"{text!r}: {name!r} is no domain name such as dns.example.net")
    return NameServer(address(host), int(port) if port else None, name)


def pin(text: str) -> bytes:
    try:
        digest = base64.b64decode(text, validate=True)
    except binascii.Error:
        digest = b""
    if len(digest) != 32:
        raise ValueError(f"{text!r} is no SHA-256 digest in base64 (44 characters)")
    return digest


def zone(text: str) -> Name:
    try:
        return parse_name(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no domain name: {error}") from None


def file_text(file: Path) -> str:
    """What a file holds. Raises ConfigError."""
    try:
        return file.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: octet {error.start} is not UTF-8 text") from None


def place(file: Path, text: str, section: str, option: str = "") -> str:
    """file:line of an option, or of its section (configparser does not say)."""
    here, found = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[([^]]+)\]", line)
        if header:
            here = header[1]
            found = number if here == section else found
        elif option and here == section and re.match(rf"\s*{re.escape(option)}\s*[=:]", line, re.IGNORECASE):
            return f"{file}:{number}"
    return f"{file}:{found}" if found else str(file)
