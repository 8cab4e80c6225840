"""Opportunistic encryption waits for the DNS: where the DNS would wait for it, that is prevented, or explained.

Two gateways at once: SG-A has its DNS in IPv4, SG-B in IPv6 all the way to the name server.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from oesvc.dns.name import name_text
from oesvc.dns.resolver import APEXES
from tests.lab.gateway import GATEWAYS, Gateway, GatewayRow, start_gateways
from tests.lab.names import RESOLVE_IN, canonical_tree, serve_names
from tests.lab.network import Host, Network, address_of
from tests.lab.peers.site import wait_until
from tests.zones import unbound_conf

pytestmark = pytest.mark.lab

PRIVATE = {"clear": (), "private-or-clear": (), "private": ("0.0.0.0/0", "::/0")}
"Nothing may go in clear, so what is held and never answered is lost."


@dataclass(frozen=True)
class Site:
    """A gateway, a client of its, and the version of IP in which both ask the DNS."""

    row: GatewayRow
    client: str
    version: int
    loopback: str

    @property
    def resolver(self) -> str:
        """The client's address."""
        return address_of(self.client, self.version)


SITES = Site(GATEWAYS[0], "alice", 4, "127.0.0.1"), Site(GATEWAYS[1], "bob", 6, "::1")


@pytest.fixture
def net() -> Iterator[Network]:
    with Network() as net:
        yield net


def start_resolver(host: Host, listen: str, version: int, more: str = "") -> None:
    """An unbound on a host: one that asks the tree's servers, or forwards as `more` says, in one version of IP."""
    file = host.folder / f"unbound-{host.name}.conf"
    file.write_text(unbound_conf(host.folder, [(listen, 53)], root_hints=host.folder / "root.hints").replace(
        "unbound.pid", f"unbound-{host.name}.pid") + RESOLVE_IN[version] + more)
    host.popen(["unbound", "-d", "-c", str(file)], f"unbound-{host.name}.log")
    wait_until(lambda: host.run(["ss", "-Hlnu", "sport", "=", ":53"]).stdout != "", f"a resolver at {listen}")


def warm_up(host: Host, resolver: str) -> None:
    """Ask for all that a daemon asks at its start, but for what nobody remembers."""
    for apex in APEXES:
        for rdtype in ("DNSKEY", "DS"):
            host.run(["dig", f"@{resolver}", name_text(apex), rdtype, "+dnssec", "+cdflag"])


def said(gateway: Gateway, words: str, limit: float = 60) -> str:
    """The line of its log with these words."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        for line in gateway.log.read_text(errors="replace").splitlines():
            if words in line:
                return line
        time.sleep(0.2)
    raise AssertionError(f"{words!r} is not in\n{gateway.log.read_text(errors='replace')}")


@pytest.mark.parametrize("among_clients, warm", [(False, False), (True, True)],
                         ids=["on the gateway, cache empty", "among the clients, cache warm"])
def test_the_resolver_is_never_held_by_the_policy_that_waits_for_it(
        net: Network, among_clients: bool, warm: bool) -> None:
    serve_names(net, canonical_tree(), [])
    gateways = []
    for site in SITES:
        resolver = site.resolver if among_clients else site.loopback
        start_resolver(net[site.client if among_clients else site.row.host], resolver, site.version)
        if warm:
            warm_up(net[site.row.host], resolver)
        gateways.append(Gateway(net, site.row, {"dns": {"servers": resolver}}, PRIVATE))
    start_gateways(gateways)
    for gateway in gateways:
        # What a cache holds, it need not ask for; but then it would be `the DNS tells only what was asked before`.
        assert "signed by . under the trust anchor of ." in said(
            gateway, "the DNS answers while our policy is in force")


@pytest.mark.parametrize("warm, words", [
    (False, "no resolver can be used, so nothing can be encrypted"),
    (True, "the DNS tells only what was asked before, so nothing new can be encrypted")],
    ids=["cache empty", "cache warm"])
def test_a_circle_through_a_client_that_is_not_named_is_explained_at_start(
        net: Network, warm: bool, words: str) -> None:
    serve_names(net, canonical_tree(), [])
    gateways = []
    for site in SITES:
        start_resolver(net[site.client], site.resolver, site.version)
        start_resolver(net[site.row.host], site.loopback, site.version,
                       f"forward-zone:\n  name: \".\"\n  forward-addr: {site.resolver}\n")
        if warm:
            warm_up(net[site.row.host], site.loopback)
        gateways.append(Gateway(net, site.row, {"dns": {"servers": site.loopback}}, PRIVATE))
    start_gateways(gateways)
    for gateway, site in zip(gateways, SITES, strict=True):
        line = said(gateway, words)
        assert f"{site.loopback} is on this host" in line
        assert "if it hands them to a resolver among the clients, [dns] servers must name that one too" in line
