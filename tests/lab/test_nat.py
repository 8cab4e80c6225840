"""A NAT between SG-A and the Internet: its outer address is translated, Alice's is not (RFC 4322 section 6.2).

SG-A says by `identity` the address that delegations name; ESP goes within UDP (RFC 3947, 3948).
"""

import re
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from tests.lab.capture import UDP, Packet
from tests.lab.conftest import Lab
from tests.lab.gateway import GATEWAYS, Gateway, start_gateways
from tests.lab.names import canonical_tree, serve_names
from tests.lab.network import HOSTS, TO_NET_A, TO_NET_B, WIRES, WITHIN_AS1, HostRow, Link, Network, address_of
from tests.lab.peers.libreswan import Libreswan
from tests.lab.peers.peer import Peer
from tests.lab.peers.site import Site, assert_moves, in_clear, reaches, site_with, wait_until
from tests.lab.peers.strongswan import StrongSwan
from tests.lab.peers.suites import SUITES
from tests.lab.test_main_job import clear

pytestmark = pytest.mark.lab

ALICE, BOB, SG_B, OUTSIDE = (address_of(name) for name in ("alice", "bob", "sg-b", "sg-a"))
INSIDE, NAT, ELSEWHERE = "10.0.0.4", "10.0.0.1", "192.1.1.44"
INSIDE6, NAT6, OUTSIDE6 = "fd00:9::4", "fd00:9::1", address_of("sg-a", 6)
BEHIND_NAT = (
    *(row for row in HOSTS if row.name != "sg-a"),
    HostRow("sg-a", (Link("lan0", "net-a", ("192.1.0.1/24", "2001:db8:1::1/64")),
                     Link("wan0", "behind-nat", (f"{INSIDE}/24", f"{INSIDE6}/64"))),
            (("default", NAT), ("default", NAT6), *WITHIN_AS1), forwards=True),
    HostRow("nat", (Link("lan0", "behind-nat", (f"{NAT}/24", f"{NAT6}/64")),
                    Link("wan0", "internet", (f"{OUTSIDE}/24", f"{ELSEWHERE}/24", f"{OUTSIDE6}/64"))),
            ((TO_NET_A[0][0], INSIDE), (TO_NET_A[1][0], INSIDE6), *TO_NET_B), forwards=True),
)
RULES = """\
add table ip nat
delete table ip nat
table ip nat {{
  chain postrouting {{
    type nat hook postrouting priority srcnat;
    oifname "wan0" ip saddr {inside} meta l4proto udp snat to {outside}:40000-49999 random
    oifname "wan0" ip saddr {inside} snat to {outside}
  }}
}}
add table ip6 nat
delete table ip6 nat
table ip6 nat {{
  chain postrouting {{
    type nat hook postrouting priority srcnat;
    oifname "wan0" ip6 saddr {inside6} meta l4proto udp masquerade to :40000-49999 random
  }}
}}
"""
FLUSH_CONNECTIONS = struct.pack("=IHHIIBBH", 20, 0x102, 5, 1, 0, 0, 0, 0)
"ctnetlink's IPCTNL_MSG_CT_DELETE for all, with an acknowledgement."
NETLINK_NETFILTER = 12
OPTIONS = {"gateway": {"address": f"{INSIDE} {INSIDE6}"}, "ike": {"identity": OUTSIDE, "dpd-idle": "5"}}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Network(BEHIND_NAT, (*WIRES, "behind-nat")) as net:
        translate(net, OUTSIDE)
        gateways = Gateway(net, GATEWAYS[0], OPTIONS), Gateway(net, GATEWAYS[1])
        serve_names(net, canonical_tree())
        start_gateways(gateways)
        yield Lab(net, *gateways)


def translate(net: Network, outside: str) -> None:
    """Give SG-A this address, and a new port for each of its own."""
    net["nat"].run(["nft", "-f", "-"], stdin=RULES.format(inside=INSIDE, outside=outside, inside6=INSIDE6))
    with net["nat"].entered(), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as netlink:
        netlink.send(FLUSH_CONNECTIONS)
        assert struct.unpack_from("=IHHIIi", netlink.recv(4096))[5] == 0


def within_udp(packets: list[Packet]) -> list[Packet]:
    return [packet for packet in packets if packet.is_esp and packet.protocol == UDP]


def peer_of_sg_b(lab: Lab) -> tuple[str, int]:
    """Where SG-B sends what is for Alice: address and port, as its kernel has them."""
    [found] = set(re.findall(rf"^src {SG_B} dst (\S+)\n.*?encap type espinudp sport 4500 dport (\d+)",
                             lab.b.host.xfrm("state"), re.DOTALL | re.MULTILINE))
    return found[0], int(found[1])


