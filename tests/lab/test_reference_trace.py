"""The reference of RFC 4322 section 11.1: what happens where both gateways leave a flow in clear."""

import pytest

from tests.lab.conftest import Lab
from tests.lab.names import reverse_name

pytestmark = pytest.mark.lab

ON_REQUEST = ("nodad", "preferred_lft", "0")
"IPv6 prefers the newest address of a host; other tests of the network want the usual one."
ENDS = {4: ("192.1.0.99/24", "192.2.0.99/24"), 6: ("2001:db8:1::99/64", "2001:db8:2::199/64")}
"Alice and Bob, in the files `clear` of each other's gateways."


@pytest.mark.conformance("C-11.1-01")
@pytest.mark.parametrize("version", [4, 6])
def test_always_clear_at_both_gateways_is_what_it_would_be_without_them(lab: Lab, version: int) -> None:
    """Each datagram crosses each wire once, in clear and at once; nobody asks the DNS or keys for it."""
    net, ends = lab.net, ENDS[version]
    alice, bob = (end.partition("/")[0] for end in ends)
    for host, end in zip(("alice", "bob"), ends, strict=True):
        net[host].run(["ip", "address", "replace", end, "dev", "eth0", *(ON_REQUEST if version == 6 else ())])
    with (net.capture("sg-a", "udp port 53", interface="lo") as dns_a,
          net.capture("sg-b", "udp port 53", interface="lo") as dns_b,
          net.capture("net-a", f"host {alice} and not arp") as left, net.capture("net-b", f"host {bob}") as right,
          net.capture("internet", f"host {alice} or host {bob} or udp port 500") as between):
        assert net["alice"].ping(bob, 3, source=alice) == 3
        traces = [[packet.flow for packet in tap.end() if {*packet.flow} == {alice, bob}]
                  for tap in (left, between, right)]
        seen, asked = between.end(), [packet.describe() for tap in (dns_a, dns_b) for packet in tap.end()]
    assert traces == [[(alice, bob), (bob, alice)] * 3] * 3
    assert len([packet for packet in seen if {*packet.flow} == {alice, bob}]) == 6
    # The gateways may have something to say to each other about other flows.
    assert [packet for packet in seen if packet.is_isakmp and "informational" not in packet.describe()] == []
    names = [reverse_name(end).rstrip(".") for end in (alice, bob)]
    assert [question for question in asked if any(name in question for name in names)] == []
