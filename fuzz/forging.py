"""Messages of a peer that has the right keys: the fuzzer writes the payloads, the secrets are those of the victim."""

from collections.abc import Callable
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from oesvc.ike.crypto.cipher import CbcState
from oesvc.ike.crypto.keymat import Secrets
from oesvc.ike.crypto.signatures import sign
from oesvc.ike.v1.channels import Channel
from oesvc.ike.v1.constants import ExchangeType, Flag, PayloadType
from oesvc.ike.v1.errors import PeerError
from oesvc.ike.v1.main_mode import Agreement
from oesvc.ike.v1.quick_mode import AnswerSent, Proposed
from oesvc.ike.v1.wire.header import Header
from oesvc.ike.v1.wire.payloads import GENERIC_HEADER, Payload, pack_chain, parse_chain
from tests.ike.forge import channel_of
from tests.ike.pair import Gateway, private_key

RIGHT = b"RIGHT"
"As the body of a HASH or a SIGNATURE: what would be right there. So the corpus holds for any keys."

SPI, COOKIES = b"SPI!", b"THE TWO COOKIES."
"Likewise anywhere: by which the victim sends, under its last tunnel; of its last channel."
HALVES = (b"THE FIRST HALF", b"THE SECOND HALF")
"Of the datagram that the victim awaits, for fragments."

Fill = Callable[[list[Payload]], bytes]
_SA_HEAD = 8
_PROPOSAL_HEAD = 4


def mend(first: int, chain: bytes) -> bytes:
    """The chain with lengths, counts and reserved octets that fit, so that what else is wrong with it is reached."""
    payloads, kind = [], first
    while kind and len(chain) >= GENERIC_HEADER.size:
        following, _, length = GENERIC_HEADER.unpack_from(chain)
        length = max(length, GENERIC_HEADER.size) if following else len(chain)
        body, chain = chain[GENERIC_HEADER.size:length], chain[length:]
        payloads.append(Payload(kind, _MENDED[kind](body) if kind in _MENDED else body))
        kind = following
    return pack_chain(payloads) if payloads else b""


def _mend_sa(body: bytes) -> bytes:
    return body[:_SA_HEAD] + mend(PayloadType.PROPOSAL, body[_SA_HEAD:])


def _mend_proposal(body: bytes) -> bytes:
    if len(body) < _PROPOSAL_HEAD:
        return body
    number, protocol, size, _ = body[:_PROPOSAL_HEAD]
    spi, rest = body[_PROPOSAL_HEAD:_PROPOSAL_HEAD + size], body[_PROPOSAL_HEAD + size:]
    transforms = mend(PayloadType.TRANSFORM, rest)
    count = len(parse_chain(PayloadType.TRANSFORM, transforms)[0]) if transforms else 0
    return bytes([number, protocol, len(spi), count]) + spi + transforms


_MENDED: dict[int, Callable[[bytes], bytes]] = {
    PayloadType.SA: _mend_sa, PayloadType.PROPOSAL: _mend_proposal,
    PayloadType.TRANSFORM: lambda body: body[:2] + bytes(2) + body[4:],
}


def signing_key(name: str) -> RSAPrivateKey:
    """Of a gateway. Short: RSA itself is not what is fuzzed."""
    return private_key(name, 1024)


def known(victim: Gateway, awaited: bytes, body: bytes) -> bytes:
    """With what a peer, or who listens to it, knows."""
    middle = len(awaited) // 2
    for name, half in zip(HALVES, (awaited[:middle], awaited[middle:]), strict=True):
        body = body.replace(name, half)
    core = victim.engine._core
    for tunnel in core.tunnels:
        body = body.replace(SPI, (tunnel.outbound_spi or 0).to_bytes(len(SPI), "big"))
    for channel in core.channels:
        body = body.replace(COOKIES, channel.cookie_i + channel.cookie_r)
    return body


def seal(victim: Gateway, header: Header, first: int, chain: bytes) -> tuple[bytes, bool]:
    """The datagram with this inside, encrypted as the victim expects it, and whether anything vouches for it."""
    channel = channel_of(victim)
    secrets, state = keys(channel, header)
    header = replace(header, next_payload=first, flags=header.flags | Flag.ENCRYPTION)
    if secrets is None or state is None:
        return header.pack(chain), False
    filled = _fill(first, chain, {
        PayloadType.HASH: lambda following: _hash(channel, header, secrets, following),
        PayloadType.SIGNATURE: lambda following: _signature(channel, chain, first)})
    return header.pack(state.encrypt(filled or bytes(1))[0]), filled != chain


def keys(channel: Channel, header: Header) -> tuple[Secrets | None, CbcState | None]:
    """What the victim will open this message with, if it has keys yet."""
    standing, main_mode = channel.standing, channel.main_mode
    negotiating = channel.quick_modes.get(header.message_id)
    if header.exchange == ExchangeType.MAIN_MODE:
        agreement = _agreement(channel)
        return agreement and agreement.secrets, main_mode.state
    if header.exchange == ExchangeType.QUICK_MODE and negotiating and negotiating.quick_mode and standing:
        return standing.secrets, negotiating.quick_mode.state
    if standing:
        return standing.secrets, standing.secrets.phase2_state(standing.last_block, header.message_id)
    agreement = _agreement(channel)
    if agreement and main_mode.state:
        return agreement.secrets, agreement.secrets.phase2_state(main_mode.state.iv, header.message_id)
    return None, None


def _agreement(channel: Channel) -> Agreement | None:
    return getattr(channel.main_mode.stage, "agreement", None)


def _fill(first: int, chain: bytes, right: dict[int, Fill]) -> bytes:
    try:
        payloads, used = parse_chain(first, chain)
    except PeerError:
        return chain
    filled = [Payload(payload.type, right[payload.type](list(payloads[index + 1:])))
              if payload.type in right and payload.body == RIGHT else payload for index, payload in enumerate(payloads)]
    return (pack_chain(filled) if filled else b"") + chain[used:]


def _hash(channel: Channel, header: Header, secrets: Secrets, following: list[Payload]) -> bytes:
    """HASH(1), (2) or (3) of RFC 2409 section 5.5, whichever the victim awaits."""
    covered = pack_chain(following) if following else b""
    negotiating = channel.quick_modes.get(header.message_id)
    if header.exchange == ExchangeType.QUICK_MODE and negotiating and negotiating.quick_mode and negotiating.terms:
        stage, terms = negotiating.quick_mode.stage, negotiating.terms
        if isinstance(stage, Proposed):
            return terms.hash(stage.nonce + covered)
        if isinstance(stage, AnswerSent):
            return terms.final_hash(stage.nonces)
    return secrets.prf_a(header.message_id.to_bytes(4, "big") + covered)


def _signature(channel: Channel, chain: bytes, first: int) -> bytes:
    """SIG_I or SIG_R of RFC 2409 section 5.1 over the identity that the message itself gives."""
    agreement = _agreement(channel)
    id_body = next((payload.body for payload in parse_chain(first, chain)[0]
                    if payload.type == PayloadType.IDENTIFICATION), b"")
    if agreement is None:
        return RIGHT
    if channel.initiator:
        return sign(signing_key("b"), agreement.hash_r(id_body))
    return sign(signing_key("a"), agreement.hash_i(id_body))

