"""Nothing is trusted for having come through a tunnel, and a gateway remains a router (RFC 4322 sections 12, 2.3)."""

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab.conftest import Lab
from tests.lab.network import Host, address_of
from tests.lab.test_main_job import clear, receive

pytestmark = pytest.mark.lab

FORBIDDEN, ALLOWED = 7777, 7778
MARK = 0x4F45
ADMIN = f"""table inet admin {{
  chain forward {{
    type filter hook forward priority 0; policy accept;
    # As the manual has it: all opportunistic tunnels as if they were one interface.
    ipsec in reqid 0xe0000001-0xefffffff meta mark set {MARK:#x}
    meta mark {MARK:#x} counter comment "opportunistic"
    udp dport {FORBIDDEN} counter drop comment "forbidden"
  }}
}}
"""


@contextmanager
def firewall(host: Host) -> Iterator[None]:
    host.run(["nft", "-f", "-"], stdin=ADMIN)
    try:
        yield
    finally:
        host.run(["nft", "delete", "table", "inet", "admin"])


def counters(host: Host) -> dict[str, int]:
    text = host.run(["nft", "list", "table", "inet", "admin"]).stdout
    return {comment: int(packets) for packets, comment in
            re.findall(r'counter packets (\d+) .*comment "(\w+)"', text)}


@pytest.mark.conformance("C-1.3-05", "C-12.2-01", "C-12.2-02", "C-12.1-06")
@pytest.mark.parametrize("version", [4, 6])
def test_a_rule_of_the_firewall_drops_what_comes_by_a_tunnel_as_what_comes_in_clear(lab: Lab, version: int) -> None:
    net, family = lab.net, socket.AF_INET if version == 4 else socket.AF_INET6
    alice, bob, carol = (address_of(name, version) for name in ("alice", "bob", "carol"))
    assert net["alice"].ping(bob, wait=60) == 1
    with firewall(net["sg-b"]), net["bob"].socket(family) as forbidden, net["bob"].socket(family) as allowed:
        forbidden.bind((bob, FORBIDDEN))
        allowed.bind((bob, ALLOWED))
        with net.capture("internet", f"udp port {FORBIDDEN} or udp port {ALLOWED}") as tap:
            for host in ("alice", "carol"):
                with net[host].socket(family) as sender:
                    for port in (FORBIDDEN, ALLOWED):
                        sender.sendto(b"x", (bob, port))
            assert sorted(sender for _, sender in receive(allowed, 2)) == sorted((alice, carol))
            assert receive(forbidden, 1, 1.0) == []
            in_clear = tap.end()
        counted = counters(net["sg-b"])
    assert clear(in_clear, alice) == [] and len(clear(in_clear, carol)) == 2
    assert counted == {"opportunistic": 2, "forbidden": 2}


@pytest.mark.conformance("C-12.2-01")
def test_no_rule_of_ours_accepts_a_datagram_for_having_come_by_ipsec(lab: Lab) -> None:
    rules = lab.net["sg-b"].run(["nft", "list", "ruleset"]).stdout
    assert "known4" in rules
    assert not re.findall(r"meta ipsec|secpath|ipsec in|rt ipsec exists accept", rules)


@pytest.mark.conformance("C-2.3-01")
@pytest.mark.parametrize("version", [4, 6])
def test_a_gateway_counts_hops_and_tells_what_it_cannot_forward(lab: Lab, version: int) -> None:
    alice, bob = lab.net["alice"], address_of("bob", version)
    inside = {4: "192.1.0.1", 6: "2001:db8:1::1"}[version]
    assert alice.ping(bob, wait=60) == 1
    said = {name: alice.run(["ping", "-n", "-c", "1", "-W", "20", *options, bob], check=False).stdout
            for name, options in {"hops": (), "none left": ("-t", "1"), "large": ("-M", "do", "-s", "1440")}.items()}
    assert re.search(r"(ttl|hlim)=62\b", said["hops"]), "two routers, one tunnel"
    assert re.search(rf"From {inside}.*(Time to live exceeded|Hop limit)", said["none left"])
    assert re.search(rf"From {inside}.*(Frag needed|Packet too big).*mtu", said["large"], re.IGNORECASE)
