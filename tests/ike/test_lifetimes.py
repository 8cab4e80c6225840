"""Lifetimes of channels, their renewal, peers that die or begin anew (RFC 2407 4.6.3, RFC 3706, RFC 4322 9.3)."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from oesvc.ike.events import (
    ChannelUp,
    DatagramRefused,
    LifetimeShortened,
    TunnelDeleted,
    TunnelFailed,
    TunnelLost,
    TunnelUp,
)
from oesvc.ike.v1 import phase1_offer, phase2_offer, quick_mode
from oesvc.ike.v1.config import EngineConfig
from oesvc.ike.v1.constants import DPD_SPACING, DPD_TRIES, TIME_TO_RENEW, NotifyType, PayloadType, Protocol
from oesvc.ike.v1.engine import IkeEngine
from oesvc.ike.v1.negotiation import lifetime_notice
from oesvc.ike.v1.wire.payloads import Notification, Payload
from oesvc.ike.v1.wire.proposals import Attribute
from oesvc.ipsec.flow import Flow
from oesvc.ipsec.sa import Lifetime
from tests.ike.forge import channel_of, deliver, informational
from tests.ike.pair import BOB, SG_A, Pair, entropy, private_key

HOUR = 3600


def keyed(a: dict | None = None, b: dict | None = None) -> Pair:
    pair = Pair(EngineConfig(private_key("a"), **a or {}), EngineConfig(private_key("b"), **b or {}))
    pair.initiate()
    return pair.run(2)


def up(gateway) -> int:
    return len([tunnel for tunnel in gateway.engine._core.tunnels if tunnel.state.name == "UP"])


def reboot(pair: Pair) -> None:
    pair.a.engine = IkeEngine(EngineConfig(private_key("a")), entropy("rebooted"))


def notify(pair: Pair, type: int, sequence: int, message_id: int) -> None:
    channel = channel_of(pair.a)
    notification = Notification(Protocol.ISAKMP, type, channel.cookie_i + channel.cookie_r, sequence.to_bytes(4, "big"))
    deliver(pair, pair.a, informational(channel, message_id, Payload(PayloadType.NOTIFICATION, notification.pack())))


# --- renewal ----------------------------------------------------------------------------------------------------

def test_channel_is_replaced_before_it_ends_and_its_tunnels_live_on():
    pair = keyed()
    pair.run(9 * HOUR)
    assert len(pair.a.heard(ChannelUp)) == len(pair.b.heard(ChannelUp)) == 2
    assert [event.initiator for event in pair.a.heard(ChannelUp)] == [True, True]
    for gateway in pair.gateways:
        assert up(gateway) == 1 and not gateway.heard(TunnelDeleted) and not gateway.heard(TunnelLost)
        assert len(gateway.engine._core.channels) == 1
    pair.do(pair.b, pair.b.engine.delete_tunnel, 1)
    pair.run(1)
    assert pair.a.heard(TunnelDeleted), "under the new channel"


def test_responder_replaces_a_channel_that_the_initiator_does_not():
    pair = keyed()
    channel_of(pair.a).rekey.cancel()
    pair.run(9 * HOUR)
    assert [event.initiator for event in pair.b.heard(ChannelUp)] == [False, True] and up(pair.a) == up(pair.b) == 1


def test_idle_channel_is_closed_at_its_end_and_not_replaced():
    pair = keyed()
    pair.do(pair.a, pair.a.engine.delete_tunnel, 1)
    pair.run(9 * HOUR)
    assert len(pair.a.heard(ChannelUp)) == 1 and pair.a.messages()[-1] == "delete"
    assert all(len(gateway.engine._core.channels) == 0 for gateway in pair.gateways)


def test_renewal_that_fails_is_tried_again():
    pair = keyed({"dpd_idle": 0}, {"dpd_idle": 0})
    pair.fault = lambda number, datagram: []
    pair.run(7 * HOUR)
    tries = pair.a.messages().count("main mode 1")
    assert tries > 3 and len(pair.a.heard(ChannelUp)) == 1
    pair.fault = lambda number, datagram: [(0.0, datagram)]
    pair.run(120)
    assert len(pair.a.heard(ChannelUp)) >= 2 and up(pair.a) == 1 and not pair.a.heard(TunnelFailed)


def test_keys_that_nobody_asked_for_replace_nothing():
    pair = keyed()
    before = len(pair.capture)
    identity = channel_of(pair.a).standing.identity
    pair.do(pair.a, pair.a.engine.keys_found, 1, identity, pair.a.keys[identity])
    assert len(pair.capture) == before


def test_initiator_heeds_the_responders_shorter_lifetime():
    pair = keyed(b={"phase1_lifetime": Lifetime(2 * HOUR)})
    for gateway in pair.gateways:
        standing = channel_of(gateway).standing
        assert round(standing.expires - standing.since) == 2 * HOUR


def test_longer_lifetime_of_the_responder_changes_nothing():
    pair = keyed({"phase1_lifetime": Lifetime(2 * HOUR), "phase2_lifetime": Lifetime(900)})
    standing = channel_of(pair.b).standing
    assert round(standing.expires - standing.since) == 2 * HOUR and standing.shortened is None
    assert {sa.lifetime.seconds for gateway in pair.gateways for sa in gateway.tunnel_sas()} == {900}


def lifetime_of_tunnel(pair: Pair, message_id: int, spi: int, seconds: int, kilobytes: int = 0) -> list[Lifetime]:
    """What SG-A hears of a notify by SG-B."""
    notice = lifetime_notice(Protocol.ESP, spi.to_bytes(4, "big"), Lifetime(seconds, kilobytes))
    payload = Payload(PayloadType.NOTIFICATION, notice.pack())
    deliver(pair, pair.b, informational(channel_of(pair.b), message_id, payload))
    return [event.lifetime for event in pair.a.heard(LifetimeShortened)]


@pytest.mark.parametrize("whose", [0, 1], ids=["our SPI", "its own"])
def test_responder_may_shorten_a_tunnel_in_a_message_of_its_own(whose):
    pair = keyed()
    spi = pair.a.tunnel_sas()[whose].spi
    assert lifetime_of_tunnel(pair, 100, spi, 900, 20_000) == [Lifetime(900, 20_000)]
    assert pair.a.heard(LifetimeShortened)[0].tunnel == 1 and not pair.a.heard(DatagramRefused)


def test_tunnel_cannot_be_shortened_so_far_that_its_renewal_comes_too_late():
    pair = keyed({"phase2_floor": Lifetime(0)})
    [_, spi] = [sa.spi for sa in pair.a.tunnel_sas()]
    lifetime_of_tunnel(pair, 100, spi, 1)
    pair.now += 1000
    said = lifetime_of_tunnel(pair, 101, spi, 900)
    assert 0 <= said[0].seconds - TIME_TO_RENEW <= 3 and 1000 <= said[1].seconds - TIME_TO_RENEW <= 1003
    assert lifetime_of_tunnel(pair, 102, spi, 0, 5000)[2] == Lifetime(0, 5000)


def test_tunnel_cannot_be_shortened_below_what_peers_may_propose():
    pair = keyed()
    spi = pair.a.tunnel_sas()[0].spi
    assert lifetime_of_tunnel(pair, 100, spi, 61, 1) == [Lifetime(600, 1000)]


@pytest.mark.parametrize("phase, floor", [(1, HOUR), (2, 600)])
def test_responder_that_chooses_an_absurd_lifetime_does_not_make_us_work(phase, floor, monkeypatch):
    """By changing what was offered: its answers have one transform, offers several."""
    offers = {1: phase1_offer, 2: phase2_offer}[phase]
    types = {1: (11, 12), 2: (1, 2)}[phase]
    honest = offers.pack_sa

    def choose(proposals):
        [proposal] = proposals
        transform, *others = proposal.transforms
        if others:
            return honest(proposals)
        kept = tuple(attribute for attribute in transform.attributes if attribute.type not in types)
        said = [Attribute.of(type, 1) for type in types] + [Attribute.of(types[0], 2), Attribute.of(types[1], 1)]
        return honest((replace(proposal, transforms=(replace(transform, attributes=(*kept, *said)),)),))

    monkeypatch.setattr(offers, "pack_sa", choose)
    pair = keyed()
    standing = channel_of(pair.a).standing
    lifetimes = {1: {Lifetime(round(standing.expires - standing.since), standing.kilobytes)},
                 2: {sa.lifetime for sa in pair.a.tunnel_sas()}}
    assert lifetimes[phase] == {Lifetime(floor, {1: 100, 2: 1000}[phase])}
    pair.run(300)
    assert len(pair.a.heard(ChannelUp)) == 1


def test_responders_absurd_word_on_the_lifetime_is_taken_as_far_as_peers_may_go(monkeypatch):
    def notice(suite, spi):
        yield Payload(PayloadType.NOTIFICATION,
                      lifetime_notice(Protocol.ESP, spi.to_bytes(4, "big"), Lifetime(1, 1)).pack())

    monkeypatch.setattr(quick_mode, "_notice_of_lifetime", notice)
    assert {sa.lifetime for sa in keyed().a.tunnel_sas()} == {Lifetime(600, 1000)}


@pytest.mark.parametrize("protocol, seconds", [(Protocol.ISAKMP, 3600), (Protocol.ESP, 900)])
def test_word_on_a_lifetime_may_say_more_than_we_know(protocol, seconds, monkeypatch):
    def notice(suite, spi):
        said = lifetime_notice(protocol, bytes(4), Lifetime(900))
        yield Payload(PayloadType.NOTIFICATION, replace(said, data=b"\x80\x63\0\1" + said.data).pack())

    monkeypatch.setattr(quick_mode, "_notice_of_lifetime", notice)
    pair = keyed()
    assert up(pair.a) == 1 and {sa.lifetime.seconds for sa in pair.a.tunnel_sas()} == {seconds}


def test_word_about_a_tunnel_that_is_not_the_peers_changes_nothing():
    pair = keyed()
    assert lifetime_of_tunnel(pair, 100, 0x12345678, 900) == []
    channel = channel_of(pair.b)
    broken = Notification(Protocol.ESP, NotifyType.RESPONDER_LIFETIME,
                          pair.a.tunnel_sas()[1].spi.to_bytes(4, "big"), b"\0\1\0\x20")
    deliver(pair, pair.b, informational(channel, 101, Payload(PayloadType.NOTIFICATION, broken.pack())))
    assert not pair.a.heard(LifetimeShortened) and pair.a.heard(DatagramRefused)


@pytest.mark.parametrize("lifetimes, reason", [
    ({"phase1_lifetime": Lifetime(60)}, "a lifetime of 60 seconds; 3600 are the least"),
    ({"phase1_lifetime": Lifetime(28800, 10)}, "a lifetime of 10 kilobytes; 100 are the least"),
    ({"phase2_lifetime": Lifetime(5)}, "a lifetime of 5 seconds; 600 are the least"),
    ({"phase2_lifetime": Lifetime(3600, 1)}, "a lifetime of 1 kilobytes; 1000 are the least"),
])
def test_lifetimes_too_short_are_refused_with_what_would_do(lifetimes, reason):
    pair = keyed(lifetimes)
    pair.run(8)
    assert reason in pair.b.heard(DatagramRefused)[0].reason and pair.a.heard(TunnelFailed)


# --- INITIAL-CONTACT --------------------------------------------------------------------------------------------

@pytest.mark.conformance("C-9.3-02", "C-9.3-09")
def test_peer_that_has_rebooted_says_so_and_old_tunnels_go_at_once():
    pair = keyed()
    reboot(pair)
    pair.initiate()
    pair.run(1)
    assert len(pair.b.heard(TunnelDeleted)) == 1 and up(pair.b) == 1
    assert len(pair.b.engine._core.channels) == 1


def test_second_channel_is_no_initial_contact():
    pair = keyed()
    channel_of(pair.a).doubtful = True
    pair.initiate(Flow(ip_address("192.1.0.77"), BOB))
    pair.run(2)
    assert len(pair.b.heard(ChannelUp)) == 2 and not pair.b.heard(TunnelDeleted) and up(pair.b) == 2


@pytest.mark.parametrize("skew", [0.0, 0.005, 0.015, 0.025, 0.035])
@pytest.mark.parametrize("delay", [0.0, 0.5])
def test_first_contacts_that_cross_leave_each_others_tunnels_alone(skew, delay):
    pair = Pair()
    pair.b.dns_delay = delay
    pair.initiate()
    pair.run(skew)
    pair.initiate(Flow(BOB, ip_address("192.1.0.99")), by=pair.b)
    pair.run(5)
    for gateway in pair.gateways:
        assert up(gateway) == 2 and not gateway.heard(TunnelDeleted) and not gateway.heard(TunnelFailed)


# --- RFC 3706 ---------------------------------------------------------------------------------------------------

def test_silent_peer_is_asked_and_answers():
    pair = keyed()
    before = len(pair.capture)
    pair.run(600)
    assert 10 <= len(pair.capture) - before <= 24 and up(pair.a) == up(pair.b) == 1
    for gateway in pair.gateways:
        assert len(channel_of(gateway).used_ids) <= 1, "their message IDs are not remembered"


@pytest.mark.conformance("C-9.3-02")
def test_dead_peer_is_noticed_in_bounded_time():
    pair = keyed()
    pair.fault = lambda number, datagram: [] if datagram.local.address == SG_A else [(0.0, datagram)]
    pair.run(60 + DPD_TRIES * DPD_SPACING + 1)
    [lost] = pair.a.heard(TunnelLost)
    assert f"none of {DPD_TRIES} questions" in lost.detail
    assert len(pair.a.engine._core.channels) == len(pair.a.engine._core.tunnels) == 0
    assert not pair.a.engine.next_deadline()


def test_peer_without_tunnels_or_without_the_extension_is_not_asked():
    for settings in ({"extensions": frozenset()}, {"dpd_idle": 0}):
        pair = keyed(settings, settings)
        before = len(pair.capture)
        pair.run(600)
        assert len(pair.capture) == before
    pair = keyed()
    pair.do(pair.a, pair.a.engine.delete_tunnel, 1)
    pair.run(1)
    before = len(pair.capture)
    pair.run(600)
    assert len(pair.capture) == before


def test_one_lost_answer_is_no_death():
    pair = keyed()
    begun = len(pair.capture)
    pair.fault = lambda number, datagram: [] if number in (begun, begun + 1, begun + 3) else [(0.0, datagram)]
    pair.run(300)
    assert up(pair.a) == up(pair.b) == 1


def test_question_is_answered_with_its_number_and_an_old_one_is_not():
    pair = keyed()
    before = len(pair.capture)
    notify(pair, NotifyType.R_U_THERE, 7, 100)
    assert len(pair.capture) == before + 1
    heard_at, pair.now = channel_of(pair.b).heard_at, pair.now + 1
    notify(pair, NotifyType.R_U_THERE, 7, 101)
    assert len(pair.capture) == before + 2 and channel_of(pair.b).heard_at == heard_at, "it may be a replay"
    notify(pair, NotifyType.R_U_THERE, 6, 102)
    assert len(pair.capture) == before + 2
    assert "R-U-THERE number 6 after 7" in pair.b.heard(DatagramRefused)[0].reason


def test_answers_to_no_question_and_reflected_questions_prove_nothing():
    pair = keyed()
    notify(pair, NotifyType.R_U_THERE_ACK, 1, 100)
    assert "is no answer" in pair.b.heard(DatagramRefused)[0].reason
    pair.fault = lambda number, datagram: []
    pair.run(61)
    for datagram in pair.capture[9:]:
        pair.inject(replace(datagram, local=datagram.local, peer=datagram.peer))
    assert "of our own" in pair.a.heard(DatagramRefused)[-1].reason
    pair.run(20)
    assert pair.a.heard(TunnelLost)


def test_question_with_an_absurd_number_is_refused():
    pair = keyed()
    channel = channel_of(pair.a)
    notification = Notification(Protocol.ISAKMP, NotifyType.R_U_THERE, b"", b"\1\2")
    deliver(pair, pair.a, informational(channel, 5, Payload(PayloadType.NOTIFICATION, notification.pack())))
    assert "2 octets of sequence number" in pair.b.heard(DatagramRefused)[0].reason


def test_rebooted_peers_tunnel_comes_up_again():
    pair = keyed()
    reboot(pair)
    pair.run(100)
    assert pair.b.heard(TunnelLost) and up(pair.b) == 0
    pair.initiate(Flow(BOB, ip_address("192.1.0.65")), by=pair.b)
    pair.run(1)
    assert len(pair.b.heard(TunnelUp)) == 2


@pytest.mark.parametrize("phase", ["phase1_lifetime", "phase2_lifetime"])
def test_lifetime_by_volume_beyond_all_measure_is_none(phase, monkeypatch):
    """In eight octets, which an attribute may have; what we say in return, such as RESPONDER-LIFETIME, has four."""
    def of(type: int, number: int) -> Attribute:
        return honest(type, number) if number < 1 << 32 else Attribute(type, number.to_bytes(8, "big"), basic=False)

    honest = Attribute.of
    monkeypatch.setattr(Attribute, "of", of)
    pair = keyed({phase: Lifetime(86400, 1 << 33)})
    monkeypatch.undo()
    assert up(pair.a) == up(pair.b) == 1
    assert [sa.lifetime for sa in pair.b.tunnel_sas()] == 2 * [Lifetime(3600)]
