"""What a failure of keying means for a connection: RFC 4322 section 3.2.5."""

from oesvc.ike.failures import KeyingFailure
from oesvc.oe import events as ev

FAILURES: dict[KeyingFailure, type[ev.Event]] = {
    KeyingFailure.PEER_SILENT: ev.PeerSilent,
    KeyingFailure.PORT_UNREACHABLE: ev.PeerSilent,
    KeyingFailure.CLOSING: ev.PeerSilent,
    KeyingFailure.PHASE1_REFUSED: ev.ChannelRefused,
    KeyingFailure.PHASE1_MISMATCH: ev.ChannelRefused,
    KeyingFailure.PHASE2_SILENT: ev.PeerRefused,
    KeyingFailure.PHASE2_REFUSED: ev.PeerRefused,
    KeyingFailure.NO_IDENTITY: ev.PeerRefused,
    KeyingFailure.WRONG_IDENTITY: ev.PeerNotAuthentic,
    KeyingFailure.WRONG_SIGNATURE: ev.PeerNotAuthentic,
}
"""Which of the three failures of that section each failure of keying is. A refusal in phase 1 is none of them: nothing
vouches for it, and the peer may be about to find our new key in the DNS. It is given the lifespan of the first."""
