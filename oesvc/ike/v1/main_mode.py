"""Main mode with signatures: RFC 2409 section 5.1.

        Initiator                          Responder
       -----------                        -----------
    1   HDR, SA                     -->
                                    <--    HDR, SA                 2
    3   HDR, KE, Ni, NAT-D, NAT-D   -->
                                    <--    HDR, KE, Nr,
                                              NAT-D, NAT-D         4
    5   HDR*, IDii, SIG_I           -->
                                    <--    HDR*, IDir, SIG_R       6

NAT-D is there if both have announced RFC 3947.

A step is named after the messages that it takes in and gives out. The responder keeps nothing of message 1 and begins
at 3 (`invitations`). It stops between 5 and 6, until the DNS has given the initiator's keys (RFC 4322 section 3.3.1).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from oesvc.ike.crypto.groups import KeyPair, generate, respond
from oesvc.ike.crypto.keymat import Cookies, Secrets, derive_secrets
from oesvc.ike.crypto.signatures import key_that_verifies, sign
from oesvc.ike.datagram import Path
from oesvc.ike.identity import AddressIdentity, Identity
from oesvc.ike.v1 import phase1_offer
from oesvc.ike.v1.arithmetic import COSTS, SIGNATURE_COST
from oesvc.ike.v1.config import EngineConfig, Entropy
from oesvc.ike.v1.constants import NONCE_LENGTH, NotifyType, PayloadType
from oesvc.ike.v1.errors import IdentityError, NatError, SignatureError
from oesvc.ike.v1.exchange import Calculation, Climb, Ladder, Outcome, Step
from oesvc.ike.v1.identification import pack_identity, parse_identity
from oesvc.ike.v1.nat import NO_NAT, Nat, discovery, explain, find_nat, is_private
from oesvc.ike.v1.negotiation import not_below
from oesvc.ike.v1.offers import Phase1Suite, Profile
from oesvc.ike.v1.vendor import Extension, Extensions, announce, announced
from oesvc.ike.v1.wire.message import Message
from oesvc.ike.v1.wire.payloads import Payload
from oesvc.ipsec.rsa_key import RsaPublicKey
from oesvc.ipsec.sa import Lifetime

P = PayloadType


@dataclass(frozen=True, slots=True)
class Expectation:
    """Whom the initiator wants to talk to."""

    identity: Identity
    keys: tuple[RsaPublicKey, ...]


@dataclass(frozen=True, slots=True)
class Ourselves:
    """What either role brings into the exchange."""

    profile: Profile
    lifetime: Lifetime
    floor: Lifetime
    extensions: Extensions
    path: Path
    "On which messages 1 to 4 go."
    identity: Identity
    identity_behind_nat: Identity
    private_key: RSAPrivateKey = field(repr=False)
    entropy: Entropy = field(repr=False)
    expectation: Expectation | None
    "None as responder."

    def id_body(self, nat: Nat) -> bytes:
        """Our ID payload."""
        return pack_identity(self.identity_behind_nat if nat.here else self.identity)


@dataclass(frozen=True, slots=True)
class Agreement:
    """What both sides know after the messages in clear."""

    suite: Phase1Suite
    lifetime: Lifetime
    secrets: Secrets
    cookies: Cookies
    shortened: bool
    "As responder: the initiator does not know yet that the lifetime is shorter than what it offered."
    offer: bytes
    "SAi_b: the initiator's SA payload without its generic header."
    public_i: bytes
    public_r: bytes
    extensions: Extensions
    "Announced by the peer."
    nat: Nat

    def hash_i(self, id_body: bytes) -> bytes:
        """HASH_I of section 5."""
        return self._hash(self.public_i + self.public_r + self.cookies.initiator + self.cookies.responder, id_body)

    def hash_r(self, id_body: bytes) -> bytes:
        """HASH_R of section 5."""
        return self._hash(self.public_r + self.public_i + self.cookies.responder + self.cookies.initiator, id_body)

    def _hash(self, head: bytes, id_body: bytes) -> bytes:
        return self.secrets.hash.prf(self.secrets.skeyid, head + self.offer + id_body)


@dataclass(frozen=True, slots=True)
class OfferSent:
    """The initiator after message 1."""

    offer: bytes


@dataclass(frozen=True, slots=True)
class ChoiceSent:
    """The responder after message 2."""

    offer: bytes
    suite: Phase1Suite
    lifetime: Lifetime
    shortened: bool
    extensions: Extensions


@dataclass(frozen=True, slots=True)
class ValueSent:
    """The initiator after message 3."""

    offer: bytes
    suite: Phase1Suite
    lifetime: Lifetime
    extensions: Extensions
    key_pair: KeyPair = field(repr=False)
    nonce: bytes


@dataclass(frozen=True, slots=True)
class ValueAnswered:
    """The responder after message 4."""

    agreement: Agreement


@dataclass(frozen=True, slots=True)
class IdentitySent:
    """The initiator after message 5."""

    agreement: Agreement


@dataclass(frozen=True, slots=True)
class Claimed:
    """The responder after message 5: who the initiator says it is, to be verified."""

    agreement: Agreement
    identity: Identity
    id_body: bytes
    signature: bytes
    initial_contact: bool


@dataclass(frozen=True, slots=True)
class Authenticated:
    """Either side when all is done."""

    agreement: Agreement
    identity: Identity
    key: RsaPublicKey
    "The one of the peer's that verified its signature."
    initial_contact: bool


def invite(config: EngineConfig) -> tuple[Payload, ...]:
    """Message 1; the same for everybody."""
    offer = phase1_offer.offer(config.profile, config.phase1_lifetime)
    return (Payload(P.SA, offer), *announce(config.extensions))


def out_1(payloads: tuple[Payload, ...]) -> Outcome:
    return Outcome(OfferSent(payloads[0].body), payloads, encrypted=False)


def in_2_out_3(we: Ourselves, stage: OfferSent, message: Message) -> Climb:
    suite, lifetime = phase1_offer.accept_choice(message.one(P.SA), we.profile, we.lifetime)
    lifetime = not_below(we.floor, lifetime, we.lifetime)
    pair = yield Calculation(COSTS[suite.group], partial(generate, suite.group))
    nonce, extensions = we.entropy(NONCE_LENGTH), announced(message)
    return Outcome(ValueSent(stage.offer, suite, lifetime, extensions, pair, nonce),
                   (Payload(P.KEY_EXCHANGE, pair.public), Payload(P.NONCE, nonce),
                    *_nat_discovery(we, extensions, suite, message)), encrypted=False)


def in_3_out_4(we: Ourselves, stage: ChoiceSent, message: Message) -> Climb:
    nonce_i, public_i = message.nonce(), message.one(P.KEY_EXCHANGE)
    group = stage.suite.group
    public, shared = yield Calculation(COSTS[group], partial(respond, group, public_i))
    nonce = we.entropy(NONCE_LENGTH)
    nat = _found_nat(we, stage, message)
    agreement = _agree(stage, message, nat, nonce_i + nonce, shared, public_i, public)
    return Outcome(ValueAnswered(agreement),
                   (Payload(P.KEY_EXCHANGE, public), Payload(P.NONCE, nonce),
                    *_nat_discovery(we, stage.extensions, stage.suite, message)), encrypted=False,
                   state=agreement.secrets.first_state(public_i, public))


def in_4_out_5(we: Ourselves, stage: ValueSent, message: Message) -> Climb:
    nonce_r, public_r = message.nonce(), message.one(P.KEY_EXCHANGE)
    pair, nat = stage.key_pair, _found_nat(we, stage, message)
    if nat.here:
        _check_name(we)
    id_body = we.id_body(nat)

    def agree_and_sign() -> tuple[Agreement, bytes]:
        shared = pair.shared_secret(public_r)
        agreement = _agree(stage, message, nat, stage.nonce + nonce_r, shared, pair.public, public_r)
        return agreement, sign(we.private_key, agreement.hash_i(id_body))

    agreement, signature = yield Calculation(COSTS[stage.suite.group] + SIGNATURE_COST, agree_and_sign)
    return Outcome(IdentitySent(agreement),
                   (Payload(P.IDENTIFICATION, id_body), Payload(P.SIGNATURE, signature)),
                   state=agreement.secrets.first_state(pair.public, public_r))


def in_5(_: Ourselves, stage: ValueAnswered, message: Message) -> Outcome:
    """The initiator's keys are looked up by its identity: RFC 4322 section 3.3.1."""
    id_body = message.one(P.IDENTIFICATION)
    return Outcome(Claimed(stage.agreement, parse_identity(id_body), id_body, message.one(P.SIGNATURE),
                           _says_initial_contact(message)))


