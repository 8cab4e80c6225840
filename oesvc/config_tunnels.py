"""Sections [tunnel NAME] of oegw.conf: what is arranged with peers that are known (RFC 4322 section 1.2)."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from oesvc import config_values as read
from oesvc.config_values import Reader
from oesvc.ike.identity import AddressIdentity, FqdnIdentity, Identity
from oesvc.ipsec.flow import Address, Network
from oesvc.ipsec.rsa_key import RsaPublicKey
from oesvc.ipsec.subnets import Subnets
from oesvc.keys.public_keys import read_public_keys
from oesvc.oe.classes import ConnectionClass, PolicyLine, PortLine
from oesvc.oe.configured import Start
from oesvc.oe.delegation import FQDN

SECTION = re.compile(r"tunnel\s+(\S.*)")
MOST_PAIRS = 16
"Of networks here and there in one tunnel: each has a reqid of the tunnel's own sixteen."
REQIDS = 0xF0000000
"Those of tunnel number 1 begin at 0xF0000010; opportunistic tunnels have lower ones (RFC 4322 section 12.1)."


class TunnelError(ValueError):
    """A section cannot be used: `option` is where, the text says what would be right."""

    def __init__(self, section: str, option: str, text: str) -> None:
        super().__init__(f"{option}: {text}" if option else text)
        self.section, self.option = section, option


@dataclass(frozen=True, slots=True)
class ConfiguredPeer:
    """One section."""

    name: str
    place: str
    "file:line"
    number: int
    "1 to 4095: by it its reqids are known."
    address: Address | str | None
    "Of the peer's gateway, or its name; None: any, it calls us."
    identity: Identity
    keys: tuple[RsaPublicKey, ...]
    "Empty: those that the DNS has for the identity."
    start: Start
    subnets: tuple[Subnets, ...]
    "What it protects, ours as the source."

    def reqids(self) -> dict[Subnets, int]:
        """Its SAs are known by these, sixteen for each tunnel (`ipsec in reqid` of nftables)."""
        return {subnets: REQIDS + MOST_PAIRS * self.number + i for i, subnets in enumerate(self.subnets)}

    @property
    def lines(self) -> list[PolicyLine]:
        """The networks that belong to it: nothing goes there, or is accepted for them, by any other way."""
        return [PolicyLine(network, ConnectionClass.CONFIGURED, f"{self.place}, tunnel {self.name}")
                for network in dict.fromkeys(subnets.networks[1] for subnets in self.subnets)]


def _peer(text: str) -> Address | str | None:
    if text == "any":
        return None
    name = text.rstrip(".").lower()
    if re.search("[a-z]", name) and ":" not in name and FQDN.fullmatch(name):
        return name
    try:
        return read.address(text)
    except ValueError:
        raise ValueError(f"{text!r} is no IP address, no domain name, and not `any`") from None


def _keys(text: str) -> tuple[RsaPublicKey, ...]:
    return () if text == "dns" else read_public_keys(read.path(text))


OPTIONS: dict[str, tuple[Reader, str | None]] = {
    "peer":     (_peer, None),
    "local":    (read.words(read.network), ""),
    "remote":   (read.words(read.network), None),
    "identity": (read.identity, ""),
    "key":      (_keys, None),
    "start":    (read.one_of(Start), "on demand"),
    "number":   (read.optional(read.between(int, 1, 4095, "")), ""),
}
"Every option: how it is read, and its default as it would be written; None: it must be there."


def read_tunnels(sections: Mapping[str, Mapping[str, str]], places: Mapping[str, str], clients: Sequence[Network],
                 resolvers: Sequence[Address], dns_proves_keys: bool) -> Iterator[ConfiguredPeer]:
    """The sections that are tunnels, in their order. Raises TunnelError."""
    numbers: dict[int, str] = {}
    pairs: dict[Subnets, str] = {}
    for section, written in sections.items():
        if (named := SECTION.fullmatch(section)) is None:
            continue
        values = _values(section, written)
        number = values["number"] or next(n for n in range(1, 4096) if n not in numbers)
        if number in numbers:
            raise TunnelError(section, "number", f"{number} is already that of tunnel {numbers[number]}")
        numbers[number] = named[1]
        values["local"] = values["local"] or tuple(clients)
        identity = values["identity"] or _identity(values["peer"])
        for option, complaint in _contradictions(values, identity, clients, resolvers, dns_proves_keys):
            raise TunnelError(section, option, complaint)
        subnets = tuple(dict.fromkeys(Subnets.between(*pair) for pair in product(values["local"], values["remote"])
                                      if pair[0].version == pair[1].version))
        for each in subnets:
            if (other := pairs.setdefault(each, section)) != section:
                raise TunnelError(section, "remote", f"{each} is already what [{other}] protects")
        assert identity is not None
        yield ConfiguredPeer(named[1], places[section], number, values["peer"], identity, values["key"],
                             values["start"], subnets)


def _values(section: str, written: Mapping[str, str]) -> dict[str, Any]:
    for option in written:
        if option not in OPTIONS:
            near = difflib.get_close_matches(option, OPTIONS, 1)
            meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(OPTIONS)}"
            raise TunnelError(section, option, f"a tunnel has no such option; {meant}")
    values: dict[str, Any] = {}
    for option, (reader, default) in OPTIONS.items():
        text = written.get(option, default)
        if text is None:
            raise TunnelError(section, "", f"the option {option} is missing")
        try:
            values[option] = reader(text)
        except ValueError as error:
            raise TunnelError(section, option, str(error)) from None
    return values


def _identity(peer: Address | str | None) -> Identity | None:
    """Who the peer is unless something else is said: what it is called by."""
    if peer is None:
        return None
    return FqdnIdentity(peer) if isinstance(peer, str) else AddressIdentity(peer)


def _contradictions(values: Mapping[str, Any], identity: Identity | None, clients: Sequence[Network],
                    resolvers: Sequence[Address], dns_proves_keys: bool) -> Iterator[tuple[str, str]]:
    """What does not go together: at which option, and what would be right."""
    if identity is None:
        yield "identity", "who is allowed to call from any address? Write its identity, such as @laptop.example.com"
    if values["peer"] is None and values["start"] is not Start.WAIT:
        yield "peer", "nobody can call `any`; write start = wait, or the peer's address"
    if not values["key"] and not dns_proves_keys:
        yield "key", "with [dns] mode = off nothing proves a key from the DNS; write the file that holds the peer's"
    if not values["local"]:
        yield "local", "name the networks on this side; [gateway] has no clients to take instead"
    for network in values["remote"]:
        if network.is_multicast or network.is_loopback or network.is_link_local:
            yield "remote", f"{network} is no network that a gateway leads to"
        for resolver in resolvers:
            if resolver in network and not resolver.is_loopback:
                yield "remote", (f"our own questions to the resolver {resolver} would go to {network} in clear; use "
                                 "one on this host or on this side of the tunnel")
        for ours in clients:
            if network.version == ours.version and network.subnet_of(ours):
                yield "remote", f"{network} lies within our own clients' {ours}; name those narrower"
    count = sum(ours.version == theirs.version for ours, theirs in product(values["local"], values["remote"]))
    if not count:
        yield "remote", "no network there and network here are of the same address family"
    if count > MOST_PAIRS:
        yield "remote", f"{count} pairs of networks; a tunnel has {MOST_PAIRS} at most: join networks, or write two"


def overlaps(lines: Sequence[PolicyLine | PortLine],
             peers: Sequence[ConfiguredPeer]) -> Iterator[tuple[PolicyLine | PortLine, PolicyLine]]:
    """Lines of policy files inside of what belongs to a tunnel, each with the tunnel's line."""
    for own in (line for peer in peers for line in peer.lines):
        for line in lines:
            if line.network.version == own.network.version and line.network.subnet_of(own.network):  # type: ignore[arg-type]
                yield line, own
