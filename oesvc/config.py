"""oegw.conf and the policy files, read into one frozen Config; errors name file and line and what to write instead."""

import configparser
import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from oesvc import class_sections, policy_files
from oesvc import config_values as read
from oesvc.config_tunnels import SECTION as TUNNEL
from oesvc.config_tunnels import ConfiguredPeer, TunnelError, overlaps, read_tunnels
from oesvc.config_values import YES_NO, NameServer, Reader
from oesvc.config_values import ConfigError as ConfigError
from oesvc.dns.answer import Name
from oesvc.ike.identity import Identity
from oesvc.ipsec.flow import Address
from oesvc.ipsec.translation import Translation
from oesvc.oe.aging import Lifespans
from oesvc.oe.authorization import DnssecPolicy
from oesvc.oe.classes import ClassOptions, ClassTable, ConnectionClass, Network, PolicyLine, PortLine
from oesvc.oe.paths import Choice
from oesvc.policy_files import meant
from oesvc.set_up import CONTROL_SOCKET, FORM


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

    file: Path
    "Where it was read."
    options: Mapping[tuple[str, str], Any]
    "What every option is, by section and name."
    addresses: tuple[Address, ...]
    "This gateway's own external addresses; empty: those of the interfaces that lead to the Internet."
    clients: tuple[Network, ...]
    translated: tuple[Translation, ...]
    inside: tuple[str, ...]
    max_flows: int
    icmp_on_deny: bool
    multi_homing: Choice
    "Which of several gateways of a host is sent to (RFC 4322 section 8)."
    max_held: int
    "Datagrams."
    metrics: tuple[Address, int] | Path | None
    manhole: tuple[Address, int] | Path | None
    manhole_keys: Path
    "Where Prometheus may ask; None: nowhere."
    private_key: Path
    identity: Identity | None
    hosts_by_name: bool
    "Instead of our own address: a name (RFC 4322 section 5.3), or the address that a NAT translates it to."
    profile: Profile
    keying_time: float
    channel_lifetime: int
    tunnel_lifetime: int
    tunnel_kilobytes: int
    "0: as many as the cipher is good for."
    tunnel_packets: int
    min_channel_lifetime: int
    min_tunnel_lifetime: int
    min_tunnel_kilobytes: int
    threads: int | None
    "None: as many as there are processors."
    ike_limits: Mapping[str, Any]
    "Waits and budgets of the keying engine, by its own names for them."
    dns_servers: tuple[NameServer, ...]
    "Empty: those of /etc/resolv.conf."
    dns_tls: bool
    tls_pins: tuple[bytes, ...]
    "SHA-256 of the servers' public keys (RFC 7858 section 4.2)."
    tls_ca: Path | None
    "None: the authorities that this system trusts."
    trust_anchors: tuple[Path, ...]
    negative_anchors: tuple[Name, ...]
    "Zones that need not be signed (RFC 7646)."
    dns_mode: DnsMode
    trusted_path: bool
    clock_skew: int
    dns_tries: tuple[float, ...]
    dns_patience: float
    lookups_per_client: int
    lookups: int
    dns_limits: Mapping[str, int]
    "What one look-up may cost, by the resolver's own names."
    dnssec: DnssecPolicy
    default_class: ConnectionClass
    default_options: ClassOptions
    policies: tuple[PolicyLine, ...]
    "With those of `tunnels`."
    port_lines: tuple[PortLine, ...]
    tunnels: tuple[ConfiguredPeer, ...]
    lifespans: Lifespans
    publish_hosts: tuple[Network, ...]
    publish_primary: str | None
    "The server that takes dynamic updates; None: the one that the zone's SOA names."
    publish_tsig_key: Path | None
    "None: no updates; the administrator publishes."
    publish_ttl: int
    control_socket: Path
    state_directory: Path

    def class_table(self) -> ClassTable:
        """Which destinations are of which class."""
        return ClassTable(self.policies, self.default_class, self.default_options, self.port_lines)


