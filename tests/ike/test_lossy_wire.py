"""A wire that loses, doubles, delays and reorders: keying comes through, or ends cleanly."""

import random

import pytest

from oesvc.ike.events import ChannelUp, DatagramRefused, KeysWanted, TunnelFailed, TunnelProposed, TunnelUp
from oesvc.ike.v1.engine import IkeEngine
from oesvc.interfaces import KeyingEngine
from tests.ike.forge import deliver
from tests.ike.pair import ALICE_TO_BOB, Gateway, Pair

MESSAGES = range(9)


def keyed_once(gateway: Gateway) -> bool:
    return (len(gateway.heard(ChannelUp)) == len(gateway.heard(TunnelUp)) == 1 and not gateway.heard(TunnelFailed)
            and len(gateway.tunnel_sas()) == 2)


def test_faithful_wire_carries_nine_datagrams():
    pair = Pair()
    pair.initiate()
    pair.run(60)
    assert len(pair.capture) == len(MESSAGES)


@pytest.mark.parametrize("victim", MESSAGES)
def test_each_datagram_lost_once(victim):
    pair = Pair(fault=lambda number, datagram: [] if number == victim else [(0.0, datagram)])
    pair.initiate()
    pair.run()
    assert keyed_once(pair.a) and keyed_once(pair.b)
    assert set(pair.a.tunnel_sas()) == set(pair.b.tunnel_sas())


@pytest.mark.parametrize("delay", [0.0, 0.005, 0.4, 3.0, 30.0])
@pytest.mark.parametrize("victim", MESSAGES)
def test_each_datagram_doubled(victim, delay):
    pair = Pair(fault=lambda number, datagram: [(0.0, datagram)] + [(delay, datagram)] * (number == victim))
    pair.initiate()
    pair.run(40)
    assert keyed_once(pair.a) and keyed_once(pair.b)
    assert len(pair.b.heard(KeysWanted)) == len(pair.b.heard(TunnelProposed)) == 1


@pytest.mark.parametrize("victim", MESSAGES)
def test_each_datagram_overtaken_by_its_repetition_and_what_follows(victim):
    pair = Pair(fault=lambda number, datagram: [(0.7 if number == victim else 0.0, datagram)])
    pair.initiate()
    pair.run()
    assert keyed_once(pair.a) and keyed_once(pair.b)


def test_everything_doubled():
    pair = Pair(fault=lambda number, datagram: [(0.0, datagram), (0.001, datagram)])
    pair.initiate()
    pair.run(20)
    assert keyed_once(pair.a) and keyed_once(pair.b)
    assert len(pair.capture) == len(MESSAGES) + 1, "a repetition that comes at once is answered to main mode 1 only"


@pytest.mark.parametrize("seed", range(40))
def test_random_losses_doublings_and_delays_leave_both_keyed_or_nothing_behind(seed):
    chance = random.Random(seed)

    def fault(number, datagram):
        copies = chance.choices([0, 1, 2], [30, 55, 15])[0]
        return [(chance.choice([0, 0, 0.02, 0.3, 1.0]), datagram) for _ in range(copies)]

    pair = Pair(fault=fault, seed=seed)
    pair.initiate()
    pair.run(30)
    for gateway in pair.gateways:
        core = gateway.engine._core
        assert core.channels.half_open() == 0
        assert {tunnel.state.name for tunnel in core.tunnels} <= {"UP"}
    if pair.a.heard(TunnelUp) and pair.b.heard(TunnelUp):
        ours, theirs = (set(gateway.tunnel_sas()) for gateway in pair.gateways)
        assert ours & theirs


@pytest.mark.parametrize("message", [2, 4, 6])
def test_flood_of_one_repeated_datagram_is_answered_at_a_bounded_rate(message):
    pair = Pair(fault=lambda number, datagram: [(0.0, datagram)] if number <= message else [])
    pair.initiate()
    pair.run(0.2)
    before = len(pair.capture)
    for _ in range(1000):
        pair.now += 0.001
        deliver(pair, pair.a, pair.capture[message].data)
    assert len([datagram for datagram in pair.capture[before:] if datagram.local.address == pair.b.address]) <= 5


def test_repeated_first_message_is_answered_by_no_more_octets_than_it_has():
    """It has to be answered each time, for nothing is remembered of it; so it is of no use for reflection."""
    pair = Pair(fault=lambda number, datagram: [])
    pair.initiate()
    for _ in range(100):
        deliver(pair, pair.a, pair.capture[0].data)
    answers = [datagram.data for datagram in pair.capture if datagram.local.address == pair.b.address]
    assert len(answers) == 100 and max(map(len, answers)) < len(pair.capture[0].data)
    assert len(pair.b.engine._core.channels) == 0


@pytest.mark.parametrize("skew", [0.0, 0.005, 0.015, 0.025, 0.2])
def test_both_ends_begin_at_the_same_time(skew):
    pair = Pair()
    pair.initiate()
    pair.run(skew)
    pair.initiate(ALICE_TO_BOB.reversed(), by=pair.b)
    pair.run(30)
    for gateway in pair.gateways:
        assert gateway.heard(TunnelUp) and not gateway.heard(TunnelFailed)
        assert gateway.engine._core.channels.half_open() == 0
    assert set(pair.a.tunnel_sas()) == set(pair.b.tunnel_sas())


def test_engine_fits_the_seam():
    calls = [name for name in vars(KeyingEngine) if not name.startswith("_")]
    assert calls and all(callable(getattr(IkeEngine, name)) for name in calls)


def test_repeated_refusals_are_told_but_change_nothing():
    pair = Pair()
    pair.initiate()
    pair.run(60)
    before = [len(gateway.engine._core.timers) for gateway in pair.gateways]
    for datagram in list(pair.capture):
        pair.inject(type(datagram)(datagram.data, datagram.peer, datagram.local))
    pair.run(60)
    assert [len(gateway.engine._core.timers) for gateway in pair.gateways] <= before
    assert keyed_once(pair.a) and keyed_once(pair.b)
    assert pair.b.heard(DatagramRefused)
