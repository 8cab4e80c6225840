"""The ISAKMP header: RFC 2408 section 3.1."""

import struct
from dataclasses import dataclass

from oesvc.ike.v1.constants import VERSION, Flag
from oesvc.ike.v1.errors import MalformedError

KNOWN_FLAGS = int(Flag.ENCRYPTION | Flag.COMMIT | Flag.AUTHENTICATION)
ENCRYPTED, COMMIT = int(Flag.ENCRYPTION), int(Flag.COMMIT)
LAYOUT = struct.Struct(">8s8sBBBBLL")


@dataclass(frozen=True, slots=True)
class Header:
    """All but the length, which is the datagram's."""

    initiator_cookie: bytes
    responder_cookie: bytes
    next_payload: int
    exchange: int
    flags: int
    message_id: int

    @property
    def encrypted(self) -> bool:
        return bool(self.flags & ENCRYPTED)

    @classmethod
    def parse(cls, data: bytes) -> "Header":
        """Read the header of a whole datagram. Raises MalformedError."""
        if len(data) < LAYOUT.size:
            raise MalformedError(f"a datagram of {len(data)} octets is shorter than an ISAKMP header")
        cookie_i, cookie_r, next_payload, version, exchange, flags, message_id, length = LAYOUT.unpack_from(data)
        if version != VERSION:
            raise MalformedError(f"version {version >> 4}.{version & 15} of ISAKMP instead of 1.0")
        if flags & ~KNOWN_FLAGS:
            raise MalformedError(f"flags {flags:#04x}, of which some have no meaning")
        if length != len(data):
            raise MalformedError(f"the header says {length} octets, the datagram has {len(data)}")
        if not any(cookie_i):
            raise MalformedError("the initiator's cookie is zero")
        return cls(cookie_i, cookie_r, next_payload, exchange, flags, message_id)

    def pack(self, body: bytes) -> bytes:
        """The whole datagram."""
        return self.pack_before(self.next_payload, self.flags, body)

    def pack_before(self, next_payload: int, flags: int, body: bytes) -> bytes:
        """The whole datagram, with what the body says of these two."""
        return LAYOUT.pack(self.initiator_cookie, self.responder_cookie, next_payload, VERSION,
                           self.exchange, flags, self.message_id, LAYOUT.size + len(body)) + body