DAY = 86400
CLASS = "class "
"How the sections of classes begin."
IKE_LIMITS = ("dpd-", "channel-idle", "new-", "max-")
OPTIONS: dict[tuple[str, str], tuple[Reader, str]] = {
    ("gateway", "address"):         (read.words(read.address), ""),
    ("gateway", "clients"):         (read.words(read.part_of_the_internet), ""),
    ("gateway", "translated"):      (read.words(read.translation), ""),
    ("gateway", "inside"):          (read.words(read.interface), ""),
    ("gateway", "max-flows"):       (read.between(int, 100, 250_000, ""), "200000"),
    ("gateway", "icmp-on-deny"):    (read.choice(YES_NO), "no"),
    ("gateway", "multi-homing"):    (read.one_of(Choice), "last-keyed"),
    ("gateway", "max-held"):        (read.between(int, 2, 1_000_000, ""), "20000"),
    ("gateway", "metrics"):         (read.optional(read.loopback), ""),
    ("gateway", "manhole"):         (read.optional(read.loopback), ""),
    ("gateway", "manhole-keys"):    (read.path, "/etc/oegw/manhole.keys"),
    ("ike", "private-key"):         (read.path, "/var/lib/oegw/private/gateway.pem"),
    ("ike", "identity"):            (read.identity, ""),
    ("ike", "hosts-by-name"):       (read.choice(YES_NO), "yes"),
    ("ike", "profile"):             (read.one_of(Profile), "modern"),
    ("ike", "keying-time"):         (read.between(float, 1, 300), "8"),
    ("ike", "channel-lifetime"):    (read.between(int, 60, DAY), "28800"),
    ("ike", "tunnel-lifetime"):     (read.between(int, 60, DAY), "3600"),
    ("ike", "tunnel-kilobytes"):    (read.between(int, 0, 2**32 - 1, "kilobytes"), "0"),
    ("ike", "tunnel-packets"):      (read.between(int, 1000, 2**32 - 1, "datagrams"), "4294967295"),
    ("ike", "min-channel-lifetime"): (read.between(int, 10, DAY), "3600"),
    ("ike", "min-tunnel-lifetime"): (read.between(int, 10, DAY), "600"),
    ("ike", "min-tunnel-kilobytes"): (read.between(int, 0, 2**32 - 1, "kilobytes"), "1000"),
    ("ike", "dpd-idle"):            (read.between(float, 0, DAY), "60"),
    ("ike", "channel-idle"):        (read.between(float, 0, DAY), "1800"),
    ("ike", "threads"):             (read.optional(read.count), ""),
    ("ike", "new-invitations"):     (read.between(int, 1, 100_000, ""), "200"),
    # Cookies number invitations with 16 bits; one takes more than 1,000 octets.
    ("ike", "max-invitation-octets"): (read.between(int, 100_000, 50_000_000, ""), "4000000"),
    ("ike", "max-proven-invitations"): (read.between(int, 1, 10_000, ""), "256"),
    ("ike", "max-half-open"):       (read.between(int, 1, 1_000_000, ""), "1000"),
    ("ike", "max-half-open-per-prefix"): (read.between(int, 1, 1_000_000, ""), "32"),
    ("ike", "max-stranger-work"):   (read.between(int, 1, 1_000_000, "milliseconds"), "1000"),
    ("ike", "max-stranger-work-per-prefix"): (read.between(int, 1, 1_000_000, "milliseconds"), "250"),
    ("ike", "max-fragment-octets"): (read.between(int, 100_000, 1_000_000_000, ""), "4000000"),
    ("ike", "max-channels"):        (read.between(int, 1, 1_000_000, ""), "10000"),
    ("ike", "max-channels-per-peer"): (read.between(int, 1, 1_000_000, ""), "8"),
    ("ike", "max-channels-per-prefix"): (read.between(int, 1, 1_000_000, ""), "256"),
    ("ike", "max-tunnels"):         (read.between(int, 1, 1_000_000, ""), "20000"),
    ("ike", "max-tunnels-per-peer"): (read.between(int, 1, 1_000_000, ""), "1000"),
    ("ike", "max-tunnels-per-prefix"): (read.between(int, 1, 1_000_000, ""), "4000"),
    ("dns", "servers"):             (read.words(read.name_server), ""),
    ("dns", "tls"):                 (read.choice(YES_NO), "no"),
    ("dns", "tls-pin"):             (read.words(read.pin), ""),
    ("dns", "tls-ca"):              (read.optional(read.path), ""),
    ("dns", "mode"):                (read.one_of(DnsMode), "validate"),
    ("dns", "trusted-path"):        (read.choice(YES_NO), "no"),
    ("dns", "trust-anchors"):       (read.words(read.path), "/usr/share/dns/root.key"),
    ("dns", "negative-anchors"):    (read.words(read.zone), ""),
    ("dns", "clock-skew"):          (read.between(int, 0, DAY), "0"),
    ("dns", "dnssec"):              (read.one_of(DnssecPolicy), "prefer"),
    ("dns", "tries"):               (read.words(read.between(float, 0.1, 60)), "1 1.5 2.5"),
    ("dns", "patience"):            (read.between(float, 1, 120), "8"),
    ("dns", "look-ups"):            (read.count, "1000"),
    ("dns", "look-ups-per-client"): (read.count, "250"),
    # At the least, what a chain of six signed zones and an alias costs, and one message of the largest size.
    ("dns", "look-up-queries"):     (read.between(int, 16, 1000, ""), "40"),
    ("dns", "look-up-signatures"):  (read.between(int, 16, 10_000, ""), "64"),
    ("dns", "look-up-depth"):       (read.between(int, 6, 100, ""), "20"),
    ("dns", "look-up-hashes"):      (read.between(int, 100, 10_000_000, ""), "20000"),
    ("dns", "look-up-octets"):      (read.between(int, 65535, 100_000_000, ""), "262144"),
    ("policy", "default"):          (str, "private-or-clear"),
    ("lifespans", "first"):         (read.between(float, 1, DAY), "60"),
    ("lifespans", "used"):          (read.between(float, 1, DAY), "1200"),
    ("lifespans", "low"):           (read.between(float, 1, DAY), "600"),
    ("lifespans", "normal"):        (read.between(float, 1, DAY), "21600"),
    ("lifespans", "in-use-within"): (read.between(float, 1, DAY), "30"),
    ("publish", "hosts"):           (read.words(read.network), ""),
    ("publish", "primary"):         (read.optional(read.address), ""),
    ("publish", "tsig-key"):        (read.optional(read.path), ""),
    ("publish", "ttl"):             (read.between(int, 1, 7 * DAY), "3600"),
    ("paths", "policies"):          (read.words(read.path), "/etc/oegw/policies"),
    ("paths", "control-socket"):    (read.path, CONTROL_SOCKET),
    ("paths", "state"):             (read.path, "/var/lib/oegw"),
}
"Every option: how it is read, and its default as it would be written."


