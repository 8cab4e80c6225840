"""The machine against a model of its own: what section 3.2 says of each state and event, written down a second time.

The table below is written from the statements on section 3.2, not from oesvc/oe/machine.py; what it needs to know of
the past it keeps by itself. Hypothesis lets anything happen in any order; after each step state, policy, lifespan and
tunnels must be the model's.
"""

from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from oesvc.ipsec.flow import Flow
from oesvc.oe import events as ev
from oesvc.oe.actions import InstallPolicy, LookUpDelegation, QueryLastUse, StartKeying, TearDown
from oesvc.oe.connection import Connection, UnexpectedEventError
from oesvc.oe.machine import TRANSITIONS
from tests.oe.parts import (
    BY_ANOTHER,
    BY_SG_B,
    CLEAR,
    DENY,
    PARANOID,
    PASSIVE,
    PERMISSIVE,
    SG_A,
    connection,
)

SAME, REVIEWED, FALLEN = "same", "the state under review", "clear-text or deny"
LOW, NORMAL, FIRST, USED, ANSWER = "low", "normal", "first", "used", "as long as the DNS answer"
BEGINS = {DENY: "deny", CLEAR: "clear-text", PASSIVE: "clear-text", PERMISSIVE: "potential OE",
          PARANOID: "potential OE"}
POLICIES = {"clear-text": "pass-through", "deny": "deny", "potential OE": "hold", "keyed": "encrypt"}
CALLED = {PERMISSIVE, PARANOID}

When = Callable[["Model"], object]
Row = tuple[When | None, str, str | None]


def has_tunnel(model: "Model") -> object:
    return model.tunnels


def another_gateway(model: "Model") -> object:
    return model.untried


def knows_gateways(model: "Model") -> object:
    return model.gateways


def rekey_has_failed(model: "Model") -> object:
    return model.rekey_failed


def calls_nobody(model: "Model") -> object:
    return model.of_class not in CALLED


def is_stale(model: "Model") -> object:
    return model.answer_expires is not None and (model.keying_failed or model.answer_expires <= model.now)


def is_confirmed(model: "Model") -> object:
    return model.tunnels and not model.changed


def asks_itself(model: "Model") -> object:
    return model.asking


def replaces_one(model: "Model") -> object:
    return model.rekeyed


# State, event: the first row whose condition holds tells where it leads and with which lifespan; None: as it was.
BACK: list[Row] = [(is_stale, "expiring", None)]
STANDS: list[Row] = [(has_tunnel, "keyed", None)]
UNTIL_NEXT: list[Row] = [(has_tunnel, "keyed", USED)]
KEYED: list[Row] = [(replaces_one, "keyed", None), (None, "keyed", FIRST)]
RUNS_OUT: list[Row] = [*STANDS, (rekey_has_failed, FALLEN, LOW), (calls_nobody, "potential OE", None),
                       (knows_gateways, "pending OE", None), (None, "potential OE", None)]
CLOSED: list[Row] = [*STANDS, (None, "expired", None)]
DEAD: list[Row] = [*STANDS, (another_gateway, "pending OE", None), (None, "expired", None)]
STAY: list[Row] = [(None, SAME, None)]
GONE: list[Row] = [(None, "expired", None)]
INVITED: list[Row] = [(has_tunnel, "keyed", USED), (None, "potential OE", None)]
REVIEW: list[Row] = [(None, "expiring", None)]


def awaited(*rows: Row) -> list[Row]:
    """What comes when keying is under way has no say."""
    return [(lambda model: not model.awaited, SAME, None), *rows]


def failed(lifespan: str) -> list[Row]:
    return [(another_gateway, "pending OE", None), *STANDS, (None, FALLEN, lifespan)]