@pytest.mark.conformance("C-6-01")
def test_alice_reaches_bob_through_a_nat_by_esp_within_udp_and_nothing_in_clear(lab: Lab) -> None:
    net = lab.net
    with net.capture("internet", f"host {ALICE} or host {OUTSIDE}") as tap:
        assert net["alice"].ping(BOB, wait=60) == 1
        before = [gateway.host.sas() for gateway in (lab.a, lab.b)]
        assert net["alice"].ping(BOB, 5) == 5 and net["bob"].ping(ALICE) == 1
    seen = tap.end()
    for gateway, earlier in zip((lab.a, lab.b), before, strict=True):
        now = gateway.host.sas()
        assert len(now) == 2 and all(now[spi] > octets for spi, octets in earlier.items())
    assert clear(seen, ALICE, BOB) == []
    esp = within_udp(seen)
    assert len(esp) == len([packet for packet in seen if packet.is_esp]) >= 14
    address, port = peer_of_sg_b(lab)
    assert address == OUTSIDE and 40000 <= port < 50000
    assert {(packet.source, packet.source_port) for packet in esp} == {(OUTSIDE, port), (SG_B, 4500)}
    assert [packet for packet in seen if packet.is_isakmp and 4500 in (packet.source_port, packet.destination_port)]


def test_who_is_behind_the_nat_keeps_its_mapping_and_the_other_does_not(lab: Lab) -> None:
    with lab.net.capture("internet", "ip and udp port 4500") as tap:
        wait_until(lambda: any(packet.payload == b"\xff" for packet in tap.packets()), "a keepalive")
        seen = tap.end()
    assert {packet.source for packet in seen if packet.payload == b"\xff"} == {OUTSIDE}


@pytest.mark.parametrize("outside", [OUTSIDE, ELSEWHERE])
def test_new_mapping_is_followed_by_the_sas_that_stand(lab: Lab, outside: str) -> None:
    """With the address, or the port alone: no new keys are needed, nothing goes in clear."""
    net = lab.net
    assert net["alice"].ping(BOB, wait=60) == 1
    keys, (_, port) = lab.b.host.sas().keys(), peer_of_sg_b(lab)
    with net.capture("internet", f"host {ALICE} or host {BOB}") as tap:
        translate(net, outside)
        wait_until(lambda: net["bob"].ping(ALICE, wait=1) == 1, "an answer through the new mapping")
        assert net["bob"].ping(ALICE, 3) == 3 and net["alice"].ping(BOB, 3) == 3
    address, new_port = peer_of_sg_b(lab)
    assert address == outside and new_port != port
    assert lab.b.host.sas().keys() == keys
    assert clear(tap.end(), ALICE, BOB) == []


@pytest.mark.conformance("C-6.2-01", "C-6.2-02")
def test_private_host_behind_the_nat_gets_no_tunnel_and_a_reason(lab: Lab) -> None:
    """SG-A itself: its own address means nothing outside, and its class is permissive."""
    before = lab.a.host.sas().keys()
    assert lab.a.host.ping(BOB, wait=30, source=INSIDE) == 1
    assert "nat-id-undefined" in lab.a.why(INSIDE, BOB)
    assert lab.a.host.sas().keys() == before


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with site_with({"ike": {"profile": "rfc4322", "keying-time": "60"}}) as site:
        yield site


@pytest.mark.parametrize("role", ["initiator", "responder"])
@pytest.mark.parametrize("kind", [StrongSwan, Libreswan])
def test_peer_that_forces_encapsulation_where_there_is_no_nat(site: Site, kind: type[Peer], role: str) -> None:
    peer, bob = site.peer(kind), next(site.bobs)
    peer.configure(SUITES[3], bob, encapsulate=True)
    with site.net.capture("internet", f"host {SG_B} or net 192.2.0.0/24") as tap:
        if role == "responder":
            peer.initiate()
        reaches(site.net["alice"], bob)
        stands = time.time()
        assert_moves(site, bob)
        if role == "responder":
            before = site.outbound(bob)
            peer.rekey_tunnel()
            wait_until(lambda: bool(site.outbound(bob) - before), "new keys")
            assert_moves(site, bob)
        peer.delete()
        wait_until(site.no_sas, "no SAs")
    seen = tap.end()
    assert within_udp(seen) and within_udp(seen) == [packet for packet in seen if packet.is_esp]
    assert in_clear(seen, stands) == []
