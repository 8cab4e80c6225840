"""Standing keying channels: replaced before they are worn out, closed when nobody needs them, and nobody else's."""

import pytest

from oesvc.ike.datagram import Datagram, Endpoint, Path
from oesvc.ike.events import ChannelUp, DatagramRefused, TunnelDeleted, TunnelFailed, TunnelGone, TunnelUp
from oesvc.ike.failures import KeyingFailure
from oesvc.ike.identity import AddressIdentity
from oesvc.ike.v1.config import EngineConfig
from oesvc.ike.v1.constants import (
    DPD_SPACING,
    DPD_TRIES,
    LINGER,
    MAX_EXCHANGES,
    MAX_NOTIFICATIONS,
    WORN_EXCHANGES,
    ExchangeType,
    NotifyType,
    PayloadType,
    Protocol,
)
from oesvc.ike.v1.wire.header import Header
from oesvc.ike.v1.wire.payloads import Notification, Payload
from oesvc.ipsec.flow import Flow
from oesvc.ipsec.sa import Lifetime
from tests.ike.forge import channel_of, deliver, informational, protected, to
from tests.ike.pair import ALICE_TO_BOB, BOB, SG_A, SG_B, Gateway, Pair, private_key, public_key

P = PayloadType
HOUR = 3600


def keyed(**config) -> Pair:
    pair = Pair(*(EngineConfig(private_key(name), **config) for name in "ab"))
    pair.initiate()
    return pair.run(2)


def channels(gateway: Gateway) -> int:
    return len(gateway.engine._core.channels)


def notify(type: int) -> Payload:
    return Payload(P.NOTIFICATION, Notification(Protocol.ISAKMP, type).pack())


def exchange(pair: Pair, count: int, first: int = 1000) -> None:
    """Informational messages of SG-A that mean nothing."""
    channel = channel_of(pair.a)
    for number in range(count):
        pair.b.engine.receive_datagram(
            to(pair.b, pair.a, informational(channel, first + number, notify(40000))), pair.now)
    pair._serve(pair.b)


# --- worn out ---------------------------------------------------------------------------------------------------

