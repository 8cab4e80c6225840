"""Quick mode with perfect forward secrecy: RFC 2409 section 5.5.

        Initiator                                Responder
       -----------                              -----------
    1   HDR*, HASH(1), SA, Ni, KE,
              IDci, IDcr                  -->
                                          <--    HDR*, HASH(2), SA, Nr, KE,
                                                       IDci, IDcr              2
    3   HDR*, HASH(3)                     -->

The responder stops after 1, until the tunnel is authorized (RFC 4322 section 3.3.2), and before 2, until its inbound
SA is installed; the initiator stops before 3, until both are (section 11.2, 5O and 5P).
"""

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from hmac import compare_digest

from oesvc.ike.crypto.groups import Group, KeyPair, generate, respond
from oesvc.ike.crypto.keymat import Secrets, phase2_keymat
from oesvc.ike.v1 import phase2_offer
from oesvc.ike.v1.arithmetic import COSTS
from oesvc.ike.v1.config import Entropy
from oesvc.ike.v1.constants import NONCE_LENGTH, Encapsulation, PayloadType, Protocol
from oesvc.ike.v1.errors import (
    HashError,
    IdentityError,
    NatError,
    PeerError,
    RefusedError,
)
from oesvc.ike.v1.exchange import Calculation, Climb, Ladder, Outcome, Step
from oesvc.ike.v1.identification import pack_network, parse_host, parse_network
from oesvc.ike.v1.nat import Nat, explain, hides
from oesvc.ike.v1.negotiation import lifetime_notice, not_below, read_notices, responder_lifetime
from oesvc.ike.v1.offers import Profile
from oesvc.ike.v1.phase2_offer import SPI_OCTETS, Phase2Suite
from oesvc.ike.v1.wire.message import Message
from oesvc.ike.v1.wire.payloads import Notification, Payload, pack_chain
from oesvc.ike.v1.wire.proposals import Proposal, parse_sa
from oesvc.ipsec.flow import Address, Flow
from oesvc.ipsec.sa import EspTransform, IpsecSa, Lifetime
from oesvc.ipsec.subnets import Subnets

P = PayloadType


@dataclass(frozen=True, slots=True)
class Terms:
    """What either role brings into the exchange."""

    secrets: Secrets
    message_id: int
    profile: Profile
    lifetime: Lifetime
    floor: Lifetime
    entropy: Entropy = field(repr=False)
    local: Address
    peer: Address
    nat: Nat
    notices: tuple[Notification, ...]
    "To go with our first message."
    configured: Set[Subnets]
    "What may be wider than a host on each side."

    @property
    def encapsulation(self) -> Encapsulation:
        """RFC 3947 section 5.1."""
        return Encapsulation.UDP_ENCAPSULATED_TUNNEL if self.nat.between else Encapsulation.TUNNEL

    def hash(self, data: bytes) -> bytes:
        """HASH(1) and HASH(2): prf(SKEYID_a, M-ID | ...)."""
        return self.secrets.prf_a(self.message_id.to_bytes(4, "big") + data)

    def final_hash(self, nonces: bytes) -> bytes:
        """HASH(3) = prf(SKEYID_a, 0 | M-ID | Ni_b | Nr_b)."""
        return self.secrets.prf_a(b"\0" + self.message_id.to_bytes(4, "big") + nonces)


@dataclass(frozen=True, slots=True)
class NotBegun:
    """Either role before message 1."""


@dataclass(frozen=True, slots=True)
class Proposed:
    """The initiator after message 1."""

    flow: Flow
    spi: int
    group: Group
    key_pair: KeyPair = field(repr=False)
    nonce: bytes


@dataclass(frozen=True, slots=True)
class Answered:
    """The initiator after message 2: both SAs are to be installed."""

    inbound: IpsecSa
    outbound: IpsecSa
    confirmation: Payload
    notices: tuple[Notification, ...]


@dataclass(frozen=True, slots=True)
class ToAuthorize:
    """The responder after message 1: the tunnel is to be authorized."""

    flow: Flow
    suite: Phase2Suite
    spi: int
    chosen: Proposal
    nonce: bytes
    public: bytes
    ids: tuple[bytes, ...]
    notices: tuple[Notification, ...]


@dataclass(frozen=True, slots=True)
class ToAnswer:
    """The responder with its keys: the inbound SA is to be installed."""

    inbound: IpsecSa
    outbound: IpsecSa
    nonces: bytes
    answer: tuple[Payload, ...]


