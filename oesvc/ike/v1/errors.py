"""Ways in which a peer's message can be wrong; each knows the notify that answers it (RFC 2408 section 3.14.1)."""

from oesvc.ike.failures import KeyingFailure
from oesvc.ike.v1.constants import NotifyType
from oesvc.ipsec.flow import Flow


class PeerError(Exception):
    """The peer broke the protocol; its message is dropped, our state stays."""

    notify = NotifyType.PAYLOAD_MALFORMED
    failure = KeyingFailure.PHASE1_MISMATCH
    "What phase 1 has failed of, if nothing better comes until its time is over."
    flow: Flow | None = None
    "The tunnel that an authentic message proposed."


class MalformedError(PeerError):
    """Octets that are no ISAKMP."""


class UnexpectedError(PeerError):
    """A message that is well-formed, but not what its exchange waits for."""

    notify = NotifyType.INVALID_PAYLOAD_TYPE


class ExchangeTypeError(PeerError):
    """An exchange that opportunistic encryption does not use."""

    notify = NotifyType.INVALID_EXCHANGE_TYPE


class BusyError(PeerError):
    """A peer asks for more than peers get."""

    notify = NotifyType.NO_PROPOSAL_CHOSEN


class NoProposalChosenError(PeerError):
    """Nothing of what was offered is acceptable, or what was chosen had not been offered."""

    notify = NotifyType.NO_PROPOSAL_CHOSEN


class PublicValueRefusedError(PeerError):
    """A Diffie-Hellman value that is none of the group's."""

    notify = NotifyType.INVALID_KEY_INFORMATION


class HashError(PeerError):
    """A HASH payload does not verify: the message is not authentic."""

    notify = NotifyType.INVALID_HASH_INFORMATION


class SpiError(PeerError):
    """An SPI that no SA can have."""

    notify = NotifyType.INVALID_SPI


class IdentityError(PeerError):
    """An identity that is not the expected one, or that no opportunistic peer may have."""

    notify = NotifyType.INVALID_ID_INFORMATION
    failure = KeyingFailure.WRONG_IDENTITY


class NatError(IdentityError):
    """The peer, or who it speaks for, is behind a NAT (RFC 4322 section 6.2)."""

    failure = KeyingFailure.NO_IDENTITY


class SignatureError(PeerError):
    """No key of the peer's verifies its signature."""

    notify = NotifyType.AUTHENTICATION_FAILED
    failure = KeyingFailure.WRONG_SIGNATURE


class RefusedError(PeerError):
    """An authentic proposal of a tunnel that cannot be accepted; its sender is to be told."""

    def __init__(self, cause: PeerError, spi: bytes, flow: Flow | None) -> None:
        super().__init__(str(cause))
        self.notify, self.spi, self.flow = cause.notify, spi, flow
