"""Several gateways of one host: RFC 4322 section 8, as conversations."""

import pytest

from oesvc.ipsec.flow import Flow
from oesvc.ipsec.policy import ForwardingPolicy as Policy
from oesvc.oe import events as ev
from oesvc.oe.actions import CloseTunnel, InstallPolicy, StartKeying, TearDown
from oesvc.oe.connection import Connection
from oesvc.oe.machine import State
from oesvc.oe.paths import MOST
from oesvc.oe.reasons import Because
from tests.oe.parts import BY_ANOTHER, BY_SG_B, OUTER, PERMISSIVE, SG_A, SG_B, connection, found, keyed, negotiated
from tests.playbook import Playbook

SG_D = BY_ANOTHER.gateway
HOLD = InstallPolicy(Policy.HOLD)
BY_B, BY_D = InstallPolicy(Policy.ENCRYPT, OUTER), InstallPolicy(Policy.ENCRYPT, Flow(SG_A, SG_D))


def by_d(tunnel: int = 2, begun_here: bool = False) -> ev.TunnelNegotiated:
    return ev.TunnelNegotiated("", tunnel, Flow(SG_A, SG_D), begun_here)


def answered() -> Connection:
    """A responder's, with tunnels by both gateways: SG-D keyed last."""
    made = connection()
    for event in (ev.PeerAuthorized(), negotiated(begun_here=False), ev.PeerAuthorized(), by_d()):
        made.handle(event, 0.0)
    return made


@pytest.mark.conformance("C-8-02", "C-8-06", "C-8-07")
def test_gateway_that_keyed_last_is_sent_to_and_the_other_still_accepted():
    played = connection()
    assert (
        Playbook(played)
        >> ev.PeerAuthorized() << HOLD
        >> negotiated(begun_here=False) << BY_B
        >> ev.PeerAuthorized()
        >> by_d() << BY_D
    )
    assert [path.gateway for path in played.paths] == [SG_D, SG_B]


@pytest.mark.conformance("C-8-03")
@pytest.mark.parametrize("loss", [ev.PeerLost(), ev.PeerDeleted(), ev.HardLifetimeReached()])
def test_other_tunnel_takes_over_at_once_whatever_became_of_the_first(loss):
    played = answered()
    assert Playbook(played) >> loss << BY_B
    assert (played.state, played.tunnel, played.deadline) == (State.KEYED, 1, 60.0)
    assert played.reason.because is Because.TUNNEL_STANDS and str(SG_B) in played.reason.detail


def test_new_tunnel_of_one_gateway_closes_only_that_gateways_old_one():
    assert Playbook(answered()) >> negotiated(3, begun_here=False) << CloseTunnel(1) << BY_B
    assert Playbook(answered()) >> by_d(3) << CloseTunnel(2) << BY_D


def test_tunnel_that_is_told_twice_is_kept():
    assert Playbook(answered()) >> by_d() << BY_D
    assert Playbook(answered()) >> negotiated(begun_here=False) << BY_D


def test_all_tunnels_of_a_flow_that_is_idle_are_torn_down():
    played = answered()
    played.handle(ev.LifespanEnded(), 60.0)
    assert Playbook(played) >> ev.FoundIdle() << TearDown((2, 1))


@pytest.mark.conformance("C-8-03", "C-8-08")
def test_dead_gateway_is_replaced_by_one_that_the_dns_names_too_and_is_itself_tried_last():
    assert (
        Playbook(keyed(PERMISSIVE, 0.0, BY_SG_B, BY_ANOTHER))
        >> ev.PeerLost() << HOLD << StartKeying(BY_ANOTHER)
        >> ev.PeerSilent() << StartKeying(BY_SG_B)
        >> negotiated(2) << BY_B
    )


def test_dead_gateway_that_was_the_only_one_ends_the_connection():
    assert Playbook(keyed()) >> ev.PeerLost() << TearDown(())


def test_gateway_that_dies_while_its_tunnel_is_rekeyed_leaves_the_flow_to_the_other():
    played = answered()
    played.delegations = (BY_SG_B, BY_ANOTHER)
    assert Playbook(played) >> ev.SoftLifetimeReached() << StartKeying(BY_ANOTHER) >> ev.PeerLost() << BY_B
    assert played.state is State.PENDING_OE


def test_rekeying_begins_with_the_gateway_that_is_sent_to():
    """Not with the first of the DNS: the path in use is the one to be kept."""
    played = keyed(PERMISSIVE, 0.0, BY_SG_B, BY_ANOTHER)
    Playbook(played) >> ev.PeerAuthorized() >> by_d() << BY_D
    assert Playbook(played) >> ev.SoftLifetimeReached() << StartKeying(BY_ANOTHER) >> ev.PeerSilent() \
        << StartKeying(BY_SG_B)


def test_tunnel_with_a_gateway_that_the_dns_names_no_more_is_closed():
    played = keyed()
    for event in (ev.LifespanEnded(), ev.FoundInUse(), found(BY_ANOTHER, expires=9000.0)):
        played.handle(event, 4000.0)
    assert Playbook(played).at(4000.0) >> by_d(2, begun_here=True) << CloseTunnel(1) << BY_D


@pytest.mark.conformance("C-8-06")
def test_policy_may_choose_among_the_tunnels():
    played = answered()
    assert Playbook(played) >> ev.PathChosen("", 1) << BY_B >> ev.PathChosen("", 2) << BY_D
    assert Playbook(played) >> ev.PathChosen("a tunnel that is gone", 7) << BY_D


def test_tunnels_that_came_to_stand_in_another_order_than_they_were_begun_leave_the_later_one_at_both_ends():
    """Three of one initiator within seconds, seen by the responder in another order."""
    played = connection()
    played.handle(ev.PeerAuthorized(), 0.0)
    for tunnel in (2, 1, 3):
        todo = played.handle(negotiated(tunnel, begun_here=False), 1.0)
    assert played.tunnel == 3 and todo[0] == CloseTunnel(2)
    assert played.handle(negotiated(1, begun_here=False), 2.0)[0] == CloseTunnel(1)


def test_as_many_tunnels_are_kept_as_gateways_are_called():
    played = answered()
    for number in range(3, 20):
        todo = played.handle(ev.TunnelNegotiated("", number, Flow(SG_A, SG_D + number), False), 50.0)
    assert len(played.paths) == MOST and todo[0] == CloseTunnel(19 - MOST)
