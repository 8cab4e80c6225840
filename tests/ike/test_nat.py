"""Where a NAT lies between the gateways, nothing is keyed, and the reason is said (RFC 4322 section 6)."""

from ipaddress import ip_address

import pytest

from oesvc.ike.events import ChannelFailed, DatagramRefused, KeysWanted, TunnelFailed, TunnelProposed, TunnelUp
from oesvc.ike.failures import KeyingFailure
from oesvc.ike.v1.identification import pack_host
from oesvc.ike.v1.nat import is_private
from oesvc.ipsec.flow import Flow
from tests.ike.forge import deliver
from tests.ike.pair import BOB, Pair
from tests.ike.test_proposals import quick_mode_1, standing_pair

INSIDE = ip_address("10.1.2.3")


@pytest.mark.parametrize("address, private", [
    ("10.1.2.3", True), ("172.31.0.1", True), ("172.32.0.1", False), ("192.168.0.1", True), ("100.64.0.1", True),
    ("192.1.0.65", False), ("203.0.113.1", False), ("fd00::1", True), ("fe80::1", True), ("2001:db8::1", False)])
def test_addresses_that_mean_nothing_beyond_a_nat(address, private):
    assert is_private(ip_address(address)) is private


@pytest.mark.conformance("C-6.2-01", "C-6.1-03")
def test_tunnel_for_a_private_host_of_ours_is_not_even_begun_and_the_reason_is_said():
    pair = Pair()
    pair.initiate(Flow(INSIDE, BOB))
    [failed] = pair.a.heard(TunnelFailed)
    assert failed.failure is KeyingFailure.NO_IDENTITY and "nat-id-undefined: our host 10.1.2.3" in failed.detail
    assert not pair.capture and not pair.a.engine.next_deadline()


@pytest.mark.conformance("C-6.2-02", "C-6.1-03")
def test_private_host_of_a_peer_gets_no_tunnel_though_the_channel_stands():
    pair = standing_pair()
    deliver(pair, pair.a, quick_mode_1(pair, ids=[pack_host(INSIDE), pack_host(BOB)]))
    assert "nat-id-undefined: its host 10.1.2.3" in pair.b.heard(DatagramRefused)[0].reason
    assert len(pair.b.heard(TunnelProposed)) == 1 and pair.b.messages()[-1] == "notify INVALID-ID-INFORMATION"


@pytest.mark.conformance("C-6.2-01")
def test_peer_that_gives_a_private_address_is_told_no_and_the_dns_is_not_asked():
    pair = Pair()
    local = pair.a.engine._phase1._ourselves
    pair.a.engine._phase1._ourselves = lambda address, expectation: local(INSIDE, expectation)
    pair.initiate()
    pair.run()
    assert not pair.b.heard(KeysWanted)
    [failed] = pair.b.heard(ChannelFailed)
    assert failed.failure is KeyingFailure.NO_IDENTITY and "nat-id-undefined: the peer 10.1.2.3" in failed.detail


def test_gateways_in_one_private_network_key_as_any_others():
    gateways = ip_address("10.0.0.1"), ip_address("10.0.0.2")
    pair = Pair(addresses=gateways)
    pair.initiate(Flow(*gateways))
    pair.run()
    assert pair.a.heard(TunnelUp) and pair.b.heard(TunnelUp)
