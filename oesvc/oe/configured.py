r"""Configured tunnels: what an administrator has arranged with one peer (RFC 4322 section 1.2, category 4).

             at once, or a datagram              negotiated
      down  ------------------------>  keying  ------------->  up
       ^                                 |                    |  ^
       |                                 V                    V  |
       +------------ failed, or gone ----+----------------  rekeying

Such a tunnel is no opportunistic connection: the DNS authorizes nobody for it, nothing is ever asked whether it is
used, and it ends with its section in the configuration. Until it stands, and whenever it does not, what belongs to it
is blocked. Trying ends never: after a failure it goes on, ever less often.
"""

from collections.abc import Callable
from enum import Enum

from oesvc.ipsec.policy import ForwardingPolicy
from oesvc.ipsec.subnets import Subnets
from oesvc.oe import events as ev
from oesvc.oe.actions import Action, CloseTunnel, InstallPolicy, KeyConfigured
from oesvc.oe.classes import ConnectionClass, PolicyLine
from oesvc.oe.connection import REASONS, UnexpectedEventError
from oesvc.oe.paths import HasPaths, Path, Paths, adopted
from oesvc.oe.reasons import Because, Reason

BACK_OFF = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0)
"Seconds until it is tried again after so many failures; the last one repeats."


class Start(Enum):
    """When a configured tunnel is begun; the value is what an administrator writes."""

    AT_ONCE = "at once"
    ON_DEMAND = "on demand"
    WAIT = "wait"
    "By the peer alone: it is a road warrior, whose address we do not know (section 2.2)."


class TunnelState(Enum):
    DOWN = "down"
    KEYING = "keying"
    UP = "up"
    REKEYING = "rekeying"


class ConfiguredTunnel(HasPaths):
    """The tunnel between one network here and one of the peer's. For the daemon it is as a connection is."""

    def __init__(self, name: str, flow: Subnets, start: Start, place: str) -> None:
        """`place` is where the configuration says so."""
        self.name = name
        self.flow = flow
        self.start = start
        self.line = PolicyLine(flow.networks[1], ConnectionClass.CONFIGURED, f"{place}, tunnel {name}")
        self.state = TunnelState.DOWN
        self.reason = Reason(Because.NOT_BEGUN, f"start = {start.value}")
        self.paths: Paths = ()
        "One, while it stands."
        self.deadline: float | None = 0.0 if start is Start.AT_ONCE else None
        "When it is tried again by itself."
        self.scheduled: float | None = None
        "The deadline that the table of connections has noted."
        self._not_before = 0.0
        self.failures = 0
        "Of the last attempts, one after the other."

    @property
    def connection_class(self) -> ConnectionClass:
        return self.line.connection_class

    @property
    def settled_state(self) -> TunnelState:
        return self.state

    @property
    def forwarding(self) -> ForwardingPolicy:
        return ForwardingPolicy.DENY if self.tunnel is None else ForwardingPolicy.ENCRYPT

    def drop(self, tunnel: int) -> None:
        """A tunnel is gone that was not, or is no longer, sent by."""

    def handle(self, event: ev.Event, now: float) -> list[Action]:
        """Take one step in the machine and tell what is to be done. Raises UnexpectedEventError."""
        arrow = TRANSITIONS.get((self.state, type(event)))
        if arrow is None:
            raise UnexpectedEventError(f"{self.name}, {self.flow}: {type(event).__name__} while {self.state.value}")
        if because := REASONS.get(type(event)):
            self.reason = Reason(because, event.detail)
        return arrow(self, event, now)

    def key(self, event: ev.Event, now: float) -> list[Action]:
        """Begin, unless that is the peer's affair, or it has just failed."""
        if self.start is Start.WAIT:
            if self.tunnel is None:
                self.reason = Reason(Because.NOT_BEGUN, "start = wait: only its peer may begin it")
            return []
        if now < self._not_before:
            return []
        self.deadline = None
        self.state = TunnelState.KEYING if self.tunnel is None else TunnelState.REKEYING
        self.reason = Reason(Because.KEYING if self.tunnel is None else Because.REKEYING, event.detail)
        return [KeyConfigured()]

    def fail(self, event: ev.Event, now: float) -> list[Action]:
        """The old keys, if there are any, serve to their end; a new attempt is made by itself or at a datagram."""
        self._try_after(BACK_OFF[min(self.failures, len(BACK_OFF) - 1)], now)
        self.failures += 1
        self.state = TunnelState.DOWN if self.tunnel is None else TunnelState.UP
        return []

    def come_up(self, event: ev.Event, now: float) -> list[Action]:
        """Use the new tunnel and close the old one; of two that crossed, keep the one of the lower gateway's."""
        assert isinstance(event, ev.TunnelNegotiated) and event.gateways is not None
        self.state, self.deadline, self.failures, self._not_before = TunnelState.UP, None, 0, 0.0
        new = Path(event.tunnel, event.gateways, event.begun_here, now)
        (path, *others), closed = adopted(self.paths, new, frozenset())
        self.paths = (path,)
        return [InstallPolicy(ForwardingPolicy.ENCRYPT, path.gateways),
                *map(CloseTunnel, (*closed, *(other.tunnel for other in others)))]

    def go_down(self, event: ev.Event, now: float) -> list[Action]:
        """The keys are gone. A peer that closed it may be about to stop: it is not called at once."""
        self.paths = ()
        if self.state is TunnelState.REKEYING:
            self.state = TunnelState.KEYING
        else:
            self.state = TunnelState.DOWN
            self._try_after(BACK_OFF[0] if isinstance(event, ev.PeerDeleted | ev.PeerLost) else 0.0, now)
        return [InstallPolicy(ForwardingPolicy.HOLD)]

    def stay(self, event: ev.Event, now: float) -> list[Action]:
        return []

    def _try_after(self, seconds: float, now: float) -> None:
        self._not_before = now + seconds
        by_itself = self.start is Start.AT_ONCE or (self.tunnel is not None and self.start is not Start.WAIT)
        self.deadline = self._not_before if by_itself else None


