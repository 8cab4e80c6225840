"""Everything that can go wrong with keying, and the failure that each comes to (RFC 4322 sections 3.2.5, 3.3, 9)."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from oesvc.ike.datagram import Datagram
from oesvc.ike.events import (
    ChannelFailed,
    ChannelUp,
    DatagramRefused,
    KeysWanted,
    SasReady,
    TunnelDeleted,
    TunnelFailed,
    TunnelGone,
    TunnelProposed,
    TunnelUp,
    Way,
)
from oesvc.ike.failures import KeyingFailure
from oesvc.ike.identity import AddressIdentity
from oesvc.ike.v1.config import EngineConfig
from oesvc.ike.v1.constants import ExchangeType, NotifyType, PayloadType, Protocol
from oesvc.ike.v1.offers import MODERN, RFC4322
from oesvc.ike.v1.wire.header import Header
from oesvc.ike.v1.wire.message import seal_clear
from oesvc.ike.v1.wire.payloads import Notification, Payload
from oesvc.ipsec.flow import Flow
from tests.ike.forge import channel_of, deliver, endpoint, informational
from tests.ike.pair import BOB, SG_A, SG_B, Pair, private_key, public_key


def lost(number, datagram):
    return []


def from_b_lost(number, datagram):
    return [] if datagram.peer.address == SG_B else [(0.0, datagram)]


def failure_of(pair: Pair) -> tuple[KeyingFailure, str]:
    [failed] = pair.a.heard(TunnelFailed)
    return failed.failure, failed.detail


def quiet(pair: Pair) -> bool:
    """Whether nothing is being negotiated any more at either end."""
    cores = [gateway.engine._core for gateway in pair.gateways]
    return (all(channel.standing for core in cores for channel in core.channels)
            and all(tunnel.state.name == "UP" for core in cores for tunnel in core.tunnels)
            and all(core.channels.half_open() == 0 and not len(core.channels._half_open_near) for core in cores))


@pytest.mark.conformance("C-3.2.5-05")
def test_silent_peer_fails_when_the_keying_time_is_over_and_not_before():
    pair = Pair(fault=lost)
    pair.initiate()
    pair.run(7.9)
    assert not pair.a.heard(TunnelFailed)
    pair.run(0.2)
    assert failure_of(pair)[0] is KeyingFailure.PEER_SILENT
    assert len(pair.capture) == 5, "at 0, 0.5, 1.5, 3.5 and 7.5 s"
    assert quiet(pair) and pair.a.engine.next_deadline() is None


@pytest.mark.conformance("C-3.2.5-08")
@pytest.mark.parametrize("keying_time", [5.0, 60.0])
def test_keying_time_is_tunable(keying_time):
    pair = Pair(EngineConfig(private_key("a"), keying_time=keying_time), fault=lost)
    pair.initiate()
    pair.run(keying_time - 0.1)
    assert not pair.a.heard(TunnelFailed)
    pair.run(0.2)
    assert pair.a.heard(TunnelFailed)


@pytest.mark.conformance("C-3.2.5-06")
@pytest.mark.conformance("C-9.2-03")
@pytest.mark.parametrize("errors, failure", [(1, KeyingFailure.PEER_SILENT), (2, KeyingFailure.PEER_SILENT),
                                             (3, KeyingFailure.PORT_UNREACHABLE), (5, KeyingFailure.PORT_UNREACHABLE)])
def test_icmp_errors_count_when_they_are_consistent_and_alone_and_never_end_it_at_once(errors, failure):
    pair = Pair(fault=lost)
    pair.initiate()
    for _ in range(errors):
        pair.do(pair.a, pair.a.engine.peer_unreachable, SG_B)
    pair.run(7.9)
    assert not pair.a.heard(TunnelFailed)
    pair.run(0.2)
    assert failure_of(pair)[0] is failure


@pytest.mark.conformance("C-3.2.5-07")
@pytest.mark.conformance("C-9.2-04")
def test_icmp_errors_for_every_packet_do_not_stop_a_genuine_answer():
    pair = Pair()

    def unreachable(number, datagram):
        pair.a.engine.peer_unreachable(SG_B, pair.now)
        return [(0.0, datagram)]

    pair.fault = unreachable
    pair.initiate()
    pair.run()
    assert pair.a.heard(TunnelUp) and pair.b.heard(TunnelUp)


@pytest.mark.conformance("C-9.2-02")
def test_refusal_in_clear_ends_nothing_but_names_the_failure_when_time_is_over():
    pair = Pair(EngineConfig(private_key("a"), profile=replace(MODERN, phase1=RFC4322.phase1[-1:])))
    pair.initiate()
    pair.run(7.9)
    assert "notify NO-PROPOSAL-CHOSEN" in pair.a.messages(Way.RECEIVED)
    assert not pair.a.heard(TunnelFailed)
    pair.run(0.2)
    failure, detail = failure_of(pair)
    assert failure is KeyingFailure.PHASE1_REFUSED
    assert "NO-PROPOSAL-CHOSEN" in detail and "3des-cbc-192 md5 modp1024" in detail
    assert quiet(pair)


@pytest.mark.conformance("C-3.2.5-11")
def test_forged_refusal_does_not_stop_the_genuine_answer():
    pair = Pair()
    pair.initiate()
    header = Header.parse(pair.capture[0].data)
    for type in (NotifyType.NO_PROPOSAL_CHOSEN, NotifyType.AUTHENTICATION_FAILED, NotifyType.INVALID_COOKIE):
        notification = Notification(Protocol.ISAKMP, type)
        forged = replace(header, exchange=ExchangeType.INFORMATIONAL, message_id=7)
        deliver(pair, pair.b, seal_clear(forged, [Payload(PayloadType.NOTIFICATION, notification.pack())]))
    pair.run()
    assert pair.a.heard(TunnelUp)
    assert sum(name.startswith("notify") for name in pair.a.messages()) == 3


@pytest.mark.conformance("C-3.2.5-12")
def test_signature_by_another_key_than_the_dns_has():
    pair = Pair()
    pair.initiate(keys=(public_key("stranger"),))
    pair.run()
    failure, detail = failure_of(pair)
    assert failure is KeyingFailure.WRONG_SIGNATURE
    assert "none of 1 keys" in detail and str(SG_B) in detail
    assert not pair.a.heard(ChannelUp)


def test_another_identity_than_the_dns_has():
    pair = Pair()
    pair.initiate(identity=AddressIdentity(ip_address("192.1.1.6")))
    pair.run()
    failure, detail = failure_of(pair)
    assert failure is KeyingFailure.WRONG_IDENTITY
    assert "192.1.1.6 was expected" in detail


@pytest.mark.conformance("C-3.3.1-04")
@pytest.mark.conformance("C-5.1-07")
def test_responder_refuses_a_signature_that_no_key_of_the_dns_verifies():
    pair = Pair()
    pair.b.keys[AddressIdentity(SG_A)] = tuple(public_key(f"stranger {n}") for n in range(3))
    pair.initiate()
    pair.run(1)
    assert not pair.b.heard(ChannelUp)
    assert "none of 3 keys" in pair.b.heard(DatagramRefused)[0].reason
    pair.run(16)
    [failed] = pair.b.heard(ChannelFailed)
    assert failed.failure is KeyingFailure.WRONG_SIGNATURE and "none of 3 keys" in failed.detail
    assert len(pair.b.heard(KeysWanted)) == 1
    failure, detail = failure_of(pair)
    assert failure is KeyingFailure.PHASE1_REFUSED and "AUTHENTICATION-FAILED" in detail
    assert pair.b.messages().count("notify AUTHENTICATION-FAILED") == 1
    assert quiet(pair)


@pytest.mark.conformance("C-3.3.1-05")
def test_responder_that_finds_no_key_says_which_it_looked_for():
    pair = Pair()
    del pair.b.keys[AddressIdentity(SG_A)]
    pair.initiate()
    pair.run(17)
    [failed] = pair.b.heard(ChannelFailed)
    assert failed.detail == "no KEY record for 192.1.1.4"


@pytest.mark.conformance("C-3.3.1-07")
def test_message_5_repeated_during_the_look_up_is_dropped_and_message_6_sent_once():
    pair = Pair()
    pair.b.dns_delay = 3.0
    pair.initiate()
    pair.run()
    assert len(pair.b.heard(KeysWanted)) == 1
    assert pair.b.messages(Way.SENT).count("main mode 6") == 1
    assert [len(datagram.data) for datagram in pair.capture if datagram.local.address == SG_B].count(300) == 1
    assert pair.a.heard(TunnelUp)


def test_dns_that_never_answers_costs_5_seconds():
    pair = Pair()
    pair.b.dns_delay = None
    pair.initiate()
    pair.run(4.9)
    assert not pair.b.heard(DatagramRefused)
    pair.run(0.2)
    assert "the DNS gave no keys for 192.1.1.4 within 5 s" in pair.b.heard(DatagramRefused)[0].reason
    [wanted] = pair.b.heard(KeysWanted)
    pair.run(20)
    pair.do(pair.b, pair.b.engine.keys_found, wanted.channel, wanted.identity, [public_key("a")])
    assert not pair.b.heard(ChannelUp) and quiet(pair)


@pytest.mark.conformance("C-3.2.5-09")
@pytest.mark.conformance("C-3.2.5-04")
def test_phase_1_alone_is_no_tunnel():
    pair = Pair()
    pair.b.authorizes = None
    pair.initiate()
    pair.run(8.1)
    failure, detail = failure_of(pair)
    assert failure is KeyingFailure.PHASE2_SILENT and "192.1.0.65 -> 192.2.0.66" in detail
    assert pair.a.heard(ChannelUp) and not pair.a.heard(TunnelUp)
    pair.run(1)
    assert pair.b.heard(TunnelFailed)[0].failure is KeyingFailure.PHASE2_SILENT
    assert quiet(pair)


@pytest.mark.conformance("C-3.2.5-10")
def test_authenticated_refusal_ends_the_attempt_at_once():
    pair = Pair()
    pair.b.authorizes = False
    pair.initiate()
    pair.run(0.5)
    failure, detail = failure_of(pair)
    assert failure is KeyingFailure.PHASE2_REFUSED and "INVALID-ID-INFORMATION" in detail
    assert "is refused: policy" in pair.b.heard(DatagramRefused)[0].reason
    assert quiet(pair) and not pair.b.heard(SasReady)


def test_complaint_about_a_datagram_is_no_refusal():
    """strongSwan answers quick mode 1, and then complains of a fragment of it that is repeated."""
    pair = Pair(fault=lambda number, datagram: [] if number == 7 else [(0.0, datagram)])
    pair.initiate()
    pair.run(0.2)
    assert pair.a.messages(Way.SENT)[-1] == "quick mode 1" and "quick mode 2" in pair.b.messages(Way.SENT)
    malformed = Notification(Protocol.ISAKMP, NotifyType.PAYLOAD_MALFORMED).pack()
    deliver(pair, pair.b, informational(channel_of(pair.b), 77, Payload(PayloadType.NOTIFICATION, malformed)))
    pair.run(5.0)
    assert pair.a.heard(TunnelUp) and not pair.a.heard(TunnelFailed)


def test_refusal_that_names_another_tunnel_leaves_this_one_alone():
    pair = Pair()
    pair.initiate()
    pair.run()
    for host in (1, 2):
        pair.a.engine.initiate(Flow(ip_address(f"192.1.0.{host}"), BOB), SG_A, SG_B, AddressIdentity(SG_B),
                               (public_key("b"),), pair.now)
    stranger = Notification(Protocol.ESP, NotifyType.NO_PROPOSAL_CHOSEN, b"\1\2\3\4")
    deliver(pair, pair.b, informational(channel_of(pair.b), 77, Payload(PayloadType.NOTIFICATION, stranger.pack())))
    assert not pair.a.heard(TunnelFailed)


@pytest.mark.parametrize("digest", [b"", bytes(32)])
def test_refusal_with_a_wrong_hash_is_none(digest):
    pair = Pair()
    pair.b.authorizes = None
    pair.initiate()
    pair.run(1)
    notification = Notification(Protocol.ESP, NotifyType.NO_PROPOSAL_CHOSEN)
    deliver(pair, pair.b, informational(channel_of(pair.b), 78, Payload(PayloadType.NOTIFICATION, notification.pack()),
                                        digest=digest))
    assert not pair.a.heard(TunnelFailed)
    assert "HASH(1) does not verify" in pair.a.heard(DatagramRefused)[-1].reason


def test_peer_that_rebooted_gets_a_new_channel_within_the_same_keying_time():
    pair = Pair()
    pair.initiate()
    pair.run()
    pair.b.engine = Pair(seed=1).b.engine
    pair.initiate(Flow(ip_address("192.1.0.77"), BOB))
    pair.run(8.1)
    assert len(pair.a.heard(TunnelUp)) == 2 and len(pair.a.heard(ChannelUp)) == 2


def test_peer_that_went_away_with_a_standing_channel_is_silent_not_refusing():
    pair = Pair()
    pair.initiate()
    pair.run()
    pair.fault = lost
    pair.initiate(Flow(ip_address("192.1.0.77"), BOB))
    pair.run(8.1)
    assert failure_of(pair)[0] is KeyingFailure.PEER_SILENT


def test_lost_confirmation_fails_the_responders_tunnel_in_time():
    pair = Pair()
    pair.fault = lambda number, datagram: [] if len(datagram.data) == 76 else [(0.0, datagram)]
    pair.initiate()
    pair.run(20)
    [failed] = pair.b.heard(TunnelFailed)
    assert failed.failure is KeyingFailure.PHASE2_SILENT and not pair.b.heard(TunnelUp)
    assert pair.a.heard(TunnelUp) and pair.a.heard(TunnelDeleted), "the initiator does not send into the void"


def test_attempt_given_up_while_it_waits_for_its_channel():
    pair = Pair(fault=from_b_lost)
    tunnel = pair.initiate()
    pair.do(pair.a, pair.a.engine.delete_tunnel, tunnel)
    assert [event.confirmed for event in pair.a.heard(TunnelGone)] == [False]
    pair.run(20)
    assert not pair.a.heard(TunnelFailed) and quiet(pair)


def test_attempt_given_up_in_quick_mode():
    pair = Pair()
    pair.b.authorizes = None
    tunnel = pair.initiate()
    pair.run(1)
    pair.do(pair.a, pair.a.engine.delete_tunnel, tunnel)
    pair.run(20)
    assert pair.a.heard(TunnelGone) and not pair.a.heard(TunnelFailed) and quiet(pair)


def test_answers_to_questions_that_nobody_asks_any_more_change_nothing():
    pair = Pair()
    pair.initiate()
    pair.run()
    before = len(pair.b.events), len(pair.capture)
    engine = pair.b.engine
    for tunnel in (1, 99):
        pair.do(pair.b, engine.accept_tunnel, tunnel)
        pair.do(pair.b, engine.sas_installed, tunnel)
    pair.do(pair.b, engine.keys_found, 1, AddressIdentity(SG_A), [public_key("a")])
    pair.do(pair.b, engine.keys_missing, 99, AddressIdentity(SG_A), "nothing")
    pair.do(pair.b, engine.delete_tunnel, 99)
    assert (len(pair.b.events), len(pair.capture)) == before


def test_message_to_another_port_of_ours_is_answered_from_there():
    pair = Pair()
    pair.initiate()
    data = pair.capture[0].data
    pair.b.engine.receive_datagram(Datagram(bytes(4) + data, endpoint(pair.b, 4500), endpoint(pair.a, 40123)), pair.now)
    [answer] = pair.b.engine.datagrams_to_send()
    assert (answer.local.port, answer.peer.port, answer.data[:4]) == (4500, 40123, bytes(4))
    assert Header.parse(answer.data[4:]).responder_cookie != bytes(8)


def test_esp_on_port_4500_is_none_of_ours():
    pair = Pair()
    pair.b.engine.receive_datagram(Datagram(b"\1\2\3\4", endpoint(pair.b, 4500), endpoint(pair.a, 4500)), pair.now)
    [refused] = pair.b.engine.events()
    assert "without the marker" in refused.reason
    assert not pair.b.engine.datagrams_to_send() and not pair.b.heard(TunnelProposed)
