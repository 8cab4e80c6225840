"""Deletes of tunnels and channels, INITIAL-CONTACT, expiry and shutting down (RFC 4322 sections 3.4.2 and 9.3)."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from oesvc.ike.datagram import Datagram
from oesvc.ike.events import DatagramRefused, SpiRefused, TunnelDeleted, TunnelFailed, TunnelGone, TunnelUp
from oesvc.ike.failures import KeyingFailure
from oesvc.ike.v1.config import EngineConfig
from oesvc.ike.v1.constants import MAX_EXCHANGES, NotifyType, PayloadType, Protocol
from oesvc.ike.v1.wire.header import Header
from oesvc.ike.v1.wire.message import seal_clear
from oesvc.ike.v1.wire.payloads import Deletion, Notification, Payload
from oesvc.ipsec.flow import Flow
from oesvc.ipsec.sa import Lifetime
from tests.ike.forge import channel_of, deliver, endpoint, informational, message_5_with
from tests.ike.pair import ALICE_TO_BOB, BOB, SG_A, Pair, private_key


def keyed(count: int = 1, **settings: object) -> Pair:
    pair = Pair(EngineConfig(private_key("a"), **settings), EngineConfig(private_key("b"), **settings))
    for host in range(count):
        pair.initiate(Flow(ip_address(f"192.1.0.{host + 65}"), BOB))
    return pair.run(2)


def forget_keys(pair: Pair) -> None:
    """The DNS has no keys any more, so that no channel can be replaced."""
    for gateway in pair.gateways:
        gateway.keys.clear()


def tunnels_of(gateway) -> list:
    return list(gateway.engine._core.tunnels)


def delete_payload(*spis: int, protocol: int = Protocol.ESP) -> Payload:
    return Payload(PayloadType.DELETE, Deletion(protocol, tuple(spi.to_bytes(4, "big") for spi in spis)).pack())


def initial_contact() -> Payload:
    return Payload(PayloadType.NOTIFICATION, Notification(Protocol.ISAKMP, NotifyType.INITIAL_CONTACT).pack())


@pytest.mark.conformance("C-3.4.2-01")
@pytest.mark.conformance("C-3.4.2-02")
@pytest.mark.conformance("C-3.4.2-06")
@pytest.mark.conformance("C-3.4.1-02")
@pytest.mark.conformance("C-3.2.8-03")
def test_delete_ends_both_ends_and_is_answered_by_a_delete():
    pair = keyed()
    pair.do(pair.a, pair.a.engine.delete_tunnel, 1)
    pair.run(60)
    assert [event.confirmed for event in pair.a.heard(TunnelGone)] == [True]
    assert [event.flow for event in pair.b.heard(TunnelDeleted)] == [ALICE_TO_BOB.reversed()]
    assert pair.a.messages().count("delete") == pair.b.messages().count("delete") == 2
    assert not tunnels_of(pair.a) and not tunnels_of(pair.b)


def test_delete_names_the_inbound_sa():
    pair = keyed()
    inbound = next(sa.spi for sa in pair.a.tunnel_sas() if sa.destination == SG_A)
    pair.b.engine.receive_datagram(Datagram(
        informational(channel_of(pair.a), 5, delete_payload(inbound)), endpoint(pair.b), endpoint(pair.a)), pair.now)
    assert any(isinstance(event, TunnelDeleted) for event in pair.b.engine.events())


@pytest.mark.conformance("C-3.4.2-07")
@pytest.mark.conformance("C-3.4.2-08")
def test_unanswered_delete_is_tried_three_times_10_seconds_apart():
    pair = keyed(dpd_idle=0)
    pair.fault = lambda number, datagram: []
    begun = len(pair.capture)
    pair.do(pair.a, pair.a.engine.delete_tunnel, 1)
    for seconds, tries in ((0.1, 1), (9.8, 1), (0.2, 2), (9.8, 2), (0.2, 3), (9.8, 3)):
        pair.run(seconds)
        assert len(pair.capture) - begun == tries
        assert not pair.a.heard(TunnelGone)
    pair.run(0.2)
    assert [event.confirmed for event in pair.a.heard(TunnelGone)] == [False]
    pair.run(100)
    assert len(pair.capture) - begun == 3 and not tunnels_of(pair.a)


def test_lost_delete_is_repaired_by_the_second_try():
    pair = keyed()
    pair.fault = lambda number, datagram: [] if number == 9 else [(0.0, datagram)]
    pair.do(pair.a, pair.a.engine.delete_tunnel, 1)
    pair.run(15)
    assert [event.confirmed for event in pair.a.heard(TunnelGone)] == [True] and pair.b.heard(TunnelDeleted)


@pytest.mark.conformance("C-3.4.2-03")
def test_delete_for_a_tunnel_that_is_gone_is_ignored_in_silence():
    pair = keyed()
    before = len(pair.capture)
    deliver(pair, pair.a, informational(channel_of(pair.a), 5, delete_payload(0xdeadbeef, 0, 2**32 - 1)))
    assert len(pair.capture) == before
    assert not pair.b.heard(TunnelDeleted) and len(tunnels_of(pair.b)) == 1


@pytest.mark.conformance("C-3.4.2-04")
def test_crossing_deletes_end_quietly():
    pair = keyed()
    before = len(pair.capture)
    pair.do(pair.a, pair.a.engine.delete_tunnel, 1)
    pair.do(pair.b, pair.b.engine.delete_tunnel, 1)
    pair.run(100)
    assert len(pair.capture) - before == 2
    for gateway in pair.gateways:
        assert [event.confirmed for event in gateway.heard(TunnelGone)] == [True]
        assert not tunnels_of(gateway) and not gateway.heard(TunnelDeleted)


def test_deleting_twice_sends_once():
    pair = keyed()
    before = len(pair.capture)
    for _ in range(3):
        pair.do(pair.a, pair.a.engine.delete_tunnel, 1)
    pair.run(60)
    assert len(pair.capture) - before == 2 and len(pair.a.heard(TunnelGone)) == 1


def test_one_delete_for_many_tunnels_is_answered_by_one():
    pair = keyed(5)
    before = len(pair.capture)
    inbound = [tunnel.inbound_spi for tunnel in tunnels_of(pair.a)]
    deliver(pair, pair.a, informational(channel_of(pair.a), 5, delete_payload(*inbound)))
    assert len(pair.b.heard(TunnelDeleted)) == 5 and len(pair.capture) - before == 1
    pair.run(1)
    assert len(pair.a.heard(TunnelDeleted)) == 5, "SG-A never meant it and takes the answer as a delete"
    assert len(pair.capture) - before == 2
    pair.run(100)
    assert len(pair.capture) - before == 2


@pytest.mark.conformance("C-3.4.1-03", "C-3.2.6-03")
@pytest.mark.parametrize("forge", [
    pytest.param(lambda channel, payload: informational(channel, 5, payload, digest=bytes(32)), id="wrong hash"),
    pytest.param(lambda channel, payload: seal_clear(replace(channel.header(5, 5)), [payload]), id="in clear"),
    pytest.param(lambda channel, payload: informational(channel, 0, payload), id="message ID 0"),
    pytest.param(lambda channel, payload: seal_clear(replace(channel.header(5, 5), flags=1), [payload]),
                 id="not encrypted at all"),
])
def test_delete_that_is_not_authentic_changes_nothing(forge):
    pair = keyed()
    spi = tunnels_of(pair.a)[0].inbound_spi
    for payload in (delete_payload(spi), initial_contact()):
        deliver(pair, pair.a, forge(channel_of(pair.a), payload))
    assert not pair.b.heard(TunnelDeleted) and len(pair.b.heard(DatagramRefused)) == 2
    assert len(tunnels_of(pair.b)) == 1


def test_replayed_delete_or_initial_contact_changes_nothing():
    pair = keyed()
    message = informational(channel_of(pair.a), 5, initial_contact())
    deliver(pair, pair.a, message)
    pair.initiate(Flow(ip_address("192.1.0.77"), BOB))
    pair.run(2)
    deliver(pair, pair.a, message)
    assert "used before" in pair.b.heard(DatagramRefused)[-1].reason and len(tunnels_of(pair.b)) == 2


def test_replayed_quick_mode_proposes_nothing():
    pair = keyed()
    replayed = pair.capture[6].data
    pair.run(100)
    deliver(pair, pair.a, replayed)
    assert "used before" in pair.b.heard(DatagramRefused)[-1].reason


@pytest.mark.conformance("C-9.3-09")
def test_initial_contact_under_a_new_channel_drops_older_tunnels_and_channels():
    pair = keyed(2)
    channel_of(pair.a).doubtful = True
    pair.initiate()
    pair.run(2)
    assert len(tunnels_of(pair.b)) == 3 and len(list(pair.b.engine._core.channels)) == 2
    deliver(pair, pair.a, informational(channel_of(pair.a), 5, initial_contact()))
    assert len(pair.b.heard(TunnelDeleted)) == 2
    assert [tunnel.channel_id for tunnel in tunnels_of(pair.b)] == [2]
    assert [channel.id for channel in pair.b.engine._core.channels] == [2]


@pytest.mark.conformance("C-9.3-09")
def test_initial_contact_in_message_5_counts_when_the_signature_has_verified():
    pair = keyed()
    pair.a.engine = Pair(seed="reboot").a.engine
    pair.b.dns_delay = 1.0
    pair.fault = lambda number, datagram: [] if number == 13 else [(0.0, datagram)]
    pair.initiate()
    pair.run(0.1)
    deliver(pair, pair.a, message_5_with(channel_of(pair.a), pair.capture[13].data, initial_contact()))
    pair.run(0.9)
    assert not pair.b.heard(TunnelDeleted)
    pair.run(0.2)
    assert len(pair.b.heard(TunnelDeleted)) == 1 and not tunnels_of(pair.b)


def test_other_authenticated_notifies_change_nothing():
    pair = keyed()
    for number, type in enumerate((1, 11, 14, 16384, 24576, 36136, 40500), 5):
        payload = Payload(PayloadType.NOTIFICATION, Notification(Protocol.ESP, type, b"\1\2\3\4", b"data").pack())
        deliver(pair, pair.a, informational(channel_of(pair.a), number, payload))
    assert pair.b.messages()[-2:] == ["notify CONNECTED", "notify 40500"]
    assert len(tunnels_of(pair.b)) == 1 and not pair.b.heard(TunnelFailed)


def test_number_of_exchanges_under_one_channel_is_bounded():
    pair = keyed()
    channel = channel_of(pair.b)
    channel.used_ids.update(range(10**6, 10**6 + MAX_EXCHANGES))
    deliver(pair, pair.a, informational(channel_of(pair.a), 5, initial_contact()))
    assert "too many exchanges" in pair.b.heard(DatagramRefused)[-1].reason
    assert 5 not in channel.used_ids


@pytest.mark.conformance("C-3.2.8-05")
def test_expired_channel_is_deleted_by_an_authenticated_delete_and_its_tunnels_live_on():
    pair = keyed(phase1_lifetime=Lifetime(100))
    forget_keys(pair)
    pair.run(99)
    for gateway in pair.gateways:
        assert gateway.messages()[-1] == "delete" and len(gateway.engine._core.channels) == 0
        assert len(tunnels_of(gateway)) == 1 and not gateway.heard(TunnelDeleted)
    assert not pair.a.engine.next_deadline() and not pair.b.engine.next_deadline()


def test_channel_deleted_by_the_peer_is_not_used_any_more():
    pair = keyed()
    channel = channel_of(pair.a)
    cookies = Payload(PayloadType.DELETE, Deletion(
        Protocol.ISAKMP, (b"\1" * 16, channel.cookie_i + channel.cookie_r)).pack())
    deliver(pair, pair.a, informational(channel, 5, cookies))
    assert len(pair.b.engine._core.channels) == 0 and len(tunnels_of(pair.b)) == 1
    assert [event.tunnel for event in pair.b.heard(SpiRefused)] == [1], "nobody watches the tunnel any more"
    pair.initiate(Flow(BOB, ip_address("192.1.0.77")), by=pair.b)
    pair.run(2)
    assert pair.b.messages().count("main mode 1") == 2 and len(pair.b.heard(TunnelUp)) == 2


def test_tunnel_proposed_under_a_channel_that_the_peer_deletes_begins_anew_once():
    pair = keyed()
    pair.b.authorizes = None
    pair.initiate(Flow(ip_address("192.1.0.77"), BOB))
    for main_modes in (2, 2):
        pair.run(0.1)
        channel = channel_of(pair.b)
        cookies = Payload(PayloadType.DELETE, Deletion(Protocol.ISAKMP, (channel.cookie_i + channel.cookie_r,)).pack())
        deliver(pair, pair.b, informational(channel, 5, cookies))
        assert pair.a.messages().count("main mode 1") == main_modes
    [failed] = pair.a.heard(TunnelFailed)
    assert failed.failure is KeyingFailure.PHASE2_REFUSED and "closed the keying channel" in failed.detail


def test_tunnel_proposed_while_the_peer_reboots_comes_up_under_the_new_channel():
    pair = keyed()
    pair.fault = lambda number, datagram: [(1.0 if number == 9 else 0.0, datagram)]
    pair.initiate(Flow(ip_address("192.1.0.77"), BOB))
    pair.b.engine = Pair(seed="reboot").b.engine
    pair.initiate(Flow(BOB, ip_address("192.1.0.78")), by=pair.b)
    pair.run(2.5)
    assert {str(event.flow.source) for event in pair.a.heard(TunnelUp)} >= {"192.1.0.77", "192.1.0.78"}
    assert not pair.a.heard(TunnelFailed)


def test_tunnel_without_a_keying_channel_goes_without_a_word():
    pair = keyed(phase1_lifetime=Lifetime(100))
    forget_keys(pair)
    pair.run(100)
    before = len(pair.capture)
    pair.do(pair.a, pair.a.engine.delete_tunnel, 1)
    assert [event.confirmed for event in pair.a.heard(TunnelGone)] == [False] and len(pair.capture) == before


@pytest.mark.conformance("C-9.3-04")
@pytest.mark.conformance("C-9.3-06")
def test_shutting_down_deletes_all_tunnels_and_then_the_channel():
    pair = keyed(3)
    pair.do(pair.a, pair.a.engine.close)
    assert pair.a.messages()[-4:] == ["delete"] * 4
    pair.run(2)
    assert len(pair.b.heard(TunnelDeleted)) == 3 and len(pair.b.engine._core.channels) == 0
    assert [event.confirmed for event in pair.a.heard(TunnelGone)] == [True] * 3


@pytest.mark.conformance("C-9.3-05")
def test_negotiations_are_ignored_after_shutting_down():
    pair = keyed()
    pair.do(pair.a, pair.a.engine.close)
    pair.run(2)
    before = len([datagram for datagram in pair.capture if datagram.local.address == SG_A])
    pair.initiate(Flow(BOB, ip_address("192.1.0.65")), by=pair.b)
    pair.run(9)
    assert len([datagram for datagram in pair.capture if datagram.local.address == SG_A]) == before
    assert pair.b.heard(TunnelFailed)[0].failure is KeyingFailure.PEER_SILENT
    pair.initiate(Flow(ip_address("192.1.0.77"), BOB))
    assert pair.a.heard(TunnelFailed)[-1].failure is KeyingFailure.CLOSING


@pytest.mark.parametrize("seconds", [0.0, 0.015, 0.035, 0.055, 0.07, 0.09])
def test_shutting_down_in_any_moment_of_a_negotiation_fails_it(seconds):
    pair = Pair()
    pair.initiate()
    pair.run(seconds)
    pair.do(pair.a, pair.a.engine.close)
    pair.do(pair.a, pair.a.engine.close)
    pair.run(60)
    ended = [event.failure for event in pair.a.heard(TunnelFailed)] or pair.a.heard(TunnelGone)
    assert len(ended) == 1 and (ended[0] is KeyingFailure.CLOSING or pair.a.heard(TunnelUp))
    assert not tunnels_of(pair.a) and not tunnels_of(pair.b)


def test_header_of_a_reflected_message_of_ours_is_refused():
    pair = keyed()
    for datagram in list(pair.capture):
        sender, receiver = (pair.a, pair.b) if datagram.local.address == SG_A else (pair.b, pair.a)
        before = len(sender.heard(DatagramRefused))
        if Header.parse(datagram.data).responder_cookie != bytes(8):
            deliver(pair, receiver, datagram.data)
            assert len(sender.heard(DatagramRefused)) == before + 1
    assert len(tunnels_of(pair.a)) == len(tunnels_of(pair.b)) == 1
