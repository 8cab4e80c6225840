"""What the forwarding plane does with a flow: RFC 4322 section 3.1."""

from enum import Enum


class ForwardingPolicy(Enum):
    """The states of an SPD entry, in the RFC's words; "non-existent" is the absence of one."""

    HOLD = "hold"
    PASS = "pass-through"
    DENY = "deny"
    ENCRYPT = "encrypt"
