"""IKE messages in pieces small enough for any path: the vendor ID scheme that IKEv1 daemons share.

Each piece is an ISAKMP message of its own, whose one payload has number of the message, number of the piece and a
mark on the last one before its octets. Nothing protects them: what they make up is judged like any other datagram.
"""

import struct
from dataclasses import replace

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


class Reassembly:
    """The pieces of the newest message of one channel."""

    __slots__ = ("_id", "_last", "_pieces")

    def __init__(self) -> None:
        self._id = -1
        self._pieces: dict[int, bytes] = {}
        self._last: int | None = None

    def take(self, header: Header, data: bytes) -> bytes | None:
        """Add a piece; the message when it is complete. Raises PeerError."""
        body = open_clear(header, data).one(PayloadType.FRAGMENT)
        if len(body) <= FIELDS.size:
            raise MalformedError("a fragment without octets")
        id, number, flags = FIELDS.unpack_from(body)
        if not 0 < number <= MAX_FRAGMENTS:
            raise MalformedError(f"fragment {number} of a message; 1 to {MAX_FRAGMENTS} are allowed")
        if id != self._id:
            self._id, self._last, self._pieces = id, None, {}
        if sum(map(len, self._pieces.values())) + len(body) > LONGEST:
            raise MalformedError(f"fragments of a message of more than {LONGEST} octets")
        self._pieces.setdefault(number, body[FIELDS.size:])
        if flags & LAST:
            self._last = number
        if self._last is None or any(number not in self._pieces for number in range(1, self._last + 1)):
            return None
        whole = b"".join(self._pieces[number] for number in range(1, self._last + 1))
        self._id, self._last, self._pieces = -1, None, {}
        return whole


def split(message: bytes, id: int) -> list[bytes]:
    """A message as datagrams that none is too large of."""
    if len(message) <= LARGEST:
        return [message]
    header = replace(Header.parse(message), next_payload=PayloadType.FRAGMENT, flags=0)
    room = LARGEST - LAYOUT.size - GENERIC_HEADER.size - FIELDS.size
    pieces = [message[start:start + room] for start in range(0, len(message), room)]
    return [header.pack(pack_chain([Payload(PayloadType.FRAGMENT, FIELDS.pack(
        id, number, LAST if number == len(pieces) else 0) + piece)])) for number, piece in enumerate(pieces, 1)]
