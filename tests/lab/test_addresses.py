"""Addresses that come and go while the daemon runs, and hosts that protect themselves (RFC 4322 sections 5.3 and 7).

SG-A and a laptop have their addresses from DHCP, and nothing in the reverse zones says where they are: they are known
by name. Both must never send to Bob's network in clear.
"""

from collections.abc import Iterator, Sequence

import pytest

from tests.lab.capture import Packet
from tests.lab.gateway import GATEWAYS, Gateway, GatewayRow, start_gateways
from tests.lab.keys import private_key_file
from tests.lab.names import NAMED_ALICES, canonical_tree, serve_names
from tests.lab.network import FROM_OUTSIDE, HOSTS, TO_NET_A, TO_NET_B, Host, HostRow, Link, Network, address_of
from tests.lab.peers.site import wait_until
from tests.lab.test_main_job import clear

pytestmark = pytest.mark.lab

BOBS = {version: address_of("bob", version) for version in (4, 6)}
SG_BS = {version: address_of("sg-b", version) for version in (4, 6)}
NET_B = ("192.2.0.0/24", "2001:db8:2::/64")
LAPTOP = {4: ("192.1.1.90", "192.1.1.91"), 6: ("2001:db8:1:1::90", "2001:db8:1:1::91")}
SG_A = {4: (address_of("sg-a"), "192.1.1.44"), 6: (address_of("sg-a", 6), "2001:db8:1:1::44")}
BEHIND_SG_A = {4: "192.1.0.91", 6: "2001:db8:1::91"}
ROWS = (*HOSTS, HostRow("laptop", (Link("eth0", "internet", ("192.1.1.90/24", "2001:db8:1:1::90/64")),
                                   Link("eth1", "net-a", ())), FROM_OUTSIDE))


def from_dhcp(name: str) -> dict[str, dict[str, str]]:
    """The options of one whose addresses are what its interfaces have, and who is known by name."""
    return {"gateway": {"address": ""}, "ike": {"identity": f"@{name}.test", "keying-time": "30"}}


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    with Network(ROWS) as net:
        for alice, length in zip(NAMED_ALICES, (24, 64), strict=True):
            net["alice"].run(["ip", "address", "add", f"{alice}/{length}", "dev", "eth0",
                              *(["nodad"] if ":" in alice else [])])
        private = {"private": NET_B}
        lonely = from_dhcp("laptop")
        lonely["gateway"]["inside"] = ""
        gateways = (Gateway(net, GATEWAYS[0], from_dhcp("sg-a"), private), Gateway(net, GATEWAYS[1]),
                    Gateway(net, GatewayRow("laptop", ()), lonely, private))
        assert private_key_file("laptop").exists()
        serve_names(net, canonical_tree(), ("sg-a", "sg-b", "laptop"))
        start_gateways(gateways)
        yield net


def renumber(host: Host, interface: str, version: int, before: str, after: str,
             routes: Sequence[tuple[str, str]]) -> None:
    """As DHCP does: the old address is taken, and with it what was routed by it; then there is a new one."""
    length, family = {4: (24, "-4"), 6: (64, "-6")}[version]
    nodad = ["nodad"] if version == 6 else []
    host.run(["ip", "address", "delete", f"{before}/{length}", "dev", interface])
    host.run(["ip", "address", "add", f"{after}/{length}", "dev", interface, *nodad])
    for prefix, hop in routes:
        if (":" in prefix) == (version == 6):
            host.run(["ip", family, "route", "replace", prefix, "via", hop])


def outer(packets: Sequence[Packet]) -> set[str]:
    return {address for packet in packets if packet.is_esp for address in packet.flow}


