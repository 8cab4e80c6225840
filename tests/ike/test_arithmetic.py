"""Slow arithmetic is done elsewhere; while it is, and when it fails, nothing goes wrong."""

import gc
from dataclasses import replace
from functools import partial

import pytest

from oesvc.ike.crypto.groups import EcpKeyPair
from oesvc.ike.events import DatagramRefused, Job, TunnelFailed, TunnelGone, TunnelUp, Work
from oesvc.ike.failures import KeyingFailure
from oesvc.ike.v1.config import EngineConfig
from oesvc.ike.v1.core import _attempt
from oesvc.ike.v1.offers import MODERN
from oesvc.ike.v1.wire.header import Header
from oesvc.ike.v1.wire.message import open_clear, seal_clear
from oesvc.ike.v1.wire.payloads import Payload
from tests.ike.forge import deliver
from tests.ike.pair import Pair, private_key

CALCULATIONS = (5, 3)
"Of a handshake: by the initiator, and by the responder."


def slow_pair(seconds: float) -> Pair:
    pair = Pair()
    for gateway in pair.gateways:
        gateway.work_delay = seconds
    return pair


def test_handshake_takes_its_time_but_loses_nothing():
    pair = slow_pair(0.3)
    pair.initiate()
    pair.run()
    assert pair.a.heard(TunnelUp) and pair.b.heard(TunnelUp)
    assert tuple(len(gateway.heard(Work)) for gateway in pair.gateways) == CALCULATIONS


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.29, 0.31])
def test_messages_doubled_while_they_are_worked_on_are_taken_once(delay):
    pair = slow_pair(0.3)
    pair.fault = lambda number, datagram: [(0.0, datagram), (delay, datagram)]
    pair.initiate()
    pair.run()
    for gateway in pair.gateways:
        assert len(gateway.heard(TunnelUp)) == 1
    assert tuple(len(gateway.heard(Work)) for gateway in pair.gateways) == CALCULATIONS


def test_arithmetic_that_never_ends_is_given_up_in_time():
    pair = slow_pair(1e6)
    pair.initiate()
    pair.run(8.1)
    [failed] = pair.a.heard(TunnelFailed)
    assert failed.failure is KeyingFailure.PEER_SILENT
    assert all(len(gateway.engine._core.channels) == 0 for gateway in pair.gateways)


@pytest.mark.parametrize("seconds", [0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.1, 1.3, 1.6])
def test_result_that_comes_when_all_is_over_is_of_no_account(seconds):
    pair = slow_pair(0.25)
    tunnel = pair.initiate()
    pair.run(seconds)
    pair.do(pair.a, pair.a.engine.delete_tunnel, tunnel)
    pair.do(pair.b, pair.b.engine.close)
    pair.run(60)
    assert pair.a.heard(TunnelGone)
    for gateway in pair.gateways:
        assert len(gateway.engine._core.tunnels) == 0 and gateway.engine.counters()["calculations"] == 0


def with_public_value(pair: Pair, number: int, value: bytes) -> bytes:
    data = pair.capture[number].data
    message = open_clear(Header.parse(data), data)
    return seal_clear(message.header, [replace(message.payloads[0], body=value), *message.payloads[1:]])


@pytest.mark.parametrize("message", [2, 3])
def test_public_value_that_is_none_is_found_out_and_the_right_one_still_welcome(message):
    pair = slow_pair(0.05)
    held = []
    pair.fault = lambda number, datagram: [(0.0, datagram)] if number < message else held.append(datagram) or []
    pair.initiate()
    pair.run(0.3)
    sender = pair.a if held[0].peer.address == pair.a.address else pair.b
    victim = pair.b if sender is pair.a else pair.a
    deliver(pair, sender, with_public_value(pair, message, bytes(64)))
    pair.run(0.2)
    assert "no point of the curve" in victim.heard(DatagramRefused)[-1].reason
    pair.fault = lambda number, datagram: [(0.0, datagram)]
    pair.run()
    assert pair.a.heard(TunnelUp) and pair.b.heard(TunnelUp)