T, C = TunnelState, ConfiguredTunnel

TRANSITIONS: dict[tuple[TunnelState, type[ev.Event]], Callable[[ConfiguredTunnel, ev.Event, float], list[Action]]] = {
    (T.DOWN,     ev.Acquired):            C.key,
    (T.DOWN,     ev.LifespanEnded):       C.key,
    (T.DOWN,     ev.PeerAuthorized):      C.stay,
    (T.DOWN,     ev.ProposalLapsed):      C.stay,
    (T.DOWN,     ev.TunnelNegotiated):    C.come_up,
    (T.KEYING,   ev.Acquired):            C.stay,
    (T.KEYING,   ev.PeerAuthorized):      C.stay,
    (T.KEYING,   ev.ProposalLapsed):      C.stay,
    (T.KEYING,   ev.TunnelNegotiated):    C.come_up,
    (T.KEYING,   ev.LookUpFailed):        C.fail,
    (T.KEYING,   ev.PeerSilent):          C.fail,
    (T.KEYING,   ev.ChannelRefused):      C.fail,
    (T.KEYING,   ev.PeerRefused):         C.fail,
    (T.KEYING,   ev.PeerNotAuthentic):    C.fail,
    (T.KEYING,   ev.SasRefused):          C.fail,
    (T.UP,       ev.Acquired):            C.stay,
    (T.UP,       ev.PeerAuthorized):      C.stay,
    (T.UP,       ev.ProposalLapsed):      C.stay,
    (T.UP,       ev.TunnelNegotiated):    C.come_up,
    (T.UP,       ev.SoftLifetimeReached): C.key,
    (T.UP,       ev.LifespanEnded):       C.key,
    (T.UP,       ev.KeysDoubted):         C.key,
    (T.UP,       ev.HardLifetimeReached): C.go_down,
    (T.UP,       ev.PeerDeleted):         C.go_down,
    (T.UP,       ev.PeerLost):            C.go_down,
    (T.REKEYING, ev.Acquired):            C.stay,
    (T.REKEYING, ev.PeerAuthorized):      C.stay,
    (T.REKEYING, ev.ProposalLapsed):      C.stay,
    (T.REKEYING, ev.SoftLifetimeReached): C.stay,
    (T.REKEYING, ev.TunnelNegotiated):    C.come_up,
    (T.REKEYING, ev.LookUpFailed):        C.fail,
    (T.REKEYING, ev.PeerSilent):          C.fail,
    (T.REKEYING, ev.ChannelRefused):      C.fail,
    (T.REKEYING, ev.PeerRefused):         C.fail,
    (T.REKEYING, ev.PeerNotAuthentic):    C.fail,
    (T.REKEYING, ev.SasRefused):          C.fail,
    (T.REKEYING, ev.HardLifetimeReached): C.go_down,
    (T.REKEYING, ev.PeerDeleted):         C.go_down,
    (T.REKEYING, ev.PeerLost):            C.go_down,
}