def test_channel_is_replaced_before_there_is_no_room_for_exchanges():
    pair = keyed()
    exchange(pair, WORN_EXCHANGES - 10)
    pair.run(10)
    assert channels(pair.b) == 1
    exchange(pair, 10, 10**6)
    pair.run(10)
    assert channels(pair.a) == channels(pair.b) == 2 and len(pair.b.heard(ChannelUp)) == 2
    exchange(pair, MAX_EXCHANGES // 2, 10**7)
    pair.do(pair.a, pair.a.engine.delete_tunnel, 1)
    pair.run(1)
    assert [gone.confirmed for gone in pair.a.heard(TunnelGone)] == [True]


def test_refused_proposal_is_answered_once_however_full_the_channel_is():
    pair = keyed()
    channel = channel_of(pair.b)
    refused = protected(channel_of(pair.a), ExchangeType.QUICK_MODE, 7, [Payload(P.SA, bytes(8))])
    for full in (0, MAX_EXCHANGES):
        channel.used_ids.update(range(10**6, 10**6 + full))
        channel.used_ids.discard(7)
        before, sent = len(channel.used_ids), len(pair.capture)
        for _ in range(50):
            pair.b.engine.receive_datagram(to(pair.b, pair.a, refused), pair.now)
        pair._serve(pair.b)
        assert (len(pair.capture) - sent, len(channel.used_ids) - before) == ((0, 0) if full else (1, 2))


def test_channel_whose_keys_have_protected_enough_is_replaced_and_closed():
    pair = keyed(phase1_lifetime=Lifetime(8 * HOUR, 100))
    assert channel_of(pair.a).standing.kilobytes == channel_of(pair.b).standing.kilobytes == 100
    octets = len(informational(channel_of(pair.a), 1, notify(40000)))
    exchange(pair, 80 * 1024 // octets)
    pair.run(10)
    assert channels(pair.b) == 1
    exchange(pair, 10 * 1024 // octets, 10**6)
    pair.run(10)
    assert channels(pair.b) == 2
    first = min(pair.b.engine._core.channels, key=lambda channel: channel.id)
    first.octets += 10 * 1024
    deliver(pair, pair.a, informational(min(pair.a.engine._core.channels, key=lambda channel: channel.id), 5,
                                        notify(40000)))
    pair.run(1)
    assert channels(pair.a) == channels(pair.b) == 1 and not pair.a.heard(TunnelDeleted)


def test_channel_that_its_responder_shortens_is_replaced_in_time():
    pair = Pair(b=EngineConfig(private_key("b"), phase1_lifetime=Lifetime(2 * HOUR)))
    pair.initiate()
    pair.run(2)
    channel_of(pair.b).rekey.cancel()
    pair.run(2 * HOUR - 60)
    assert len(pair.a.heard(ChannelUp)) == 2


def test_channel_with_a_key_that_the_peer_has_rolled_over_is_replaced_once():
    pair = keyed()
    pair.b.engine._core.config = EngineConfig(private_key("new"))
    for gateway in pair.gateways:
        gateway.keys[AddressIdentity(SG_B)] = (public_key("new"),)
    pair.run(0.9 * 8 * HOUR + 300)
    assert len(pair.a.heard(ChannelUp)) == 2 and channel_of(pair.a).standing.key == public_key("new")


# --- idle -------------------------------------------------------------------------------------------------------

@pytest.mark.conformance("C-12.3-02")
@pytest.mark.parametrize("idle", [0.0, 600.0])
def test_channel_that_no_tunnel_needs_is_closed(idle):
    pair = keyed(channel_idle=idle)
    pair.run(HOUR)
    assert channels(pair.a) == channels(pair.b) == 1
    pair.do(pair.a, pair.a.engine.delete_tunnel, 1)
    pair.run(max(60.0, idle) + LINGER + 10)
    assert channels(pair.a) == channels(pair.b) == 0
    assert all(len(gateway.engine._core.timers) == 0 for gateway in pair.gateways)


@pytest.mark.conformance("C-3.2.8-04", "C-3.2.8-05")
@pytest.mark.parametrize("idle, kept", [(0.0, 0), (600.0, 1)])
def test_channel_of_a_tunnel_that_ends_is_kept_or_deleted_as_the_option_says(idle, kept):
    pair = keyed(channel_idle=idle)
    pair.run(60)
    pair.do(pair.a, pair.a.engine.delete_tunnel, 1)
    pair.run(60.0 + LINGER)
    assert channels(pair.a) == channels(pair.b) == kept
    assert pair.a.messages().count("delete") == 3 - kept, "of the tunnel, its answer, and of the channel"


# --- other exchanges, other peers -------------------------------------------------------------------------------

def test_mode_config_and_extended_authentication_are_refused_by_an_authentic_notify():
    pair = keyed()
    asked = protected(channel_of(pair.a), ExchangeType.TRANSACTION, 99, [Payload(14, b"\1\0\0\0")])
    for _ in range(3):
        deliver(pair, pair.a, asked)
    forged = protected(channel_of(pair.a), ExchangeType.TRANSACTION, 98, [Payload(14, b"\1\0\0\0")], bytes(32))
    deliver(pair, pair.a, forged)
    pair.run(1)
    assert pair.a.messages().count("notify INVALID-EXCHANGE-TYPE") == 1
    reasons = [event.reason for event in pair.b.heard(DatagramRefused)]
    assert "exchange TRANSACTION" in reasons[0] and "used before" in reasons[1] and "does not verify" in reasons[3]


def mallory(pair: Pair) -> None:
    """From SG-A's address, with SG-A's name and another key, which a delegation may well give: a tunnel of its own."""
    pair.a.engine._core.config = EngineConfig(private_key("mallory"))
    pair.b.keys[AddressIdentity(SG_A)] = (public_key("mallory"),)
    for channel in pair.a.engine._core.channels:
        pair.a.engine._core.channels.remove(channel)
    pair.initiate(Flow(SG_A, BOB))
    pair.run(2)
    assert len(pair.b.heard(TunnelUp)) == 2 and channel_of(pair.b).standing.key == public_key("mallory")


def test_who_has_another_key_ends_no_tunnel_and_no_channel_of_the_same_address_and_identity():
    pair = keyed()
    honest = channel_of(pair.b)
    spi = pair.b.tunnel_sas()[1].spi
    mallory(pair)
    channel = channel_of(pair.a)
    deliver(pair, pair.a, informational(channel, 5, notify(NotifyType.INITIAL_CONTACT)))
    for protocol, gone in (Protocol.ESP, spi.to_bytes(4, "big")), (Protocol.ISAKMP, honest.cookie_i + honest.cookie_r):
        body = (1).to_bytes(4, "big") + bytes([protocol, len(gone), 0, 1]) + gone
        deliver(pair, pair.a, informational(channel, 6 + protocol, Payload(P.DELETE, body)))
    assert not pair.b.heard(TunnelDeleted) and honest in list(pair.b.engine._core.channels)
    core = pair.b.engine._core
    assert core.channels.is_newest(honest) and core.channels.is_newest(channel_of(pair.b))


def test_peer_with_a_new_key_that_has_lost_its_tunnels_is_noticed_by_their_old_channel():
    pair = keyed()
    mallory(pair)
    pair.run(60 + (DPD_TRIES + 1) * DPD_SPACING)
    assert [tunnel.flow.destination for tunnel in pair.b.engine._core.tunnels] == [SG_A]


def test_many_notifications_in_one_message_are_no_work():
    pair = keyed()
    deliver(pair, pair.a, informational(channel_of(pair.a), 5, *[notify(40000)] * (MAX_NOTIFICATIONS + 1)))
    assert f"{MAX_NOTIFICATIONS + 1} notifications" in pair.b.heard(DatagramRefused)[-1].reason


def test_first_contact_is_judged_by_the_tunnels_of_its_peer_alone():
    class Others(dict):
        def values(self):
            raise AssertionError("all tunnels are looked at")

    pair = keyed()
    pair.b.engine._core.tunnels._by_id = Others(pair.b.engine._core.tunnels._by_id)
    pair.now += 100
    channel_of(pair.b).begun = pair.now
    deliver(pair, pair.a, informational(channel_of(pair.a), 5, notify(NotifyType.INITIAL_CONTACT)))
    assert len(pair.b.heard(TunnelDeleted)) == 1


# --- what two have in common ------------------------------------------------------------------------------------

def test_spi_that_another_tunnel_with_the_peer_has_is_refused():
    pair = Pair()
    pair.a.engine._core.new_spi = lambda: 0x01234567
    pair.initiate()
    pair.initiate(Flow(SG_A, BOB))
    pair.run(3)
    assert "SPI 0x01234567 is that of another tunnel" in pair.b.heard(DatagramRefused)[0].reason
    [failed] = pair.a.heard(TunnelFailed)
    assert failed.failure is KeyingFailure.PHASE2_REFUSED and "INVALID-SPI" in failed.detail
    assert len(pair.b.heard(TunnelUp)) == 1
    pair.do(pair.a, pair.a.engine.delete_tunnel, pair.a.heard(TunnelUp)[0].tunnel)
    pair.run(1)
    assert len(pair.b.heard(TunnelDeleted)) == 1 and not pair.b.engine._core.tunnels._by_outbound


def test_spi_of_another_tunnel_is_not_taken_from_a_responder_either():
    pair = Pair()
    pair.b.engine._core.new_spi = lambda: 0x01234567
    pair.initiate()
    pair.initiate(Flow(SG_A, BOB))
    pair.run(3)
    [failed] = pair.a.heard(TunnelFailed)
    assert "0x01234567 of another tunnel" in failed.detail and len(pair.a.heard(TunnelUp)) == 1


def test_our_own_messages_reflected_from_another_port_take_no_channel_from_us():
    pair = Pair(fault=lambda number, datagram: [])
    pair.initiate(ALICE_TO_BOB)
    engine, diary = pair.a.engine, [pair.capture[0].data]

    def reflect(data: bytes, port: int) -> list[bytes]:
        engine.receive_datagram(Datagram(data, Endpoint(SG_A, 500), Endpoint(SG_B, port)), pair.now)
        pair.capture.clear()
        pair._serve(pair.a)
        return [datagram.data for datagram in pair.capture]

    [message_2] = reflect(diary[0], 501)
    [message_3] = reflect(message_2, 500)
    assert reflect(message_3, 501) == []
    assert [channel.initiator for channel in engine._core.channels] == [True]
    assert "with somebody else" in pair.a.heard(DatagramRefused)[-1].reason
    assert engine._core.channels.find(Header.parse(message_3), Path(Endpoint(SG_A, 500), Endpoint(SG_B, 500)))
