"""Why a flow is treated as it is: every decision carries one, and `oegw why` prints it."""

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache


class Because(Enum):
    """What led to a connection's state; the value is the beginning of a sentence for people."""

    CLASS_IS_CLEAR = "the policy says always clear text"
    CLASS_IS_DENY = "the policy says deny"
    CLASS_IS_PASSIVE = "the policy says to accept encryption, not to ask for it"
    CLASS_IS_CONFIGURED = "the destination belongs to a configured tunnel that is not for this source"
    NOT_BEGUN = "nobody has begun the configured tunnel yet"
    ASKED_DNS = "the destination's delegation record is being looked up"
    KEYING = "the destination's gateway is known and keys are being negotiated"
    REKEYING = "new keys are being negotiated while the old ones serve"
    TUNNEL_STANDS = "a tunnel with the destination's gateway stands"
    NOT_OE_CAPABLE = "the destination publishes no delegation record"
    DNS_FAILED = "the DNS gave no usable answer"
    RECORD_BAD = "the destination's delegation record cannot be used"
    PEER_SILENT = "no gateway of the destination answered"
    PEER_REFUSED = "the gateways of the destination refused"
    PEER_NOT_AUTHENTIC = "no gateway of the destination could prove its identity"
    SAS_REFUSED = "this gateway's kernel refused the keys"
    KEYS_EXPIRED = "the keys ran out before new ones were agreed"
    IDLE = "nothing used it lately"
    PEER_DELETED = "the peer's gateway closed the tunnel"
    PEER_LOST = "the peer's gateway does not answer any more"
    ROOM_WANTED = "another flow took its place"
    DROPPED = "an administrator dropped it"
    POLICY_CHANGED = "the policy for its destination was changed"
    PEER_AUTHORIZED = "the peer's gateway proposed a tunnel and may speak for its end"


@dataclass(frozen=True, slots=True)
class Reason:
    """A cause and its particulars: the record, the status, the peer's words."""

    because: Because
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.because.value}: {self.detail}" if self.detail else self.because.value


reason = lru_cache(maxsize=4096)(Reason)
"A Reason: of very many flows the same one."
