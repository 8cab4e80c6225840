"""Numbers of IKEv1, under their IANA names, and numbers of our own choice."""

from enum import IntEnum, IntFlag

# --- from the protocol ------------------------------------------------------------------------------------------

PORT = 500
NAT_TRAVERSAL_PORT = 4500
NON_ESP_MARKER = bytes(4)
"What tells IKE from ESP on port 4500 (RFC 3948 section 2.2)."
NAT_KEEPALIVE = b"\xff"
"Nothing but a reason for a NAT to keep its mapping (RFC 3948 section 2.3)."

VERSION = 0x10
"Major 1, minor 0 (RFC 2408 section 3.1)."
COOKIE_LENGTH = 8
NO_COOKIE = bytes(COOKIE_LENGTH)
IPSEC_DOI = 1
SIT_IDENTITY_ONLY = 1
NONCE_LENGTHS = range(8, 257)
"RFC 2409 section 5."
RESERVED_SPIS = 256
"0 to 255 are never an SA's (RFC 4303 section 2.1)."


class PayloadType(IntEnum):
    """RFC 2408 section 3.1."""

    NONE = 0
    SA = 1
    PROPOSAL = 2
    TRANSFORM = 3
    KEY_EXCHANGE = 4
    IDENTIFICATION = 5
    HASH = 8
    SIGNATURE = 9
    NONCE = 10
    NOTIFICATION = 11
    DELETE = 12
    VENDOR_ID = 13
    NAT_D = 20
    "RFC 3947 section 3.2; so is the next, section 5.2."
    NAT_OA = 21
    FRAGMENT = 132
    "Private use, of the scheme in `fragments`."


class ExchangeType(IntEnum):
    """RFC 2408 section 3.1, RFC 2409 appendix A, and mode-config's Transaction."""

    MAIN_MODE = 2
    AGGRESSIVE_MODE = 4
    INFORMATIONAL = 5
    TRANSACTION = 6
    QUICK_MODE = 32


class Flag(IntFlag):
    """RFC 2408 section 3.1."""

    ENCRYPTION = 1
    COMMIT = 2
    AUTHENTICATION = 4


class Protocol(IntEnum):
    """RFC 2407 section 4.4.1."""

    ISAKMP = 1
    AH = 2
    ESP = 3
    IPCOMP = 4


class Phase1Attribute(IntEnum):
    """RFC 2409 appendix A."""

    ENCRYPTION = 1
    HASH = 2
    AUTHENTICATION = 3
    GROUP = 4
    LIFE_TYPE = 11
    LIFE_DURATION = 12
    KEY_LENGTH = 14


class EspAttribute(IntEnum):
    """RFC 2407 section 4.5."""

    LIFE_TYPE = 1
    LIFE_DURATION = 2
    GROUP = 3
    ENCAPSULATION = 4
    INTEGRITY = 5
    KEY_LENGTH = 6


class LifeType(IntEnum):
    SECONDS = 1
    KILOBYTES = 2


class Encapsulation(IntEnum):
    """RFC 2407 section 4.5; from 3 on RFC 3947 section 5.1."""

    TUNNEL = 1
    TRANSPORT = 2
    UDP_ENCAPSULATED_TUNNEL = 3
    UDP_ENCAPSULATED_TRANSPORT = 4


class AuthenticationMethod(IntEnum):
    """RFC 2409 appendix A."""

    PRE_SHARED_KEY = 1
    DSS_SIGNATURES = 2
    RSA_SIGNATURES = 3
    RSA_ENCRYPTION = 4
    REVISED_RSA_ENCRYPTION = 5


KEY_IKE = 1
"The one transform of protocol ISAKMP (RFC 2407 section 4.4.2)."


class IdType(IntEnum):
    """RFC 2407 section 4.6.2.1."""

    IPV4_ADDR = 1
    FQDN = 2
    USER_FQDN = 3
    IPV4_ADDR_SUBNET = 4
    IPV6_ADDR = 5
    IPV6_ADDR_SUBNET = 6