def load(file: Path) -> Config:
    """Read the configuration. Raises ConfigError."""
    text = read.file_text(file)
    parser = _parse(file, text)
    values = _read_options(file, text, parser)
    lifespans = Lifespans(**{name.replace("-", "_"): value for (section, name), value in values.items()
                             if section == "lifespans"})
    own = {name: class_sections.policy_class(name, written, lifespans)
           for name, written in _read_classes(file, text, parser)}
    classes = policy_files.known_classes(own, values["dns", "dnssec"])
    default = classes.get(values["policy", "default"])
    if default is None:
        raise ConfigError(f"{read.place(file, text, 'policy', 'default')}: default: {values['policy', 'default']!r} is "
                          f"no class; {meant(values['policy', 'default'], classes)}")
    policies = policy_files.read_policies(values["paths", "policies"], classes)
    tunnels = _read_tunnels(file, text, parser, values)
    for line, configured in overlaps([*policies.lines, *policies.port_lines], tunnels):
        raise ConfigError(f"{line.place}: {line.network} belongs to {configured.network} of a configured tunnel "
                          f"({configured.place}), whatever its class; remove one of the two")
    return Config(
        file=file,
        options=values,
        addresses=values["gateway", "address"],
        clients=values["gateway", "clients"],
        translated=values["gateway", "translated"],
        inside=values["gateway", "inside"],
        max_flows=values["gateway", "max-flows"],
        icmp_on_deny=values["gateway", "icmp-on-deny"],
        multi_homing=values["gateway", "multi-homing"],
        max_held=values["gateway", "max-held"],
        metrics=values["gateway", "metrics"],
        manhole=values["gateway", "manhole"],
        manhole_keys=values["gateway", "manhole-keys"],
        private_key=values["ike", "private-key"],
        identity=values["ike", "identity"],
        hosts_by_name=values["ike", "hosts-by-name"],
        profile=values["ike", "profile"],
        keying_time=values["ike", "keying-time"],
        channel_lifetime=values["ike", "channel-lifetime"],
        tunnel_lifetime=values["ike", "tunnel-lifetime"],
        tunnel_kilobytes=values["ike", "tunnel-kilobytes"],
        tunnel_packets=values["ike", "tunnel-packets"],
        min_channel_lifetime=values["ike", "min-channel-lifetime"],
        min_tunnel_lifetime=values["ike", "min-tunnel-lifetime"],
        min_tunnel_kilobytes=values["ike", "min-tunnel-kilobytes"],
        threads=values["ike", "threads"],
        ike_limits={name.replace("-", "_"): value for (section, name), value in values.items()
                    if section == "ike" and name.startswith(IKE_LIMITS)},
        dns_servers=values["dns", "servers"],
        dns_tls=values["dns", "tls"],
        tls_pins=values["dns", "tls-pin"],
        tls_ca=values["dns", "tls-ca"],
        trust_anchors=values["dns", "trust-anchors"],
        negative_anchors=values["dns", "negative-anchors"],
        dns_mode=values["dns", "mode"],
        trusted_path=values["dns", "trusted-path"],
        clock_skew=values["dns", "clock-skew"],
        dns_tries=values["dns", "tries"],
        dns_patience=values["dns", "patience"],
        lookups_per_client=values["dns", "look-ups-per-client"],
        lookups=values["dns", "look-ups"],
        dns_limits={name.removeprefix("look-up-"): value for (section, name), value in values.items()
                    if section == "dns" and name.startswith("look-up-")},
        dnssec=values["dns", "dnssec"],
        default_class=default.connection_class,
        default_options=default.options,
        policies=policies.lines + tuple(dict.fromkeys(line for tunnel in tunnels for line in tunnel.lines)),
        port_lines=policies.port_lines,
        tunnels=tunnels,
        lifespans=lifespans,
        publish_hosts=values["publish", "hosts"],
        publish_primary=str(values["publish", "primary"] or "") or None,
        publish_tsig_key=values["publish", "tsig-key"],
        publish_ttl=values["publish", "ttl"],
        control_socket=values["paths", "control-socket"],
        state_directory=values["paths", "state"],
    )


