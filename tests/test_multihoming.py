"""RFC 4322 section 8 in one process: SG-A and SG-D both speak for Alice, SG-B for Bob."""

import pytest

from oesvc.discovery import TXT
from oesvc.dns.answer import SecurityStatus
from oesvc.ipsec.flow import Flow
from oesvc.multihoming import LOOK, TURN
from oesvc.oe.machine import State
from oesvc.oe.paths import Choice
from oesvc.operator import text
from oesvc.operator.report import flows, status, why
from tests.oe.parts import ALICE, BOB, PERMISSIVE, SG_A, SG_B
from tests.oe.test_authorization import strings
from tests.pair import Gateway, Pair

SG_D = SG_A + 2
THERE, BACK = Flow(ALICE, BOB), Flow(BOB, ALICE)


class Trio(Pair):
    """A pair with a second gateway of Alice's."""

    def __init__(self, precedence_a: int = 10, precedence_d: int = 10, choice: Choice = Choice.LAST_KEYED) -> None:
        super().__init__()
        self.d = Gateway("d", SG_D, ALICE, self.wire, self.resolver, PERMISSIVE)
        self.publish_key(SG_D, self.d.key)
        self.b = Gateway("b", SG_B, BOB, self.wire, self.resolver, PERMISSIVE, choice=choice)
        self.publish(ALICE, TXT, [
            strings(f"X-IPsec-Server({precedence})={address} {gateway.key.to_base64()}")
            for precedence, address, gateway in ((precedence_a, SG_A, self.a), (precedence_d, SG_D, self.d))],
            SecurityStatus.SECURE)

    @property
    def back(self):
        return self.b.daemon.connections.get(BACK)

    def sent_to(self):
        """By which gateway Bob's datagrams go now."""
        assert self.b.plane.sent_by[BACK] == self.back.gateways
        return self.back.gateway

    def key(self, gateway):
        """Alice's datagrams leave by this gateway: it keys."""
        gateway.daemon.acquired(THERE)
        self.run(1.0)

    def die(self, gateway):
        self.wire.loses = lambda datagram: gateway in (
            self.wire.gateways[datagram.peer.address], self.wire.gateways[datagram.local.address])

    def received(self, gateway):
        """SG-B's inbound SAs of its tunnel with this gateway."""
        (path,) = [path for path in self.back.paths if self.wire.gateways[path.gateway] is gateway]
        return self.b.daemon.tunnels.get(path.tunnel).inbound

    def installed(self):
        """The SPIs of the SAs that SG-B's kernel has."""
        spis = set()
        for entry in self.b.diary:
            spis |= set(entry[2]) if entry[0] == "add" else set()
            spis -= set(entry[2]) if entry[0] == "remove" else set()
        return spis


@pytest.mark.conformance("C-8-01", "C-8-02", "C-8-07")
def test_both_gateways_key_and_both_tunnels_stay():
    trio = Trio()
    trio.key(trio.a)
    assert trio.sent_to() == SG_A
    trio.key(trio.d)
    assert trio.sent_to() == SG_D
    trio.run(40.0)
    for gateway in (trio.a, trio.d):
        assert gateway.daemon.connections.get(THERE).state is State.KEYED
        assert {sa.spi for sa in trio.received(gateway)} <= trio.installed()


@pytest.mark.conformance("C-8-05")
def test_weights_count_for_whoever_calls_and_not_for_whom_is_answered():
    called = Trio(precedence_a=20, precedence_d=10)
    called.b.daemon.acquired(BACK)
    called.run(1.0)
    assert called.sent_to() == SG_D
    answered = Trio(precedence_a=20, precedence_d=10)
    answered.key(answered.a)
    assert answered.sent_to() == SG_A


def test_why_names_the_gateway_that_is_sent_to_and_those_that_are_accepted_too():
    trio = Trio()
    trio.key(trio.a)
    trio.key(trio.d)
    told = text.why(why(trio.b.daemon, BACK, trio.clock.seconds())).splitlines()
    assert [line for line in told if line.startswith("  tunnel")] == [
        f"  tunnel   {SG_B} -> {SG_D}", f"  tunnel   {SG_B} -> {SG_A}, only to receive"]


@pytest.mark.conformance("C-8-08", "C-3.2.5-03")
def test_gateway_that_does_not_answer_costs_its_time_once_and_is_then_called_last():
    trio = Trio(precedence_a=10, precedence_d=10)
    trio.b.entropy.seed(1)
    trio.die(trio.d)
    trio.b.daemon.discovery.was_silent(SG_A)  # so that the dead one is called first
    trio.b.daemon.acquired(BACK)
    trio.run(5.0)
    assert trio.back.state is State.PENDING_OE
    trio.run(5.0)
    assert trio.sent_to() == SG_A
    own = Flow(SG_B, ALICE)
    trio.b.daemon.acquired(own)
    trio.run(1.0)
    assert trio.b.daemon.connections.get(own).gateway == SG_A