class NotifyType(IntEnum):
    """RFC 2408 section 3.14.1 and RFC 2407 section 4.6.3."""

    INVALID_PAYLOAD_TYPE = 1
    DOI_NOT_SUPPORTED = 2
    SITUATION_NOT_SUPPORTED = 3
    INVALID_COOKIE = 4
    INVALID_MAJOR_VERSION = 5
    INVALID_MINOR_VERSION = 6
    INVALID_EXCHANGE_TYPE = 7
    INVALID_FLAGS = 8
    INVALID_MESSAGE_ID = 9
    INVALID_PROTOCOL_ID = 10
    INVALID_SPI = 11
    INVALID_TRANSFORM_ID = 12
    ATTRIBUTES_NOT_SUPPORTED = 13
    NO_PROPOSAL_CHOSEN = 14
    BAD_PROPOSAL_SYNTAX = 15
    PAYLOAD_MALFORMED = 16
    INVALID_KEY_INFORMATION = 17
    INVALID_ID_INFORMATION = 18
    INVALID_HASH_INFORMATION = 23
    AUTHENTICATION_FAILED = 24
    INVALID_SIGNATURE = 25
    CONNECTED = 16384
    RESPONDER_LIFETIME = 24576
    REPLAY_STATUS = 24577
    INITIAL_CONTACT = 24578
    R_U_THERE = 36136
    "RFC 3706 section 5.2; so is the next."
    R_U_THERE_ACK = 36137


LAST_ERROR_NOTIFY = 8191
"Below it a notify is an error; from 16384 on it is a status (RFC 2408 section 3.14.1)."
NOT_READ = frozenset({NotifyType.INVALID_PAYLOAD_TYPE, NotifyType.INVALID_COOKIE, NotifyType.INVALID_FLAGS,
                      NotifyType.INVALID_MESSAGE_ID, NotifyType.PAYLOAD_MALFORMED, NotifyType.INVALID_HASH_INFORMATION})
"""Said of a datagram, not of what is proposed: it counts as lost, and will be repeated. strongSwan 5.9.8 says so of a
repeated fragment of a message that it has just answered."""

# --- our choice -------------------------------------------------------------------------------------------------

NONCE_LENGTH = 32
MAX_PAYLOADS = 255
"Payloads in one message, and transforms in one proposal; that is what a proposal can count."
MAX_NOTIFICATIONS = 16
"Of one message: each may be about any of the tunnels with its sender."
MAX_TRANSFORMS = 255
"In all proposals of one message: to judge one takes 10 microseconds. Known daemons offer 100."
MAX_ATTRIBUTES = 16
MAX_NUMBER_OCTETS = 8
"Of an attribute's value in its long form; lifetimes need four."
MAX_KILOBYTES = 1 << 32
"So much, 4 TiB, or more is no limit by volume; less fits into the four octets of an attribute that says it."
TIME_TO_RENEW = 60
"Seconds that a peer's word leaves the keys of a tunnel at least, so that new ones take their place in time."
DUPLICATE_SPACING = 0.25
"Seconds that lie at least between two answers to a repeated message."
LINGER = 60.0
"Seconds for which a finished exchange still answers repetitions of its last message."
DELETE_TRIES = 3
DELETE_SPACING = 10.0
"RFC 4322 section 3.4.2."
MAX_FRAGMENTS = 32
"Of one message; that is 38,000 octets."
COMMIT_WAIT = 4.0
"Seconds that a peer which has set the commit bit has for its CONNECTED."
SEQUENCE_OCTETS = 4
"RFC 3706 section 5.4."
DPD_TRIES = 5
DPD_SPACING = 3.0
"Seconds between questions whether a peer is there."
KEEPALIVE_SPACING = 20.0
"Seconds; the default of RFC 3948 section 4."
REKEY_SPACING = 60.0
"Seconds between tries to replace a keying channel that nears its end."
KILOBYTE = 1024
WORN_EXCHANGES = 3072
"Exchanges, theirs and ours, after which a keying channel is replaced, so that there is room for those meanwhile."
MAX_EXCHANGES = 4096
"Exchanges that a peer may begin under one keying channel; their message IDs are remembered against replay."
MAX_IDENTITIES = 3
"Identities whose keys a responder looks up for one keying channel."
MAX_VERIFICATIONS = 3
"Of signatures that an initiator may have refused under one keying channel; a repetition may be meant well."
UNREACHABLE_IS_CONSISTENT = 3
"ICMP unreachables that make a pattern, if nothing else is heard (RFC 4322 section 9.2)."


def name_of(kind: type[IntEnum], number: int) -> str:
    """IANA's name of a number, or the number itself where it has none here."""
    try:
        return kind(number).name.replace("_", "-")
    except ValueError:
        return str(number)
