"""oegw.conf and the policy files, read into one frozen Config; errors name file and line and what to write instead."""

import configparser
import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, TypeVar

from oesvc.ipsec.flow import Address
from oesvc.oe.aging import Lifespans
from oesvc.oe.authorization import DnssecPolicy
from oesvc.oe.classes import ConnectionClass, Network, PolicyLine
from oesvc.oe.delegation import FQDN

DEFAULT_FILE = Path("/etc/oegw/oegw.conf")

POLICY_FILES = {
    "block": ConnectionClass.DENY,
    "clear": ConnectionClass.ALWAYS_CLEAR_TEXT,
    "private-or-clear": ConnectionClass.OE_PERMISSIVE,
    "private": ConnectionClass.OE_PARANOID,
}


class ConfigError(Exception):
    """The configuration cannot be used; the text begins with the place."""


class Profile(Enum):
    """Which algorithms are offered and accepted (decisions.md 1C.10)."""

    MODERN = "modern"
    RFC4322 = "rfc4322"


class DnsMode(Enum):
    """Who validates the DNS."""

    VALIDATE = "validate"
    TRUST_AD = "trust-ad"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that an administrator can say. Times are in seconds."""

    addresses: tuple[Address, ...]
    "This gateway's own external addresses; empty: those of the interfaces that lead to the Internet."
    clients: tuple[Network, ...]
    inside: tuple[str, ...]
    private_key: Path
    fqdn: str | None
    "The name that we give as initiator instead of our address (RFC 4322 section 5.3)."
    profile: Profile
    keying_time: float
    channel_lifetime: int
    tunnel_lifetime: int
    dns_servers: tuple[Address, ...]
    "Empty: those of /etc/resolv.conf."
    trust_anchors: Path
    dns_mode: DnsMode
    dnssec: DnssecPolicy
    default_class: ConnectionClass
    policies: tuple[PolicyLine, ...]
    lifespans: Lifespans
    control_socket: Path
    state_directory: Path


E_ = TypeVar("E_", bound=Enum)
Reader = Callable[[str], Any]
"Text to value; raises ValueError saying what would be right."


def _words(read: Reader) -> Reader:
    return lambda text: tuple(read(word) for word in re.split(r"[,\s]+", text) if word)


def _one_of(kind: type[E_], words: dict[str, E_] | None = None) -> Reader:
    choices = words or {str(member.value): member for member in kind}

    def read(text: str) -> E_:
        if text not in choices:
            raise ValueError(f"{text!r} is none of {', '.join(choices)}")
        return choices[text]
    return read


def _between(kind: type[float] | type[int], least: float, most: float) -> Reader:
    def read(text: str) -> float:
        try:
            number = kind(text)
        except ValueError:
            raise ValueError(f"{text!r} is no number of seconds") from None
        if not least <= number <= most:
            raise ValueError(f"{text} is not between {least} and {most} seconds")
        return number
    return read


def _address(text: str) -> Address:
    try:
        return ip_address(text)
    except ValueError:
        raise ValueError(f"{text!r} is no IP address") from None


def _network(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no network prefix: {error}") from None


def _fqdn(text: str) -> str | None:
    name = text.removeprefix("@").rstrip(".").lower()
    if text and not (text.startswith("@") and FQDN.fullmatch(name)):
        raise ValueError(f"{text!r} is no name of the form @gateway.example.com")
    return name or None


def _path(text: str) -> Path:
    if not text.startswith("/"):
        raise ValueError(f"{text!r} is no absolute path")
    return Path(text)


DAY = 86400
OPTIONS: dict[tuple[str, str], tuple[Reader, str]] = {
    ("gateway", "address"):         (_words(_address), ""),
    ("gateway", "clients"):         (_words(_network), ""),
    ("gateway", "inside"):          (_words(str), ""),
    ("ike", "private-key"):         (_path, "/var/lib/oegw/private/gateway.pem"),
    ("ike", "identity"):            (_fqdn, ""),
    ("ike", "profile"):             (_one_of(Profile), "modern"),
    ("ike", "keying-time"):         (_between(float, 1, 300), "8"),
    ("ike", "channel-lifetime"):    (_between(int, 600, DAY), "28800"),
    ("ike", "tunnel-lifetime"):     (_between(int, 60, DAY), "3600"),
    ("dns", "servers"):             (_words(_address), ""),
    ("dns", "trust-anchors"):       (_path, "/usr/share/dns/root.key"),
    ("dns", "mode"):                (_one_of(DnsMode), "validate"),
    ("dns", "dnssec"):              (_one_of(DnssecPolicy), "prefer"),
    ("policy", "default"):          (_one_of(ConnectionClass, POLICY_FILES), "private-or-clear"),
    ("lifespans", "first"):         (_between(float, 1, DAY), "60"),
    ("lifespans", "used"):          (_between(float, 1, DAY), "1200"),
    ("lifespans", "low"):           (_between(float, 1, DAY), "600"),
    ("lifespans", "normal"):        (_between(float, 1, DAY), "21600"),
    ("lifespans", "in-use-within"): (_between(float, 1, DAY), "30"),
    ("paths", "policies"):          (_path, "/etc/oegw/policies"),
    ("paths", "control-socket"):    (_path, "/run/oegw/control"),
    ("paths", "state"):             (_path, "/var/lib/oegw"),
}
"Every option: how it is read, and its default as it would be written."


def load(file: Path) -> Config:
    """Read the configuration. Raises ConfigError."""
    values = _read_options(file)
    lines = tuple(_read_policies(values["paths", "policies"]))
    return Config(
        addresses=values["gateway", "address"],
        clients=values["gateway", "clients"],
        inside=values["gateway", "inside"],
        private_key=values["ike", "private-key"],
        fqdn=values["ike", "identity"],
        profile=values["ike", "profile"],
        keying_time=values["ike", "keying-time"],
        channel_lifetime=values["ike", "channel-lifetime"],
        tunnel_lifetime=values["ike", "tunnel-lifetime"],
        dns_servers=values["dns", "servers"],
        trust_anchors=values["dns", "trust-anchors"],
        dns_mode=values["dns", "mode"],
        dnssec=values["dns", "dnssec"],
        default_class=values["policy", "default"],
        policies=lines,
        lifespans=Lifespans(**{name.replace("-", "_"): value for (section, name), value in values.items()
                               if section == "lifespans"}),
        control_socket=values["paths", "control-socket"],
        state_directory=values["paths", "state"],
    )


def _read_options(file: Path) -> dict[tuple[str, str], Any]:
    text = _read_text(file)
    parser = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=("#", ";"))
    try:
        parser.read_string(text, str(file))
    except configparser.MissingSectionHeaderError as error:
        raise ConfigError(f"{file}:{error.lineno}: a line stands before the first [section]") from None
    except configparser.ParsingError as error:
        line, what = error.errors[0]
        raise ConfigError(f"{file}:{line}: {what} is not of the form `option = value`") from None
    except (configparser.DuplicateOptionError, configparser.DuplicateSectionError) as error:
        what = getattr(error, "option", None) or f"[{error.section}]"
        raise ConfigError(f"{file}:{error.lineno}: {what} is there twice; keep one") from None
    for section in parser.sections():
        for option in parser[section]:
            if (section, option) not in OPTIONS:
                raise ConfigError(f"{_place(file, text, section, option)}: {_unknown(section, option)}")
        if section not in {known for known, _ in OPTIONS}:
            raise ConfigError(f"{_place(file, text, section)}: there is no section [{section}]; "
                              f"there are {', '.join(sorted({known for known, _ in OPTIONS}))}")
    values = {}
    for (section, option), (read, default) in OPTIONS.items():
        written = parser.get(section, option, fallback=default)
        try:
            values[section, option] = read(written)
        except ValueError as error:
            raise ConfigError(f"{_place(file, text, section, option)}: {option}: {error}") from None
    return values


def _unknown(section: str, option: str) -> str:
    known = [name for in_section, name in OPTIONS if in_section == section]
    elsewhere = [name for name, there in ((s, o) for s, o in OPTIONS) if there == option]
    near = difflib.get_close_matches(option, known, 1)
    if near:
        return f"there is no option {option} in [{section}]; did you mean {near[0]}?"
    if elsewhere:
        return f"{option} belongs into [{elsewhere[0]}], not [{section}]"
    return f"there is no option {option} in [{section}]; there are {', '.join(known) or 'none'}"


def _place(file: Path, text: str, section: str, option: str = "") -> str:
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


def _read_policies(directory: Path) -> Iterator[PolicyLine]:
    """The lines of the policy files. A prefix in two classes is an error (RFC 4322 section 1.2)."""
    if not directory.is_dir():
        raise ConfigError(f"{directory}: there is no such directory; it holds the files {', '.join(POLICY_FILES)}")
    seen: dict[Network, PolicyLine] = {}
    for name, connection_class in POLICY_FILES.items():
        file = directory / name
        if not file.exists():
            continue
        for line in _policy_lines(file, connection_class):
            before = seen.setdefault(line.network, line)
            if before.connection_class is not line.connection_class:
                raise ConfigError(f"{line.place}: {line.network} is {line.connection_class.value} here and "
                                  f"{before.connection_class.value} at {before.place}; remove one of the two")
            if before is line:
                yield line


def _policy_lines(file: Path, connection_class: ConnectionClass) -> Iterable[PolicyLine]:
    for number, line in enumerate(_read_text(file).splitlines(), 1):
        written = line.partition("#")[0].strip()
        if not written:
            continue
        try:
            yield PolicyLine(_network(written), connection_class, f"{file}:{number}")
        except ValueError as error:
            raise ConfigError(f"{file}:{number}: {error}; one prefix a line, such as 192.0.2.0/24") from None


def _read_text(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: octet {error.start} is not UTF-8 text") from None
