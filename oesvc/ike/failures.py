"""Why keying failed, in terms that both protocol versions share and RFC 4322 section 3.2.5 tells apart."""

from enum import Enum


class KeyingFailure(Enum):
    """The value is a sentence for people."""

    PEER_SILENT = "the peer's gateway did not answer"
    PORT_UNREACHABLE = "the peer's gateway kept answering with ICMP unreachable and nothing else"
    PHASE1_REFUSED = "the peer's gateway refused the keying channel"
    PHASE1_MISMATCH = "the peer's gateway chose what was not offered, or broke the protocol"
    WRONG_IDENTITY = "the peer's gateway gave another identity than its DNS record"
    WRONG_SIGNATURE = "no key that DNS has for the peer's gateway verifies its signature"
    PHASE2_SILENT = "the keying channel stands, but the peer did not answer the tunnel's proposal"
    PHASE2_REFUSED = "the keying channel stands, but the peer refused the tunnel"
    NO_IDENTITY = "there is no identity for a host behind a NAT"
    CLOSING = "this gateway is shutting down"
