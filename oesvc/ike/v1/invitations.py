"""Main mode 1 answered without state, so that floods of spoofed ones cost neither memory nor arithmetic.

The responder's cookie (RFC 2408 section 2.5.3) is a keyed hash over the addresses, the initiator's cookie and what it
said, under a secret that changes; state is made for a message 3 that returns a good cookie, for its sender has got
our message 2. HASH_I and HASH_R are over SAi_b too, the initiator's offer, which message 3 does not repeat: what
messages 1 say is kept, once for all initiators that say the same, and the cookie holds its number. There are as many
such invitations as there are configurations of IKE daemons, not as there are initiators:

- one by which somebody has proved an identity stays until many others have, as does what we ourselves would say;
- all others pass through a fixed number of octets, and only so many are read in a second. Who floods with ever
  different ones so delays strangers with configurations never seen, and nobody else. They go when no cookie that names
  them is good any more.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from hashlib import blake2b
from hmac import compare_digest

from oesvc.ike.datagram import Endpoint
from oesvc.ike.v1 import phase1_offer
from oesvc.ike.v1.config import EngineConfig, Entropy
from oesvc.ike.v1.constants import COOKIE_LENGTH, ExchangeType, PayloadType
from oesvc.ike.v1.errors import BusyError, MalformedError, UnexpectedError
from oesvc.ike.v1.main_mode import invite
from oesvc.ike.v1.offers import Phase1Suite
from oesvc.ike.v1.prefixes import PerPrefix
from oesvc.ike.v1.timers import Timers
from oesvc.ike.v1.vendor import Extensions, announce, announced
from oesvc.ike.v1.wire.header import LAYOUT, Header
from oesvc.ike.v1.wire.message import open_clear
from oesvc.ike.v1.wire.payloads import Payload, pack_chain
from oesvc.ipsec.flow import Address
from oesvc.ipsec.sa import Lifetime

NUMBER_OCTETS = 2
"Of the cookie; the others are the keyed hash."
SECRET_OCTETS = 32
SECRET_LIFE = 60.0
"Seconds for which a secret makes cookies; they are good for as many again."
UNPROVEN_LIFE = 2 * SECRET_LIFE
OVERHEAD = 1000
"Octets that an invitation takes besides its message, about."
LONGEST = 16_384
"Octets of a message 1; the longest known offers have 4,000."
PORTION = 256
"Octets of a new wording that count as one: to read it takes time, and memory, by its length."
PROVEN_PER_PREFIX = 8
"Wordings that peers in one /24 or /64 may have proved; who has more of them than daemons there are pushes others out."


@dataclass(frozen=True, slots=True)
class Invitation:
    """What an initiator says in message 1, and what we answer."""

    number: int
    body: bytes = field(repr=False)
    "All that follows the header."
    offer: bytes = field(repr=False)
    "SAi_b."
    suite: Phase1Suite
    lifetime: Lifetime
    shortened: bool
    "The initiator has offered a longer one."
    extensions: Extensions
    answer: bytes = field(repr=False)
    "All that follows the header of message 2."

    @property
    def octets(self) -> int:
        return OVERHEAD + len(self.body) + len(self.offer) + len(self.answer)


class Invitations:
    """Those that are known, and the cookies that name them."""

    def __init__(self, config: EngineConfig, entropy: Entropy, timers: Timers) -> None:
        self._config, self._entropy, self._timers = config, entropy, timers
        self._secrets: tuple[tuple[int, bytes], ...] = ()
        "The newest two, with their period."
        self._next_number = 1
        self._by_number: dict[int, Invitation] = {}
        self._by_body: dict[bytes, Invitation] = {}
        self._unproven: OrderedDict[int, float] = OrderedDict()
        "When each was last answered, which is their order."
        self._ages = False
        self._proven: OrderedDict[int, Invitation] = OrderedDict()
        self._octets = self._late = self._forgotten = self._outlived = 0
        self._allowance, self._allowed_at = float(config.new_invitations), 0.0
        self._provers: dict[int, Address] = {}
        self._proved_near = PerPrefix()
        header = Header(b"\1" * COOKIE_LENGTH, bytes(COOKIE_LENGTH), PayloadType.SA, ExchangeType.MAIN_MODE, 0, 0)
        own = self._read(header, pack_chain(invite(config)), 0.0)
        self._own = own.number
        self._welcome(own)

    def __len__(self) -> int:
        return len(self._by_number)

    @property
    def proven(self) -> int:
        return len(self._proven)

    def bounds(self, now: float) -> dict[str, tuple[int, int, int]]:
        """Of each budget: how much is used, of how much, and how often that was not enough."""
        config = self._config
        lately = int(2 * config.new_invitations - self._allowed(now))
        return {"new-invitations": (min(lately, config.new_invitations), config.new_invitations, self._late),
                "max-invitation-octets": (self._octets, config.max_invitation_octets, self._forgotten),
                "max-proven-invitations": (self.proven, config.max_proven_invitations, self._outlived)}

    def answer(self, header: Header, data: bytes, local: Endpoint, peer: Endpoint, now: float) -> bytes:
        """Message 2. Raises PeerError."""
        if header.encrypted or header.message_id or header.next_payload != PayloadType.SA:
            raise MalformedError("a main mode 1 that is encrypted, has a message ID or does not begin with SA")
        body = data[LAYOUT.size:]
        invitation = self._by_body.get(body) or self._read_new(header, body, now)
        if invitation.number in self._unproven:
            self._unproven[invitation.number] = now
            self._unproven.move_to_end(invitation.number)
            self._age(now)
        secret = self._current_secret(now)
        number = invitation.number.to_bytes(NUMBER_OCTETS, "big")
        cookie = number + _hash(secret, invitation, header.initiator_cookie, local, peer)
        return Header(header.initiator_cookie, cookie, PayloadType.SA, ExchangeType.MAIN_MODE, 0, 0).pack(
            invitation.answer)

    def redeem(self, header: Header, local: Endpoint, peer: Endpoint, now: float) -> Invitation:
        """What the sender of a message 3 said in its message 1. Raises UnexpectedError unless its cookie is good."""
        cookie = header.responder_cookie
        invitation = self._by_number.get(int.from_bytes(cookie[:NUMBER_OCTETS], "big"))
        period = int(now // SECRET_LIFE)
        if invitation and any(
                compare_digest(cookie[NUMBER_OCTETS:], _hash(secret, invitation, header.initiator_cookie, local, peer))
                for made, secret in self._secrets if made >= period - 1):
            return invitation
        raise UnexpectedError("cookies of no keying channel that we have")

    def prove(self, invitation: Invitation, peer: Address) -> None:
        """Somebody has proved an identity by it: the like of it is welcome."""
        number = invitation.number
        if self._by_number.get(number) is not invitation:
            return
        if number not in self._proven:
            if self._proved_near.count(peer) >= PROVEN_PER_PREFIX:
                return
            self._provers[number] = peer
            self._proved_near.add(peer)
        self._welcome(invitation)
        while len(self._proven) > self._config.max_proven_invitations:
            self._outlived += 1
            oldest = next(number for number in self._proven if number != self._own)
            self._proved_near.remove(self._provers.pop(oldest))
            self._drop(self._proven.pop(oldest))

    def _welcome(self, invitation: Invitation) -> None:
        if self._unproven.pop(invitation.number, None) is not None:
            self._octets -= invitation.octets
        self._proven[invitation.number] = invitation
        self._proven.move_to_end(invitation.number)

    def _read_new(self, header: Header, body: bytes, now: float) -> Invitation:
        if len(body) > LONGEST:
            raise MalformedError(f"a message 1 of {len(body)} octets; {LONGEST} are the most that we read")
        self._allowance, self._allowed_at = self._allowed(now), now
        if self._allowance < 1.0:
            self._late += 1
            raise BusyError(f"more than {self._config.new_invitations} new portions of messages 1 a second")
        self._allowance -= -(-len(body) // PORTION)
        return self._read(header, body, now)

    def _age(self, now: float) -> None:
        """See to it that memory returns after a flood, whether or not anything comes then."""
        while self._unproven and next(iter(self._unproven.values())) + UNPROVEN_LIFE <= now:
            self._drop_oldest()
        if self._unproven and not self._ages:
            self._ages = True
            self._timers.at(next(iter(self._unproven.values())) + UNPROVEN_LIFE, self._aged)

    def _aged(self, now: float) -> None:
        self._ages = False
        self._age(now)

    def _drop_oldest(self) -> None:
        oldest = self._by_number[self._unproven.popitem(last=False)[0]]
        self._octets -= oldest.octets
        self._drop(oldest)

    def _allowed(self, now: float) -> float:
        """How many new ones may be read now: those of two seconds at most."""
        rate = self._config.new_invitations
        return min(2.0 * rate, self._allowance + rate * max(0.0, now - self._allowed_at))

    def _read(self, header: Header, body: bytes, now: float) -> Invitation:
        message = open_clear(header, header.pack(body))
        offer = message.one(PayloadType.SA)
        config = self._config
        suite, lifetime, shortened, choice = phase1_offer.choose(offer, config.profile, config.phase1_lifetime,
                                                                 config.phase1_floor)
        answer = pack_chain((Payload(PayloadType.SA, choice), *announce(self._config.extensions)))
        invitation = Invitation(self._new_number(), body, offer, suite, lifetime, shortened, announced(message),
                                answer)
        self._by_number[invitation.number] = self._by_body[body] = invitation
        self._unproven[invitation.number] = now
        self._octets += invitation.octets
        while self._octets > self._config.max_invitation_octets:
            self._forgotten += 1
            self._drop_oldest()
        return invitation

    def _drop(self, invitation: Invitation) -> None:
        del self._by_number[invitation.number], self._by_body[invitation.body]

    def _new_number(self) -> int:
        """The budgets leave most numbers free, and the next one nearly always."""
        while self._next_number in self._by_number:
            self._next_number = self._next_number % 0xFFFF + 1
        number, self._next_number = self._next_number, self._next_number % 0xFFFF + 1
        return number

    def _current_secret(self, now: float) -> bytes:
        period = int(now // SECRET_LIFE)
        if not self._secrets or self._secrets[0][0] != period:
            self._secrets = ((period, self._entropy(SECRET_OCTETS)), *self._secrets[:1])
        return self._secrets[0][1]


def _hash(secret: bytes, invitation: Invitation, cookie_i: bytes, local: Endpoint, peer: Endpoint) -> bytes:
    where = b"".join(end.address.packed + end.port.to_bytes(2, "big") for end in (local, peer))
    return blake2b(cookie_i + where + invitation.body, key=secret,
                   digest_size=COOKIE_LENGTH - NUMBER_OCTETS).digest()
