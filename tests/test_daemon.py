"""The hub: what connections ask for is done, and what the worlds report reaches them."""

from dataclasses import replace
from ipaddress import ip_address

import pytest
from twisted.internet.defer import fail
from twisted.internet.task import Clock

from oesvc.daemon import GRACE, KeyingDaemon
from oesvc.discovery import IPSECKEY, TXT, Discovery
from oesvc.dns.answer import Answer, AnswerKind, SecurityStatus
from oesvc.dns.name import reverse_name
from oesvc.ike import events as ike
from oesvc.ike.failures import KeyingFailure
from oesvc.ike.identity import AddressIdentity
from oesvc.interfaces import PlaneError
from oesvc.ipsec.flow import Flow
from oesvc.ipsec.sa import Encryption, EspTransform, IpsecSa, Lifetime, UdpPorts
from oesvc.journal import OTHER_FLOWS, Journal
from oesvc.keying import Keying
from oesvc.oe import actions
from oesvc.oe import events as ev
from oesvc.oe.aging import Lifespans
from oesvc.oe.authorization import DnssecPolicy
from oesvc.oe.classes import ClassTable, ConnectionClass
from oesvc.oe.connections import Connections
from oesvc.oe.machine import State
from oesvc.outcomes import FAILURES
from tests.fakes import FakeEngine, FakePlane, FakeResolver
from tests.oe.parts import ALICE, BOB, FLOW, KEY, PARANOID, PERMISSIVE, SG_A, SG_B
from tests.oe.test_authorization import strings
from tests.oe.test_connections import table

GCM = EspTransform(Encryption.AES_GCM_16, 128, None)
THERE, HERE = str(FLOW), str(FLOW.reversed())
ASKED = [("ask", rdtype, "66.0.2.192.in-addr.arpa") for rdtype in (TXT, IPSECKEY)]


def sa(spi, flow):
    return IpsecSa(spi, SG_A, SG_B, flow, GCM, b"", b"", Lifetime(3600))


OUT, IN = sa(0x1000, FLOW), sa(0x2000, FLOW.reversed())


class World:
    """A daemon for SG-A among fakes that write one diary; Bob's record is in the DNS."""

    def __init__(self, classes: ClassTable):
        self.diary = []
        self.clock = Clock()
        self.plane, self.resolver, self.engine = FakePlane(self.diary), FakeResolver(self.diary), FakeEngine(self.diary)
        self.daemon = KeyingDaemon(
            connections=Connections(classes, Lifespans()),
            discovery=Discovery(self.resolver, DnssecPolicy.PREFER, lambda: 0.5),
            plane=self.plane, engine=self.engine, journal=Journal(), clock=self.clock,
            unix_time=self.clock.seconds, send=self.diary.append, local_address=lambda peer: SG_A,
            is_ours=lambda address: address == ALICE)
        self.publish(BOB, SG_B)

    def publish(self, host, gateway, expires=36000.0):
        name = reverse_name(host)
        self.resolver.answers[name, TXT] = Answer(
            name, TXT, AnswerKind.DATA, SecurityStatus.SECURE, "because",
            (strings(f"X-IPsec-Server(10)={gateway} {KEY.to_base64()}"),), expires=expires)

    def says(self, *events):
        self.engine.says += events
        self.daemon.keying.turn()

    def keyed(self):
        self.daemon.acquired(FLOW)
        self.says(ike.SasReady(1, FLOW, (IN, OUT)))
        self.says(ike.TunnelUp(1, FLOW, SG_A, SG_B, AddressIdentity(SG_B)))
        return self.connection()

    def connection(self):
        return self.daemon.connections.get(FLOW)

    def since(self):
        """What was written since the last look."""
        new, self.diary[:] = list(self.diary), []
        return new


@pytest.fixture
def world():
    return World(table())


@pytest.mark.conformance("C-2.3.1-01", "C-2.3.1-05", "C-3.2.6-01", "C-3.4.1-02", "C-3.2.8-03", "C-3.2.8-01")
def test_from_acquire_to_the_last_delete(world):
    world.keyed()
    assert world.since() == [
        ("hold", THERE), *ASKED, ("initiate", THERE, str(SG_B), 1),
        ("add", THERE, [0x2000, 0x1000]), ("sas_installed", 1), ("encrypt", THERE)]
    world.clock.advance(60.0)
    assert world.since() == [("forget", THERE), ("delete_tunnel", 1)]
    assert len(world.daemon.connections) == 0
    world.says(ike.TunnelGone(1, FLOW, confirmed=True))
    assert world.since() == [("remove", THERE, [0x2000, 0x1000])]
    assert len(world.daemon.tunnels) == 0


