"""100,000 mutated datagrams at the parser and at both roles in every state: nothing is raised but the declared
errors, and nothing changes; the honest handshake still ends well. The seed is fixed.

A message of main mode that is in clear and well-formed cannot be told from the honest one by anybody; where such a
mutation is taken, that engine is thrown away and the next one goes on from the same state.
"""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from oesvc.ike.datagram import Datagram
from oesvc.ike.events import DatagramRefused, MessageSeen, TunnelDeleted, TunnelFailed, TunnelUp
from oesvc.ike.v1 import phase1_offer, phase2_offer
from oesvc.ike.v1.constants import ExchangeType, PayloadType
from oesvc.ike.v1.errors import PeerError
from oesvc.ike.v1.identification import parse_host, parse_identity
from oesvc.ike.v1.offers import RFC4322
from oesvc.ike.v1.wire.header import LAYOUT, Header
from oesvc.ike.v1.wire.message import open_clear, open_encrypted, seal_encrypted
from oesvc.ike.v1.wire.payloads import Deletion, Notification, Payload, pack_chain
from oesvc.ike.v1.wire.proposals import parse_sa
from oesvc.ipsec.sa import Lifetime
from tests.ike.forge import channel_of, deliver
from tests.ike.pair import SG_A, Gateway, Pair

INTERESTING = (0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 20, 28, 32, 127, 128, 255)
EDITS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    lambda data, chance: _set(data, chance, data[chance.randrange(len(data))] ^ 1 << chance.randrange(8)),
    lambda data, chance: _set(data, chance, chance.choice(INTERESTING)),
    lambda data, chance: _set(data, chance, chance.randrange(256)),
    lambda data, chance: data.__delitem__(slice(chance.randrange(len(data)), None)),
    lambda data, chance: data.__delitem__(chance.randrange(len(data))),
    lambda data, chance: data.insert(chance.randrange(len(data)), chance.randrange(256)),
    lambda data, chance: data.extend(data[chance.randrange(len(data)):]),
    lambda data, chance: data.extend(chance.randbytes(chance.randrange(1, 40))),
    lambda data, chance: data.__setitem__(slice(0, 4), chance.choice(INTERESTING).to_bytes(4, "big")),
)


def _set(data: bytearray, chance: random.Random, value: int) -> None:
    data[chance.randrange(len(data))] = value


def mutate(original: bytes, chance: random.Random) -> bytes:
    data = bytearray(original)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        if data:
            chance.choice(EDITS)(data, chance)
    return bytes(data)


def mutate_message(original: bytes, chance: random.Random) -> bytes:
    """Half of the time the header's length is made right again, so that what lies behind it is reached."""
    data = mutate(original, chance)
    if len(data) >= LAYOUT.size and chance.random() < 0.7:
        data = data[:24] + len(data).to_bytes(4, "big") + data[LAYOUT.size:]
    if len(data) > LAYOUT.size and chance.random() < 0.5:
        data = original[:24] + data[24:]
    return data


def handshake_up_to(count: int, seed: object) -> tuple[Pair, Datagram]:
    """A pair in the state in which it awaits the datagram number `count`, and that datagram."""
    held: list[Datagram] = []

    def hold(number: int, datagram: Datagram):
        if number < count:
            return [(0.0, datagram)]
        held.append(datagram)
        return []

    pair = Pair(fault=hold, seed=seed)
    pair.initiate()
    pair.run(0.3)
    return pair, held[0]


def receiver_of(pair: Pair, datagram: Datagram) -> Gateway:
    return pair.a if datagram.local.address == SG_A else pair.b


def progress(gateway: Gateway) -> tuple:
    """What must not change: every channel and tunnel and where it stands."""
    core = gateway.engine._core
    return ([(channel.id, type(channel.main_mode.stage), channel.main_mode.state, channel.standing, channel.cookie_r)
             for channel in core.channels if channel.initiator or channel.peer.address == SG_A],
            [(tunnel.id, tunnel.state, type(tunnel.quick_mode and tunnel.quick_mode.stage)) for tunnel in core.tunnels],
            set(core.tunnels._inbound), len(core.tunnels._by_outbound))


