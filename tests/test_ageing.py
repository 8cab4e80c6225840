"""The end of tunnels: RFC 4322 sections 3.2.8 and 3.4, whole but for kernel and DNS."""

import pytest
from twisted.internet.defer import fail

from oesvc.interfaces import PlaneError
from oesvc.ipsec.flow import Flow
from tests.oe.parts import ALICE, BOB, SG_B
from tests.pair import Pair

THERE, BACK = Flow(ALICE, BOB), Flow(BOB, ALICE)


def keyed_pair() -> Pair:
    pair = Pair()
    pair.a.daemon.acquired(THERE)
    pair.run(1.0)
    return pair


def told(gateway, flow):
    return [entry.text for entry in gateway.daemon.journal.entries(flow)]


@pytest.mark.conformance("C-3.2.8-02")
def test_final_counts_are_told_when_a_tunnel_is_removed():
    pair = keyed_pair()
    tunnel = pair.a.daemon.tunnels.get(pair.a.daemon.connections.get(THERE).tunnel)
    pair.a.plane.carried = {sa.spi: (252, 3) for sa in tunnel.outbound}
    pair.a.plane.carried |= {sa.spi: (168, 2) for sa in tunnel.inbound}
    pair.b.plane.carried = {}
    pair.run(61.0)
    ends = [text for text in told(pair.a, THERE) if " datagrams of " in text]
    assert sorted(ends) == [f"received by the tunnel with {SG_B}: 2 datagrams of 168 octets",
                            f"sent by the tunnel with {SG_B}: 3 datagrams of 252 octets"]
    assert not [text for text in told(pair.b, BACK) if " datagrams of " in text], "nothing went by it there"


@pytest.mark.conformance("C-3.2.8-02")
def test_what_went_by_a_tunnel_that_is_replaced_is_told_once():
    pair = keyed_pair()
    pair.a.plane.last_used = 1e9
    tunnel = pair.a.daemon.tunnels.get(pair.a.daemon.connections.get(THERE).tunnel)
    (outbound,) = tunnel.outbound
    pair.a.plane.carried = {outbound.spi: (252, 3)}
    pair.a.daemon.sa_expired(THERE, outbound.spi, hard=False)
    pair.run(5.0)
    pair.a.plane.carried = {}
    pair.run(20.0)
    assert len([text for text in told(pair.a, THERE) if " datagrams of " in text]) == 1


@pytest.mark.conformance("C-3.4.1-14")
def test_open_tcp_connection_of_a_host_keeps_its_tunnel_and_a_closed_one_does_not():
    pair = keyed_pair()
    pair.b.plane.last_used = 1e9
    pair.a.plane.connected = True
    pair.run(200.0)
    assert pair.a.daemon.connections.get(THERE).tunnel is not None
    pair.a.plane.connected = False
    pair.run(61.0)
    assert pair.a.daemon.connections.get(THERE) is None


def test_kernel_that_cannot_tell_of_tcp_connections_lets_idle_flows_end():
    pair = keyed_pair()
    pair.a.plane.is_connected = lambda flow: fail(PlaneError("no sock_diag"))
    pair.run(61.0)
    assert pair.a.daemon.connections.get(THERE) is None