def _parse(file: Path, text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(**FORM)
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
    return parser


def _read_options(file: Path, text: str, parser: configparser.ConfigParser) -> dict[tuple[str, str], Any]:
    for section in parser.sections():
        if section.startswith(CLASS) or TUNNEL.fullmatch(section):
            continue
        for option in parser[section]:
            if (section, option) not in OPTIONS:
                raise ConfigError(f"{read.place(file, text, section, option)}: {_unknown(section, option)}")
        if section not in {known for known, _ in OPTIONS}:
            raise ConfigError(f"{read.place(file, text, section)}: there is no section [{section}]; "
                              f"there are {', '.join(sorted({known for known, _ in OPTIONS}))}, class NAME, "
                              "tunnel NAME")
    values = {(section, option): _read_option(file, text, parser, section, option, *how)
              for (section, option), how in OPTIONS.items()}
    for option, complaint in _contradictions({option: value for (section, option), value in values.items()
                                              if section == "dns"}):
        raise ConfigError(f"{read.place(file, text, 'dns', option)}: {option}: {complaint}")
    return values


def _read_option(file: Path, text: str, parser: configparser.ConfigParser, section: str, option: str,
                 reader: Reader, default: str) -> Any:
    try:
        return reader(parser.get(section, option, fallback=default))
    except ValueError as error:
        raise ConfigError(f"{read.place(file, text, section, option)}: {option}: {error}") from None


def _read_tunnels(file: Path, text: str, parser: configparser.ConfigParser,
                  values: Mapping[tuple[str, str], Any]) -> tuple[ConfiguredPeer, ...]:
    """The sections [tunnel NAME]."""
    try:
        return tuple(read_tunnels(
            {section: parser[section] for section in parser.sections()},
            {section: read.place(file, text, section) for section in parser.sections()},
            values["gateway", "clients"], [server.address for server in values["dns", "servers"]],
            values["dns", "mode"] is not DnsMode.OFF))
    except TunnelError as error:
        raise ConfigError(f"{read.place(file, text, error.section, error.option)}: [{error.section}] {error}") from None


def _read_classes(file: Path, text: str, parser: configparser.ConfigParser) -> Iterator[tuple[str, dict[str, Any]]]:
    """The sections [class NAME]."""
    for section in parser.sections():
        if not section.startswith(CLASS):
            continue
        for option in parser[section]:
            if option not in class_sections.OPTIONS:
                raise ConfigError(f"{read.place(file, text, section, option)}: there is no option {option} in "
                                  f"[{section}]; {meant(option, class_sections.OPTIONS)}")
        values = {option: _read_option(file, text, parser, section, option, *how)
                  for option, how in class_sections.OPTIONS.items()}
        name = section.removeprefix(CLASS).strip()
        for option, complaint in class_sections.contradictions(name, values):
            raise ConfigError(f"{read.place(file, text, section, option)}: {option or section}: {complaint}")
        yield name, values


def _contradictions(dns: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Values of [dns] that do not go together: at which option, and what would be right."""
    for server in dns["servers"]:
        if server.name and not dns["tls"]:
            yield "servers", f"{server}: only TLS can prove a name; write tls = yes"
        if dns["tls"] and not (server.name or dns["tls-pin"]):
            yield "servers", (f"{server}: with tls = yes a server must prove who it is; write {server}#NAME with the "
                              "name in its certificate, or its key in tls-pin")
        local = server.address.is_loopback or dns["trusted-path"] or dns["tls"]
        if dns["mode"] is DnsMode.TRUST_AD and not local:
            yield "mode", (f"trust-ad believes whoever can answer for {server}; use a resolver on this host, tls = "
                           "yes, trusted-path = yes if nobody else can, or mode = validate")
    if dns["tls"] and not (dns["servers"] or dns["tls-pin"]):
        yield "tls", "name the servers and the names that they prove, as in servers = 192.0.2.53#dns.example.net"
    for option in ("tls-pin", "tls-ca"):
        if dns[option] and not dns["tls"]:
            yield option, "counts only with tls = yes"
    if not dns["tries"]:
        yield "tries", "say how long to wait for the answer to a question at least once, as in tries = 1 1.5 2.5"
    elif dns["patience"] < dns["tries"][0]:
        yield "patience", f"{dns['patience']:g} seconds are over before the first of tries, {dns['tries'][0]:g}, is"
    if dns["mode"] is DnsMode.VALIDATE and not dns["trust-anchors"]:
        yield "trust-anchors", "validation begins with a file of anchors, such as /usr/share/dns/root.key"


def _unknown(section: str, option: str) -> str:
    known = [name for in_section, name in OPTIONS if in_section == section]
    elsewhere = [name for name, there in ((s, o) for s, o in OPTIONS) if there == option]
    if elsewhere and not difflib.get_close_matches(option, known, 1):
        return f"{option} belongs into [{elsewhere[0]}], not [{section}]"
    return f"there is no option {option} in [{section}]; {meant(option, known)}"
