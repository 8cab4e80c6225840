"""Classes beyond the RFC's four: the passive one, and an administrator's own; and what ports are excepted."""

from ipaddress import ip_network

import pytest

from oesvc.ipsec.policy import ForwardingPolicy as Policy
from oesvc.ipsec.ports import Ports
from oesvc.oe import events as ev
from oesvc.oe.actions import InstallPolicy, LookUpDelegation, QueryLastUse, StartKeying, TearDown
from oesvc.oe.aging import Lifespans
from oesvc.oe.authorization import DnssecPolicy
from oesvc.oe.classes import ClassOptions, ClassTable, ConnectionClass, PolicyLine, PortLine
from oesvc.oe.connections import Connections
from oesvc.oe.machine import State
from tests.oe.parts import (
    BOB,
    BY_SG_B,
    CLEAR,
    DENY,
    FLOW,
    LIFESPANS,
    OUTER,
    PARANOID,
    PASSIVE,
    PERMISSIVE,
    connection,
    keyed,
    line,
    negotiated,
)
from tests.playbook import Playbook

HOLD, PASS, DROP = InstallPolicy(Policy.HOLD), InstallPolicy(Policy.PASS), InstallPolicy(Policy.DENY)
ENCRYPT = InstallPolicy(Policy.ENCRYPT, OUTER)


@pytest.mark.conformance("C-3.3.2-10", "C-3.2-06")
def test_passive_sends_in_clear_and_accepts_what_a_peer_proposes():
    played = connection(PASSIVE)
    assert Playbook(played) >> ev.Acquired() << PASS
    assert Playbook(played).at(60.0) >> ev.LifespanEnded() << QueryLastUse() >> ev.FoundInUse()
    assert Playbook(played) >> ev.PeerAuthorized() << HOLD >> negotiated(begun_here=False) << ENCRYPT
    assert Playbook(played) >> ev.SoftLifetimeReached() >> ev.PeerDeleted() << TearDown(())


@pytest.mark.conformance("C-3.3.2-10")
@pytest.mark.parametrize("end", [ev.HardLifetimeReached(), ev.PeerDeleted()])
def test_passive_asks_and_calls_nobody_when_its_keys_are_over(end):
    played = connection(PASSIVE)
    for event in (ev.Acquired(), ev.PeerAuthorized(), negotiated(begun_here=False)):
        played.handle(event, 0.0)
    asked = [*played.handle(end, 1.0), *(played.handle(ev.ProposalLapsed(), 2.0) if played.tunnel is None and
                                         played.state is State.POTENTIAL_OE else [])]
    assert played.state is State.EXPIRED
    assert not [action for action in asked if isinstance(action, (LookUpDelegation, StartKeying))]


@pytest.mark.conformance("C-3.2.4-13")
@pytest.mark.parametrize("of_class, as_absence, outcome", [
    (PERMISSIVE, True, PASS), (PERMISSIVE, False, DROP), (PARANOID, True, DROP)])
def test_bad_record_counts_as_none_only_where_a_class_says_so(of_class, as_absence, outcome):
    played = connection(of_class, options=ClassOptions("own", bad_record_is_absence=as_absence))
    assert Playbook(played) >> ev.Acquired() << HOLD << LookUpDelegation(BOB) >> ev.DelegationBad("", 100.0) << outcome


@pytest.mark.conformance("C-9.1-02")
@pytest.mark.parametrize("of_class, denies, outcome", [
    (PERMISSIVE, False, PASS), (PERMISSIVE, True, DROP), (PARANOID, False, DROP)])
def test_what_silence_of_the_dns_means_is_the_classes_choice(of_class, denies, outcome):
    played = connection(of_class, options=ClassOptions("own", dns_failure_denies=denies))
    assert Playbook(played) >> ev.Acquired() << HOLD << LookUpDelegation(BOB) >> ev.LookUpFailed("", 100.0) << outcome
    assert played.deadline == LIFESPANS.low


def test_a_class_has_lifespans_of_its_own():
    brief = ClassOptions("brief", lifespans=Lifespans(first=5.0))
    connections = Connections(ClassTable([line(CLEAR, brief)], DENY), Lifespans())
    made = connections.instantiate(FLOW)
    made.handle(ev.Acquired(), 0.0)
    assert made.deadline == 5.0


@pytest.mark.parametrize("before, after, goes_on", [
    (keyed(PERMISSIVE), line(PARANOID), True), (keyed(PARANOID), line(PERMISSIVE), True),
    (keyed(PERMISSIVE), line(PASSIVE), True), (keyed(PERMISSIVE), line(CLEAR), False),
    (keyed(PERMISSIVE), line(DENY), False),
    (keyed(PERMISSIVE), line(PERMISSIVE, ClassOptions("own", DnssecPolicy.REQUIRE)), False),
    (keyed(PERMISSIVE), line(PERMISSIVE, ClassOptions("renamed", lifespans=Lifespans(1.0))), True)])
def test_encrypted_flow_goes_on_where_its_new_class_may_encrypt_by_the_same_keys(before, after, goes_on):
    assert before.reclassify(after, LIFESPANS) is goes_on
    if not goes_on:
        assert Playbook(before) >> ev.PolicyChanged() << TearDown((1,))


@pytest.mark.parametrize("before, after, goes_on", [
    (CLEAR, CLEAR, True), (CLEAR, PASSIVE, True), (PASSIVE, CLEAR, True), (CLEAR, PERMISSIVE, False),
    (CLEAR, PARANOID, False), (CLEAR, DENY, False), (DENY, DENY, True), (DENY, CLEAR, False), (DENY, PARANOID, False)])
def test_clear_text_goes_on_only_where_nothing_would_be_asked(before, after, goes_on):
    played = connection(before)
    played.handle(ev.Acquired(), 0.0)
    assert played.reclassify(line(after), LIFESPANS) is goes_on


def test_flow_that_became_passive_begins_no_rekey_and_asks_the_dns_no_more():
    played = keyed(PERMISSIVE, 0.0, BY_SG_B)
    assert played.reclassify(line(PASSIVE), LIFESPANS)
    assert Playbook(played).at(9000.0) >> ev.SoftLifetimeReached() >> ev.LifespanEnded() << QueryLastUse() \
        >> ev.FoundInUse()
    assert played.state is State.KEYED


def table(lines, ports):
    return ClassTable([PolicyLine(ip_network(network), ConnectionClass.OE_PERMISSIVE, "") for network in lines],
                      ConnectionClass.OE_PERMISSIVE,
                      port_lines=[PortLine(ip_network(network), Ports(6, 0, port), dropped, "")
                                  for network, port, dropped in ports])


@pytest.mark.conformance("C-3.2-05")
def test_excepted_ports_end_where_a_longer_prefix_begins():
    rules = table(["192.0.2.0/24", "192.0.2.128/25", "192.0.2.4/32", "0.0.0.0/0", "2001:db8::/32"],
                  [("192.0.2.0/24", 80, False), ("192.0.2.64/26", 80, True)]).port_rules()
    found_in = {str(rule.network): rule.dropped for rule in rules if rule.ports == Ports(6, 0, 80)}
    assert found_in == {"192.0.2.0/30": False, "192.0.2.5/32": False, "192.0.2.6/31": False, "192.0.2.8/29": False,
                        "192.0.2.16/28": False, "192.0.2.32/27": False, "192.0.2.64/26": True}
