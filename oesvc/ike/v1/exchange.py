"""Runs an exchange: a ladder of steps, each of which takes one message (RFC 2408 section 4).

A step returns an outcome, and the exchange climbs; or it raises, and nothing has changed: a forged or broken
datagram is dropped, and the exchange waits on for the right one.

A step that needs slow arithmetic is a generator: it yields a calculation, which is done elsewhere, and is sent the
result. Until then its exchange takes no other message; what is dropped meanwhile will be repeated by its sender.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from oesvc.ike.crypto.cipher import CbcState
from oesvc.ike.crypto.groups import PublicValueError
from oesvc.ike.v1.arithmetic import Whose
from oesvc.ike.v1.constants import DUPLICATE_SPACING, ExchangeType, PayloadType
from oesvc.ike.v1.errors import PeerError, PublicValueRefusedError, UnexpectedError
from oesvc.ike.v1.retransmit import Retransmission
from oesvc.ike.v1.wire.header import Header
from oesvc.ike.v1.wire.message import Message, open_clear, open_encrypted, seal_clear, seal_encrypted
from oesvc.ike.v1.wire.payloads import Payload
from oesvc.ipsec.flow import Address


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step leads to."""

    stage: Any
    "Where the exchange is now: one frozen dataclass for each rung."
    reply: tuple[Payload, ...] = ()
    encrypted: bool = True
    "Of the reply."
    state: CbcState | None = None
    "Encryption that begins with this step."



@dataclass(frozen=True, slots=True)
class Calculation:
    """Slow and pure: it may be run in any thread."""

    cost: int
    "Milliseconds, about."
    run: Callable[[], Any]


Climb = Generator[Calculation, Any, Outcome]
"A step on its way to its outcome."

Calculate = Callable[[Whose, Address, Calculation, Callable[[], bool], Callable[[Any, float], None]], None]
"""Has a calculation done for the peer there, or for us, if it is still wanted when its turn comes; calls back with its
result, or the error that it ran into, and the time."""

Reached = Callable[[Outcome, float], None]
Refused = Callable[[PeerError], None]


@dataclass(frozen=True, slots=True)
class Step:
    """One rung: what its message must be, and what is done with it."""

    name: str
    "The message that it takes."
    do: Callable[[Any, Any, Message], Outcome | Climb]
    "Called with what the exchange knows, its stage, and the message."
    requires: frozenset[PayloadType]
    encrypted: bool = True


Ladder = Mapping[type, Step]
"The step that awaits a message, by the class of the stage."


