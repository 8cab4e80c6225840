"""What strangers may cost: memory and arithmetic are bounded, and given back (RFC 4322 sections 4.1 and 12.3)."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from oesvc.ike.datagram import Datagram, Endpoint
from oesvc.ike.events import DatagramRefused, TunnelFailed, TunnelUp, Way, Work
from oesvc.ike.failures import KeyingFailure
from oesvc.ike.identity import AddressIdentity
from oesvc.ike.v1.channels import Channels
from oesvc.ike.v1.config import EngineConfig
from oesvc.ike.v1.constants import MAX_TRANSFORMS
from oesvc.ike.v1.engine import IkeEngine
from oesvc.ike.v1.offers import MODERN
from oesvc.ike.v1.timers import SLACK, Timers
from oesvc.ike.v1.wire.header import Header
from oesvc.ike.v1.wire.message import open_clear, seal_clear
from oesvc.ike.v1.wire.payloads import Payload
from oesvc.ike.v1.wire.proposals import Attribute, Proposal, Transform, pack_sa
from oesvc.ipsec.flow import Flow
from tests.ike.forge import channel_of, to
from tests.ike.pair import BOB, SG_A, SG_B, Pair, entropy, private_key, public_key

LOCAL = Endpoint(SG_B, 500)


def first_messages(count: int, prefix: str = "198.19", different: bool = False):
    """Main mode 1 from many spoofed addresses, 50 in each /24; each with another offer if they are to be different."""
    pair = Pair()
    pair.initiate()
    data = pair.capture[0].data
    header = Header.parse(data)
    for number in range(count):
        cookie = (number + 1).to_bytes(8, "big")
        peer = ip_address(f"{prefix}.{number // 50 % 256}.{number % 50 + 1}")
        vendor = [Payload(13, number.to_bytes(4, "big"))] if different else []
        message = open_clear(header, data)
        spoofed = seal_clear(replace(header, initiator_cookie=cookie), [*message.payloads, *vendor])
        yield Datagram(spoofed, LOCAL, Endpoint(peer, 500))


def engine(**budgets: int) -> IkeEngine:
    return IkeEngine(EngineConfig(private_key("b"), **budgets), entropy("b"))


@pytest.mark.conformance("C-4.1-03")
@pytest.mark.conformance("C-12.3-01")
def test_flood_of_spoofed_first_messages_is_answered_and_leaves_nothing_behind():
    class Unusable:
        """A private key that cannot be used."""

    victim = IkeEngine(EngineConfig(Unusable()), entropy("b"))
    empty = victim.counters()
    for datagram in first_messages(2000):
        victim.receive_datagram(datagram, 0.0)
    assert len(victim.datagrams_to_send()) == 2000 and not victim.events()
    assert victim.counters() == empty | {"first_messages": 2000}
    assert len(victim._core.timers) == 0 and not any(
        table for table in vars(victim._core.channels).values() if isinstance(table, dict | set))


def test_flood_of_ever_different_first_messages_is_read_at_a_bounded_rate_into_bounded_memory():
    victim = engine(new_invitations=150, max_invitation_octets=100_000)
    for number, datagram in enumerate(first_messages(2000, different=True)):
        victim.receive_datagram(datagram, number / 200)
    counters = victim.counters()
    assert 750 <= counters["first_messages"] <= 900 and counters["refused"] == 2000 - counters["first_messages"]
    invitations = victim._core.invitations
    assert 20 < len(invitations) < 60 and invitations._octets <= 100_000
    assert len(invitations._by_body) == len(invitations._by_number) == len(invitations._unproven) + 1
    assert "more than 150 new portions of messages 1 a second" in victim.events()[-1].reason
    bounds = victim.bounds(10.0)
    assert bounds["new-invitations"] == (150, 150, counters["refused"])
    used, most, forgotten = bounds["max-invitation-octets"]
    assert 0.9 * most < used <= most == 100_000 and forgotten == counters["first_messages"] + 1 - len(invitations)
    assert victim.bounds(12.0)["new-invitations"][0] == 0


def test_what_nobody_proved_himself_by_is_forgotten_when_its_cookies_are_good_no_more():
    victim = engine()
    again, *others = first_messages(100, different=True)
    for datagram in (again, *others):
        victim.receive_datagram(datagram, 0.0)
    assert victim.counters()["invitations"] == 101
    victim.receive_datagram(again, 60.0)
    assert victim.next_deadline() == 120.0
    victim.handle_deadline(120.0)
    assert victim.counters()["invitations"] == 2 and victim.next_deadline() == 180.0
    victim.handle_deadline(180.0)
    assert victim.counters()["invitations"] == 1 and victim.next_deadline() is None
    assert victim.bounds(180.0)["max-invitation-octets"][0] == 0


@pytest.mark.parametrize("different", [False, True])
def test_honest_peer_keys_while_the_flood_is_on(different):
    pair = Pair()
    for datagram in first_messages(3000, different=different):
        pair.b.engine.receive_datagram(datagram, pair.now)
    pair.initiate()
    pair.run(0.025)
    for datagram in first_messages(3000, different=different):
        pair.b.engine.receive_datagram(datagram, pair.now)
    pair.run()
    assert pair.a.heard(TunnelUp) and pair.a.messages(Way.SENT).count("main mode 1") == 1


def test_invitation_by_which_a_peer_has_proved_itself_outlives_any_flood():
    profile = replace(MODERN, phase1=MODERN.phase1[3:])
    pair = Pair(EngineConfig(private_key("a"), profile=profile), EngineConfig(private_key("b")))
    pair.initiate()
    pair.run()
    for datagram in first_messages(6000, different=True):
        pair.b.engine.receive_datagram(datagram, pair.now)
    assert pair.b.engine.counters()["proven_invitations"] == 2
    pair.a.engine = IkeEngine(EngineConfig(private_key("a"), profile=profile), entropy("rebooted"))
    pair.initiate()
    pair.run()
    assert len(pair.b.heard(TunnelUp)) == 2 and pair.b.heard(DatagramRefused)


def test_proven_invitations_are_bounded_too():
    pair = Pair(b=EngineConfig(private_key("b"), max_proven_invitations=3))
    for number in range(6):
        profile = replace(MODERN, phase1=MODERN.phase1[:number + 1])
        pair.a.engine = IkeEngine(EngineConfig(private_key("a"), profile=profile), entropy(number))
        pair.initiate()
        pair.run(1)
    counters = pair.b.engine.counters()
    assert (counters["proven_invitations"], counters["invitations"]) == (3, 3) and len(pair.b.heard(TunnelUp)) == 6
    assert pair.b.engine.bounds(pair.now)["max-proven-invitations"] == (3, 3, 4)


def handshakes(pair: Pair, wordings, network: str) -> None:
    """As many as there are wordings, each from another address of a network, all of whom prove themselves."""
    for host, number in enumerate(wordings, 1):
        address = ip_address(f"{network}.{host}")
        pair.a.address, pair.b.keys[AddressIdentity(address)] = address, (public_key("a"),)
        pair.a.engine = IkeEngine(EngineConfig(private_key("a")), entropy(number))
        pair.a.engine._core.message_1 += Payload(13, bytes([number])),
        pair.initiate(Flow(address, BOB))
        pair.run(1)


def test_no_neighbourhood_pushes_out_what_others_or_we_ourselves_say():
    pair = Pair(b=EngineConfig(private_key("b"), max_proven_invitations=10))
    handshakes(pair, [1], "198.51.100")
    handshakes(pair, range(2, 22), "203.0.113")
    invitations = pair.b.engine._core.invitations
    assert len(pair.b.heard(TunnelUp)) == 21 and invitations.proven == 10 and len(invitations._proved_near) == 2
    known = [body[-1] for body in (invitation.body for invitation in invitations._proven.values())]
    assert known[1:] == list(range(1, 10)) and invitations._own in invitations._proven
    handshakes(pair, range(22, 30), "198.19.1")
    assert invitations._own in invitations._proven and invitations.proven == 10 and invitations._outlived == 8
    assert len(invitations._provers) == 9


def test_long_wording_costs_its_sender_more_than_a_short_one():
    def read(octets: int) -> int:
        victim, [datagram] = engine(new_invitations=40), first_messages(1)
        message = open_clear(Header.parse(datagram.data), datagram.data)
        for number in range(100):
            worded = seal_clear(message.header, [*message.payloads, Payload(13, number.to_bytes(octets, "big"))])
            victim.receive_datagram(replace(datagram, data=worded), 1.0)
        return victim.counters()["first_messages"]
    assert 30 <= read(4) <= 50 and 1 <= read(8000) <= 3


def test_offer_of_more_transforms_than_any_daemon_has_is_not_judged():
    transforms = tuple(Transform(number % 256, 1, (Attribute.of(4, number),)) for number in range(MAX_TRANSFORMS + 1))
    for most, said in (MAX_TRANSFORMS, "no proposal is acceptable"), (MAX_TRANSFORMS + 1, "more than 255 transforms"):
        victim = engine()
        offer = pack_sa((Proposal(1, 1, b"", transforms[:100]), Proposal(2, 1, b"", transforms[100:most])))
        header = Header(bytes(7) + b"\1", bytes(8), 0, 2, 0, 0)
        victim.receive_datagram(Datagram(seal_clear(header, [Payload(1, offer)]), LOCAL, Endpoint(SG_A, 500)), 0.0)
        assert said in victim.events()[-1].reason


def third_message(pair: Pair) -> Datagram:
    """Main mode 3 of SG-A, on its way to SG-B."""
    pair.fault = lambda number, datagram: [(0.0, datagram)] if number < 2 else []
    pair.initiate()
    pair.run(0.1)
    return to(pair.b, pair.a, pair.capture[2].data)


@pytest.mark.parametrize("change", [
    lambda header: replace(header, responder_cookie=bytes(7) + b"\1"),
    lambda header: replace(header, responder_cookie=header.responder_cookie[:7]
                           + bytes([header.responder_cookie[7] ^ 1])),
    lambda header: replace(header, initiator_cookie=b"\1" * 8),
], ids=["no invitation", "wrong hash", "another initiator"])
def test_message_3_with_a_wrong_cookie_is_a_strangers(change):
    pair = Pair()
    honest = third_message(pair)
    forged = change(Header.parse(honest.data)).pack(honest.data[28:])
    pair.inject(replace(honest, data=forged))
    pair.inject(replace(honest, peer=Endpoint(honest.peer.address, 501)))
    pair.inject(replace(honest, peer=Endpoint(ip_address("203.0.113.1"), 500)))
    reasons = [event.reason for event in pair.b.heard(DatagramRefused)]
    assert reasons == ["cookies of no keying channel that we have"] * 3
    assert len(pair.b.engine._core.channels) == 0 and not pair.b.heard(Work)


@pytest.mark.parametrize("seconds, good", [(59, True), (121, False)])
def test_cookie_is_good_for_a_minute_or_two(seconds, good):
    pair = Pair()
    honest = third_message(pair)
    pair.now += seconds
    pair.inject(honest)
    assert bool(len(pair.b.engine._core.channels)) is good


def test_message_3_that_is_no_message_3_leaves_no_channel():
    pair = Pair()
    honest = third_message(pair)
    message = open_clear(Header.parse(honest.data), honest.data)
    pair.inject(replace(honest, data=seal_clear(message.header, message.payloads[:1])))
    assert len(pair.b.engine._core.channels) == 0 and "it lacks NONCE" in pair.b.heard(DatagramRefused)[0].reason
    pair.inject(honest)
    assert len(pair.b.engine._core.channels) == 1


def half_open(victim: IkeEngine, addresses) -> None:
    """Messages 1 and 3 of many initiators, who do receive what is sent to them."""
    ours = Pair()
    third = third_message(ours)
    for address in addresses:
        peer = Endpoint(ip_address(address), 500)
        victim.receive_datagram(Datagram(ours.capture[0].data, LOCAL, peer), 0.0)
        [answer] = victim.datagrams_to_send()
        header = replace(Header.parse(third.data), responder_cookie=Header.parse(answer.data).responder_cookie)
        victim.receive_datagram(Datagram(header.pack(third.data[28:]), LOCAL, peer), 0.0)


@pytest.mark.parametrize("addresses", [
    [f"198.19.7.{host}" for host in range(1, 100)], [f"2001:db8:0:7::{host:x}" for host in range(1, 100)],
], ids=["/24", "/64"])
def test_one_neighbourhood_cannot_take_the_whole_budget(addresses):
    victim = engine()
    half_open(victim, addresses)
    assert victim.counters()["half_open_channels"] == 32
    assert victim.bounds(0.0)["max-half-open-per-prefix"] == (32, 32, 67)
    assert "half-open keying channels near" in victim.events()[-1].reason
    half_open(victim, ["203.0.113.1"])
    assert victim.counters()["half_open_channels"] == 33
    assert len([event for event in victim.events() if isinstance(event, Work)]) == 1


def test_half_open_channels_are_bounded_in_all_and_their_memory_comes_back():
    victim = engine(max_half_open=50)
    half_open(victim, [f"198.19.{net}.1" for net in range(100)])
    assert victim.counters()["half_open_channels"] == 50 and len(victim._core.timers) == 50
    victim.handle_deadline(8.1)
    assert len(victim._core.channels) == len(victim._core.timers) == 0 and len(victim._core.timers._heap) <= SLACK
    for table in ("_by_id", "_by_cookies", "_by_peer", "_half_open"):
        assert not getattr(victim._core.channels, table)
    assert len(victim._core.channels._near) == len(victim._core.channels._half_open_near) == 0


@pytest.mark.parametrize("bits, most", [(64, 32), (56, 64), (48, 128)])
def test_owner_of_a_wide_prefix_gets_little_more_than_that_of_a_narrow_one(bits, most):
    victim = engine(max_stranger_work=10**6, max_stranger_work_per_prefix=10**6)
    first = int(ip_address("2001:db8::"))
    half_open(victim, [ip_address(first + (number << 128 - bits) // 200) for number in range(200)])
    assert victim.counters()["half_open_channels"] == most
    half_open(victim, ["2001:db8:1::1", "198.19.1.1"])
    assert victim.counters()["half_open_channels"] == most + 2


def test_full_half_open_channels_make_room_for_a_newcomer_from_where_there_are_most():
    victim = engine(max_half_open=20, max_stranger_work=10**6, max_stranger_work_per_prefix=10**6)
    half_open(victim, ["203.0.113.1", *(f"198.19.1.{host}" for host in range(1, 20)), "198.51.100.1", "192.0.2.1"])
    left = [str(channel.peer.address) for channel in victim._core.channels]
    assert left == ["203.0.113.1", *(f"198.19.1.{host}" for host in range(3, 20)), "198.51.100.1", "192.0.2.1"]
    assert victim.bounds(0.0)["max-half-open"] == (20, 20, 2)


def test_arithmetic_of_strangers_that_may_wait_is_bounded_and_none_of_them_takes_it_all():
    victim = engine(max_stranger_work=6, max_stranger_work_per_prefix=4)
    half_open(victim, [f"198.19.1.{host}" for host in range(1, 9)])
    events = victim.events()
    work = [event for event in events if isinstance(event, Work)]
    assert len(work) == 4 and "there are 4 milliseconds of arithmetic near 198.19.1.8" in events[-1].reason
    half_open(victim, [f"198.19.{net}.1" for net in range(2, 9)])
    events = victim.events()
    assert len([event for event in events if isinstance(event, Work)]) == 2
    assert "6 milliseconds of arithmetic for strangers" in events[-1].reason
    bounds = victim.bounds(0.0)
    assert (bounds["max-stranger-work"], bounds["max-stranger-work-per-prefix"]) == ((6, 6, 5), (4, 4, 4))
    victim.work_done(work[0].id, work[0].calculate(), 0.0)
    victim.datagrams_to_send()
    half_open(victim, ["198.19.9.1"])
    assert len(victim._core.channels) == 7 and victim.bounds(0.0)["max-stranger-work"][0] == 6


def test_arithmetic_for_authenticated_peers_and_ourselves_is_none_of_strangers():
    pair = Pair()
    pair.b.engine = engine(max_stranger_work=5)
    pair.initiate()
    pair.run()
    pair.a.work_delay = pair.b.work_delay = 1e6
    for host in range(20):
        pair.initiate(Flow(ip_address(f"192.1.0.{host + 1}"), BOB))
    pair.run(1)
    assert pair.b.engine.bounds(pair.now)["max-stranger-work"] == (0, 5, 0)
    assert pair.a.engine.counters()["calculations"] == 20


def test_full_keying_channels_make_room_from_those_that_serve_no_tunnel():
    pair = Pair(b=EngineConfig(private_key("b"), max_channels=1))
    tunnel = pair.initiate()
    pair.run(1)
    half_open(pair.b.engine, ["203.0.113.1"])
    assert "1 keying channels" in pair.b.engine.events()[-1].reason
    pair.do(pair.a, pair.a.engine.delete_tunnel, tunnel)
    pair.run(1)
    half_open(pair.b.engine, ["203.0.113.1"])
    assert [str(channel.peer.address) for channel in pair.b.engine._core.channels] == ["203.0.113.1"]
    assert pair.b.engine.bounds(pair.now)["max-channels"] == (1, 1, 2)


def test_channels_of_strangers_are_bounded_in_all_and_ours_are_not():
    pair = Pair(EngineConfig(private_key("a")), EngineConfig(private_key("b"), max_channels=1))
    pair.initiate()
    pair.run(1)
    half_open(pair.b.engine, ["203.0.113.1"])
    assert "1 keying channels" in pair.b.engine.events()[-1].reason
    pair.b.engine.initiate(Flow(BOB, ip_address("203.0.113.2")), SG_B, ip_address("203.0.113.1"),
                           pair.b.heard(TunnelUp)[0].identity, (), pair.now)
    assert len(pair.b.engine.datagrams_to_send()) == 1


@pytest.mark.conformance("C-12.3-02")
def test_peer_keeps_only_its_newest_channels():
    pair = Pair(b=EngineConfig(private_key("b"), max_channels_per_peer=2))
    for number in range(5):
        pair.initiate(Flow(ip_address(f"192.1.0.{number + 1}"), BOB))
        pair.run(1)
        channel_of(pair.a).doubtful = True
    assert [channel.id for channel in pair.b.engine._core.channels] == [4, 5] and len(pair.b.heard(TunnelUp)) == 5
    assert pair.b.messages().count("delete") >= 3
    assert pair.b.engine.bounds(pair.now)["max-channels-per-peer"] == (2, 2, 3)


@pytest.mark.conformance("C-12.3-02")
def test_channels_with_one_neighbourhood_are_bounded():
    pair = Pair(b=EngineConfig(private_key("b"), max_channels_per_prefix=1))
    pair.initiate()
    pair.run(1)
    half_open(pair.b.engine, ["192.1.1.77", "203.0.113.1"])
    assert len(pair.b.engine._core.channels) == 2
    assert pair.b.engine.bounds(pair.now)["max-channels-per-prefix"] == (1, 1, 1)


@pytest.mark.parametrize("budget", ["max_tunnels", "max_tunnels_per_peer", "max_tunnels_per_prefix"])
@pytest.mark.conformance("C-12.3-03")
def test_tunnels_that_peers_propose_are_bounded(budget):
    pair = Pair(EngineConfig(private_key("a")), EngineConfig(private_key("b"), **{budget: 3}))
    for host in range(5):
        pair.initiate(Flow(ip_address(f"192.1.0.{host + 1}"), BOB))
    pair.run()
    assert len(pair.b.heard(TunnelUp)) == 3
    assert "is one more than the 3" in pair.b.heard(DatagramRefused)[0].reason
    assert pair.b.engine.bounds(pair.now)[budget.replace("_", "-")] == (3, 3, 2)
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
        assert all(not table for table in vars(core.channels).values() if isinstance(table, dict | set))
        assert len(core.tunnels._near) == len(core.channels._near) == 0 and not core.tunnels._with_peer
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
