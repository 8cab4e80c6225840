"""Large messages over paths that carry only small ones, and fragments from who means no good."""

import random
from dataclasses import replace

import pytest

from oesvc.ike.crypto.groups import Group
from oesvc.ike.datagram import Datagram
from oesvc.ike.events import DatagramRefused, TunnelUp
from oesvc.ike.v1.config import EngineConfig
from oesvc.ike.v1.constants import MAX_FRAGMENTS, PayloadType
from oesvc.ike.v1.fragments import FIELDS, LARGEST, LONGEST, PATIENCE, PER_CHANNEL, Fragments, split
from oesvc.ike.v1.offers import MODERN
from oesvc.ike.v1.wire.header import Header
from oesvc.ike.v1.wire.message import seal_clear
from oesvc.ike.v1.wire.payloads import Payload
from tests.ike.forge import channel_of, deliver
from tests.ike.pair import Pair, private_key

SMALL_PATH = LARGEST + 4
"Octets of UDP payload that go through."


def large(**settings: object) -> EngineConfig:
    """Quick mode with a public value of 1,024 octets and all transforms is more than a small path carries."""
    suite = replace(MODERN.phase1[0], group=Group.MODP_8192)
    return EngineConfig(settings.pop("key"), profile=replace(MODERN, phase1=(suite,)), **settings)


def narrow(number: int, datagram: Datagram):
    return [(0.0, datagram)] if len(datagram.data) <= SMALL_PATH else []


@pytest.mark.parametrize("order", ["kept", "random"])
def test_large_messages_come_through_a_small_path(order):
    chance = random.Random(1)

    def path(number, datagram):
        delay = chance.random() / 100 if order == "random" else 0.0
        return [(delay, copy) for _, copy in narrow(number, datagram)]

    pair = Pair(large(key=private_key("a")), large(key=private_key("b")), fault=path)
    pair.initiate()
    pair.run()
    assert pair.a.heard(TunnelUp) and pair.b.heard(TunnelUp)
    assert max(len(datagram.data) for datagram in pair.capture) <= LARGEST


def test_peer_that_does_not_announce_it_gets_whole_messages():
    pair = Pair(large(key=private_key("a")), large(key=private_key("b"), extensions=frozenset()))
    pair.initiate()
    pair.run()
    assert pair.a.heard(TunnelUp) and max(len(datagram.data) for datagram in pair.capture) > LARGEST


def fragment(pair: Pair, id: int, number: int, flags: int, octets: bytes) -> None:
    header = replace(channel_of(pair.a).header(32, 5), next_payload=PayloadType.FRAGMENT)
    deliver(pair, pair.a, seal_clear(header, [Payload(PayloadType.FRAGMENT, FIELDS.pack(id, number, flags) + octets)]))


def keyed() -> Pair:
    pair = Pair()
    pair.initiate()
    return pair.run(1)


def test_fragments_that_make_no_sense_change_nothing():
    pair = keyed()
    header = channel_of(pair.a).header(32, 5)
    fragment(pair, 1, 0, 0, b"x")
    fragment(pair, 1, MAX_FRAGMENTS + 1, 0, b"x")
    fragment(pair, 1, 1, 1, b"")
    fragment(pair, 2, 1, 1, b"x" * 100)
    fragment(pair, 3, 1, 1, replace(header, initiator_cookie=b"\1" * 8).pack(b"x"))
    fragment(pair, 4, 1, 1, replace(header, next_payload=PayloadType.FRAGMENT).pack(b"x"))
    reasons = [event.reason for event in pair.b.heard(DatagramRefused)]
    assert len(reasons) == 6 and "fragment 0" in reasons[0] and "without octets" in reasons[2]
    assert "no message of their channel" in reasons[4] and "no message of their channel" in reasons[5]


def test_pieces_of_messages_never_finished_are_forgotten_with_the_next():
    pair = keyed()
    for id in range(1000):
        for number in range(1, 4):
            fragment(pair, id, number, 0, bytes(1000))
    assert PER_CHANNEL * 3000 <= memory(pair) <= PER_CHANNEL * 4000
    pair.now += PATIENCE + 1
    fragment(pair, 5, 1, 0, b"x")
    assert 0 < memory(pair) < 1000 and len(pair.b.engine._core.fragments._of_channel) == 1


def test_pieces_of_one_message_are_bounded():
    pair = keyed()
    for number in range(1, MAX_FRAGMENTS + 1):
        fragment(pair, 1, number, 0, bytes(60_000))
    assert memory(pair) <= LONGEST
    assert f"more than {LONGEST} octets" in pair.b.heard(DatagramRefused)[-1].reason


def memory(pair: Pair) -> int:
    return pair.b.engine.bounds(pair.now)["max-fragment-octets"][0]


def message(exchange: int, message_id: int, octets: int) -> bytes:
    return Header(b"\1" * 8, b"\2" * 8, 5, exchange, 1, message_id).pack(random.Random(octets).randbytes(octets))


def feed(fragments: Fragments, pieces) -> list[bytes]:
    taken = [fragments.take(Header.parse(piece), piece, 0.0) for piece in pieces]
    return [whole for whole in taken if whole is not None]


@pytest.mark.parametrize("again", [(2, 0), (32, 77)], ids=["of the same exchange", "of another"])
def test_leftovers_of_a_message_mix_with_no_other_that_has_its_number(again):
    fragments, first, second = Fragments(10**6), message(2, 0, 2500), message(*again, 2600)
    assert feed(fragments, split(first, 1)) == [first]
    for lost in 2, 1:
        feed(fragments, [piece for number, piece in enumerate(split(first, 1)) if number != lost])
        assert feed(fragments, split(second, 1)) == [second]


def test_two_messages_come_whole_though_their_pieces_come_in_turns():
    fragments, first, second = Fragments(10**6), message(32, 7, 2500), message(32, 8, 2500)
    turns = [piece for both in zip(split(first, 1), split(second, 1), strict=True) for piece in both]
    assert feed(fragments, turns) == [first, second] and fragments.memory == 0 and not fragments._of_channel


def test_pieces_of_all_channels_together_are_bounded_and_the_newest_stay():
    fragments = Fragments(20_000)
    for number in range(1, 101):
        header = Header(number.to_bytes(8, "big"), b"\2" * 8, 5, 2, 0, 0)
        feed(fragments, split(header.pack(bytes(2500)), 1)[:2])
        assert fragments.memory <= 20_000
    assert 5 <= len(fragments._partials) <= 8 and fragments.lost == 100 - len(fragments._partials)
    assert feed(fragments, split(header.pack(bytes(2500)), 1)[2:]) == [header.pack(bytes(2500))]


def test_fragments_are_not_kept_where_we_have_not_announced_that_we_take_them():
    pair = Pair(b=EngineConfig(private_key("b"), extensions=frozenset()))
    pair.initiate()
    pair.run(1)
    fragment(pair, 1, 1, 0, bytes(1000))
    assert memory(pair) == 0 and "not announced" in pair.b.heard(DatagramRefused)[-1].reason


def test_split_and_whole():
    header = Header(b"\1" * 8, b"\2" * 8, 8, 32, 1, 77)
    assert split(header.pack(bytes(100)), 1) == [header.pack(bytes(100))]
    pieces = split(header.pack(bytes(3000)), 1)
    assert len(pieces) == 3 and all(len(piece) <= LARGEST and Header.parse(piece).flags == 0 for piece in pieces)
