"""Connections as conversations: RFC 4322 section 3.2."""

import pytest

from oesvc.ipsec.policy import ForwardingPolicy as Policy
from oesvc.oe import events as ev
from oesvc.oe.actions import CloseTunnel, InstallPolicy, LookUpDelegation, QueryLastUse, StartKeying, TearDown
from oesvc.oe.connection import UnexpectedEventError
from oesvc.oe.machine import State
from oesvc.oe.reasons import Because
from tests.oe.parts import (
    BOB,
    BY_ANOTHER,
    BY_SG_B,
    CLEAR,
    DENY,
    LIFESPANS,
    OUTER,
    PARANOID,
    PERMISSIVE,
    connection,
    found,
    keyed,
    negotiated,
)
from tests.playbook import Playbook

HOLD, PASS, DROP = InstallPolicy(Policy.HOLD), InstallPolicy(Policy.PASS), InstallPolicy(Policy.DENY)
ENCRYPT = InstallPolicy(Policy.ENCRYPT, OUTER)
ASK = LookUpDelegation(BOB)
CALL = StartKeying(BY_SG_B)
BY_OUTCOME = pytest.mark.parametrize("of_class, fallen", [(PERMISSIVE, PASS), (PARANOID, DROP)])


@pytest.mark.conformance("C-3.2.1-01", "C-3.2.4-01", "C-3.2.4-02", "C-3.2.5-01", "C-3.4.1-06", "C-3.4.1-07",
                         "C-3.4.1-08", "C-2.2-05")
@pytest.mark.conformance("C-2.3-02")
def test_flow_is_keyed_used_and_torn_down():
    """Section 11.2 seen from SG-A, with the lifespans of 3.4.1."""
    played = connection()
    assert (
        Playbook(played)
        >> ev.Acquired() << HOLD << ASK
        >> found() << CALL
        >> negotiated() << ENCRYPT
    )
    assert played.deadline == 60.0
    assert Playbook(played).at(60.0) >> ev.LifespanEnded() << QueryLastUse() >> ev.FoundInUse()
    assert (played.state, played.deadline) == (State.KEYED, 60.0 + 20 * 60.0)
    assert Playbook(played).at(1260.0) >> ev.LifespanEnded() << QueryLastUse() >> ev.FoundIdle() << TearDown((1,))
    assert played.state is State.EXPIRED


def test_what_goes_in_clear_is_counted_by_why_it_was_decided_so_and_not_by_why_it_is_reviewed():
    played = connection()
    for event in (ev.Acquired(), found()):
        played.handle(event, 0.0)
    installed, = played.handle(ev.PeerSilent(""), 0.0)
    assert installed.because is Because.PEER_SILENT
    now = played.deadline
    played.handle(ev.LifespanEnded(), now)
    played.handle(ev.FoundInUse(), now)
    assert played.handle(found(expires=now + 3600), now) == [CALL] and played.reason.because is Because.KEYING
    assert played.handle(ev.PeerSilent(""), now) == [], "it goes on as it was"
    played.handle(ev.LifespanEnded(), now := played.deadline)
    played.handle(ev.FoundInUse(), now)
    installed, = played.handle(ev.DelegationAbsent("", now + 900.0), now)
    assert (installed.policy, installed.because) == (Policy.PASS, Because.NOT_OE_CAPABLE)


@pytest.mark.conformance("C-3.4.1-13")
def test_lifespans_do_not_grow_with_each_check():
    played, now = keyed(), 60.0
    for _ in range(5):
        played.handle(ev.LifespanEnded(), now)
        played.handle(ev.FoundInUse(), now)
        if played.state is State.EXPIRING:  # its DNS answer had gone stale and is asked for anew
            played.handle(found(expires=now + 3600), now)
        assert played.deadline == now + LIFESPANS.used
        now = played.deadline


@pytest.mark.conformance("C-3.2.1-02", "C-3.2.2-01", "C-3.2.3-01", "C-1.2-04", "C-1.2-05", "C-3.2.4-12", "C-1.2-06")
@pytest.mark.parametrize("of_class, asked", [(CLEAR, [PASS]), (DENY, [DROP]), (PERMISSIVE, [HOLD, ASK]),
                                             (PARANOID, [HOLD, ASK])])
def test_class_decides_where_a_connection_begins(of_class, asked):
    """Clear and deny classes ask nothing of DNS or IKE."""
    assert connection(of_class).handle(ev.Acquired(), 0.0) == asked