TABLE: dict[tuple[str, type[ev.Event]], list[Row]] = {
    # 3.2.1: by class; 3.3.2: a peer's proposal makes an instance
    ("nonexistent", ev.Acquired): [(None, "by class", FIRST)],
    ("nonexistent", ev.PeerAuthorized): INVITED,
    # 3.2.2, 3.2.3: only time leads out, but for a peer that has a right to key; C-3.2.2-03, C-3.2.3-02
    **{(state, event): rows for state in ("clear-text", "deny") for event, rows in {
        ev.Acquired: STAY, ev.LifespanEnded: REVIEW, ev.RoomWanted: GONE, ev.PeerAuthorized: INVITED,
        ev.TunnelNegotiated: KEYED}.items()},
    # 3.2.4: three exits; C-3.2.4-03, -07 to -10
    ("potential OE", ev.Acquired): STAY,
    ("potential OE", ev.PeerAuthorized): STAY,
    ("potential OE", ev.TunnelNegotiated): KEYED,
    ("potential OE", ev.DelegationFound): [(None, "pending OE", None)],
    ("potential OE", ev.DelegationAbsent): [(None, FALLEN, ANSWER)],
    ("potential OE", ev.LookUpFailed): [(None, FALLEN, LOW)],
    ("potential OE", ev.DelegationBad): [(None, "deny", ANSWER)],
    ("potential OE", ev.ProposalLapsed): [(asks_itself, SAME, None), *GONE],
    # 3.2.5: out by SAs or by failure only; C-3.2.5-02, -03, -05, -09, -12
    **{("pending OE", event): STAY for event in (
        ev.Acquired, ev.PeerAuthorized, ev.PeerDeleted, ev.PeerLost, ev.HardLifetimeReached)},
    ("pending OE", ev.TunnelNegotiated): KEYED,
    ("pending OE", ev.DelegationFound): awaited((None, "pending OE", None)),
    ("pending OE", ev.DelegationAbsent): awaited(*STANDS, (None, FALLEN, ANSWER)),
    ("pending OE", ev.LookUpFailed): awaited((knows_gateways, "pending OE", None), (None, FALLEN, LOW)),
    ("pending OE", ev.DelegationBad): awaited(*STANDS, (None, "deny", ANSWER)),
    ("pending OE", ev.PeerSilent): failed(LOW),
    ("pending OE", ev.ChannelRefused): failed(LOW),
    ("pending OE", ev.PeerRefused): failed(NORMAL),
    ("pending OE", ev.PeerNotAuthentic): failed(ANSWER),
    ("pending OE", ev.SasRefused): failed(LOW),
    # 3.2.6: rekeying leaves the tunnel alone; a delete, or the keys' end, does not; 8: another gateway's takes over
    ("keyed", ev.Acquired): STAY,
    ("keyed", ev.PeerAuthorized): STAY,
    ("keyed", ev.PathChosen): STAY,
    ("keyed", ev.TunnelNegotiated): KEYED,
    ("keyed", ev.SoftLifetimeReached): [(knows_gateways, "pending OE", None), *STAY],
    ("keyed", ev.KeysDoubted): [(knows_gateways, "pending OE", None), *REVIEW],
    ("keyed", ev.HardLifetimeReached): RUNS_OUT,
    ("keyed", ev.PeerDeleted): CLOSED,
    ("keyed", ev.PeerLost): DEAD,
    ("keyed", ev.LifespanEnded): REVIEW,
    # 3.2.7: back where it came from, asked anew where the DNS answer is stale, or expired; C-3.2.7-03, -04, -07
    ("expiring", ev.Acquired): STAY,
    ("expiring", ev.FoundInUse): [*BACK, (None, REVIEWED, USED)],
    ("expiring", ev.FoundConnected): [*BACK, (None, REVIEWED, FIRST)],
    ("expiring", ev.FoundIdle): GONE,
    ("expiring", ev.DelegationFound): [(is_confirmed, "keyed", USED), (None, "pending OE", None)],
    ("expiring", ev.DelegationAbsent): [*UNTIL_NEXT, (None, FALLEN, ANSWER)],
    ("expiring", ev.LookUpFailed): [(None, REVIEWED, LOW)],
    ("expiring", ev.DelegationBad): [*UNTIL_NEXT, (None, "deny", ANSWER)],
    ("expiring", ev.PeerAuthorized): INVITED,
    ("expiring", ev.TunnelNegotiated): KEYED,
    ("expiring", ev.SoftLifetimeReached): [(knows_gateways, "pending OE", None), *STAY],
    ("expiring", ev.HardLifetimeReached): RUNS_OUT,
    ("expiring", ev.PeerDeleted): CLOSED,
    ("expiring", ev.PeerLost): DEAD,
    # The administrator's word, in whatever state
    **{(state, event): GONE for event in (ev.Dropped, ev.PolicyChanged) for state in (
        "nonexistent", "clear-text", "deny", "potential OE", "pending OE", "keyed", "expiring")},
}

EVENTS = sorted({event for _, event in TABLE}, key=lambda event: event.__name__)
TUNNELS_EVENTS = (ev.PeerDeleted, ev.PeerLost, ev.HardLifetimeReached, ev.SoftLifetimeReached, ev.KeysDoubted,
                  ev.PathChosen)
