"""The resolvers as the administrator has configured them, and what the forwarding plane must leave to them.

Opportunistic encryption waits for the DNS; whoever looks up names for us must never wait for opportunistic encryption.
"""

from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path

from oesvc.config import Config, ConfigError
from oesvc.config_values import NameServer
from oesvc.dns.anchors import read_anchors
from oesvc.dns.answer import Answer, AnswerKind, Name, SecurityStatus
from oesvc.dns.authentication import Authentication
from oesvc.dns.budget import Limits
from oesvc.dns.crowd import CrowdLimits
from oesvc.dns.local_zones import local_zone
from oesvc.dns.name import name_text, parse_name
from oesvc.dns.resolver import DnsConfig, Mode
from oesvc.dns.servers import Problem
from oesvc.dns.sockets import Endpoint
from oesvc.dns.tls import TLS_PORT
from oesvc.ipsec.flow import Address
from oesvc.ipsec.translation import Translation
from oesvc.oe.classes import Network

DNS_PORT = 53
SELDOM_ASKED = 3
"Names looked up at the start that no resolver remembers."
RESOLV_CONF = Path("/etc/resolv.conf")


def dns_config(config: Config, resolv_conf: Path = RESOLV_CONF) -> DnsConfig:
    """Raises ConfigError, or a ValueError (AnchorError among them) whose text says what is wrong."""
    servers = config.dns_servers or tuple(NameServer(one) for one in name_servers(resolv_conf))
    mode = Mode(config.dns_mode.value)
    default_port = TLS_PORT if config.dns_tls else DNS_PORT
    endpoints = tuple((str(server.address), server.port or default_port) for server in servers)
    return DnsConfig(
        endpoints,
        anchors=read_anchors(config.trust_anchors) if mode is Mode.VALIDATE else (),
        negative_anchors=config.negative_anchors,
        mode=mode,
        tls={endpoint: Authentication(server.name, config.tls_pins, config.tls_ca)
             for endpoint, server in zip(endpoints, servers, strict=True) if config.dns_tls},
        trusted_path=config.trusted_path,
        clock_skew=config.clock_skew,
        tries=config.dns_tries,
        patience=config.dns_patience,
        limits=Limits(**config.dns_limits),
        crowd=CrowdLimits(config.lookups_per_client, config.lookups))


def seldom_asked(sample: Callable[[Sequence[int], int], Sequence[int]]) -> tuple[Name, ...]:
    """Names whose TXT nobody remembers, nor a proof about them: a resolver must ask others for these.

    Of the reverse map's first octets, each a zone of its own at servers that are always there. One would do if it were
    not for a start shortly before; `sample` is to be random.
    """
    zones = [parse_name(f"{octet}.in-addr.arpa") for octet in range(1, 224)]
    public = [zone for zone in zones if local_zone(zone) is None]
    return tuple(public[place] for place in sample(range(len(public)), SELDOM_ASKED))


def warnings(dns: DnsConfig, own: Sequence[Address], clients: Sequence[Network], failing: Sequence[Problem],
             primed: Sequence[Answer], seldom: Sequence[Answer]) -> Iterator[str]:
    """What an administrator should know once the resolvers have been tried, one line each.

    `failing` says which of them failed; `primed` holds the answers for what every look-up needs, the root's keys first;
    `seldom` those for what was `seldom_asked`.
    """
    if dns.mode is Mode.OFF:
        yield ("[dns] mode = off: NOBODY CHECKS WHETHER DNS ANSWERS ARE AUTHENTIC; who forges them can stop "
               "encryption, and with dnssec = off read everything")
    root = primed[0]
    if root.kind is AnswerKind.NONE and len(failing) == len(dns.servers):
        hint = possible_circle(dns.servers, own, clients) if any(problem.silent for problem in failing) else ""
        yield f"no resolver can be used, so nothing can be encrypted: {'; '.join(map(str, failing))}. {hint}".strip()
        return
    if all(answer.status is SecurityStatus.INDETERMINATE for answer in seldom):
        hint = possible_circle(dns.servers, own, clients)
        yield (f"the DNS tells only what was asked before, so nothing new can be encrypted: {seldom[0].reason}. {hint}")
    yield from (f"resolver {problem}" for problem in failing)
    doubtful = {answer.reason: answer.name for answer in reversed(primed)
                if answer.status in (SecurityStatus.BOGUS, SecurityStatus.INDETERMINATE)}
    for reason, zone in reversed(doubtful.items()):
        yield f"the DNS cannot be validated at {name_text(zone)}: {reason}"
    if dns.mode is Mode.TRUST_AD and root.status is SecurityStatus.INSECURE:
        yield ("[dns] mode = trust-ad, but the resolver does not vouch for the keys of the root: let it validate, or "
               "choose mode = validate")


def name_servers(resolv_conf: Path) -> tuple[Address, ...]:
    """The name servers of resolv.conf(5). Raises ConfigError."""
    try:
        lines = [line.split() for line in resolv_conf.read_text("utf-8", "replace").splitlines()]
        servers = tuple(ip_address(words[1]) for words in lines if words[:1] == ["nameserver"] and len(words) > 1)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{resolv_conf}: {error}; name [dns] servers in oegw.conf") from None
    if not servers:
        raise ConfigError(f"{resolv_conf}: no name server in it; name [dns] servers in oegw.conf")
    return servers


def resolver_sources(servers: Sequence[Endpoint], own: Sequence[Address],
                     clients: Sequence[Network], translated: Sequence[Translation] = ()) -> tuple[Network, ...]:
    """Whose own questions to the DNS must not wait for OE, for OE waits for them.

    A resolver on this host asks from our addresses; one among the clients asks through us, maybe by a NAT; one
    elsewhere asks past us.
    """
    sources: list[Network] = []
    for server, _port in servers:
        address = ip_address(server)
        if _is_here(address, own):
            sources += (ip_network(one) for one in own)
        elif _is_among(address, clients):
            sources.append(ip_network(address))
        for rule in translated:
            if address in rule.inside:
                sources += (ip_network(address), *((rule.outside,) if rule.outside else map(ip_network, own)))
    return tuple(dict.fromkeys(sources))


def possible_circle(servers: Sequence[Endpoint], own: Sequence[Address], clients: Sequence[Network]) -> str:
    """Why resolvers that do not answer may be waiting for our own policy: a hint for each that could."""
    hints = []
    for server, _port in servers:
        address = ip_address(server)
        if _is_here(address, own):
            hints.append(f"{server} is on this host: its own questions pass at the ports 53 and 853 only, and if it "
                         "hands them to a resolver among the clients, [dns] servers must name that one too")
        elif _is_among(address, clients):
            hints.append(f"{server} is among the clients: its own questions pass when they come from this address and "
                         "go to the ports 53 and 853; if it asks from or through another client, [dns] servers must "
                         "name that one too")
        else:
            hints.append(f"{server} is elsewhere: nothing of ours holds its questions, the path to it or it itself "
                         "is broken")
    return "; ".join(hints)


def _is_here(address: Address, own: Sequence[Address]) -> bool:
    return address.is_loopback or address in own


def _is_among(address: Address, clients: Sequence[Network]) -> bool:
    return any(address in network for network in clients)