@pytest.mark.conformance("C-3.2.4-03", "C-3.2.4-07", "C-3.2.4-08", "C-3.2.2-02", "C-3.2-09", "C-3.2-10", "C-1.3-06",
                         "C-2.3.3-03", "C-9.1-01")
@pytest.mark.parametrize("answer", [ev.DelegationAbsent("", 900.0), ev.LookUpFailed("timed out", 900.0)])
@BY_OUTCOME
def test_no_delegation_falls_back_by_class(answer, of_class, fallen):
    assert Playbook(connection(of_class)) >> ev.Acquired() << HOLD << ASK >> answer << fallen


@pytest.mark.conformance("C-3.2.4-09", "C-3.2.4-10")
@pytest.mark.parametrize("of_class", [PERMISSIVE, PARANOID])
def test_bad_record_denies_whatever_the_class(of_class):
    assert Playbook(connection(of_class)) >> ev.Acquired() << HOLD << ASK >> ev.DelegationBad("forged", 60.0) << DROP


@pytest.mark.conformance("C-3.2.5-05", "C-3.2.5-09", "C-3.2.5-10", "C-3.2.5-12")
@pytest.mark.parametrize("failure, lifespan", [(ev.PeerSilent(), LIFESPANS.low), (ev.SasRefused(), LIFESPANS.low),
                                               (ev.ChannelRefused(), LIFESPANS.low),
                                               (ev.PeerRefused(), LIFESPANS.normal),
                                               (ev.PeerNotAuthentic(), 700.0)])
@BY_OUTCOME
def test_each_failure_of_keying_has_its_lifespan(failure, lifespan, of_class, fallen):
    played = connection(of_class)
    assert Playbook(played) >> ev.Acquired() << HOLD << ASK >> found(expires=700.0) << CALL >> failure << fallen
    assert played.deadline == lifespan


@pytest.mark.conformance("C-3.2.5-03")
def test_failure_is_declared_only_after_all_gateways_were_tried():
    assert (
        Playbook(connection(PARANOID))
        >> ev.Acquired() << HOLD << ASK
        >> found(BY_SG_B, BY_ANOTHER) << CALL
        >> ev.PeerSilent() << StartKeying(BY_ANOTHER)
        >> ev.PeerSilent() << DROP
    )


@pytest.mark.conformance("C-2.3.3-05", "C-1.1-03", "C-3.2.7-04", "C-3.2.7-05")
def test_negative_answer_is_asked_again_when_it_is_stale_and_the_flow_in_use():
    played = connection()
    Playbook(played) >> ev.Acquired() << HOLD << ASK >> ev.DelegationAbsent("", 900.0) << PASS
    assert played.deadline == 900.0
    assert (
        Playbook(played).at(900.0)
        >> ev.LifespanEnded() << QueryLastUse()
        >> ev.FoundInUse() << ASK
        >> found(expires=5000.0) << CALL
        >> negotiated() << ENCRYPT
    )


@pytest.mark.conformance("C-3.2.7-06", "C-3.2.7-09")
def test_stale_answer_that_is_confirmed_changes_nothing_in_the_forwarding_plane():
    played = keyed()
    assert (
        Playbook(played).at(4000.0)
        >> ev.LifespanEnded() << QueryLastUse()
        >> ev.FoundInUse() << ASK
        >> found(expires=8000.0)
    )
    assert (played.state, played.deadline) == (State.KEYED, 4000.0 + LIFESPANS.used)


def test_new_gateway_in_the_dns_is_keyed_with_while_the_old_tunnel_serves():
    assert (
        Playbook(keyed()).at(4000.0)
        >> ev.LifespanEnded() << QueryLastUse()
        >> ev.FoundInUse() << ASK
        >> found(BY_ANOTHER, expires=8000.0) << StartKeying(BY_ANOTHER)
        >> negotiated(2) << CloseTunnel(1) << ENCRYPT
    )


@pytest.mark.parametrize("answer", [ev.DelegationAbsent("", 900.0), ev.DelegationBad("forged", 900.0)])
@BY_OUTCOME
def test_flow_is_never_downgraded_while_it_is_encrypted(answer, of_class, fallen):
    played = keyed(of_class)
    assert Playbook(played).at(4000.0) >> ev.LifespanEnded() << QueryLastUse() >> ev.FoundInUse() << ASK >> answer
    assert played.state is State.KEYED


