"""Opportunistic encryption waits for the DNS: where the DNS would wait for it, that is prevented, or explained."""

import time
from collections.abc import Iterator

import pytest

from oesvc.dns.name import name_text
from oesvc.dns.resolver import APEXES
from tests.lab.gateway import GATEWAYS, Gateway, start_gateways
from tests.lab.names import canonical_tree, serve_names
from tests.lab.network import Host, Network, address_of
from tests.zones import unbound_conf

pytestmark = pytest.mark.lab

ALICE, HERE = address_of("alice"), "127.0.0.1"
PRIVATE = {"clear": (), "private-or-clear": (), "private": ("0.0.0.0/0", "::/0")}
"Nothing may go in clear, so what is held and never answered is lost."


@pytest.fixture
def net() -> Iterator[Network]:
    with Network() as net:
        yield net


def start_resolver(host: Host, listen: str, more: str = "") -> None:
    """An unbound on a host: one that asks the tree's servers, or forwards as `more` says."""
    file = host.folder / f"unbound-{host.name}.conf"
    file.write_text(unbound_conf(host.folder, [(listen, 53)], root_hints=host.folder / "root.hints").replace(
        "unbound.pid", f"unbound-{host.name}.pid") + more)
    host.popen(["unbound", "-d", "-c", str(file)], f"unbound-{host.name}.log")


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


@pytest.mark.parametrize("resolver, warm", [(HERE, False), (ALICE, True)],
                         ids=["on the gateway, cache empty", "among the clients, cache warm"])
def test_the_resolver_is_never_held_by_the_policy_that_waits_for_it(net: Network, resolver: str, warm: bool) -> None:
    a = Gateway(net, GATEWAYS[0], {"dns": {"servers": resolver}}, PRIVATE)
    serve_names(net, canonical_tree(), [])
    start_resolver(net["sg-a" if resolver == HERE else "alice"], resolver)
    if warm:
        warm_up(net["sg-a"], resolver)
    start_gateways([a])
    # What its cache holds, it need not ask for; but then it would be `the DNS tells only what was asked before`.
    assert "signed by . under the trust anchor of ." in said(a, "the DNS answers while our policy is in force")


@pytest.mark.parametrize("warm, words", [
    (False, "no resolver can be used, so nothing can be encrypted"),
    (True, "the DNS tells only what was asked before, so nothing new can be encrypted")],
    ids=["cache empty", "cache warm"])
def test_a_circle_through_a_client_that_is_not_named_is_explained_at_start(
        net: Network, warm: bool, words: str) -> None:
    a = Gateway(net, GATEWAYS[0], {"dns": {"servers": HERE}}, PRIVATE)
    serve_names(net, canonical_tree(), [])
    start_resolver(net["alice"], ALICE)
    start_resolver(net["sg-a"], HERE, f"forward-zone:\n  name: \".\"\n  forward-addr: {ALICE}\n")
    if warm:
        warm_up(net["sg-a"], HERE)
    start_gateways([a])
    line = said(a, words)
    assert "127.0.0.1 is on this host" in line
    assert "if it hands them to a resolver among the clients, [dns] servers must name that one too" in line
