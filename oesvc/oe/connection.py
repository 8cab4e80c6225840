"""Connection instances: what is (RFC 4322 section 3.2)."""

from oesvc.dns.answer import SecurityStatus
from oesvc.ipsec.flow import Address, Flow
from oesvc.ipsec.policy import ForwardingPolicy
from oesvc.oe import events as ev
from oesvc.oe.actions import Action, CloseTunnel, InstallPolicy, LookUpDelegation, StartKeying
from oesvc.oe.aging import Lifespan, Lifespans
from oesvc.oe.classes import ConnectionClass, PolicyLine
from oesvc.oe.delegation import Delegation
from oesvc.oe.machine import AGING, FORWARDING, TRANSITIONS, State, To
from oesvc.oe.paths import HasPaths, Path, Paths, adopted, preferred, without
from oesvc.oe.reasons import Because, Reason, reason

REASONS: dict[type[ev.Event], Because] = {
    ev.DelegationFound: Because.KEYING,
    ev.DelegationAbsent: Because.NOT_OE_CAPABLE,
    ev.LookUpFailed: Because.DNS_FAILED,
    ev.DelegationBad: Because.RECORD_BAD,
    ev.PeerAuthorized: Because.PEER_AUTHORIZED,
    ev.TunnelNegotiated: Because.TUNNEL_STANDS,
    ev.PeerSilent: Because.PEER_SILENT,
    ev.PeerRefused: Because.PEER_REFUSED,
    ev.ChannelRefused: Because.PEER_REFUSED,
    ev.PeerNotAuthentic: Because.PEER_NOT_AUTHENTIC,
    ev.SasRefused: Because.SAS_REFUSED,
    ev.SoftLifetimeReached: Because.REKEYING,
    ev.KeysDoubted: Because.REKEYING,
    ev.HardLifetimeReached: Because.KEYS_EXPIRED,
    ev.PeerDeleted: Because.PEER_DELETED,
    ev.PeerLost: Because.PEER_LOST,
    ev.FoundIdle: Because.IDLE,
    ev.RoomWanted: Because.ROOM_WANTED,
    ev.Dropped: Because.DROPPED,
    ev.PolicyChanged: Because.POLICY_CHANGED,
}
"Events not listed here change nothing about why the connection is what it is."

LOST = (ev.HardLifetimeReached, ev.PeerDeleted, ev.PeerLost)
"Events that the tunnel does not survive by which its datagrams are sent."
ASK_AGAIN = (ev.Acquired, ev.TunnelNegotiated, ev.PathChosen, *LOST)
"Events after which the forwarding plane is asked even for the policy that it has: it may be for another tunnel now."

COUNTED = (ForwardingPolicy.PASS, ForwardingPolicy.DENY)
"Policies of which the forwarding plane counts by reasons how much they let go, or do not."

CLASS_REASONS = {
    ConnectionClass.DENY: Because.CLASS_IS_DENY,
    ConnectionClass.ALWAYS_CLEAR_TEXT: Because.CLASS_IS_CLEAR,
    ConnectionClass.PASSIVE: Because.CLASS_IS_PASSIVE,
    ConnectionClass.CONFIGURED: Because.CLASS_IS_CONFIGURED,
    ConnectionClass.OE_PERMISSIVE: Because.ASKED_DNS,
    ConnectionClass.OE_PARANOID: Because.ASKED_DNS,
}


class UnexpectedEventError(Exception):
    """An event came that has no place in the connection's state: too late, or of a superseded attempt."""