@dataclass(frozen=True, slots=True)
class AnswerSent:
    """The responder after message 2."""

    inbound: IpsecSa
    outbound: IpsecSa
    nonces: bytes


@dataclass(frozen=True, slots=True)
class ConfirmedByPeer:
    """The responder after message 3: the outbound SA is to be installed."""

    inbound: IpsecSa
    outbound: IpsecSa


@dataclass(frozen=True, slots=True)
class Complete:
    """Either side when all is done."""


def out_1(terms: Terms, flow: Flow, spi: int, group: Group) -> Climb:
    pair = yield Calculation(COSTS[group], partial(generate, group))
    nonce = terms.entropy(NONCE_LENGTH)
    payloads = (Payload(P.SA, phase2_offer.offer(terms.profile, group, terms.lifetime, spi, terms.encapsulation)),
                Payload(P.NONCE, nonce),
                Payload(P.KEY_EXCHANGE, pair.public),
                *(Payload(P.IDENTIFICATION, pack_network(network)) for network in flow.networks),
                *_notices(terms))
    return Outcome(Proposed(flow, spi, group, pair, nonce), _with_hash(terms, b"", payloads))


def in_1(terms: Terms, _: NotBegun, message: Message) -> Outcome:
    """Raises RefusedError when the message is authentic and cannot be accepted."""
    _check_hash(terms, b"", message)
    try:
        return Outcome(_read_proposal(terms, message))
    except PeerError as error:
        raise RefusedError(error, _offered_spi(message), _offered_flow(terms, message)) from None


def authorized(terms: Terms, stage: ToAuthorize, spi: int) -> Climb:
    """The owner accepts the tunnel: now the arithmetic is worth its cost."""
    group = stage.suite.group
    public, shared = yield Calculation(COSTS[group], partial(respond, group, stage.public))
    nonce = terms.entropy(NONCE_LENGTH)
    nonces, suite = stage.nonce + nonce, stage.suite
    inbound, outbound = _make_sas(terms, stage.flow, suite.esp, suite.lifetime, (spi, stage.spi), shared, nonces)
    payloads = (Payload(P.SA, phase2_offer.answer(stage.chosen, spi)),
                Payload(P.NONCE, nonce),
                Payload(P.KEY_EXCHANGE, public),
                *(Payload(P.IDENTIFICATION, body) for body in stage.ids),
                *_notices(terms), *_notice_of_lifetime(suite, spi))
    return Outcome(ToAnswer(inbound, outbound, nonces, _with_hash(terms, stage.nonce, payloads)))


def out_2(stage: ToAnswer) -> Outcome:
    """The inbound SA is installed."""
    return Outcome(AnswerSent(stage.inbound, stage.outbound, stage.nonces), stage.answer)


def in_2(terms: Terms, stage: Proposed, message: Message) -> Climb:
    _check_hash(terms, stage.nonce, message)
    suite, spi = phase2_offer.accept_choice(message.one(P.SA), terms.profile, stage.group, terms.lifetime,
                                            terms.encapsulation)
    notices = read_notices(message)
    lifetime = not_below(terms.floor, suite.lifetime, terms.lifetime)
    lifetime = responder_lifetime(notices, Protocol.ESP, lifetime, terms.floor)
    ids = message.all(P.IDENTIFICATION)
    if ids and [parse_network(body) for body in ids] != list(stage.flow.networks):
        raise IdentityError(f"the peer answered for another tunnel than {stage.flow}")
    nonces = stage.nonce + message.nonce()
    public = message.one(P.KEY_EXCHANGE)
    shared = yield Calculation(COSTS[stage.group], partial(stage.key_pair.shared_secret, public))
    inbound, outbound = _make_sas(terms, stage.flow, suite.esp, lifetime, (stage.spi, spi), shared, nonces)
    return Outcome(Answered(inbound, outbound, Payload(P.HASH, terms.final_hash(nonces)), notices))


def out_3(stage: Answered) -> Outcome:
    """Both SAs are installed."""
    return Outcome(Complete(), (stage.confirmation,))


def in_3(terms: Terms, stage: AnswerSent, message: Message) -> Outcome:
    if not compare_digest(message.one(P.HASH), terms.final_hash(stage.nonces)):
        raise HashError("HASH(3) does not verify")
    return Outcome(ConfirmedByPeer(stage.inbound, stage.outbound))


