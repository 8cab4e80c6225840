"""The table of connections: classes by prefix, instances by flow, and who is due."""

from ipaddress import ip_address, ip_network

import pytest

from oesvc.ipsec.flow import Flow
from oesvc.oe import events as ev
from oesvc.oe.aging import Lifespan, Lifespans
from oesvc.oe.classes import ClassTable, PolicyLine
from oesvc.oe.connections import DUE_AT_ONCE, Connections
from oesvc.oe.machine import State
from tests.oe.parts import ALICE, BOB, CLEAR, DENY, FLOW, PARANOID, PERMISSIVE, found, negotiated


def table(*lines, default=PERMISSIVE):
    return ClassTable([PolicyLine(ip_network(net), kind, f"test:{n}") for n, (net, kind) in enumerate(lines)], default)


@pytest.mark.conformance("C-1.2-02", "C-1.2-01", "C-3.2-04")
@pytest.mark.parametrize("destination, kind", [
    ("192.2.0.66", DENY), ("192.2.0.67", CLEAR), ("192.2.1.1", PARANOID), ("10.0.0.1", PERMISSIVE),
    ("2001:db8::1", CLEAR), ("2001:db9::1", PARANOID)])
def test_longest_prefix_decides(destination, kind):
    classes = table(("0.0.0.0/0", PERMISSIVE), ("192.2.0.0/16", PARANOID), ("192.2.0.0/24", CLEAR),
                    ("192.2.0.66/32", DENY), ("2001:db8::/32", CLEAR), ("::/0", PARANOID))
    assert classes.find(ip_address(destination)).connection_class is kind


@pytest.mark.conformance("C-3.2.1-03")
@pytest.mark.parametrize("default", [CLEAR, DENY])
def test_default_decides_where_no_line_matches(default):
    line = table(("192.2.0.0/24", PARANOID), default=default).find(ip_address("192.3.0.1"))
    assert line.connection_class is default
    assert "default" in line.place


@pytest.mark.conformance("C-3.2-07")
def test_one_wildcard_line_is_a_whole_policy():
    assert table(("0.0.0.0/0", PERMISSIVE), default=DENY).find(BOB).connection_class is PERMISSIVE


@pytest.mark.conformance("C-3.2-01", "C-3.2.1-01")
def test_instance_is_made_once_for_each_pair():
    connections = Connections(table(), Lifespans())
    assert connections.instantiate(FLOW) is connections.instantiate(Flow(ALICE, BOB))
    assert connections.instantiate(FLOW.reversed()) is not connections.instantiate(FLOW)
    assert len(connections) == 2


@pytest.mark.conformance("C-3.2.7-01")
def test_each_connection_is_due_when_its_lifespan_ends_and_once():
    connections = Connections(table(default=CLEAR), Lifespans())
    flows = [Flow(ALICE, ip_address(f"192.2.0.{n}")) for n in range(1, 4)]
    for now, flow in enumerate(flows):
        made = connections.instantiate(flow)
        made.handle(ev.Acquired(), float(now))
        connections.schedule(made)
        connections.schedule(made)
    assert connections.next_deadline() == 60.0
    assert [c.flow for c in connections.due(61.0)] == flows[:2]
    connections.forget(connections.instantiate(flows[2]))
    assert connections.next_deadline() is None
    assert connections.due(1e9) == []


@pytest.mark.conformance("C-3.4.1-11")
def test_lifespan_goes_on_after_a_rekey_that_anybody_looked_at_the_deadlines_during():
    """Rekeying takes a connection out of those that age, and leaves its lifespan alone."""
    connections = Connections(table(), Lifespans())
    connection = connections.instantiate(FLOW)
    for event in (ev.Acquired(), found(), negotiated(1), ev.SoftLifetimeReached()):
        connection.handle(event, 0.0)
        connections.schedule(connection)
    assert connections.next_deadline() is None
    connection.handle(negotiated(2), 50.0)
    connections.schedule(connection)
    assert connections.next_deadline() == Lifespans().first
    assert connections.due(60.0) == [connection]
    assert connections.due(60.0) == []


def test_beyond_the_bound_old_flows_go_that_are_not_encrypted_or_under_way():
    connections = Connections(table(default=CLEAR), Lifespans(), max_flows=100)
    flows = [Flow(ALICE, ip_address("192.2.0.0") + n) for n in range(101)]
    for flow in flows:
        connections.instantiate(flow).handle(ev.Acquired(), 0.0)
        assert connections.displaced() is None or len(connections) == 101
    for flow in flows[:70]:
        connections.get(flow).state = State.KEYED
    assert connections.displaced() is None, "of more than are looked at, none can go"
    victim = connections.displaced()
    assert victim.flow == flows[70]
    victim.handle(ev.RoomWanted(), 1.0)
    assert victim.state is State.EXPIRED and "another flow took its place" in str(victim.reason)
    connections.forget(victim)
    assert connections.displaced() is None
    assert connections.bounds() == {"max-flows": (100, 100, 2)}


@pytest.mark.conformance("C-3.2.5-13", "C-3.2.7-05")
@pytest.mark.parametrize("expires, ends", [(700.0, 700.0), (100.0, 110.0), (1e9, 100.0 + 6 * 3600)])
def test_lifespan_of_an_answer_is_bounded_below_and_above(expires, ends):
    assert Lifespans().end(Lifespan.ANSWER, 100.0, expires) == ends


def test_very_many_that_are_due_are_told_some_at_a_time_and_the_earliest_first():
    connections = Connections(table(default=CLEAR), Lifespans())
    for number in range(5 * DUE_AT_ONCE):
        made = connections.instantiate(Flow(ALICE, ip_address("192.2.0.0") + number))
        made.handle(ev.Acquired(), number / 100)
        connections.schedule(made)
    told = []
    while connections.next_deadline() is not None:
        found = connections.due(1e9)
        assert len(found) == DUE_AT_ONCE
        told += [connection.flow for connection in found]
    assert told == [connection.flow for connection in connections]


def test_a_deadline_that_is_put_off_again_and_again_is_kept_once():
    connections = Connections(table(default=CLEAR), Lifespans())
    connection = connections.instantiate(FLOW)
    connection.handle(ev.Acquired(), 0.0)
    for number in range(1000):
        connection.lifespan_ends = 60.0 + number
        connections.schedule(connection)
    assert len(connections._heap) == 1
    assert connections.due(1058.0) == []
    assert connections.due(1059.0) == [connection]
    connection.lifespan_ends = 70.0
    connections.schedule(connection)
    connection.lifespan_ends = 65.0
    connections.schedule(connection)
    assert connections.next_deadline() == 65.0


def test_flows_that_come_and_go_leave_nothing_behind_among_the_deadlines():
    connections = Connections(table(default=CLEAR), Lifespans())
    for number in range(10_000):
        made = connections.instantiate(Flow(ALICE, ip_address("192.2.0.0") + number))
        made.handle(ev.Acquired(), number)
        connections.schedule(made)
        if number >= 100:
            connections.forget(connections.instantiate(Flow(ALICE, ip_address("192.2.0.0") + number - 100)))
        assert len(connections._heap) < 200
    assert connections.next_deadline() == 9900 + 60.0
