"""The tunnels of one connection, each with another gateway of its destination: RFC 4322 section 8.

Datagrams are sent by the first; they are accepted from all. Of one gateway there is one tunnel at most.
"""

from dataclasses import dataclass, replace
from enum import Enum

from oesvc.ipsec.flow import Address, Flow

CROSSING = 10.0
"Two tunnels of one flow, begun by either side within this many seconds, are two initiations that crossed."
MOST = 8
"Gateways of one host that tunnels are kept with; as many as are called for one host."


class Choice(Enum):
    """Which of several gateways is sent to: what section 8 lists, as far as it can be done without BGP."""

    LAST_KEYED = "last-keyed"
    "Option 5, FreeS/WAN's: the one that keyed last."
    LAST_RECEIVED = "last-received"
    "Option 2: the one whose datagrams came last."
    ROUND_ROBIN = "round-robin"
    "Option 1: each in turn."


@dataclass(frozen=True, slots=True)
class Path:
    """One tunnel that stands."""

    tunnel: int
    gateways: Flow
    "The outer addresses, ours as the source."
    begun_here: bool
    keyed_at: float

    @property
    def gateway(self) -> Address:
        return self.gateways.destination


Paths = tuple[Path, ...]


def adopted(paths: Paths, new: Path, called: frozenset[Address | str]) -> tuple[Paths, list[int]]:
    """The paths after a tunnel has come to stand, and the tunnels to be closed.

    The newest is sent by, and only another of the same gateway gives way (3.3.2). A tunnel that we began is kept no
    longer than the DNS names its gateway: `called` are those, if we have asked.
    """
    same = next((path for path in paths if path.gateway == new.gateway), None)
    if same is not None and _stays(same, new):
        return paths, [new.tunnel]
    others = [path for path in paths if path is not same]
    kept = [path for path in others if not (path.begun_here and called and path.gateway not in called)][:MOST - 1]
    return (new, *kept), [path.tunnel for path in paths if path not in kept]


def preferred(paths: Paths, tunnel: int) -> Paths:
    """The paths when this tunnel, if it is there, is to be sent by."""
    return tuple(sorted(paths, key=lambda path: path.tunnel != tunnel))


def without(paths: Paths, tunnel: int) -> Paths:
    return tuple(path for path in paths if path.tunnel != tunnel)


def moved(paths: Paths, tunnel: int, gateways: Flow) -> Paths:
    """The paths after a NAT has moved a tunnel's peer."""
    return tuple(replace(path, gateways=gateways) if path.tunnel == tunnel else path for path in paths)


def _stays(old: Path, new: Path) -> bool:
    """Whether the older of two tunnels with one gateway is the better one.

    Begun by the same side, the one begun later is better; its number says so, whichever came to stand first. Of two
    that crossed it is that of the lower gateway address (decisions 1C.7).
    """
    if old.begun_here is new.begun_here:
        return old.tunnel > new.tunnel
    crossed = new.keyed_at - old.keyed_at < CROSSING
    return crossed and old.begun_here is (int(new.gateways.source) < int(new.gateways.destination))


class HasPaths:
    """What connections and configured tunnels have in common: by the first path they send."""

    __slots__ = ("paths",)
    paths: Paths

    def __lt__(self, other: object) -> bool:
        """In heaps, of equal deadlines none is the first."""
        return False

    @property
    def tunnel(self) -> int | None:
        """By which its datagrams are sent."""
        return self.paths[0].tunnel if self.paths else None

    @property
    def gateways(self) -> Flow | None:
        """The outer addresses of its tunnel, ours as the source."""
        return self.paths[0].gateways if self.paths else None

    @property
    def gateway(self) -> Address | None:
        """The peer's, to which its datagrams are sent."""
        return self.paths[0].gateway if self.paths else None

    def follow(self, tunnel: int, gateways: Flow) -> None:
        """A tunnel has other outer addresses now: a NAT has moved its peer."""
        self.paths = moved(self.paths, tunnel, gateways)