def with_keys_out_6(we: Ourselves, stage: Claimed, keys: Sequence[RsaPublicKey]) -> Climb:
    """Raises SignatureError."""
    agreement, id_body = stage.agreement, we.id_body(stage.agreement.nat)

    def verify_and_sign() -> tuple[RsaPublicKey | None, bytes]:
        key = key_that_verifies(keys, agreement.hash_i(stage.id_body), stage.signature)
        return key, sign(we.private_key, agreement.hash_r(id_body)) if key else b""

    key, signature = yield Calculation(SIGNATURE_COST, verify_and_sign)
    return Outcome(Authenticated(agreement, stage.identity, _verified(key, stage.identity, keys),
                                 stage.initial_contact),
                   (Payload(P.IDENTIFICATION, id_body), Payload(P.SIGNATURE, signature)))


def in_6(we: Ourselves, stage: IdentitySent, message: Message) -> Climb:
    id_body, expectation = message.one(P.IDENTIFICATION), we.expectation
    signature, identity = message.one(P.SIGNATURE), parse_identity(id_body)
    if expectation is None or identity != expectation.identity:
        raise IdentityError(f"the peer says it is {identity}; {expectation and expectation.identity} was expected")
    keys, digest = expectation.keys, stage.agreement.hash_r(id_body)
    key = yield Calculation(SIGNATURE_COST, partial(key_that_verifies, keys, digest, signature))
    return Outcome(Authenticated(stage.agreement, identity, _verified(key, identity, keys),
                                 _says_initial_contact(message)))


