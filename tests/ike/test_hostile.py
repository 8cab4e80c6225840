"""Authentic messages of which a part is wrong: no part of them counts. (Hostile octets in general: fuzz/.)"""

from dataclasses import replace

import pytest

from fuzz.forging import seal
from fuzz.ladders import Attempt, step, way
from fuzz.seeds import honest
from oesvc.ike.events import DatagramRefused, SasReady, TunnelFailed, TunnelProposed, TunnelUp
from oesvc.ike.v1.constants import NotifyType, PayloadType, Protocol
from oesvc.ike.v1.wire.payloads import Notification, Payload, pack_chain
from tests.ike.forge import channel_of, deliver, informational
from tests.ike.pair import Pair

REFUSAL = Notification(Protocol.ESP, NotifyType.NO_PROPOSAL_CHOSEN, b"\1\2\3\4")
ALIVE = Notification(Protocol.ISAKMP, NotifyType.R_U_THERE, bytes(16), b"\0\0\0\1")
UNREADABLE = {protocol.name: Notification(protocol, NotifyType.RESPONDER_LIFETIME, bytes(16), b"\1")
              for protocol in (Protocol.ISAKMP, Protocol.ESP)}


def tell(pair: Pair, *notices: Notification) -> None:
    deliver(pair, pair.a, informational(channel_of(pair.a), 77, *map(payload, notices)))


def payload(notice: Notification) -> Payload:
    return Payload(PayloadType.NOTIFICATION, notice.pack())


def awaiting_quick_mode_3() -> Pair:
    pair = Pair(fault=lambda number, datagram: [(0.4 if number == 8 else 0.0, datagram)])
    pair.initiate()
    return pair.run(0.3)


@pytest.mark.parametrize("wrong", [ALIVE, *UNREADABLE.values()], ids=["R-U-THERE", *UNREADABLE])
def test_refusal_beside_a_notice_that_cannot_be_acted_on_refuses_nothing(wrong):
    pair = awaiting_quick_mode_3()
    tell(pair, REFUSAL, wrong)
    assert pair.b.heard(DatagramRefused) and not pair.b.heard(TunnelFailed)
    pair.run()
    assert pair.b.heard(TunnelUp)


def test_refusal_alone_does():
    pair = awaiting_quick_mode_3()
    tell(pair, REFUSAL)
    assert pair.b.heard(TunnelFailed)


def test_two_questions_of_liveness_in_one_message_are_not_answered():
    pair = awaiting_quick_mode_3()
    sent = len(pair.capture)
    tell(pair, ALIVE, ALIVE)
    assert pair.b.heard(DatagramRefused) and len(pair.capture) == sent


@pytest.mark.parametrize("wrong", UNREADABLE)
@pytest.mark.parametrize("number, victim", [(6, "b"), (7, "a")])
def test_quick_mode_with_a_lifetime_that_cannot_be_read_is_not_taken(number, victim, wrong):
    attempt, (header, shape) = Attempt(step(number), victim), way(number, victim)
    chain = pack_chain([*honest(number, victim), payload(UNREADABLE[wrong])])
    data, proven = seal(attempt.victim, header, PayloadType.HASH, chain)
    told = attempt.inject(replace(shape, data=data))
    assert proven and isinstance(told[-1], DatagramRefused)
    assert not any(isinstance(event, TunnelProposed | SasReady) for event in told)
    if victim == "a":
        attempt.ends_well()