def finishes_well(pair: Pair, honest: Datagram) -> bool:
    pair.fault = lambda number, datagram: [(0.0, datagram)]
    pair.inject(honest)
    pair.run(9)
    return all(gateway.heard(TunnelUp) and not gateway.heard(TunnelFailed) and not gateway.heard(TunnelDeleted)
               for gateway in pair.gateways)


PARSERS = (
    Header.parse, parse_sa, parse_identity, parse_host, Notification.parse, Deletion.parse,
    lambda body: phase1_offer.choose(body, RFC4322, Lifetime(28800), Lifetime(60)),
    lambda body: phase1_offer.accept_choice(body, RFC4322, Lifetime(28800)),
    lambda body: phase2_offer.choose(body, RFC4322, Lifetime(3600), 64),
)


def test_parsers_raise_nothing_but_peer_errors():
    chance, outcomes = random.Random(1), Counter()
    pair = Pair()
    pair.initiate()
    pair.run()
    bodies = [body for datagram in pair.capture[:4]
              for body in open_clear(Header.parse(datagram.data), datagram.data).payloads]
    offer = phase2_offer.offer(RFC4322, RFC4322.phase1[0].group, Lifetime(3600, 100_000), 0x01020304)
    samples = [payload.body for payload in bodies] + [offer] + [datagram.data for datagram in pair.capture]
    for _ in range(40_000):
        data = mutate(chance.choice(samples), chance)
        try:
            chance.choice(PARSERS)(data)
        except PeerError as error:
            outcomes[type(error)] += 1
        else:
            outcomes["taken"] += 1
    assert sum(outcomes.values()) == 40_000 and len(outcomes) >= 4 and outcomes["taken"] > 100


@pytest.mark.parametrize("message", range(4))
def test_mutated_messages_in_clear(message):
    chance, injected, climbed = random.Random(message), 0, 0
    while injected < 5_000:
        pair, honest = handshake_up_to(message, seed=(message, climbed))
        victim = receiver_of(pair, honest)
        before = progress(victim)
        while injected < 5_000 and progress(victim) == before:
            data = mutate_message(honest.data, chance)
            if data == honest.data:
                continue
            injected += 1
            pair.inject(replace(honest, data=data))
        if progress(victim) == before:
            assert finishes_well(pair, honest)
        else:
            climbed += 1
    assert climbed < 2_500, "most mutations are recognised"


@pytest.mark.parametrize("message", range(4, 9))
def test_mutated_messages_under_encryption_change_nothing_at_all(message):
    chance = random.Random(message)
    pair, honest = handshake_up_to(message, seed=message)
    victim = receiver_of(pair, honest)
    before = progress(victim)
    for number in range(5_000):
        data = mutate_message(honest.data, chance)
        if same_but_for_flags(data, honest.data):
            data += b"\0"
        pair.inject(replace(honest, data=data))
        if number % 100 == 0:
            pair.run(0.0)
            assert progress(victim) == before
    assert finishes_well(pair, honest)


def same_but_for_flags(data: bytes, honest: bytes) -> bool:
    """Two flags mean nothing to us, and nothing protects them."""
    return data[:19] + data[20:] == honest[:19] + honest[20:]


def reencrypt(pair: Pair, honest: Datagram, chance: random.Random, right_hash: bool) -> bytes:
    """The honest message with its inside mutated, under the right key and IV, and if wanted with a right HASH."""
    victim = receiver_of(pair, honest)
    channel, header = channel_of(victim), Header.parse(honest.data)
    if header.exchange == ExchangeType.MAIN_MODE:
        state = channel.main_mode.state
    elif header.message_id in channel.quick_modes:
        state = channel.quick_modes[header.message_id].quick_mode.state
    else:
        state = channel.standing.secrets.phase2_state(channel.standing.last_block, header.message_id)
    message, _ = open_encrypted(header, honest.data, state)
    if not right_hash:
        chain = mutate(message.chain, chance)
        while chain.startswith(message.chain):
            chain = mutate(message.chain, chance)
        return header.pack(state.encrypt(chain or bytes(1))[0])
    payloads = list(message.payloads[1:])
    index = chance.randrange(len(payloads))
    payloads[index] = Payload(chance.choice((payloads[index].type, payloads[index].type, chance.randrange(1, 30))),
                              mutate(payloads[index].body, chance))
    message_id = chance.randrange(1, 2**32)
    state = channel.standing.secrets.phase2_state(channel.standing.last_block, message_id)
    digest = channel.standing.secrets.prf_a(message_id.to_bytes(4, "big") + pack_chain(payloads))
    return seal_encrypted(replace(header, message_id=message_id), [Payload(PayloadType.HASH, digest), *payloads],
                          state)[0]