"Told only of a tunnel that is there."
RENEWS = (ev.SoftLifetimeReached, ev.KeysDoubted, ev.HardLifetimeReached)
"Keying begins with a question to the DNS where the last answer is stale."
FAILURES = (ev.PeerSilent, ev.ChannelRefused, ev.PeerRefused, ev.PeerNotAuthentic, ev.SasRefused)
STEPS = st.sampled_from((15.0, 60.0, 700.0, 4000.0, 30000.0))
"Seconds from event to event: more than what makes tunnels cross, up to more than any lifespan."
DELEGATIONS = ((BY_SG_B,), (BY_ANOTHER,), (BY_SG_B, BY_ANOTHER))


class Model(RuleBasedStateMachine):
    """The facts that the conditions ask for, and the machine that is tried."""

    tried: Connection

    @initialize(of_class=st.sampled_from((DENY, CLEAR, PASSIVE, PERMISSIVE, PARANOID)))
    def begin(self, of_class):
        self.tried, self.of_class = connection(of_class), of_class
        self.now, self.number = 0.0, 0
        self.state, self.reviewed, self.policy, self.ends = "nonexistent", "nonexistent", None, None
        self.tunnels: list[tuple[int, object, bool]] = []
        self.gateways = self.untried = ()
        self.asking = self.awaited = self.changed = self.keying_failed = self.rekey_failed = self.rekeyed = False
        self.answer_expires = self.sent_by = None

    @rule(which=st.integers(0, 999), step=STEPS, detail=st.integers(0, 23))
    def happens(self, which, step, detail):
        """Mostly what has a place in the state; now and then anything, and seldom what ends all."""
        events = [event for event in EVENTS if (self.state, event) in TABLE and TABLE[self.state, event] is not GONE]
        if which % 10 > 7:
            events = EVENTS
        event = events[which // 10 % len(events)]
        if self.tunnels or event not in TUNNELS_EVENTS:
            self.take(self.in_detail(event, detail, step), step)

    def in_detail(self, event: type[ev.Event], detail: int, step: float) -> ev.Event:
        if issubclass(event, ev.Answered):
            expires = self.now + step + (15.0, 700.0, 4000.0, 30000.0)[detail % 4]
            given = (DELEGATIONS[detail // 4 % 3],) if event is ev.DelegationFound else ()
            return event("", expires, *given)
        if event is ev.TunnelNegotiated:
            self.number += 1
            return event("", self.number, Flow(SG_A, (BY_SG_B, BY_ANOTHER)[detail % 2].gateway), detail % 4 > 1)
        if event is ev.PathChosen:
            return event("", self.tunnels[detail % len(self.tunnels)][0])
        return event()

    def take(self, event: ev.Event, step: float) -> None:
        """One step of both, and the comparison."""
        self.now += step
        rows = TABLE.get((self.state, type(event)))
        if rows is None:
            with pytest.raises(UnexpectedEventError):
                self.tried.handle(event, self.now)
        else:
            todo = self.tried.handle(event, self.now)
            self.learn(event)
            _, leads, lifespan = next(row for row in rows if row[0] is None or row[0](self))
            stale = is_stale(self)
            self.go(event, leads, lifespan)
            begins = leads == "pending OE"
            self.compare_actions(event, todo, begins and not (stale and isinstance(event, RENEWS)), begins)
        assert self.tried.state.value == self.state
        assert (self.tried.forwarding.value if self.tried.forwarding else None) == self.policy
        assert [(path.tunnel, path.gateway) for path in self.tried.paths] == [each[:2] for each in self.tunnels]
        ages = self.state in ("clear-text", "deny", "keyed")
        assert self.tried.deadline == (self.ends if ages else None)
        if self.state == "expired":
            with pytest.raises(UnexpectedEventError):
                self.tried.handle(ev.Acquired(), self.now)
            self.begin(self.of_class)

    def go(self, event: ev.Event, leads: str, lifespan: str | None) -> None:
        fallen = "deny" if self.of_class in (DENY, PARANOID) else "clear-text"
        target = {SAME: self.state, REVIEWED: self.reviewed, FALLEN: fallen,
                  "by class": BEGINS[self.of_class]}.get(leads, leads)
        if target == "expiring" != self.state:
            self.reviewed = self.state
        self.state = target
        if lifespan == ANSWER:
            self.ends = min(max(self.answer_expires, self.now + 10.0), self.now + 6 * 3600.0)
        elif lifespan and not (leads == "by class" and target == "potential OE"):
            self.ends = self.now + {LOW: 600.0, NORMAL: 21600.0, FIRST: 60.0, USED: 1200.0}[lifespan]
        if target == "pending OE" and self.policy == "encrypt" and not self.tunnels:
            self.policy = "hold"
        self.policy = POLICIES.get(target, self.policy)

    def learn(self, event: ev.Event) -> None:
        """What the model keeps of an event, before it asks its conditions."""
        self.awaited = self.asking
        if isinstance(event, ev.Answered):
            if self.state == "pending OE" and not self.asking:
                return
            self.asking, self.keying_failed, self.answer_expires = False, False, event.expires
        if isinstance(event, ev.DelegationFound):
            self.changed = set(event.delegations) != set(self.gateways)
            self.gateways = self.untried = event.delegations
            if self.state == "pending OE" and self.tunnels:
                self.untried = self.others(self.tunnels[0][1], last=False) or event.delegations
        elif isinstance(event, ev.Answered) and not (isinstance(event, ev.LookUpFailed) and self.tunnels):
            self.gateways = self.untried = ()
        elif isinstance(event, FAILURES) and not self.untried:
            self.keying_failed, self.rekey_failed = True, bool(self.tunnels)
        elif isinstance(event, ev.TunnelNegotiated):
            self.rekeyed = bool(self.tunnels)
            named = {each.gateway for each in self.gateways}
            kept = [each for each in self.tunnels if each[1] != event.gateways.destination
                    and not (each[2] and named and each[1] not in named)]
            self.tunnels = [(event.tunnel, event.gateways.destination, event.begun_here), *kept]
            self.keying_failed, self.rekey_failed, self.untried = False, False, ()
        elif isinstance(event, ev.PathChosen):
            self.tunnels.sort(key=lambda each: each[0] != event.tunnel)
        elif isinstance(event, ev.SoftLifetimeReached) and not self.untried:
            self.untried = self.others(self.tunnels[0][1], last=False)
        if isinstance(event, ev.PeerLost):
            self.untried = self.others(self.tunnels[0][1], last=True)
        if isinstance(event, (ev.PeerLost, ev.PeerDeleted, ev.HardLifetimeReached)):
            self.tunnels = self.tunnels[1:]
            self.rekey_failed = self.rekey_failed and not self.tunnels

    def others(self, gateway: object, last: bool) -> tuple:
        """The gateways to be tried, this one first or last; none where it is the only one."""
        if {each.gateway for each in self.gateways} <= {gateway}:
            return ()
        return tuple(sorted(self.gateways, key=lambda each: (each.gateway == gateway) is last))

    def compare_actions(self, event: ev.Event, todo: list, calls_now: bool, begins: bool) -> None:
        """What is begun, and with whom; that no policy is asked for twice but where the plane may have lost it."""
        calls = [action.delegation for action in todo if isinstance(action, StartKeying)]
        if calls:
            first, *rest = self.untried or self.gateways
            assert self.state == "pending OE" and calls == [first]
            self.untried, self.asking = tuple(rest), False
        assert len(calls) == calls_now
        asks = [action for action in todo if isinstance(action, LookUpDelegation)]
        self.asking = self.asking or bool(asks)
        assert (begins and not calls_now) <= bool(asks) <= (
            self.state in ("potential OE", "expiring") or (begins and not calls_now))
        assert [type(action) for action in todo].count(QueryLastUse) == (
            self.state == "expiring" and isinstance(event, ev.LifespanEnded))
        ends = [action for action in todo if isinstance(action, TearDown)]
        assert ends == ([TearDown(tuple(each[0] for each in self.tunnels))] if self.state == "expired" else [])
        for action in todo:
            if isinstance(action, InstallPolicy):
                assert action.policy.value == self.policy
                self.sent_by = action.gateways.destination if action.gateways else None
        if self.state != "expired":
            assert self.sent_by == (self.tunnels[0][1] if self.policy == "encrypt" else None)


@pytest.mark.conformance("C-3.2-02", "C-3.2.7-03", "C-3.2.7-07", "C-3.2.5-02")
class TestMachineAgainstItsModel(Model.TestCase):
    settings = settings(max_examples=80, stateful_step_count=50, deadline=None)


def test_model_and_machine_know_the_same_pairs():
    assert {(state.value, event) for state, event in TRANSITIONS} == set(TABLE)
