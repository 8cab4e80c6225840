"""How long until a connection is looked at again: RFC 4322 sections 3.2.5 and 3.4.1. All times are in seconds."""

from dataclasses import dataclass
from enum import Enum


class Lifespan(Enum):
    """Lifespans, not lifetimes: they say when we next ask whether the flow is used, not how long keys are good."""

    UNCHANGED = "unchanged"
    FIRST = "first"
    USED = "used"
    LOW = "low"
    NORMAL = "normal"
    ANSWER = "that of the DNS answer"


@dataclass(frozen=True, slots=True)
class Lifespans:
    """Their lengths; the defaults are the RFC's where it has one, else those of decisions.md 1C.5."""

    first: float = 60.0
    "Of a new tunnel, for many flows last only seconds (3.4.1)."
    used: float = 20 * 60.0
    "Of anything found in use (3.4.1)."
    low: float = 10 * 60.0
    "After silence: the gateway may be rebooting (3.2.5)."
    normal: float = 6 * 3600.0
    "After a refusal (3.2.5), and the most that any DNS answer is given."
    least: float = 10.0
    "The least that any DNS answer is given, so that a TTL of 0 cannot make us ask for each datagram."
    in_use_within: float = 30.0
    "A flow whose last datagram is not older than this is in use (3.4.1)."

    def end(self, lifespan: Lifespan, now: float, answer_expires: float) -> float:
        """The time at which a lifespan that begins now ends."""
        if lifespan is Lifespan.ANSWER:
            return min(max(answer_expires, now + self.least), now + self.normal)
        return now + {Lifespan.FIRST: self.first, Lifespan.USED: self.used,
                      Lifespan.LOW: self.low, Lifespan.NORMAL: self.normal}[lifespan]