@pytest.mark.conformance("C-8-03", "C-9.3-01")
def test_death_of_the_gateway_that_is_sent_to_moves_the_flow_to_the_other_tunnel():
    trio = Trio()
    trio.key(trio.a)
    trio.key(trio.d)
    trio.b.plane.last_used = 1e9
    trio.a.plane.last_used = 1e9
    trio.die(trio.d)
    held = trio.b.policies().count("hold")
    trio.run(85.0)
    assert trio.sent_to() == SG_A
    assert trio.b.policies().count("hold") == held, "nothing waits"
    assert [path.gateway for path in trio.back.paths] == [SG_A]


@pytest.mark.conformance("C-8-03")
def test_death_of_a_gateway_that_was_called_sends_for_keys_of_the_other():
    trio = Trio(precedence_a=20, precedence_d=10)
    trio.b.daemon.acquired(BACK)
    trio.run(1.0)
    trio.b.plane.last_used = 1e9
    trio.die(trio.d)
    trio.run(85.0)
    assert trio.sent_to() == SG_A


def test_spare_tunnel_whose_gateway_is_gone_is_forgotten():
    trio = Trio()
    trio.key(trio.a)
    trio.key(trio.d)
    trio.b.plane.last_used = 1e9
    trio.d.plane.last_used = 1e9
    trio.die(trio.a)
    before = trio.installed()
    trio.run(85.0)
    assert trio.sent_to() == SG_D
    assert len(trio.back.paths) == 1 and len(before) == 4 and len(trio.installed()) == 2
    assert len(trio.b.daemon.tunnels) == 1


@pytest.mark.conformance("C-3.4.1-04")
def test_spare_tunnel_runs_out_with_its_keys():
    trio = Trio()
    trio.key(trio.a)
    trio.key(trio.d)
    (inbound,) = trio.received(trio.a)
    trio.b.daemon.sa_expired(BACK, inbound.spi, hard=False)
    assert len(trio.back.paths) == 2
    trio.b.daemon.sa_expired(BACK, inbound.spi, hard=True)
    assert [path.gateway for path in trio.back.paths] == [SG_D]
    trio.run(1.0)
    assert trio.a.daemon.connections.get(THERE) is None, "SG-A was told by a delete"


@pytest.mark.conformance("C-8-06")
def test_gateways_take_turns_where_that_is_the_policy():
    trio = Trio(choice=Choice.ROUND_ROBIN)
    trio.key(trio.a)
    trio.key(trio.d)
    seen = []
    for _ in range(4):
        seen.append(trio.sent_to())
        trio.run(TURN)
    assert seen == [SG_D, SG_A, SG_D, SG_A]


@pytest.mark.conformance("C-8-06")
def test_gateway_that_was_received_from_last_is_sent_to_where_that_is_the_policy():
    trio = Trio(choice=Choice.LAST_RECEIVED)
    trio.key(trio.a)
    trio.key(trio.d)
    trio.b.plane.carried = {}
    trio.run(2 * LOOK)
    assert trio.sent_to() == SG_D
    trio.b.plane.carried = {sa.spi: (500, 5) for sa in trio.received(trio.a)}
    trio.run(LOOK + 0.1)
    assert trio.sent_to() == SG_A
    trio.b.plane.carried |= {sa.spi: (300, 3) for sa in trio.received(trio.d)}
    trio.run(LOOK)
    assert trio.sent_to() == SG_D
    trio.run(3 * LOOK)
    assert trio.sent_to() == SG_D, "without datagrams nothing changes"


@pytest.mark.parametrize("choice", [Choice.LAST_RECEIVED, Choice.ROUND_ROBIN])
def test_nothing_is_watched_any_more_once_the_flow_is_gone(choice):
    trio = Trio(choice=choice)
    trio.key(trio.a)
    trio.key(trio.d)
    trio.run(150.0)
    assert trio.back is None
    assert not trio.b.daemon.multihoming._watched and not trio.b.daemon.multihoming._alarm.is_set


@pytest.mark.conformance("C-8-09")
def test_status_claims_no_more_than_that_a_gateway_was_reached():
    trio = Trio()
    trio.key(trio.a)
    (flow,) = flows(trio.b.daemon, trio.clock.seconds())["flows"]
    assert flow["outcome"] == "is encrypted" and flow["reason"].startswith("a tunnel with the destination's gateway")
    told = str((flow, status(trio.b.daemon, "1", trio.clock.seconds()))).lower()
    assert not [word for word in ("reachable", "alive", "online") if word in told]