@pytest.mark.conformance("C-3.4.1-09", "C-3.4.1-12")
@pytest.mark.parametrize("last_used, kept", [(31.0, True), (29.0, False)])
def test_tunnel_used_in_the_last_half_minute_is_kept(world, last_used, kept):
    world.keyed()
    world.plane.last_used = last_used
    world.since()
    world.clock.advance(60.0)
    assert (world.connection() is not None) is kept
    assert [entry for entry in world.since() if entry[0] in ("ask", "initiate")] == []


@pytest.mark.conformance("C-3.2.1-04", "C-2.3.1-02", "C-2.3.3-01", "C-3.2-11")
def test_flow_in_progress_is_asked_for_once(world):
    world.resolver.waiting = []
    for _ in range(3):
        world.daemon.acquired(FLOW)
    assert world.since() == [("hold", THERE), *ASKED]


@pytest.mark.conformance("C-4.2-02", "C-4.2-03")
def test_many_look_ups_are_under_way_at_once(world):
    world.resolver.waiting = []
    flows = [Flow(ALICE, BOB + n) for n in range(100)]
    for flow in flows:
        world.daemon.acquired(flow)
    assert len(world.resolver.waiting) == 200
    for deferred, answer in reversed(world.resolver.waiting):
        deferred.callback(answer)
    assert [world.daemon.connections.get(flow).state for flow in flows] == [State.PENDING_OE] + 99 * [State.CLEAR_TEXT]


@pytest.mark.conformance("C-3.2.5-14")
def test_every_failure_of_keying_is_mapped():
    assert set(FAILURES) == set(KeyingFailure)


@pytest.mark.conformance("C-9.2-01", "C-9.2-02", "C-3.2.5-04")
def test_failed_attempt_leaves_no_sas_and_says_why(world):
    world.daemon.acquired(FLOW)
    world.says(ike.ChannelUp(1, SG_B, AddressIdentity(SG_B), True), ike.SasReady(1, FLOW, (IN, OUT)),
               ike.TunnelFailed(1, FLOW, SG_B, KeyingFailure.PHASE2_SILENT, "no answer to quick mode 1"))
    assert world.since()[-2:] == [("remove", THERE, [0x2000, 0x1000]), ("pass-through", THERE)]
    assert "no answer to quick mode 1" in str(world.connection().reason)
    assert world.connection().deadline == 6 * 3600.0


def test_kernel_that_refuses_the_sas_is_a_failure_of_the_flow(world):
    world.daemon.acquired(FLOW)
    world.plane.failure = PlaneError("no such algorithm")
    world.says(ike.SasReady(1, FLOW, (IN, OUT)))
    assert ("delete_tunnel", 1) in world.since()
    assert "no such algorithm" in str(world.connection().reason)
    assert world.connection().deadline == 600.0, "the peer has refused nothing"


def test_a_connection_whose_lifespan_ends_in_a_mistake_of_ours_keeps_no_other_from_its_end():
    world = World(table(default=ConnectionClass.ALWAYS_CLEAR_TEXT))
    flows = [replace(FLOW, destination=ip_address(f"203.0.113.{number}")) for number in range(3)]
    for flow in flows:
        world.daemon.acquired(flow)
    asked = []

    def last_use(flow):
        asked.append(flow)
        raise KeyError("a mistake of ours")

    world.plane.last_use = last_use
    world.clock.advance(Lifespans().first)
    assert set(asked) == set(flows)


def test_kernel_that_cannot_tell_the_last_use_leaves_the_tunnel(world):
    world.keyed()
    world.plane.last_use = lambda flow: fail(PlaneError("no such policy"))
    world.clock.advance(60.0)
    assert world.connection().state is State.KEYED


def test_kernel_that_refuses_a_policy_is_in_the_history(world):
    world.plane.failure = PlaneError("there is one already")
    world.daemon.acquired(FLOW)
    assert any("there is one already" in entry.text for entry in world.daemon.journal.entries(FLOW))


def test_look_up_that_breaks_is_a_failed_look_up(world):
    world.resolver.look_up = lambda *question: fail(RuntimeError("our own mistake"))
    world.daemon.acquired(FLOW)
    assert world.connection().state is State.CLEAR_TEXT
    assert "our own mistake" in str(world.connection().reason)


@pytest.mark.conformance("C-3.3.2-01", "C-3.3.2-08", "C-3.3.2-02", "C-3.3-01")
def test_authorized_proposal_is_accepted_and_keyed(world):
    world.says(ike.TunnelProposed(7, FLOW, SG_B, AddressIdentity(SG_B), KEY))
    assert world.since() == [*ASKED, ("hold", THERE), ("accept_tunnel", 7)]
    world.says(ike.SasReady(7, FLOW, (IN,)), ike.SasReady(7, FLOW, (OUT,)),
               ike.TunnelUp(7, FLOW, SG_A, SG_B, AddressIdentity(SG_B)))
    assert world.since() == [("add", THERE, [0x2000]), ("sas_installed", 7), ("add", THERE, [0x1000]),
                             ("sas_installed", 7), ("encrypt", THERE)]


