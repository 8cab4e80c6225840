"""IKE messages in pieces small enough for any path: the vendor ID scheme that IKEv1 daemons share.

Each piece is an ISAKMP message of its own, whose one payload has number of the message, number of the piece and a
mark on the last one before its octets. Nothing protects them: what they make up is judged like any other datagram,
and what they take before they do is bounded for all keying channels together.
"""

import struct
from collections import OrderedDict
from dataclasses import dataclass, field, replace

from oesvc.ike.v1.constants import MAX_FRAGMENTS, PayloadType
from oesvc.ike.v1.errors import MalformedError
from oesvc.ike.v1.wire.header import LAYOUT, Header
from oesvc.ike.v1.wire.message import open_clear
from oesvc.ike.v1.wire.payloads import GENERIC_HEADER, Payload, pack_chain

FIELDS = struct.Struct(">HBB")
LAST = 1
LONGEST = 65_535
"Octets of a message that came in pieces: what one datagram could carry."
LARGEST = 1280 - 40 - 8 - 4
"Octets of a message that go through any path: IPv6's least MTU without IP, UDP and the marker of port 4500."
OVERHEAD = 200
"Octets of memory that a piece takes besides its own."
PATIENCE = 8.0
"Seconds that the first piece of a message waits for the last one; whoever is not heard sends all of them again."
PER_CHANNEL = 2
"Messages in pieces at a time: one of main mode that is repeated, or two quick modes."

Channel = tuple[bytes, bytes]
"Both cookies."
Key = tuple[Channel, int, int, int]
"Channel, exchange, message ID and number of a message; libreswan gives every message the same number."


@dataclass(slots=True)
class Partial:
    """What has come of one message."""

    since: float
    pieces: dict[int, bytes] = field(default_factory=dict)
    last: int | None = None

    @property
    def octets(self) -> int:
        return sum(map(len, self.pieces.values()))

    @property
    def memory(self) -> int:
        return self.octets + OVERHEAD * len(self.pieces)

    def whole(self) -> bytes | None:
        if self.last is None or any(number not in self.pieces for number in range(1, self.last + 1)):
            return None
        return b"".join(self.pieces[number] for number in range(1, self.last + 1))


class Fragments:
    """The pieces of all messages that are not whole yet."""

    def __init__(self, most: int) -> None:
        """`most` octets are kept; beyond, the messages that were begun first give way."""
        self._most = most
        self._partials: OrderedDict[Key, Partial] = OrderedDict()
        self._of_channel: dict[Channel, list[Key]] = {}
        self.memory = self.lost = 0

    def take(self, header: Header, data: bytes, now: float) -> bytes | None:
        """Add a piece; the message when it is complete. Raises PeerError."""
        body = open_clear(header, data).one(PayloadType.FRAGMENT)
        if len(body) <= FIELDS.size:
            raise MalformedError("a fragment without octets")
        id, number, flags = FIELDS.unpack_from(body)
        if not 0 < number <= MAX_FRAGMENTS:
            raise MalformedError(f"fragment {number} of a message; 1 to {MAX_FRAGMENTS} are allowed")
        piece = body[FIELDS.size:]
        self._forget_until(now - PATIENCE)
        key = ((header.initiator_cookie, header.responder_cookie), header.exchange, header.message_id, id)
        if key in self._partials and self._partials[key].pieces.get(number, piece) != piece:
            self._forget(key)  # its number is used again, for another message
        partial = self._partials.get(key) or self._begin(key, now)
        if partial.octets + len(piece) > LONGEST:
            raise MalformedError(f"fragments of a message of more than {LONGEST} octets")
        self.memory -= partial.memory
        partial.pieces[number] = piece
        partial.last = number if flags & LAST else partial.last
        self.memory += partial.memory
        whole = partial.whole()
        if whole is not None:
            self._forget(key)
        while self.memory > self._most:
            self._forget(next(iter(self._partials)))
            self.lost += 1
        return whole

    def _begin(self, key: Key, now: float) -> Partial:
        if len(self._of_channel.get(key[0], ())) == PER_CHANNEL:
            self._forget(self._of_channel[key[0]][0])
        self._of_channel.setdefault(key[0], []).append(key)
        self._partials[key] = Partial(now)
        return self._partials[key]

    def _forget(self, key: Key) -> None:
        self.memory -= self._partials.pop(key).memory
        self._of_channel[key[0]].remove(key)
        if not self._of_channel[key[0]]:
            del self._of_channel[key[0]]

    def _forget_until(self, when: float) -> None:
        while self._partials and next(iter(self._partials.values())).since < when:
            self._forget(next(iter(self._partials)))


def split(message: bytes, id: int) -> list[bytes]:
    """A message as datagrams that none is too large of."""
    if len(message) <= LARGEST:
        return [message]
    header = replace(Header.parse(message), next_payload=PayloadType.FRAGMENT, flags=0)
    room = LARGEST - LAYOUT.size - GENERIC_HEADER.size - FIELDS.size
    pieces = [message[start:start + room] for start in range(0, len(message), room)]
    return [header.pack(pack_chain([Payload(PayloadType.FRAGMENT, FIELDS.pack(
        id, number, LAST if number == len(pieces) else 0) + piece)])) for number, piece in enumerate(pieces, 1)]