@pytest.mark.conformance("C-5.3-04", "C-4.3-02")
@pytest.mark.parametrize("version", [4, 6])
def test_gateway_whose_address_changes_keys_anew_from_the_next_and_sends_nothing_in_clear(
        net: Network, version: int) -> None:
    alice, bob = NAMED_ALICES[version == 6], BOBS[version]
    before, after = SG_A[version]
    with net.capture("internet", "ip6" if version == 6 else "ip") as tap:
        assert net["alice"].ping(bob, wait=60, source=alice) == 1
        assert net["alice"].ping(bob, 2, source=alice) == 2
        assert outer(tap.packets()) == {before, SG_BS[version]}
        renumber(net["sg-a"], "wan0", version, before, after, TO_NET_B)
        wait_until(lambda: net["alice"].ping(bob, wait=1, source=alice) == 1, "an answer from the new address")
        assert net["alice"].ping(bob, 3, source=alice) == 3
        assert net["bob"].ping(alice) == 1
    seen = tap.end()
    assert outer(seen) == {before, after, SG_BS[version]}
    assert clear(seen, alice, bob) == []


@pytest.mark.conformance("C-7-01", "C-7-02", "C-7-03", "C-5.3-04", "C-5.3-06")
@pytest.mark.parametrize("version", [4, 6])
def test_laptop_that_protects_itself_uses_tunnel_mode_from_whatever_address_it_has(
        net: Network, version: int) -> None:
    laptop, bob = net["laptop"], BOBS[version]
    before, after = LAPTOP[version]
    with net.capture("internet", "ip6" if version == 6 else "ip") as tap:
        assert laptop.ping(bob, wait=60) == 1
        assert laptop.ping(bob, 2) == 2
        assert outer(tap.packets()) == {before, SG_BS[version]}
        states = laptop.xfrm("state")
        assert f"src {before} dst {SG_BS[version]}\n" in states
        renumber(laptop, "eth0", version, before, after, FROM_OUTSIDE)
        wait_until(lambda: laptop.ping(bob, wait=10) == 1, "an answer to the new address")
        assert laptop.ping(bob, 2) == 2 and net["bob"].ping(after) == 1
    seen = tap.end()
    assert outer(seen) == {before, after, SG_BS[version]}
    assert clear(seen, bob) == []
    # Those of the traps, which were met, are in transport mode, but have no keys: their SPI is 0.
    standing = [entry for entry in ("\n" + laptop.xfrm("state")).split("\nsrc ") if "spi 0x00000000" not in entry][1:]
    assert standing and all("mode tunnel" in entry for entry in standing)


def go_behind_sg_a(net: Network) -> None:
    """The laptop leaves the Internet for Alice's network; the others learn where SG-A is now."""
    laptop, addresses = net["laptop"], net["sg-a"].run(["ip", "address"]).stdout
    laptop.run(["ip", "link", "set", "eth0", "down"])
    for version, length, hop in (4, 24, "192.1.0.1"), (6, 64, "2001:db8:1::1"):
        network = TO_NET_A[version == 6][0]
        gateway = next(one for one in SG_A[version] if f" {one}/" in addresses)
        laptop.run(["ip", "address", "replace", f"{BEHIND_SG_A[version]}/{length}", "dev", "eth1",
                    *(["nodad"] if version == 6 else [])])
        laptop.run(["ip", f"-{version}", "route", "replace", "default", "via", hop])
        for name in "sg-b", "dns":
            net[name].run(["ip", f"-{version}", "route", "replace", network, "via", gateway])


@pytest.mark.conformance("C-7-02")
@pytest.mark.parametrize("version", [4, 6])
def test_laptop_that_comes_to_a_network_behind_a_gateway_still_protects_itself_and_the_gateway_lets_it(
        net: Network, version: int) -> None:
    """Co-terminal: its IKE and ESP go through SG-A as they are. Of what it sends in clear SG-A takes care as ever."""
    laptop, bob, address = net["laptop"], BOBS[version], BEHIND_SG_A[version]
    go_behind_sg_a(net)
    with net.capture("internet", "ip6" if version == 6 else "ip") as tap:
        wait_until(lambda: laptop.ping(bob, wait=20) == 1, "an answer to the laptop behind SG-A")
        assert laptop.ping(bob, 2) == 2
    seen = tap.end()
    assert outer(seen) == {address, SG_BS[version]}
    assert clear(seen, bob) == []
    assert {packet.flow for packet in seen if packet.is_isakmp} >= {(address, SG_BS[version])}