@pytest.mark.conformance("C-3.3.2-05", "C-3.3-03")
@pytest.mark.parametrize("classes, flow, peer, complaint", [
    (table(("192.2.0.0/24", PARANOID)), Flow(BOB, ALICE), SG_B, "is not behind this gateway"),
    (table(("192.2.0.0/24", PERMISSIVE)), FLOW, SG_A, "not 192.1.1.4"),
])
def test_proposal_without_authority_is_refused_with_the_reason(classes, flow, peer, complaint):
    world = World(classes)
    world.says(ike.TunnelProposed(7, flow, peer, AddressIdentity(peer), KEY))
    refusals = [entry for entry in world.since() if entry[0] in ("refuse_tunnel", "accept_tunnel")]
    assert [entry[:2] for entry in refusals] == [("refuse_tunnel", 7)]
    assert complaint in refusals[0][2]


@pytest.mark.conformance("C-3.3.2-05", "C-3.3.2-09")
def test_proposal_for_what_the_policy_keeps_clear_or_denies_is_refused(world):
    for of_class in ("deny", "always-clear-text"):
        world = World(table(("192.2.0.0/24", next(c for c in type(PARANOID) if c.value == of_class))))
        world.says(ike.TunnelProposed(7, FLOW, SG_B, AddressIdentity(SG_B), KEY))
        (refusal,) = world.since()
        assert refusal[0] == "refuse_tunnel"
        assert of_class in refusal[2]


@pytest.mark.conformance("C-3.3.1-07")
def test_initiators_keys_are_handed_to_the_engine(world):
    world.publish(SG_B, SG_B)
    world.says(ike.KeysWanted(3, SG_B, AddressIdentity(SG_B)))
    assert world.since()[-1] == ("keys_found", 3, AddressIdentity(SG_B), (KEY,))
    world.says(ike.KeysWanted(4, SG_A, AddressIdentity(SG_A)))
    assert world.since()[-1][:3] == ("keys_missing", 4, AddressIdentity(SG_A))


@pytest.mark.conformance("C-3.4.2-09", "C-3.4.2-10")
def test_replaced_tunnel_stops_sending_at_once_and_is_deleted_after_its_grace(world):
    connection = world.keyed()
    world.daemon.sa_expired(FLOW, OUT.spi, hard=False)
    assert ("initiate", THERE, str(SG_B), 1) in world.since()
    world.says(ike.SasReady(2, FLOW, (sa(0x2001, FLOW.reversed()), sa(0x1001, FLOW))),
               ike.TunnelUp(2, FLOW, SG_A, SG_B, AddressIdentity(SG_B)))
    assert connection.tunnel == 2
    assert ("remove", THERE, [OUT.spi]) in world.since()
    world.clock.advance(GRACE)
    assert world.since() == [("delete_tunnel", 1)]


def test_keys_that_the_peer_lets_end_earlier_get_a_shorter_lifetime_in_the_kernel(world):
    world.keyed()
    world.since()
    world.says(ike.LifetimeShortened(1, FLOW, Lifetime(7200)), ike.LifetimeShortened(9, FLOW, Lifetime(60)))
    assert world.since() == []
    world.says(ike.LifetimeShortened(1, FLOW, Lifetime(900, 5000)))
    assert world.since() == [("change", THERE, [replace(sa, lifetime=Lifetime(900, 5000)) for sa in (IN, OUT)])]
    world.says(ike.LifetimeShortened(1, FLOW, Lifetime(0, 4000)))
    assert world.since() == [("change", THERE, [replace(sa, lifetime=Lifetime(900, 4000)) for sa in (IN, OUT)])]


def test_sas_and_the_policy_follow_a_peer_that_its_nat_moves(world):
    connection = world.keyed()
    world.since()
    gateways, udp = Flow(SG_A, ip_address("198.51.100.9")), UdpPorts(4500, 32002)
    world.says(ike.TunnelMoved(1, FLOW, gateways, udp), ike.TunnelMoved(9, FLOW, gateways, udp))
    [(what, flow, (inbound, outbound))] = world.since()
    assert (what, flow) == ("change", THERE)
    assert (outbound.source, outbound.destination, outbound.udp) == (SG_A, gateways.destination, udp)
    assert (inbound.source, inbound.destination, inbound.udp) == (gateways.destination, SG_A, UdpPorts(32002, 4500))
    assert connection.gateways == gateways
    assert world.daemon.tunnels.get(1).outbound == [outbound]