INITIATOR: Ladder = {
    OfferSent: Step("main mode 2", in_2_out_3, frozenset({P.SA}), encrypted=False),
    ValueSent: Step("main mode 4", in_4_out_5, frozenset({P.KEY_EXCHANGE, P.NONCE}), encrypted=False),
    IdentitySent: Step("main mode 6", in_6, frozenset({P.IDENTIFICATION, P.SIGNATURE})),
}

RESPONDER: Ladder = {
    ChoiceSent: Step("main mode 3", in_3_out_4, frozenset({P.KEY_EXCHANGE, P.NONCE}), encrypted=False),
    ValueAnswered: Step("main mode 5", in_5, frozenset({P.IDENTIFICATION, P.SIGNATURE})),
}

NAME_SENT: dict[type, str] = {
    OfferSent: "main mode 1", ChoiceSent: "main mode 2", ValueSent: "main mode 3", ValueAnswered: "main mode 4",
    IdentitySent: "main mode 5", Authenticated: "main mode 6",
}
"The message that led to a stage, where it led there by being sent."


def _agree(stage: ChoiceSent | ValueSent, message: Message, nat: Nat, nonces: bytes, shared: bytes,
           public_i: bytes, public_r: bytes) -> Agreement:
    suite, cookies = stage.suite, _cookies(message)
    secrets = derive_secrets(suite.hash, suite.cipher.algorithm, suite.cipher.key_bits // 8, nonces, shared, cookies)
    return Agreement(suite, stage.lifetime, secrets, cookies, isinstance(stage, ChoiceSent) and stage.shortened,
                     stage.offer, public_i, public_r, stage.extensions, nat)


def _nat_discovery(we: Ourselves, theirs: Extensions, suite: Phase1Suite, message: Message) -> tuple[Payload, ...]:
    """What goes with message 3 or 4; `message` is the one before."""
    return discovery(suite.hash, _cookies(message), we.path) if _traverses_nats(we, theirs) else ()


def _found_nat(we: Ourselves, stage: ChoiceSent | ValueSent, message: Message) -> Nat:
    """By message 3 or 4."""
    if not _traverses_nats(we, stage.extensions):
        return NO_NAT
    return find_nat(message.all(P.NAT_D), stage.suite.hash, _cookies(message), we.path)


def _check_name(we: Ourselves) -> None:
    """Raises NatError where the peer could not find out who we are."""
    identity = we.identity_behind_nat
    if isinstance(identity, AddressIdentity) and is_private(identity.address):
        raise NatError(f"{explain('our own address', identity.address, we.path.peer.address)}; as our identity a name "
                       f"would do, or the IPv{identity.address.version} address that the NAT gives us")


def _traverses_nats(we: Ourselves, theirs: Extensions) -> bool:
    return Extension.NAT_TRAVERSAL in we.extensions & theirs


def _cookies(message: Message) -> Cookies:
    return Cookies(message.header.initiator_cookie, message.header.responder_cookie)


def _verified(key: RsaPublicKey | None, identity: Identity, keys: Sequence[RsaPublicKey]) -> RsaPublicKey:
    if key is None:
        raise SignatureError(f"none of {len(keys)} keys that the DNS has for {identity} verifies its signature "
                             f"({', '.join(map(str, keys))})")
    return key


def _says_initial_contact(message: Message) -> bool:
    """RFC 2407 section 4.6.3.3."""
    return any(notice.type == NotifyType.INITIAL_CONTACT for notice in message.notifications())
