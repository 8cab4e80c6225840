"""Slow arithmetic is done elsewhere; while it is, and when it fails, nothing goes wrong."""

from dataclasses import replace

import pytest

from oesvc.ike.events import DatagramRefused, TunnelFailed, TunnelGone, TunnelUp, Work
from oesvc.ike.failures import KeyingFailure
from oesvc.ike.v1.wire.header import Header
from oesvc.ike.v1.wire.message import open_clear, seal_clear
from oesvc.ike.v1.wire.payloads import Payload
from tests.ike.forge import deliver
from tests.ike.pair import Pair

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