@pytest.mark.conformance("C-3.2.6-04", "C-2.2-06")
def test_soft_lifetime_begins_rekeying_and_leaves_the_old_policy_in_place():
    assert Playbook(keyed()) >> ev.SoftLifetimeReached() << CALL >> negotiated(2) << CloseTunnel(1) << ENCRYPT


@pytest.mark.conformance("C-3.2.6-05")
@BY_OUTCOME
def test_failed_rekey_changes_nothing_until_the_hard_lifetime(of_class, fallen):
    played = keyed(of_class)
    assert Playbook(played) >> ev.SoftLifetimeReached() << CALL >> ev.PeerSilent()
    assert played.state is State.KEYED
    assert Playbook(played) >> ev.HardLifetimeReached() << fallen


@pytest.mark.conformance("C-3.1.5-03")
@pytest.mark.parametrize("of_class", [PERMISSIVE, PARANOID])
def test_keys_that_run_out_put_the_flow_on_hold_and_are_asked_for_anew(of_class):
    assert Playbook(keyed(of_class)) >> ev.HardLifetimeReached() << HOLD << CALL >> negotiated(2) << ENCRYPT


def test_keys_that_run_out_during_rekeying_put_the_flow_on_hold_until_it_ends():
    assert (
        Playbook(keyed(PARANOID))
        >> ev.SoftLifetimeReached() << CALL
        >> ev.HardLifetimeReached() << HOLD
        >> ev.PeerSilent() << DROP
    )


@pytest.mark.conformance("C-3.4.1-11")
def test_rekeying_leaves_the_lifespan_alone():
    played = keyed()
    for event in (ev.SoftLifetimeReached(), ev.PeerSilent(), ev.SoftLifetimeReached(), negotiated(2)):
        played.handle(event, 50.0)
    assert played.deadline == 60.0


@pytest.mark.conformance("C-3.2.6-02", "C-9.3-06")
def test_authenticated_delete_is_the_normal_end():
    assert Playbook(keyed()) >> ev.PeerDeleted() << TearDown(())


@pytest.mark.conformance("C-3.1.5-04", "C-3.3.3-03", "C-11.2-08")
def test_responder_goes_from_potential_to_keyed_without_asking_or_calling():
    played = connection()
    assert Playbook(played) >> ev.PeerAuthorized() << HOLD >> negotiated(begun_here=False) << ENCRYPT
    assert played.state is State.KEYED


def test_responder_forgets_a_proposal_that_came_to_nothing():
    assert Playbook(connection()) >> ev.PeerAuthorized() << HOLD >> ev.ProposalLapsed() << TearDown(())


def test_peer_proposal_that_comes_to_nothing_does_not_end_our_own_look_up():
    played = connection()
    assert Playbook(played) >> ev.Acquired() << HOLD << ASK >> ev.PeerAuthorized() >> ev.ProposalLapsed()
    assert played.state is State.POTENTIAL_OE


@pytest.mark.conformance("C-3.3.2-03", "C-3.3.2-04")
def test_latest_tunnel_of_an_identical_connection_wins():
    assert (
        Playbook(keyed()).at(100.0)
        >> ev.PeerAuthorized()
        >> negotiated(2, begun_here=False) << CloseTunnel(1) << ENCRYPT
    )


def test_peer_of_a_flow_in_clear_is_let_in_by_its_own_proposal():
    played = connection()
    Playbook(played) >> ev.Acquired() << HOLD << ASK >> ev.DelegationAbsent("", 900.0) << PASS
    assert Playbook(played) >> ev.PeerAuthorized() << HOLD >> negotiated(begun_here=False) << ENCRYPT


@pytest.mark.parametrize("first_here", [True, False])
def test_of_two_tunnels_that_crossed_the_one_of_the_lower_gateway_stays(first_here):
    """decisions.md 1C.7: SG-A is the lower, so the tunnel that was begun here stays, in whichever order they come."""
    played = connection()
    for event in (ev.Acquired(), found(), ev.PeerAuthorized(), negotiated(1, first_here)):
        played.handle(event, 0.0)
    todo = played.handle(negotiated(2, not first_here), 0.1)
    assert todo[0] == CloseTunnel(2 if first_here else 1)
    assert played.tunnel == (1 if first_here else 2)