@pytest.mark.parametrize("message", range(4, 9))
def test_mutated_insides_correctly_encrypted_change_nothing_at_all(message):
    chance = random.Random(message)
    pair, honest = handshake_up_to(message, seed=message)
    victim = receiver_of(pair, honest)
    before = progress(victim)
    for _ in range(2_000):
        data = reencrypt(pair, honest, chance, right_hash=False)
        pair.inject(replace(honest, data=data))
        pair.run(0.0)
    assert progress(victim) == before
    assert finishes_well(pair, honest)


def test_mutated_quick_modes_with_right_hashes_are_refused_or_proposals_like_any_other():
    """An authenticated peer gone mad: what it may cost is bounded, and the honest tunnel still comes up."""
    chance, refused, seen = random.Random(99), 0, Counter()
    for round in range(4):
        pair, honest = handshake_up_to(6, seed=round)
        pair.b.authorizes = True
        for _ in range(1_000):
            deliver(pair, pair.a, reencrypt(pair, honest, chance, right_hash=True))
        seen.update(event.name for event in pair.b.heard(MessageSeen) if event.name.startswith(("notify", "quick")))
        refused += len(pair.b.heard(DatagramRefused))
        pair.fault = lambda number, datagram: [(0.0, datagram)]
        pair.inject(honest)
        pair.run(9)
        assert pair.a.heard(TunnelUp) and len(pair.b.heard(TunnelUp)) == 1
        core = pair.b.engine._core
        assert {tunnel.state.name for tunnel in core.tunnels} == {"UP"} and len(core.tunnels._inbound) == 1
    assert refused > 1_000 and seen["quick mode 2"] > 100
    assert {name for name in seen if name.startswith("notify")} >= {
        "notify NO-PROPOSAL-CHOSEN", "notify INVALID-ID-INFORMATION"}


def test_mutated_informational_messages_with_right_hashes():
    """Deletes and notifies of an authenticated peer: only the tunnels that they name may go."""
    chance = random.Random(7)
    pair = Pair()
    pair.initiate()
    pair.run()
    channel, spi = channel_of(pair.a), b"\1\2\3\4"
    samples = [Payload(PayloadType.DELETE, Deletion(3, (spi, b"\5\6\7\10")).pack()),
               Payload(PayloadType.NOTIFICATION, Notification(3, 14, spi, b"why").pack()),
               Payload(PayloadType.NOTIFICATION, Notification(1, 24576, bytes(16)).pack())]
    for number in range(1, 3_001):
        payload = chance.choice(samples)
        mutated = [Payload(payload.type, mutate(payload.body, chance)) for _ in range(chance.choice((1, 1, 2)))]
        digest = channel.standing.secrets.prf_a(number.to_bytes(4, "big") + pack_chain(mutated))
        data, _ = seal_encrypted(channel.header(ExchangeType.INFORMATIONAL, number),
                                 [Payload(PayloadType.HASH, digest), *mutated],
                                 channel.standing.secrets.phase2_state(channel.standing.last_block, number))
        deliver(pair, pair.a, data)
    assert not pair.b.heard(TunnelDeleted) and len(pair.b.engine._core.tunnels._inbound) == 1
    pair.do(pair.a, pair.a.engine.delete_tunnel, 1)
    pair.run(1)
    assert pair.b.heard(TunnelDeleted)
