"""What strangers may cost: memory and arithmetic are bounded, and given back (RFC 4322 sections 4.1 and 12.3)."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from oesvc.ike.datagram import Datagram, Endpoint
from oesvc.ike.events import ChannelFailed, DatagramRefused, TunnelFailed, TunnelUp
from oesvc.ike.failures import KeyingFailure
from oesvc.ike.v1.channels import Channels
from oesvc.ike.v1.config import EngineConfig
from oesvc.ike.v1.engine import IkeEngine
from oesvc.ike.v1.main_mode import ChoiceSent
from oesvc.ike.v1.timers import SLACK, Timers
from oesvc.ike.v1.wire.header import Header
from oesvc.ipsec.flow import Flow
from tests.ike.pair import BOB, SG_B, Pair, entropy, private_key

LOCAL = Endpoint(SG_B, 500)


def first_messages(pair: Pair, count: int, prefix: str = "198.19"):
    """Main mode 1 from many spoofed addresses, 50 in each /24."""
    pair.initiate()
    data = pair.capture[0].data
    header = Header.parse(data)
    for number in range(count):
        cookie = (number + 1).to_bytes(8, "big")
        peer = ip_address(f"{prefix}.{number // 50 % 256}.{number % 50 + 1}")
        spoofed = replace(header, initiator_cookie=cookie).pack(data[28:])
        yield Datagram(spoofed, LOCAL, Endpoint(peer, 500))


def engine(**budgets: int) -> IkeEngine:
    return IkeEngine(EngineConfig(private_key("b"), **budgets), entropy("b"))


@pytest.mark.conformance("C-4.1-03")
def test_flood_of_spoofed_first_messages_stops_at_the_budget_and_the_memory_comes_back():
    victim = engine(max_half_open=200)
    for datagram in first_messages(Pair(), 2000):
        victim.receive_datagram(datagram, 0.0)
    core = victim._core
    assert core.channels.half_open() == 200 == len(victim.datagrams_to_send())
    assert "200 half-open keying channels" in victim.events()[-1].reason
    victim.handle_deadline(8.1)
    assert len(core.channels) == len(core.timers) == 0 and len(core.timers._heap) <= SLACK
    for table in ("_by_id", "_by_cookies", "_by_first_message", "_by_peer", "_half_open", "_per_prefix"):
        assert not getattr(core.channels, table)
    assert not [event for event in victim.events() if isinstance(event, ChannelFailed)], "nobody was there"


@pytest.mark.parametrize("prefix, addresses", [
    (24, [f"198.19.7.{host}" for host in range(1, 100)]),
    (64, [f"2001:db8:0:7::{host:x}" for host in range(1, 100)]),
])
def test_one_neighbourhood_cannot_take_the_whole_budget(prefix, addresses):
    victim, pair = engine(), Pair()
    pair.initiate()
    data = pair.capture[0].data
    for address in addresses:
        victim.receive_datagram(Datagram(data, LOCAL, Endpoint(ip_address(address), 500)), 0.0)
    assert victim._core.channels.half_open() == 32
    assert "half-open ones near" in victim.events()[-1].reason
    victim.receive_datagram(Datagram(data, LOCAL, Endpoint(ip_address("203.0.113.1"), 500)), 0.0)
    assert victim._core.channels.half_open() == 33


@pytest.mark.conformance("C-12.3-01")
def test_first_message_costs_no_diffie_hellman_and_no_rsa():
    class Unusable:
        """A private key that cannot be used."""

    victim = IkeEngine(EngineConfig(Unusable()), entropy("b"))
    [datagram] = first_messages(Pair(), 1)
    victim.receive_datagram(datagram, 0.0)
    assert len(victim.datagrams_to_send()) == 1
    [channel] = victim._core.channels
    assert isinstance(channel.main_mode.stage, ChoiceSent) and channel.main_mode.state is None


def test_honest_peer_keys_while_the_flood_is_on():
    pair = Pair()
    for datagram in list(first_messages(Pair(), 900)):
        pair.b.engine.receive_datagram(datagram, pair.now)
    pair.initiate()
    pair.run()
    assert pair.a.heard(TunnelUp)


def test_channels_of_strangers_are_bounded_in_all_and_ours_are_not():
    pair = Pair(EngineConfig(private_key("a")), EngineConfig(private_key("b"), max_channels=1))
    pair.initiate()
    pair.run(1)
    elsewhere = Datagram(pair.capture[0].data, LOCAL, Endpoint(ip_address("203.0.113.1"), 500))
    pair.b.engine.receive_datagram(elsewhere, pair.now)
    assert "1 keying channels" in pair.b.engine.events()[0].reason
    pair.b.engine.initiate(Flow(BOB, ip_address("203.0.113.2")), SG_B, ip_address("203.0.113.1"),
                           pair.b.heard(TunnelUp)[0].identity, (), pair.now)
    assert len(pair.b.engine.datagrams_to_send()) == 1


@pytest.mark.conformance("C-12.3-03")
def test_tunnels_that_peers_propose_are_bounded():
    pair = Pair(EngineConfig(private_key("a")), EngineConfig(private_key("b"), max_tunnels=3))
    for host in range(5):
        pair.initiate(Flow(ip_address(f"192.1.0.{host + 1}"), BOB))
    pair.run()
    assert len(pair.b.heard(TunnelUp)) == 3
    assert "one more than the 3" in pair.b.heard(DatagramRefused)[0].reason
    assert {event.failure for event in pair.a.heard(TunnelFailed)} == {KeyingFailure.PHASE2_REFUSED}


def test_tables_are_empty_when_all_is_over():
    pair = Pair()
    for host in range(20):
        pair.initiate(Flow(ip_address(f"192.1.0.{host + 1}"), BOB))
    pair.run(2)
    for gateway in pair.gateways:
        pair.do(gateway, gateway.engine.close)
    pair.run(8 * 3600)
    for gateway in pair.gateways:
        core = gateway.engine._core
        assert vars(core.tunnels)["_by_id"] == {} == core.tunnels._by_outbound and not core.tunnels._inbound
        assert all(not table for table in vars(core.channels).values() if isinstance(table, dict))
        assert len(core.timers) == 0


def test_channel_is_found_again_by_nothing_once_it_is_removed():
    channels = Channels()
    assert channels.get(1) is None and channels.with_peer(SG_B) == [] and len(channels) == 0


def test_cancelled_timers_are_swept_out():
    timers, fired = Timers(), []
    kept = timers.at(5.0, fired.append)
    for number in range(10_000):
        timers.at(1000.0 + number, fired.append).cancel()
    assert len(timers._heap) <= 2 + SLACK and len(timers) == 1
    timers.run_due(4.9)
    assert not fired and timers.next_deadline() == 5.0
    timers.run_due(5.1)
    assert fired == [5.1] and not kept.active and timers.next_deadline() is None
    kept.cancel()
    assert len(timers) == 0


def test_timers_fire_in_their_order_even_when_they_set_others():
    timers, diary = Timers(), []
    timers.at(2.0, lambda now: diary.append("second"))
    timers.at(1.0, lambda now: (diary.append("first"), timers.at(1.5, lambda now: diary.append("between"))))
    timers.run_due(3.0)
    assert diary == ["first", "between", "second"]
