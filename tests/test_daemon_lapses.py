"""What comes to nothing leaves nothing: no flow on hold for ever, no record, no tunnel that nobody uses."""

import pytest

from oesvc.discovery import MAX_GATEWAYS
from oesvc.dns.answer import Answer, AnswerKind, SecurityStatus
from oesvc.dns.name import reverse_name
from oesvc.ike import events as ike
from oesvc.ike.failures import KeyingFailure
from oesvc.ike.identity import AddressIdentity
from oesvc.interfaces import PlaneError
from oesvc.keying import REKEY_AGAIN
from oesvc.oe import events as ev
from oesvc.oe.machine import State
from oesvc.oe.reasons import Because
from tests.oe.parts import BOB, FLOW, KEY, PARANOID, SG_B
from tests.oe.test_authorization import strings
from tests.oe.test_connections import table
from tests.pair import Pair
from tests.test_daemon import IN, OUT, TXT, World

PROPOSAL = ike.TunnelProposed(7, FLOW, SG_B, AddressIdentity(SG_B), KEY)


@pytest.fixture
def world():
    return World(table())


@pytest.mark.parametrize("refusing", ["a", "b"])
def test_kernel_that_refuses_the_sas_of_either_end_leaves_no_flow_waiting(refusing):
    """With real engines, which say at once that a tunnel that is deleted is gone."""
    pair = Pair()
    plane = getattr(pair, refusing).plane
    plane.add_sas = lambda flow, sas: plane.remove_sas(flow, ()).addCallback(_refuse)
    pair.a.daemon.acquired(FLOW)
    pair.run(30.0)
    assert pair.a.daemon.connections.get(FLOW).state is State.CLEAR_TEXT
    assert pair.b.daemon.connections.get(FLOW.reversed()) is None
    assert len(pair.a.daemon.tunnels) == len(pair.b.daemon.tunnels) == 0


def _refuse(_):
    raise PlaneError("no such algorithm")


def test_peer_that_gives_up_while_the_dns_is_asked_leaves_no_flow_waiting(world):
    world.resolver.waiting = []
    world.says(PROPOSAL)
    world.says(ike.TunnelFailed(7, FLOW, SG_B, KeyingFailure.PHASE2_SILENT, "its time is over"))
    for waiting, answer in world.resolver.waiting:
        waiting.callback(answer)
    assert world.connection() is None
    assert not [entry for entry in world.since() if entry[0] in ("hold", "accept_tunnel")]


def test_proposal_refused_is_forgotten(world):
    world.publish(BOB, SG_B + 1)
    world.says(PROPOSAL)
    assert world.since()[-1][:2] == ("refuse_tunnel", 7)
    assert len(world.daemon.tunnels) == 0


@pytest.mark.parametrize("classes, settled", [(table(), State.CLEAR_TEXT), (table(default=PARANOID), State.DENY)])
def test_tunnel_that_a_peer_negotiates_while_our_own_look_up_fails_is_used(classes, settled):
    world = World(classes)
    world.daemon.tell(world.daemon.connections.instantiate(FLOW), ev.Acquired())
    world.says(PROPOSAL)
    connection = world.connection()
    connection.state = State.POTENTIAL_OE  # as if our own look-up were still under way
    world.daemon.tell(connection, ev.LookUpFailed("no server answers", 30.0))
    assert connection.state is settled
    world.says(ike.SasReady(7, FLOW, (IN, OUT)), ike.TunnelUp(7, FLOW, OUT.source, SG_B, AddressIdentity(SG_B)))
    assert connection.state is State.KEYED and connection.tunnel == 7


def test_first_of_two_proposals_may_lapse(world):
    world.says(PROPOSAL, ike.TunnelProposed(8, FLOW, SG_B, AddressIdentity(SG_B), KEY))
    world.says(ike.TunnelFailed(7, FLOW, SG_B, KeyingFailure.PHASE2_SILENT, "its time is over"))
    connection = world.connection()
    assert connection.state is State.POTENTIAL_OE
    world.says(ike.SasReady(8, FLOW, (IN, OUT)), ike.TunnelUp(8, FLOW, OUT.source, SG_B, AddressIdentity(SG_B)))
    assert world.connection() is connection and connection.state is State.KEYED


