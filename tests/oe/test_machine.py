"""The table against the figure, and what must hold whatever happens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oesvc.ipsec.policy import ForwardingPolicy as Policy
from oesvc.oe import actions
from oesvc.oe import events as ev
from oesvc.oe.classes import ConnectionClass
from oesvc.oe.connection import UnexpectedEventError
from oesvc.oe.machine import AGING, TRANSITIONS, State
from tests.oe.parts import BY_ANOTHER, BY_SG_B, DENY, PARANOID, connection, found, negotiated

HAPPENINGS = st.one_of(
    st.sampled_from([ev.Acquired(), ev.LifespanEnded(), ev.FoundInUse(), ev.FoundIdle(), ev.PeerAuthorized(),
                     ev.ProposalLapsed(), ev.PeerSilent(), ev.PeerRefused(), ev.PeerNotAuthentic(), ev.SasRefused(),
                     ev.SoftLifetimeReached(), ev.KeysDoubted(), ev.HardLifetimeReached(), ev.PeerDeleted(), found(),
                     found(BY_SG_B, BY_ANOTHER), ev.DelegationAbsent("", 100.0), ev.LookUpFailed("", 100.0),
                     ev.DelegationBad("", 100.0), ev.PolicyChanged()]),
    st.builds(negotiated, st.integers(1, 4), st.booleans()))


def test_every_state_but_the_last_can_be_left():
    assert {state for state, _ in TRANSITIONS} == set(State) - {State.EXPIRED}


def test_every_event_is_used():
    abstract = {ev.Event, ev.Answered}
    events = {kind for kind in vars(ev).values() if isinstance(kind, type) and issubclass(kind, ev.Event)}
    assert {event for _, event in TRANSITIONS} == events - abstract


def drive(of_class, happenings):
    """Let things happen a minute apart; yields the connection after each, and what it asked for."""
    driven, now = connection(of_class), 0.0
    for event in happenings:
        now += 60.0
        try:
            todo = driven.handle(event, now)
        except UnexpectedEventError:
            continue
        yield driven, todo


@pytest.mark.conformance("C-3.2-10", "C-3.1.4-01", "C-3.1.3-02")
@given(st.sampled_from([DENY, PARANOID]), st.lists(HAPPENINGS, max_size=30))
def test_paranoid_and_deny_never_ask_for_pass(of_class, happenings):
    for driven, todo in drive(of_class, happenings):
        assert actions.InstallPolicy(Policy.PASS) not in todo
        assert driven.state is not State.CLEAR_TEXT


@pytest.mark.conformance("C-3.1-01", "C-3.2.5-02")
@given(st.sampled_from(ConnectionClass), st.lists(HAPPENINGS, max_size=30))
def test_policy_and_tunnel_always_fit_the_state(of_class, happenings):
    """Encrypting needs a tunnel; keyed has one; what ages has a deadline; the expired keep nothing."""
    for driven, todo in drive(of_class, happenings):
        if driven.state is State.KEYED:
            assert driven.forwarding is Policy.ENCRYPT
        if driven.forwarding is Policy.ENCRYPT and driven.state is not State.EXPIRED:
            assert driven.tunnel is not None
        assert (driven.deadline is not None) == (driven.state in AGING)
        for action in todo:
            if isinstance(action, actions.InstallPolicy):
                assert (action.gateways is not None) == (action.policy is Policy.ENCRYPT)


@pytest.mark.conformance("C-3.1-03")
@given(st.sampled_from(ConnectionClass), st.lists(HAPPENINGS, max_size=30))
def test_encrypted_flow_never_turns_to_clear_without_losing_its_keys_first(of_class, happenings):
    """The figure of 3.1: from encrypt back to hold, never straight to pass, but after a failed rekey's hard expiry."""
    before = None
    for driven, todo in drive(of_class, happenings):
        for action in todo:
            if isinstance(action, actions.InstallPolicy):
                if before is Policy.ENCRYPT and action.policy is Policy.PASS:
                    assert driven.rekey_failed and driven.tunnel is None
                before = action.policy
