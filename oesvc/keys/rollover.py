"""Key roll-over: RFC 4322 section 5.4. A new key is published before it is used, the old one until it is forgotten.

    no roll-over  --begin-->  PUBLISHING  --seen-->  WAITING  --use-->  RETIRING  --retire-->  no roll-over

Every step leaves files from which the next one can go on, wherever a crash has cut it short: the key in use is replaced
in one step of the file system, and what is written of the times beside it can be told from the files.
"""

import json
import os
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path

from oesvc.keys import key_pair
from oesvc.keys.key_pair import KeyPairError


class Stage(Enum):
    """What a roll-over waits for; the value is for people."""

    PUBLISHING = "the new key is being published"
    WAITING = "the new key is published, and caches may still hold what was there before"
    RETIRING = "the new key is in use, and the old one is still published"


@dataclass(frozen=True, slots=True)
class RollOver:
    """When what of a roll-over was done. UNIX times."""

    begun: float
    ready: float | None = None
    "The new key may be used: every server had it, and what was there before is forgotten."
    retires: float | None = None
    "The new key is in use; the old one may go."

    @property
    def stage(self) -> Stage:
        if self.retires is not None:
            return Stage.RETIRING
        return Stage.PUBLISHING if self.ready is None else Stage.WAITING

    @property
    def due(self) -> float:
        """When the stage may end."""
        return self.retires or self.ready or self.begun


class KeyRing:
    """The key in use, and beside it the next or the former one while a roll-over is under way."""

    def __init__(self, in_use: Path) -> None:
        self.in_use = in_use
        self.next = in_use.with_suffix(".next.pem")
        self.former = in_use.with_suffix(".former.pem")
        self._times = in_use.with_suffix(".roll.json")

    def state(self, now: float) -> RollOver | None:
        """The roll-over that is under way. Raises KeyPairError."""
        state = self.glance(now)
        # The new key is in use, and perhaps that was not written down any more: then it is so from now on.
        if state is not None and state.retires is not None and state != self._read():
            self._write(state)
        return state

    def glance(self, now: float) -> RollOver | None:
        """The same, for whoever is no part of it: nothing is written. Raises OSError."""
        if not (self.next.exists() or self.former.exists()):
            return None
        state = self._read()
        if self.next.exists():
            return replace(state, retires=None) if state else RollOver(self.next.stat().st_mtime)
        if state is None or state.retires is None:
            return RollOver(state.begun if state else now, now, now + self._waited(state))
        return state

    def made(self) -> float:
        """UNIX time at which the key in use was made: the last roll-over's beginning. Raises OSError."""
        return self.in_use.stat().st_mtime

    def begin(self, now: float, bits: int = key_pair.BITS) -> RollOver:
        """Make the next key. Raises KeyPairError."""
        key_pair.load(self.in_use)
        # What a crash at the end of the last one may have left says nothing of this one's key.
        self._times.unlink(missing_ok=True)
        key_pair.generate(self.next, bits)
        return self._write(RollOver(now))

    def seen(self, now: float, minimum: float, longest: float) -> RollOver:
        """Every server has the new key's records. `minimum`: the zones' largest SOA MINIMUM; `longest`: the longest
        time that a cache may still hold what was there before; in seconds.
        """
        state = self.state(now) or RollOver(now)
        return self._write(replace(state, ready=max(state.begun + minimum, now + longest)))

    def use(self, now: float) -> RollOver:
        """Put the new key in the old one's place. Raises KeyPairError where it is too early, or the key is no key."""
        state = self.state(now)
        if state is None or state.ready is None or now < state.ready:
            raise KeyPairError(f"{self.next}: not yet to be used; {state.stage.value if state else 'there is none'}")
        key_pair.load(self.next)
        if not self.former.exists():
            os.link(self.in_use, self.former)
        self.next.replace(self.in_use)
        _sync(self.in_use.parent)
        return self._write(replace(state, retires=now + self._waited(state)))

    def retire(self) -> None:
        """Delete the old key; or, where the next one is not in use yet, give that up."""
        self.next.unlink(missing_ok=True)
        self.former.unlink(missing_ok=True)
        self._times.unlink(missing_ok=True)
        _sync(self.in_use.parent)

    @staticmethod
    def _waited(state: RollOver | None) -> float:
        """As long as the new key had to wait, the old one may."""
        return state.ready - state.begun if state and state.ready else 3600.0

    def _read(self) -> RollOver | None:
        try:
            written = json.loads(self._times.read_text())
            return RollOver(*(written[name] and float(written[name]) for name in ("begun", "ready", "retires")))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _write(self, state: RollOver) -> RollOver:
        new = self._times.with_suffix(".new")
        try:
            with new.open("w") as opened:
                key_pair.give_to_owner(opened.fileno(), new.parent)
                json.dump(asdict(state), opened)
                opened.flush()
                os.fsync(opened.fileno())
            new.replace(self._times)
        except OSError as error:
            raise KeyPairError(f"{self._times}: {error.strerror}") from None
        return state


def _sync(directory: Path) -> None:
    """Names are on the disk too."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
