"""A whole message, in clear or encrypted: RFC 2408 section 3.1, RFC 2409 appendix B."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from oesvc.ike.crypto.cipher import BlockLengthError, CbcState
from oesvc.ike.v1.constants import MAX_NOTIFICATIONS, NONCE_LENGTHS, PayloadType, name_of
from oesvc.ike.v1.errors import MalformedError, UnexpectedError
from oesvc.ike.v1.wire.header import ENCRYPTED, LAYOUT, Header
from oesvc.ike.v1.wire.payloads import GENERIC_HEADER, Notification, Payload, pack_chain, parse_chain


@dataclass(frozen=True, slots=True)
class Message:
    """A message as its payloads, decrypted if it was encrypted."""

    header: Header
    payloads: tuple[Payload, ...]
    chain: bytes = field(repr=False)
    "The payloads' octets, without padding."

    def has(self, kind: PayloadType) -> bool:
        return any(payload.type == kind for payload in self.payloads)

    def all(self, kind: PayloadType) -> list[bytes]:
        """The bodies of all payloads of a kind."""
        return [payload.body for payload in self.payloads if payload.type == kind]

    def one(self, kind: PayloadType) -> bytes:
        """The body of the one payload of a kind. Raises UnexpectedError for none and for several."""
        found = self.all(kind)
        if len(found) != 1:
            raise UnexpectedError(f"{len(found)} payloads {kind.name.replace('_', ' ')} instead of one")
        return found[0]

    def notifications(self) -> tuple[Notification, ...]:
        """Raises MalformedError."""
        bodies = self.all(PayloadType.NOTIFICATION)
        if len(bodies) > MAX_NOTIFICATIONS:
            raise MalformedError(f"{len(bodies)} notifications in one message; {MAX_NOTIFICATIONS} are allowed")
        return tuple(map(Notification.parse, bodies))

    def nonce(self) -> bytes:
        """The one nonce (RFC 2409 section 5). Raises UnexpectedError, MalformedError."""
        nonce = self.one(PayloadType.NONCE)
        if len(nonce) not in NONCE_LENGTHS:
            raise MalformedError(f"a nonce of {len(nonce)} octets; {NONCE_LENGTHS[0]} to {NONCE_LENGTHS[-1]} "
                                 "are allowed")
        return nonce

    def after_hash(self) -> tuple[bytes, bytes]:
        """The HASH that begins the message, and all octets that it stands for (RFC 2409 section 5.5)."""
        if not self.payloads or self.payloads[0].type != PayloadType.HASH:
            kind = name_of(PayloadType, self.header.next_payload)
            raise UnexpectedError(f"the message begins with {kind} instead of HASH")
        digest = self.payloads[0].body
        return digest, self.chain[GENERIC_HEADER.size + len(digest):]


def open_clear(header: Header, data: bytes) -> Message:
    """Read a message that is not encrypted. Raises MalformedError."""
    body = data[LAYOUT.size:]
    payloads, used = parse_chain(header.next_payload, body)
    if used != len(body):
        raise MalformedError(f"{len(body) - used} octets follow the last payload")
    return Message(header, payloads, body)


def open_encrypted(header: Header, data: bytes, state: CbcState) -> tuple[Message, CbcState]:
    """Read an encrypted message; the new state is good only if the message is. Raises MalformedError."""
    try:
        body, after = state.decrypt(data[LAYOUT.size:])
    except BlockLengthError as error:
        raise MalformedError(str(error)) from None
    payloads, used = parse_chain(header.next_payload, body)
    if len(body) - used >= state.cipher.block and any(body[used:]):
        # strongSwan pads by a whole block of zeros. Anything else has been appended by somebody who wants it to
        # become the next IV, and nothing in main mode would tell.
        raise MalformedError(f"{len(body) - used} octets that are no padding follow the last payload")
    return Message(header, payloads, body[:used]), after


def seal_clear(header: Header, payloads: Sequence[Payload]) -> bytes:
    """The datagram of a message in clear; the header's next payload is set here."""
    return header.pack_before(payloads[0].type, header.flags, pack_chain(payloads))


def seal_encrypted(header: Header, payloads: Sequence[Payload], state: CbcState) -> tuple[bytes, CbcState]:
    """The datagram of an encrypted message; flag and next payload are set here."""
    ciphertext, after = state.encrypt(pack_chain(payloads))
    return header.pack_before(payloads[0].type, header.flags | ENCRYPTED, ciphertext), after
