"""The hold policy: which datagrams of an undecided flow are kept (RFC 4322 sections 3.1.1 and 3.1.2)."""

from dataclasses import dataclass

from oesvc.ipsec.flow import Flow
from oesvc.kernel.constants import REANNOUNCE_SECONDS


@dataclass(frozen=True, slots=True)
class Datagram:
    """A datagram that waits in the kernel's queue for our verdict."""

    number: int
    "Its number in the queue."
    flow: Flow
    hook: int
    "Of netfilter: where it was caught."
    mark: int
    octets: int = 0
    "Its length, IP header included."
    inner: Flow | None = None
    "What it is before it is translated into one of `flow`, where it will be."


@dataclass(slots=True)
class _Held:
    since: float
    announced: float
    first: Datagram | None = None
    last: Datagram | None = None


class HoldTable:
    """The first and the last datagram of each flow on hold, and when its keying was last asked for."""

    def __init__(self) -> None:
        self._held: dict[Flow, _Held] = {}

    def ask(self, flow: Flow, now: float) -> bool:
        """Whether keying is to be asked for now: at once for a new flow, then less than once a second."""
        held = self._held.get(flow)
        if held is None:
            self._held[flow] = _Held(now, now)
            return True
        if now - held.announced > REANNOUNCE_SECONDS:
            held.announced = now
            return True
        return False

    def keep(self, datagram: Datagram) -> Datagram | None:
        """Keep a datagram of a flow asked for; returns the one that it displaces."""
        held = self._held[datagram.flow]
        if held.first is None:
            held.first = datagram
            return None
        displaced, held.last = held.last, datagram
        return displaced

    def take(self, flow: Flow) -> list[Datagram]:
        """End the hold of a flow: what was kept, in order."""
        held = self._held.pop(flow, None)
        return [one for one in (held.first, held.last) if one] if held else []

    def since(self, flow: Flow) -> float | None:
        """Since when datagrams of a flow are held; None where none is."""
        held = self._held.get(flow)
        return held.since if held and held.first else None

    def datagrams(self) -> int:
        return sum((held.first is not None) + (held.last is not None) for held in self._held.values())

    def flows(self) -> list[Flow]:
        return list(self._held)
