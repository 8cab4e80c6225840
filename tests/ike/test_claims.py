"""Who an initiator claims to be, and what the DNS says of it: never mixed up, never worth more work than it costs."""

from collections.abc import Sequence

import pytest

from oesvc.ike.crypto.signatures import sign
from oesvc.ike.events import ChannelFailed, ChannelUp, DatagramRefused, KeysWanted, Work
from oesvc.ike.failures import KeyingFailure
from oesvc.ike.identity import FqdnIdentity, Identity
from oesvc.ike.v1.config import EngineConfig
from oesvc.ike.v1.constants import MAX_VERIFICATIONS, ExchangeType, PayloadType
from oesvc.ike.v1.identification import pack_identity
from oesvc.ike.v1.wire.message import seal_encrypted
from oesvc.ike.v1.wire.payloads import Payload
from tests.ike.forge import channel_of, deliver
from tests.ike.pair import Pair, private_key, public_key

P = PayloadType
MALLORY, BANK = FqdnIdentity("mallory.example"), FqdnIdentity("bank.example")


@pytest.fixture
def pair() -> Pair:
    """SG-A says that it is Mallory, and SG-B asks a DNS that does not answer by itself."""
    pair = Pair(EngineConfig(private_key("a"), identity=MALLORY))
    pair.b.dns_delay = None
    pair.initiate()
    pair.run(0.2)
    assert [wanted.identity for wanted in pair.b.heard(KeysWanted)] == [MALLORY]
    return pair


def claim(pair: Pair, identity: Identity, signature: bytes | None = None) -> None:
    """Another message 5, signed with SG-A's key."""
    channel = channel_of(pair.a)
    agreement = channel.main_mode.stage.agreement
    id_body = pack_identity(identity)
    payloads = [Payload(P.IDENTIFICATION, id_body),
                Payload(P.SIGNATURE, signature or sign(private_key("a"), agreement.hash_i(id_body)))]
    deliver(pair, pair.a, seal_encrypted(channel.header(ExchangeType.MAIN_MODE, 0), payloads,
                                         agreement.secrets.first_state(agreement.public_i, agreement.public_r))[0])


def found(pair: Pair, identity: Identity, keys: Sequence[str]) -> None:
    [wanted] = [wanted for wanted in pair.b.heard(KeysWanted) if wanted.identity == identity]
    pair.do(pair.b, pair.b.engine.keys_found, wanted.channel, identity, [public_key(name) for name in keys])


def proved(pair: Pair) -> list[Identity]:
    return [up.identity for up in pair.b.heard(ChannelUp)]


def test_late_keys_of_one_identity_prove_no_claim_to_be_another(pair):
    pair.run(5.0)
    claim(pair, BANK)
    found(pair, MALLORY, "a")
    assert proved(pair) == []
    found(pair, BANK, ["bank"])
    assert proved(pair) == [] and "none of 1 keys" in pair.b.heard(DatagramRefused)[-1].reason
    claim(pair, MALLORY)
    assert proved(pair) == [MALLORY]


def test_late_word_that_one_identity_has_no_keys_refuses_no_claim_to_be_another(pair):
    pair.run(5.0)
    claim(pair, BANK)
    pair.do(pair.b, pair.b.engine.keys_missing, pair.b.heard(KeysWanted)[0].channel, MALLORY, "it has none")
    found(pair, BANK, "a")
    assert proved(pair) == [BANK]


def test_keys_of_another_identity_renew_no_channel():
    """A look-up that was begun before the channel stood may end while it is being replaced."""
    pair = Pair()
    pair.initiate()
    pair.run(2)
    channel = channel_of(pair.b)
    channel.wants_keys, begun = True, len(list(pair.b.engine._core.channels))
    pair.do(pair.b, pair.b.engine.keys_found, channel.id, BANK, [public_key("bank")])
    assert len(list(pair.b.engine._core.channels)) == begun
    pair.do(pair.b, pair.b.engine.keys_found, channel.id, channel.standing.identity, [public_key("a")])
    assert len(list(pair.b.engine._core.channels)) == begun + 1


def test_signatures_that_do_not_verify_end_the_channel_before_they_are_much_work(pair):
    found(pair, MALLORY, ["another"])
    for number in range(20):
        channels = pair.b.engine._core.channels
        claim(pair, MALLORY, bytes([number]) * 256)
        assert len(channels) == (number < MAX_VERIFICATIONS - 2)
    assert len(pair.b.heard(Work)) == 1 + MAX_VERIFICATIONS
    [failed] = pair.b.heard(ChannelFailed)
    assert failed.failure is KeyingFailure.WRONG_SIGNATURE and proved(pair) == []


def test_claims_that_cost_no_arithmetic_leave_time_for_the_right_one(pair):
    pair.do(pair.b, pair.b.engine.keys_missing, pair.b.heard(KeysWanted)[0].channel, MALLORY, "it has none yet")
    for _ in range(20):
        claim(pair, MALLORY)
    found(pair, MALLORY, "a")
    claim(pair, MALLORY)
    assert proved(pair) == [MALLORY]