def test_last_of_two_proposals_that_lapses_ends_the_connection(world):
    world.says(PROPOSAL, ike.TunnelProposed(8, FLOW, SG_B, AddressIdentity(SG_B), KEY))
    for tunnel in (7, 8):
        world.says(ike.TunnelFailed(tunnel, FLOW, SG_B, KeyingFailure.PHASE2_SILENT, "its time is over"))
    assert world.connection() is None


def test_delete_of_the_old_tunnel_does_not_end_the_flow_of_which_the_peer_proposes_a_new_one():
    """As after its SAs were flushed there: it proposes a tunnel, and deletes the old one before the new one stands."""
    pair = Pair()
    pair.a.daemon.acquired(FLOW)
    pair.run(2.0)
    connection = pair.a.daemon.connections.get(FLOW)
    old = pair.a.daemon.tunnels.get(connection.tunnel)
    pair.a.daemon.sa_expired(FLOW, old.outbound[0].spi, hard=True)
    pair.run(45.0)
    back = pair.b.daemon.connections.get(FLOW.reversed())
    assert back and (connection.state, back.state) == (State.KEYED, State.KEYED)
    assert old.id != connection.tunnel and len(pair.a.daemon.tunnels) == 1
    assert [len(gateway.daemon.tunnels.get(gateway.daemon.connections.get(flow).tunnel).sas)
            for gateway, flow in ((pair.a, FLOW), (pair.b, FLOW.reversed()))] == [2, 2]


def test_hundreds_of_gateways_without_a_route_are_tried_in_measure_and_one_after_the_other(world):
    def no_route(peer):
        raise PlaneError(f"no policy for {peer}")

    world.daemon.local_address = no_route
    name = reverse_name(BOB)
    records = tuple(strings(f"X-IPsec-Server({place})={SG_B + place} {KEY.to_base64()}") for place in range(400))
    world.resolver.answers[name, TXT] = Answer(name, TXT, AnswerKind.DATA, SecurityStatus.SECURE, "because", records,
                                               expires=36000.0)
    world.daemon.acquired(FLOW)
    assert world.connection().state is State.PENDING_OE
    for _ in range(MAX_GATEWAYS):
        world.clock.advance(0)
    assert world.connection().state is State.CLEAR_TEXT
    assert world.connection().reason.because is Because.PEER_SILENT
    tried = [entry.text for entry in world.daemon.journal.entries(FLOW) if "there is no route" in entry.text]
    assert f"gateway {SG_B + MAX_GATEWAYS - 1}" in tried[-1]


def test_rekey_that_fails_at_both_gateways_is_tried_again_once_a_round(world):
    """One gateway's failure is not the rekey's as long as there is another to try."""
    name = reverse_name(BOB)
    world.resolver.answers[name, TXT] = Answer(name, TXT, AnswerKind.DATA, SecurityStatus.SECURE, "because", tuple(
        strings(f"X-IPsec-Server({place})={SG_B + place} {KEY.to_base64()}") for place in range(2)), expires=36000.0)
    world.plane.last_used = 1e9
    world.keyed()
    world.daemon.sa_expired(FLOW, OUT.spi, hard=False)
    for wait in REKEY_AGAIN:
        for _ in range(2):
            assert world.connection().state is State.PENDING_OE
            world.says(ike.TunnelFailed(world.engine.number, FLOW, SG_B, KeyingFailure.PEER_SILENT, "no answer"))
        assert world.connection().state is State.KEYED
        again = [call for call in world.clock.getDelayedCalls() if call.func == world.daemon.keying._rekey_again]
        assert [round(call.getTime() - world.clock.seconds()) for call in again] == [wait]
        world.clock.advance(wait)


def test_look_up_without_an_answer_does_not_stop_a_tunnel_from_being_renewed(world):
    connection = world.keyed()
    known, reason = connection.delegations, connection.reason
    connection.state, connection.state_under_review = State.EXPIRING, State.KEYED
    world.daemon.tell(connection, ev.LookUpFailed("no server answers", 30.0))
    assert (connection.state, connection.delegations, connection.reason) == (State.KEYED, known, reason)
    world.since()
    world.daemon.sa_expired(FLOW, OUT.spi, hard=False)
    assert [entry[0] for entry in world.since()] == ["initiate"]