class Exchange:
    """One run down a ladder, and what it takes to answer repetitions."""

    __slots__ = ("_before", "_calculate", "_climb", "_ladder", "_last", "_peer", "_sent_at", "_taking", "_whose",
                 "error", "message_id", "retransmission", "sent", "stage", "state", "type")

    def __init__(self, type: ExchangeType, message_id: int, ladder: Ladder, stage: Any, calculate: Calculate,
                 whose: Whose, peer: Address, state: CbcState | None = None) -> None:
        self.type, self.message_id, self.stage, self.state = type, message_id, stage, state
        self.sent: bytes | None = None
        "Our last message, unless one was taken since."
        self.retransmission: Retransmission | None = None
        self.error: str | None = None
        "Why the last message that was not taken was not."
        self._ladder, self._calculate, self._whose, self._peer = ladder, calculate, whose, peer
        self._before: tuple[Any, CbcState | None] = None, None
        "Where to step back to, while the last message taken may still turn out to be wrong."
        self._climb: Climb | None = None
        "The step that waits for a calculation."
        self._taking = self._last = b""
        "Digests of the message that it is about, and of the last one that was taken."
        self._sent_at = 0.0

    def take(self, knowledge: Any, header: Header, data: bytes, now: float,
             reached: Callable[[str, Outcome, float], None], refused: Refused) -> None:
        """Climb with a message, and tell its name and what comes of it.

        Raises PeerError, or after a calculation calls `refused` with it; nothing has changed then.
        """
        if self._climb:
            raise UnexpectedError("its exchange is still busy with the message before")
        step = self._ladder.get(type(self.stage))
        if step is None:
            raise UnexpectedError("its exchange awaits no message now")
        digest = _digest(data)

        def taken(outcome: Outcome, now: float) -> None:
            before = self.stage, self.state
            self._last, self.sent = digest, None
            self.stop()
            self.state = state
            self.go(outcome)
            if not outcome.reply:
                self._before = before
            reached(step.name, outcome, now)

        def not_taken(error: PeerError) -> None:
            self.error = str(error)
            refused(error)

        try:
            message, state = self._open(step, header, data)
            missing = step.requires - {payload.type for payload in message.payloads}
            if missing:
                raise UnexpectedError(f"it lacks {', '.join(sorted(kind.name for kind in missing))}")
            self._taking = digest
            climb = step.do(knowledge, self.stage, message)
            if isinstance(climb, Outcome):
                taken(climb, now)
            else:
                self._advance(climb, None, taken, not_taken, now)
        except PeerError as error:
            self.error = str(error)
            raise

    def go(self, outcome: Outcome) -> None:
        """Be where a step leads. What was there before, such as a key pair, is forgotten."""
        self.stage, self.state = outcome.stage, outcome.state or self.state
        self._before = None, None

    def climb(self, step: Climb, reached: Reached, refused: Refused, now: float) -> None:
        """Take a step that was begun by an answer of our owner's, not by a message. Raises and refuses like `take`."""
        def gone(outcome: Outcome, now: float) -> None:
            self.go(outcome)
            reached(outcome, now)

        self._advance(step, None, gone, refused, now)

    def _advance(self, climb: Climb, result: Any, reached: Reached, refused: Refused, now: float) -> None:
        """Give a step its result, and have the next calculation done or come to its outcome. Raises PeerError."""
        self._climb = None
        try:
            calculation = climb.throw(result) if isinstance(result, Exception) else climb.send(result)
        except StopIteration as end:
            reached(end.value, now)
            return
        except PublicValueError as error:
            raise PublicValueRefusedError(str(error)) from None
        self._climb = climb

        def resume(result: Any, now: float) -> None:
            if self._climb is climb:  # otherwise the exchange has ended meanwhile
                try:
                    self._advance(climb, result, reached, refused, now)
                except PeerError as error:
                    refused(error)

        self._calculate(self._whose, self._peer, calculation, lambda: self._climb is climb, resume)

    @property
    def busy(self) -> bool:
        """Whether it waits for a calculation."""
        return self._climb is not None

    def step_back(self) -> None:
        """The last message has turned out to be wrong: wait for another one in its place."""
        self.stage, self.state = self._before
        self._last = b""

    def seal(self, header: Header, outcome: Outcome, now: float) -> bytes:
        """The datagram of an outcome's reply."""
        if outcome.encrypted:
            self.sent, self.state = seal_encrypted(header, outcome.reply, self._keyed())
        else:
            self.sent = seal_clear(header, outcome.reply)
        self._sent_at = now
        return self.sent

    def repeats(self, data: bytes) -> bool:
        """Whether this very datagram was taken last, or is being taken."""
        return _digest(data) == (self._taking if self._climb else self._last)

    def answer_again(self, now: float) -> bytes | None:
        """What a repeated message is answered with, if it is time for that."""
        if self.sent is None or self._climb or now - self._sent_at < DUPLICATE_SPACING:
            return None
        self._sent_at = now
        return self.sent

    def settle(self) -> None:
        """It is over; only repetitions of the message before our last one are still answered."""
        self.stage = self.state = None
        self._before = None, None

    def finish(self, _: float) -> None:
        """Nobody repeats messages of this exchange any more."""
        self.sent = None

    def stop(self) -> None:
        """Stop repeating our last message, and wait for no calculation."""
        self._climb = None
        if self.retransmission:
            self.retransmission.stop()
            self.retransmission = None

    def _open(self, step: Step, header: Header, data: bytes) -> tuple[Message, CbcState | None]:
        if header.encrypted != step.encrypted:
            raise UnexpectedError(f"it is {'encrypted' if header.encrypted else 'in clear'}, where {step.name} "
                                  f"is {'encrypted' if step.encrypted else 'in clear'}")
        if step.encrypted:
            return open_encrypted(header, data, self._keyed())
        return open_clear(header, data), self.state

    def _keyed(self) -> CbcState:
        """Nothing that is to be encrypted ever goes or comes in clear."""
        if self.state is None:
            raise UnexpectedError("its exchange has no keys yet")
        return self.state


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()