def test_other_message_that_comes_meanwhile_is_dropped_not_queued():
    pair = slow_pair(0.3)
    pair.initiate()
    pair.run(0.35)
    data = pair.capture[2].data
    message = open_clear(Header.parse(data), data)
    pair.run(0.05)
    deliver(pair, pair.a, seal_clear(message.header, [*message.payloads, Payload(13, b"another")]))
    assert "still busy" in pair.b.heard(DatagramRefused)[0].reason
    pair.run()
    assert pair.a.heard(TunnelUp)


def test_message_is_not_repeated_while_its_answer_is_being_worked_on():
    pair = Pair()
    pair.a.work_delay = 0.7
    pair.initiate()
    pair.run(8.0)
    assert pair.a.heard(TunnelUp)
    datagrams = [datagram.data for datagram in pair.capture if datagram.local.address == pair.a.address]
    assert len(datagrams) == len(set(datagrams)) == 5


def test_arithmetic_of_an_exchange_that_has_ended_is_not_done():
    pair = slow_pair(1e6)
    tunnel = pair.initiate()
    pair.run(0.1)
    [work] = pair.a.heard(Work)
    assert work.calculate() is not None
    pair.do(pair.a, pair.a.engine.delete_tunnel, tunnel)
    pair.run(8.1)
    assert work.calculate() is None


def test_arithmetic_of_a_stranger_whose_time_is_over_is_not_done():
    pair = slow_pair(0.0)
    pair.b.work_delay = 1e6
    pair.initiate()
    pair.run(0.1)
    [work] = pair.b.heard(Work)
    assert work.calculate() is not None
    pair.run(9)
    assert work.calculate() is None and len(pair.b.engine._core.channels) == 0


def ranks(pair: Pair) -> list[list[int]]:
    return [[work.calculate.rank for work in gateway.heard(Work)] for gateway in pair.gateways]


def test_ours_goes_first_then_peers_then_strangers():
    pair = Pair()
    pair.initiate()
    pair.run()
    ours, [key_exchange, signature, phase_2] = ranks(pair)
    assert max(ours) < phase_2 < key_exchange < signature


def test_what_takes_long_goes_after_what_does_not():
    cheap, dear = Pair(), Pair(*(EngineConfig(private_key(name), replace(MODERN, phase1=MODERN.phase1[8:9]))
                                 for name in "ab"))
    for pair in (cheap, dear):
        pair.initiate()
        pair.run()
        assert pair.a.heard(TunnelUp)
    assert max(ranks(cheap)[1]) < min(ranks(dear)[1][0], ranks(dear)[1][2])


def test_arithmetic_that_fails_by_a_fault_of_ours_says_so_and_holds_no_budget():
    pair = Pair()
    pair.b.work_delay = 1e6
    pair.initiate()
    pair.run(0.5)
    core = pair.b.engine._core
    [work] = pair.b.heard(Work)
    assert core.backlog.waiting
    fault = Job(0, partial(_attempt, lambda: 1 // 0, lambda: True))()
    with pytest.raises(ZeroDivisionError):
        pair.b.engine.work_done(work.id, fault, pair.now)
    assert not core.backlog.waiting and not core.work_under_way


def key_pairs() -> set[int]:
    gc.collect()
    return {id(object) for object in gc.get_objects() if isinstance(object, EcpKeyPair)}


def test_key_pair_is_forgotten_when_its_secret_is_made():
    """Perfect forward secrecy (RFC 2409 section 3.3), and a kilobyte for each tunnel."""
    before, pair = key_pairs(), Pair()
    pair.initiate()
    pair.run(0.025)
    assert len(key_pairs() - before) == 1
    pair.run(2)
    assert pair.a.heard(TunnelUp)
    pair.a.events.clear()  # with the calculations that this diary has of them
    assert not key_pairs() - before
