"""Configured tunnels, for subnets: never in clear, whatever becomes of the daemons; and with other people's peer."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from oesvc.keys import key_pair
from oesvc.oe.paths import CROSSING
from tests.lab.conftest import Lab
from tests.lab.gateway import GATEWAYS, Gateway, start_gateways
from tests.lab.keys import private_key_file
from tests.lab.names import SPARE_BOBS, canonical_tree, serve_names
from tests.lab.network import Network, address_of
from tests.lab.peers.expire import expire_softly
from tests.lab.peers.peer import THEIRS
from tests.lab.peers.site import Site, reaches, site_with, wait_until
from tests.lab.peers.strongswan import StrongSwan
from tests.lab.peers.suites import SUITES
from tests.lab.test_main_job import clear

pytestmark = pytest.mark.lab

ALICE, BOB, SG_A, SG_B = (address_of(name) for name in ("alice", "bob", "sg-a", "sg-b"))
ALICE_6, BOB_6 = address_of("alice", 6), address_of("bob", 6)
NET_A, NET_B = "192.1.0.0/24", "192.2.0.0/24"
CLEAR = {"clear": (f"{address_of('dns')}/32",)}
"Nothing of the other site's, which a policy file cannot name."
OURS, OPPORTUNISTIC = "0xf0000010-0xf000001f", "0xe0000001-0xefffffff"
COUNTERS = f"""
table inet probe {{
  chain seen {{
    type filter hook forward priority 0; policy accept;
    ip daddr {BOB} ipsec in reqid {OURS} counter comment "configured"
    ip daddr {BOB} ipsec in reqid {OPPORTUNISTIC} counter comment "opportunistic"
    ip daddr {BOB} meta mark and 0x08000000 != 0 counter comment "marked"
  }}
  chain own {{
    type filter hook input priority 0; policy accept;
    ip saddr {SG_A} ip daddr {SG_B} ipsec in reqid {OURS} counter comment "configured here"
    ip saddr {SG_A} ip daddr {SG_B} ipsec in reqid {OPPORTUNISTIC} counter comment "opportunistic here"
    ip saddr {SG_A} ip daddr {SG_B} meta mark and 0x08000000 != 0 counter comment "marked here"
  }}
}}
"""


def public_key_file(folder: Path, gateway: str) -> str:
    """What its administrator has handed on."""
    file = folder / f"{gateway}.pub"
    file.write_bytes(key_pair.load(private_key_file(gateway)).public_key().public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return str(file)


def section(folder: Path, peer: str, start: str) -> dict[str, dict[str, str]]:
    there = next(row for row in GATEWAYS if row.host == peer)
    return {"tunnel site": {"peer": address_of(peer), "remote": " ".join(there.clients), "start": start,
                            "key": public_key_file(folder, peer)}}


@pytest.fixture(scope="module")
def sites() -> Iterator[Lab]:
    """Both gateways know each other; SG-A begins with the first datagram, SG-B at once."""
    with Network() as net:
        serve_names(net, canonical_tree())
        a = Gateway(net, GATEWAYS[0], section(net.folder, "sg-b", "on demand"), CLEAR)
        b = Gateway(net, GATEWAYS[1], section(net.folder, "sg-a", "at once"), CLEAR)
        start_gateways([a, b])
        yield Lab(net, a, b)


def states(gateway: Gateway) -> set[str]:
    return {one["state"] for one in gateway.status()["configured"]}


def counted(net: Network) -> dict[str, int]:
    rules = json.loads(net["sg-b"].run(["nft", "-j", "list", "table", "inet", "probe"]).stdout)["nftables"]
    return {rule["rule"]["comment"]: next(part["counter"]["packets"] for part in rule["rule"]["expr"]
                                          if "counter" in part) for rule in rules if "rule" in rule}


def outbound(net: Network) -> set[int]:
    return set(net["sg-a"].sas(f"sel src {NET_A} dst {NET_B}"))


@pytest.mark.conformance("C-1.2-07", "C-12.1-01", "C-2.2-02")
def test_nothing_of_a_configured_tunnel_is_ever_in_clear_and_a_firewall_knows_it(sites: Lab) -> None:
    """Up, told from an opportunistic one, renewed, its daemon killed, its SAs gone, started again, its peer stopped."""
    net, alice = sites.net, sites.net["alice"]
    with net.capture("internet", f"net {NET_B} or net 2001:db8:2::/64") as tap:
        net["sg-b"].run(["nft", "-f", "-"], stdin=COUNTERS)
        reaches(alice, BOB)
        reaches(alice, BOB_6)
        assert states(sites.a) == states(sites.b) == {"up"}
        assert f"sel src {NET_A} dst {NET_B}" in net["sg-a"].xfrm("state").replace(" \n", "\n")
        assert "tunnel site" in sites.a.why(ALICE, BOB)
        reaches(net["sg-a"], SG_B)
        seen = counted(net)
        assert seen["configured"] == seen["marked"] and seen["configured"] and seen["opportunistic here"] and not (
            seen["opportunistic"] or seen["configured here"] or seen["marked here"]), seen
        before = outbound(net)
        for spi in before:
            expire_softly(net["sg-a"], SG_B, spi)
        wait_until(lambda: bool(outbound(net) - before), "new keys")
        assert alice.ping(BOB, 3, wait=5) == 3

        sites.a.kill()
        assert alice.ping(BOB, 3, wait=5) == 3, "the keys still serve"
        net["sg-a"].run(["ip", "xfrm", "state", "flush"])
        assert alice.ping(BOB, 2, wait=2) == alice.ping(BOB_6, 2, wait=2) == 0
        sites.a.start()
        sites.a.wait()
        reaches(alice, BOB)

        assert sites.b.stop()
        assert alice.ping(BOB, 2, wait=2) == net["bob"].ping(ALICE, 2, wait=2) == 0
        assert "action block" in net["sg-b"].xfrm("policy")
        sites.b.start()
        sites.b.wait()
        reaches(net["bob"], ALICE)
        reaches(alice, BOB_6)
    assert clear(tap.end(), ALICE, BOB, ALICE_6, BOB_6) == []


class OfSubnets(StrongSwan):
    """With the whole networks in place of Alice and a Bob."""

    def configure(self, *arguments: Any, **options: Any) -> None:
        super().configure(*arguments, **options)
        file = self._swanctl / "swanctl.conf"
        text = file.read_text().replace(f"{arguments[1]}/32", NET_B).replace(f"{ALICE}/32", NET_A)
        file.write_text(text)
        self._tell("--load-all", "--noprompt")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """oegw on SG-A with the peer on SG-B configured."""
    options = section(tmp_path_factory.mktemp("keys"), "sg-b", "on demand")
    options["tunnel site"]["remote"] = NET_B
    with site_with(options, CLEAR) as site:
        yield site


def test_strongswan_and_we_connect_subnets_begun_and_renewed_by_either(site: Site) -> None:
    peer, net, bob = site.peer(OfSubnets), site.net, SPARE_BOBS[0]
    peer.configure(SUITES[3], bob)
    with net.capture("internet", f"net {NET_B}") as tap:
        reaches(net["alice"], BOB)
        assert net["alice"].ping(bob, 2, wait=5) == 2, "all of the network goes by one tunnel"
        before = outbound(net)
        assert len(before) == 1
        expire_softly(net["sg-a"], THEIRS, max(before))
        wait_until(lambda: bool(outbound(net) - before), "our new keys")
        # Sooner, the peer's would be an initiation that crossed ours; of these ours, with the lower address, stays.
        assert net["alice"].ping(BOB, round(CROSSING), interval=1) == CROSSING
        used = before | outbound(net)
        peer.rekey_tunnel()
        wait_until(lambda: bool(outbound(net) - used), "the peer's new keys")
        reaches(net["alice"], BOB)
        peer.delete()
        wait_until(lambda: states(site.a) == {"down"}, "a tunnel that is down")
        peer.initiate()
        wait_until(lambda: states(site.a) == {"up"}, "a tunnel that the peer has begun")
        reaches(net["bob"], ALICE)
    assert clear(tap.end(), ALICE) == []