INITIATOR: Ladder = {
    Proposed: Step("quick mode 2", in_2, frozenset({P.HASH, P.SA, P.NONCE, P.KEY_EXCHANGE})),
}

RESPONDER: Ladder = {
    NotBegun: Step("quick mode 1", in_1, frozenset({P.HASH})),
    AnswerSent: Step("quick mode 3", in_3, frozenset({P.HASH})),
}

NAME_SENT: dict[type, str] = {Proposed: "quick mode 1", AnswerSent: "quick mode 2", Complete: "quick mode 3"}
"The message that led to a stage, where it led there by being sent."


def _read_proposal(terms: Terms, message: Message) -> ToAuthorize:
    public = message.one(P.KEY_EXCHANGE) if message.has(P.KEY_EXCHANGE) else None
    suite, spi, chosen = phase2_offer.choose(message.one(P.SA), terms.profile, terms.lifetime,
                                             None if public is None else len(public), terms.floor,
                                             terms.encapsulation)
    ids = message.all(P.IDENTIFICATION)
    if len(ids) != 2:
        raise IdentityError(f"{len(ids)} identities instead of the two hosts of a tunnel")
    flow = _read_flow(terms, ids)
    for whose, host in ("its", flow.destination), ("our", flow.source):
        if not isinstance(flow, Subnets) and hides(terms.peer, host, terms.nat):
            raise NatError(explain(f"{whose} host", host, terms.peer))
    return ToAuthorize(flow, suite, spi, chosen, message.nonce(), public or b"", tuple(ids), read_notices(message))


def _read_flow(terms: Terms, ids: Sequence[bytes]) -> Flow:
    """What a proposed tunnel is to protect, seen from our side: a configured one is looked for first (section 4.4)."""
    theirs, ours = map(parse_network, ids)
    if theirs.version != ours.version:
        raise IdentityError(f"{theirs} and {ours} are of different address families")
    if terms.configured and (subnets := Subnets.between(ours, theirs)) in terms.configured:
        return subnets
    return Flow(*map(parse_host, reversed(ids)))


def _make_sas(terms: Terms, flow: Flow, esp: EspTransform, lifetime: Lifetime, spis: tuple[int, int], shared: bytes,
              nonces: bytes) -> tuple[IpsecSa, IpsecSa]:
    """The inbound and the outbound SA; `spis` in the same order. Each is keyed for its receiver's SPI."""
    cipher_octets, integrity_octets = phase2_offer.key_octets(esp)

    def sa(spi: int, source: Address, destination: Address, inner: Flow) -> IpsecSa:
        keymat = phase2_keymat(terms.secrets, shared, Protocol.ESP, spi.to_bytes(SPI_OCTETS, "big"), nonces,
                               cipher_octets + integrity_octets)
        return IpsecSa(spi, source, destination, inner, esp, keymat[:cipher_octets], keymat[cipher_octets:],
                       lifetime)

    return (sa(spis[0], terms.peer, terms.local, flow.reversed()), sa(spis[1], terms.local, terms.peer, flow))


def _notices(terms: Terms) -> Iterator[Payload]:
    return (Payload(P.NOTIFICATION, notice.pack()) for notice in terms.notices)


def _notice_of_lifetime(suite: Phase2Suite, spi: int) -> Iterator[Payload]:
    if suite.shortened:
        notice = lifetime_notice(Protocol.ESP, spi.to_bytes(SPI_OCTETS, "big"), suite.lifetime)
        yield Payload(P.NOTIFICATION, notice.pack())


def _with_hash(terms: Terms, head: bytes, payloads: tuple[Payload, ...]) -> tuple[Payload, ...]:
    return Payload(P.HASH, terms.hash(head + pack_chain(payloads))), *payloads


def _check_hash(terms: Terms, head: bytes, message: Message) -> None:
    digest, covered = message.after_hash()
    if not compare_digest(digest, terms.hash(head + covered)):
        raise HashError("its HASH does not verify")


def _offered_flow(terms: Terms, message: Message) -> Flow | None:
    """The tunnel that is being refused, if it is one."""
    try:
        return _read_flow(terms, message.all(P.IDENTIFICATION))
    except (PeerError, ValueError):
        return None


def _offered_spi(message: Message) -> bytes:
    """The SPI by which the initiator knows what is being refused, if there is one."""
    try:
        return parse_sa(message.one(P.SA))[0].spi
    except PeerError:
        return b""