class Connection(HasPaths):
    """One flow on its way through the state machine."""

    __slots__ = ("_answer_expires", "_now", "because", "delegations", "delegations_changed", "flow", "forwarding",
                 "keying_failed", "lifespan_ends", "lifespans", "line", "looking_up", "reason", "rekey_failed",
                 "rekeyed", "rekeys_failed", "scheduled", "state", "state_under_review", "untried", "vouched")

    def __init__(self, flow: Flow, line: PolicyLine, lifespans: Lifespans) -> None:
        self.flow = flow
        self.line = line
        "The policy line that made it."
        self.lifespans = lifespans
        self.state: State = State.NONEXISTENT
        self.state_under_review: State = State.NONEXISTENT
        self.forwarding: ForwardingPolicy | None = None
        "The policy last asked of the forwarding plane."
        self.because: Because | None = None
        "Why, where it is in clear or denied: its reason by now may be that of a review."
        self.reason = reason(CLASS_REASONS[line.connection_class], str(line))
        self.lifespan_ends = 0.0
        self.scheduled: float | None = None
        "When the table of connections looks at its deadline."
        self.looking_up = False
        self.delegations: tuple[Delegation, ...] = ()
        self.delegations_changed = False
        self.untried: tuple[Delegation, ...] = ()
        self.keying_failed = False
        self.rekey_failed = False
        self.rekeyed = False
        "Whether the newest tunnel took the place of another."
        self.rekeys_failed = 0
        "One after the other, for the present tunnel."
        self.vouched = SecurityStatus.INDETERMINATE
        "How far the records can be believed by which it was last decided to key."
        self.paths: Paths = ()
        "Its tunnels: by the first it sends, from all it receives (section 8)."
        self._answer_expires: float | None = None
        self._now = 0.0

    @property
    def connection_class(self) -> ConnectionClass:
        return self.line.connection_class

    @property
    def settled_state(self) -> State:
        """Its state; while it is under review, the one that is reviewed."""
        return self.state_under_review if self.state is State.EXPIRING else self.state

    @property
    def deadline(self) -> float | None:
        """The time at which its lifespan ends."""
        return self.lifespan_ends if self.state in AGING else None

    @property
    def answer_is_stale(self) -> bool:
        """Whether the DNS is to be asked again; after failed keying too, for records are corrected in a hurry."""
        return self._answer_expires is not None and (self.keying_failed or self._answer_expires <= self._now)

    def handle(self, event: ev.Event, now: float) -> list[Action]:
        """Take one step in the machine and tell what is to be done. Raises UnexpectedEventError."""
        arrow = TRANSITIONS.get((self.state, type(event)))
        if arrow is None:
            raise UnexpectedEventError(f"{self.flow}: {type(event).__name__} while {self.state.value}")
        self._now = now
        todo = self._learn(event)
        before = self.state
        target = arrow if isinstance(arrow, To) else arrow(self)
        if target.state is State.EXPIRING and before is not State.EXPIRING:
            self.state_under_review = before
        self.state = target.state
        if isinstance(event, ev.Answered):
            self.looking_up = False
        if target.lifespan is not Lifespan.UNCHANGED:
            self.lifespan_ends = self.lifespans.end(target.lifespan, now, self._answer_expires or 0.0)
        todo += self._ask_forwarding_plane(again=isinstance(event, ASK_AGAIN))
        begun = target.begins(self)
        return [*todo, begun] if begun else todo

    def _ask_forwarding_plane(self, again: bool) -> list[Action]:
        """Ask for the state's policy, when that, or why, is another than before, or the plane has lost it."""
        decide = FORWARDING.get(self.state)
        policy = decide(self) if decide else None
        if policy is None:
            return []
        because = self.reason.because if policy in COUNTED else None
        if (policy, because) == (self.forwarding, self.because) and (not again or policy is ForwardingPolicy.HOLD):
            return []
        self.forwarding, self.because = policy, because
        return [InstallPolicy(policy, self.gateways if policy is ForwardingPolicy.ENCRYPT else None, because)]

    def drop(self, tunnel: int) -> None:
        """A tunnel is gone that only received."""
        self.paths = without(self.paths, tunnel)

    def reclassify(self, line: PolicyLine, lifespans: Lifespans) -> bool:
        """Another policy line is about it now; False where that makes it another connection."""
        if not self.goes_on_under(line):
            return False
        self.line, self.lifespans = line, lifespans
        if not line.connection_class.initiates:
            self.delegations = self.untried = ()
            self._answer_expires = None
        return True

    def goes_on_under(self, line: PolicyLine) -> bool:
        """Whether it may stay as it is when another policy line is about it."""
        if line.treats_alike(self.line):
            return True
        if self.tunnel is not None:  # what its keys are worth to another policy would have to be asked anew
            return line.connection_class.opportunistic and line.options.dnssec is self.line.options.dnssec
        return self.state is State.CLEAR_TEXT and not (
            line.connection_class.initiates or line.connection_class.never_clear)

    def ask(self) -> Action:
        """Begin a look-up of the destination's delegation."""
        self.looking_up = True
        return LookUpDelegation(self.flow.destination)

    def key_with_next_gateway(self) -> Action:
        """Begin keying with the next gateway that was not tried; with the first again once all were."""
        self.looking_up = False
        first, *rest = self.untried or self.delegations
        self.untried = tuple(rest)
        return StartKeying(first)

    def _learn(self, event: ev.Event) -> list[Action]:
        """Keep what the event carries."""
        if isinstance(event, ev.Answered) and self.state is State.PENDING_OE and not self.looking_up:
            return []
        because = REASONS.get(type(event))
        unheard = isinstance(event, ev.LookUpFailed) and self.tunnel is not None
        if because is not None and not unheard:
            self.reason = reason(because, event.detail)
        match event:
            case ev.DelegationFound():
                self._take_answer(event)
                self.delegations_changed = set(event.delegations) != set(self.delegations)
                self.delegations = self.untried = event.delegations
                if self.state is State.PENDING_OE:
                    self.untried = self._delegations(self.gateway, first=True) or event.delegations
                self.vouched = event.status
            case ev.Answered():
                self._take_answer(event)
                if not unheard:  # what was known of a tunnel's peer still serves to renew its keys
                    self.delegations = self.untried = ()
            case ev.PeerAuthorized():
                self.vouched = event.status
            case (ev.PeerSilent() | ev.ChannelRefused() | ev.PeerRefused() | ev.PeerNotAuthentic()
                  | ev.SasRefused()):
                if not self.untried:
                    self.keying_failed = True
                    self.rekey_failed = self.tunnel is not None
                    self.rekeys_failed += self.rekey_failed
            case ev.TunnelNegotiated():
                return self._adopt_tunnel(event)
            case ev.SoftLifetimeReached():
                self.untried = self.untried or self._delegations(self.gateway, first=True)
            case ev.PathChosen():
                self.paths = preferred(self.paths, event.tunnel)
                self.reason = self._path_reason(event)
            case ev.PeerLost():
                self.untried = self._delegations(self.gateway, first=False)
                self._go_on_by_next_path(event)
            case ev.HardLifetimeReached() | ev.PeerDeleted():
                self._go_on_by_next_path(event)
        return []

    def _delegations(self, gateway: Address | None, first: bool) -> tuple[Delegation, ...]:
        """The gateways to be tried, this one first or last; none if there is no other."""
        if all(delegation.gateway == gateway for delegation in self.delegations):
            return ()
        return tuple(sorted(self.delegations, key=lambda each: (each.gateway == gateway) is not first))

    def _go_on_by_next_path(self, event: ev.Event) -> None:
        self.paths = self.paths[1:]
        if self.paths:
            self.rekey_failed, self.rekeys_failed = False, 0
            self.reason = self._path_reason(event)

    def _path_reason(self, event: ev.Event) -> Reason:
        return reason(Because.TUNNEL_STANDS, f"of several, it is sent by {self.gateway} now; {event.detail}")

    def _take_answer(self, event: ev.Answered) -> None:
        self.keying_failed = False
        self._answer_expires = event.expires

    def _adopt_tunnel(self, event: ev.TunnelNegotiated) -> list[Action]:
        """Send by the new tunnel from now on, and close what it replaces."""
        self.rekeyed = bool(self.paths)
        if event.gateways is None or event.tunnel in (path.tunnel for path in self.paths):
            return []
        new = Path(event.tunnel, event.gateways, event.begun_here, self._now)
        self.paths, closed = adopted(self.paths, new, frozenset(each.gateway for each in self.delegations))
        if self.tunnel == event.tunnel:
            self.keying_failed = self.rekey_failed = False
            self.rekeys_failed = 0
            self.untried = ()
        return [CloseTunnel(tunnel) for tunnel in closed]
