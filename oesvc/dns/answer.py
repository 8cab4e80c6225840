"""What a look-up comes to: RFC 4035 section 4.3. Pure values; this module is all that `oe` sees of the DNS."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

Name = tuple[bytes, ...]
"A domain name: its labels in lower case, the leftmost first, the root as ()."


class SecurityStatus(Enum):
    """RFC 4035 section 4.3."""

    SECURE = "secure"
    INSECURE = "insecure"
    BOGUS = "bogus"
    INDETERMINATE = "indeterminate"

    @classmethod
    def of_all(cls, statuses: "Iterable[SecurityStatus]") -> "SecurityStatus":
        """How far can be believed what follows from several answers: as far as the weakest."""
        return next((status for status in statuses if status is not cls.SECURE), cls.SECURE)


class AnswerKind(Enum):
    DATA = "data"
    NODATA = "no such record"
    NXDOMAIN = "no such name"
    NONE = "no answer"


@dataclass(frozen=True, slots=True)
class Answer:
    """One RRset, or its absence, and how far it can be believed."""

    name: Name
    "The name that was asked for."
    rdtype: int
    kind: AnswerKind
    status: SecurityStatus
    reason: str
    "One sentence: what makes it so (the anchor it chains to, the signature that failed, the silent server)."
    rdatas: tuple[bytes, ...] = ()
    "The records' RDATA as on the wire, names in it uncompressed."
    canonical: Name = ()
    "The owner of the records: `name`, or what CNAMEs lead to."
    expires: float = 0.0
    """UNIX time until which this may be believed: the least of TTLs, original TTLs and signature expirations
    (RFC 4035 section 5.3.3), for an absence also the SOA's MINIMUM (RFC 2308)."""
