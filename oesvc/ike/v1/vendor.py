"""Extensions that a peer announces by vendor IDs (RFC 2408 section 3.16)."""

from collections.abc import Iterable
from enum import Enum

from oesvc.ike.v1.constants import PayloadType
from oesvc.ike.v1.wire.message import Message
from oesvc.ike.v1.wire.payloads import Payload


class Extension(Enum):
    """The value is the vendor ID; a peer's may be longer, by a version number."""

    DEAD_PEER_DETECTION = bytes.fromhex("afcad71368a1f1c96b8696fc77570100")
    "RFC 3706 section 5."
    FRAGMENTATION = bytes.fromhex("4048b7d56ebce88525e7de7f00d6c2d3")
    "The MD5 of that word."
    NAT_TRAVERSAL = bytes.fromhex("4a131c81070358455c5728f20e95452f")
    "RFC 3947 section 3.1: the MD5 of its name."


Extensions = frozenset[Extension]


_BEGINNINGS = tuple((extension, extension.value) for extension in Extension)
"Of the vendor IDs; an Enum is walked slowly."


def announce(extensions: Iterable[Extension]) -> tuple[Payload, ...]:
    """In an order that is always the same: a peer's message 1 is recognised by its octets."""
    return tuple(Payload(PayloadType.VENDOR_ID, extension.value) for extension in Extension
                 if extension in set(extensions))


def announced(message: Message) -> Extensions:
    """The extensions that we know of those that a message announces."""
    ids = message.all(PayloadType.VENDOR_ID)
    return frozenset(extension for id in ids for extension, begins in _BEGINNINGS if id.startswith(begins))