@pytest.mark.conformance("C-3.2.1-04", "C-3.2.2-03", "C-3.2.3-02", "C-3.1.3-02")
def test_acquire_of_a_settled_flow_only_repeats_its_policy():
    """The forwarding plane has lost it; only time leads out of clear-text and deny."""
    clear = connection(CLEAR)
    assert Playbook(clear) >> ev.Acquired() << PASS >> ev.Acquired() << PASS
    asked = connection()
    assert Playbook(asked) >> ev.Acquired() << HOLD << ASK >> ev.Acquired() >> found() << CALL >> ev.Acquired()
    assert Playbook(keyed()) >> ev.Acquired() << ENCRYPT


@pytest.mark.conformance("C-3.2.5-04")
def test_event_out_of_place_changes_nothing():
    played = connection()
    with pytest.raises(UnexpectedEventError, match="FoundIdle while nonexistent"):
        played.handle(ev.FoundIdle(), 0.0)
    assert played.state is State.NONEXISTENT


def test_every_decision_says_why():
    played = keyed()
    assert str(played.reason).startswith("a tunnel with the destination's gateway stands")
    denied = connection(DENY)
    denied.handle(ev.Acquired(), 0.0)
    assert "policies/test:1" in str(denied.reason)


def test_flow_without_tunnel_is_keyed_again_when_its_failure_is_reviewed():
    """A gateway that was rebooting is tried again, and meanwhile what worked in clear goes on in clear."""
    played = connection()
    assert Playbook(played) >> ev.Acquired() << HOLD << ASK >> found() << CALL >> ev.PeerSilent() << PASS
    assert (
        Playbook(played).at(LIFESPANS.low)
        >> ev.LifespanEnded() << QueryLastUse()
        >> ev.FoundInUse() << ASK
        >> found() << CALL
        >> ev.PeerSilent()
    )
    assert (played.state, played.forwarding) == (State.CLEAR_TEXT, Policy.PASS)


@pytest.mark.conformance("C-3.4.1-14")
def test_idle_tunnel_of_an_open_tcp_connection_is_kept_and_looked_at_soon():
    """Each minute, not after twenty: so it is closed early once the connection is."""
    played = keyed()
    assert Playbook(played).at(1260.0) >> ev.LifespanEnded() << QueryLastUse() >> ev.FoundConnected()
    assert (played.state, played.deadline) == (State.KEYED, 1260.0 + LIFESPANS.first)
    assert Playbook(played).at(1320.0) >> ev.LifespanEnded() << QueryLastUse() >> ev.FoundIdle() << TearDown((1,))


@pytest.mark.conformance("C-3.2.6-04")
def test_rekey_asks_the_dns_first_where_its_answer_is_stale_and_keys_with_what_it_says_now():
    """The peer may have rolled its key over meanwhile, or is elsewhere."""
    played = keyed()
    assert Playbook(played).at(4000.0) >> ev.SoftLifetimeReached() << ASK
    assert (played.state, played.forwarding) == (State.PENDING_OE, Policy.ENCRYPT)
    assert Playbook(played).at(4001.0) >> found(BY_ANOTHER, expires=8000.0) << StartKeying(BY_ANOTHER)
    assert Playbook(played).at(4002.0) >> found(expires=9000.0)
    assert played.delegations == (BY_ANOTHER,), "what nobody waits for has no say"


def test_rekey_that_has_failed_asks_the_dns_before_it_is_tried_again():
    played = keyed()
    assert Playbook(played) >> ev.SoftLifetimeReached() << CALL >> ev.PeerNotAuthentic()
    assert Playbook(played) >> ev.SoftLifetimeReached() << ASK >> found(BY_ANOTHER) << StartKeying(BY_ANOTHER)


@pytest.mark.parametrize("answer, goes_on", [
    (ev.LookUpFailed("", 5000.0), [CALL]), (ev.DelegationAbsent("", 5000.0), []), (ev.DelegationBad("", 5000.0), [])])
def test_rekey_without_an_answer_goes_on_with_what_is_known_and_without_a_record_waits(answer, goes_on):
    played = keyed(PARANOID)
    assert Playbook(played).at(4000.0) >> ev.SoftLifetimeReached() << ASK
    assert played.handle(answer, 4001.0) == goes_on
    assert played.tunnel == 1 and played.forwarding is Policy.ENCRYPT