@pytest.mark.conformance("C-3.1.5-03", "C-3.4.2-05")
def test_hard_lifetime_of_either_sa_ends_the_tunnel_and_holds_the_flow(world):
    for spi in (OUT.spi, IN.spi):
        world = World(table())
        world.keyed()
        world.since()
        world.daemon.sa_expired(FLOW, spi, hard=True)
        assert world.since()[:2] == [("hold", THERE), ("initiate", THERE, str(SG_B), 1)]


def test_expiry_of_an_sa_that_was_replaced_is_of_no_weight(world):
    world.keyed()
    world.since()
    world.daemon.sa_expired(FLOW, 0x9999, hard=True)
    assert world.since() == []


@pytest.mark.conformance("C-3.2.6-02", "C-3.4.2-02")
def test_delete_from_the_peer_ends_the_connection(world):
    world.keyed()
    world.since()
    world.says(ike.TunnelDeleted(1, FLOW, SG_B))
    assert world.since() == [("forget", THERE), ("remove", THERE, [0x2000, 0x1000])]
    assert world.connection() is None


def test_delete_of_a_replaced_tunnel_leaves_the_connection(world):
    world.keyed()
    world.says(ike.TunnelUp(2, FLOW, SG_A, SG_B, AddressIdentity(SG_B)))
    world.says(ike.TunnelDeleted(99, FLOW, SG_B))
    assert world.connection().state is State.KEYED


def test_every_action_is_carried_out_and_every_event_heard():
    performed = vars(KeyingDaemon)["perform"].dispatcher.registry
    heard = vars(Keying)["hear"].dispatcher.registry
    wanted = {kind for kind in vars(actions).values() if isinstance(kind, type) and issubclass(kind, actions.Action)}
    assert wanted - {actions.Action} <= set(performed)
    assert set(ike.IkeEvent.__args__) <= set(heard)


@pytest.mark.conformance("C-9.3-04")
def test_close_tells_the_engine(world):
    world.keyed()
    world.since()
    world.daemon.close()
    assert world.since() == [("close",)]
    assert world.clock.getDelayedCalls() == []


def test_journal_tells_the_story_in_the_steps_of_the_rfc(world):
    world.keyed()
    steps = [entry.arrow.label for entry in world.daemon.journal.entries(FLOW) if entry.arrow]
    assert [step for step in steps if step] == ["5", "5B", "5C", "6"]


def test_proposal_that_comes_during_our_look_up_ends_neither(world):
    world.resolver.waiting = []
    world.daemon.acquired(FLOW)
    world.says(ike.TunnelProposed(7, FLOW, SG_B, AddressIdentity(SG_B), KEY))
    ours, theirs = world.resolver.waiting[:2], world.resolver.waiting[2:]
    for waiting, answer in theirs:
        waiting.callback(answer)
    assert ("accept_tunnel", 7) in world.since()
    for waiting, answer in ours:
        waiting.callback(answer)
    assert world.connection().state is State.PENDING_OE


def test_proposals_refused_leave_a_bounded_trace_and_that_of_connections_is_kept(world):
    world.keyed()
    for number in range(OTHER_FLOWS + 100):
        flow = Flow(SG_A, BOB + number)
        world.says(ike.TunnelProposed(number, flow, SG_B, AddressIdentity(SG_B), KEY))
        world.says(ike.MessageSeen(ike.Way.SENT, "notify INVALID-ID-INFORMATION", SG_A, SG_B, flow, True))
    assert len(world.daemon.journal._others) == OTHER_FLOWS and list(world.daemon.journal._live) == [FLOW]
    world.clock.advance(60.0)
    assert not world.daemon.journal._live and world.daemon.journal.entries(FLOW)


def test_flow_that_is_displaced_is_forgotten_by_the_plane_and_decided_anew(world):
    world.daemon.connections._max_flows = 1
    world.publish(BOB + 1, SG_B)
    other = Flow(ALICE, SG_A)
    world.daemon.acquired(other)
    world.daemon.acquired(FLOW)
    assert ("forget", str(other)) in world.since()
    assert world.daemon.connections.get(other) is None and world.connection() is not None


def test_what_keying_and_connections_are_told_is_counted(world):
    world.keyed()
    world.says(ike.ChannelFailed(1, SG_B, KeyingFailure.WRONG_SIGNATURE, "no"))
    counted = world.daemon.statistics
    assert counted.keying == {ike.SasReady: 1, ike.TunnelUp: 1, ike.ChannelFailed: 1}
    assert counted.failures == {(ike.ChannelFailed, KeyingFailure.WRONG_SIGNATURE): 1}
    assert counted.connections[ev.Acquired] == counted.connections[ev.TunnelNegotiated] == 1
