"""The commit bit: RFC 2408 section 3.1. We never set it; a peer may."""

import pytest

from oesvc.ike.datagram import Datagram
from oesvc.ike.events import TunnelUp
from oesvc.ike.v1.constants import COMMIT_WAIT, Flag, NotifyType, PayloadType, Protocol
from oesvc.ike.v1.wire.payloads import Notification, Payload
from tests.ike.forge import channel_of, deliver, informational
from tests.ike.pair import Pair

QUICK_MODE_1, QUICK_MODE_2 = 6, 7


def committed(message: int) -> tuple[Pair, object, object]:
    """A pair after a quick mode in which the sender of a message has set the bit; who waits, and who has set it."""
    def set_bit(number: int, datagram: Datagram):
        data = bytearray(datagram.data)
        if number == message:
            data[19] |= Flag.COMMIT
        return [(0.0, Datagram(bytes(data), datagram.local, datagram.peer))]

    pair = Pair(fault=set_bit)
    pair.initiate()
    pair.run(1)
    waiting, setter = (pair.b, pair.a) if message == QUICK_MODE_1 else (pair.a, pair.b)
    return pair, waiting, setter


def say_connected(pair: Pair, setter, spi: int, message_id: int) -> None:
    notification = Notification(Protocol.ESP, NotifyType.CONNECTED, spi.to_bytes(4, "big"))
    payload = Payload(PayloadType.NOTIFICATION, notification.pack())
    deliver(pair, setter, informational(channel_of(setter), message_id, payload))


@pytest.mark.parametrize("message", [QUICK_MODE_1, QUICK_MODE_2])
def test_tunnel_is_up_when_the_peer_says_connected_and_only_once(message):
    pair, waiting, setter = committed(message)
    assert setter.heard(TunnelUp) and not waiting.heard(TunnelUp)
    [tunnel] = waiting.engine._core.tunnels
    say_connected(pair, setter, 0x01020304, tunnel.quick_mode.message_id)
    assert not waiting.heard(TunnelUp), "another SPI"
    for _ in range(2):
        say_connected(pair, setter, tunnel.inbound_spi, tunnel.quick_mode.message_id)
    pair.run(10)
    assert len(waiting.heard(TunnelUp)) == 1


def test_connected_may_have_a_message_id_of_its_own():
    pair, waiting, setter = committed(QUICK_MODE_2)
    [tunnel] = waiting.engine._core.tunnels
    say_connected(pair, setter, tunnel.outbound_spi, 4711)
    assert waiting.heard(TunnelUp)


@pytest.mark.parametrize("message", [QUICK_MODE_1, QUICK_MODE_2])
def test_connected_that_is_lost_delays_the_tunnel_but_does_not_end_it(message):
    pair, waiting, _ = committed(message)
    pair.run(COMMIT_WAIT)
    assert len(waiting.heard(TunnelUp)) == 1
