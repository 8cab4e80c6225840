"""`oegw why` and its like of hosts that this gateway's own NAT translates (RFC 4322 section 6.1)."""

import json
from ipaddress import ip_address, ip_network

import pytest

from oesvc.ipsec.flow import Flow
from oesvc.ipsec.translation import Translation
from oesvc.operator import text
from tests.oe.parts import ALICE, BOB
from tests.operator.test_control import ask, talk
from tests.test_daemon import FLOW

INSIDE = ip_address("10.1.0.65")
STRANGER = ip_address("10.9.0.65")


@pytest.fixture
def napt(world):
    """Alice's address is the one that 10.1.0.0/24 is translated into."""
    world.translations = (Translation(ip_network("10.1.0.0/24"), ip_network(ALICE)),)
    return world


def first_line(world, source, destination):
    return text.why(ask(world, command="why", source=str(source), destination=str(destination))).splitlines()[0]


@pytest.mark.conformance("C-6.1-01", "C-6.1-04")
def test_why_tells_in_its_first_line_as_whom_a_translated_host_is_encrypted(napt):
    assert first_line(napt, INSIDE, BOB) == (
        f"{INSIDE} -> {BOB} has no state as {ALICE}, into which this gateway's NAT translates it: no datagram of it "
        "was seen, or it was idle and forgotten.")
    napt.keyed()
    assert first_line(napt, INSIDE, BOB).startswith(
        f"{INSIDE} -> {BOB} is encrypted as {ALICE}, into which this gateway's NAT translates it: a tunnel with the "
        "destination's gateway stands")
    assert first_line(napt, ALICE, BOB).startswith(f"{ALICE} -> {BOB} is encrypted: a tunnel")
    assert ask(napt, command="why", source=str(INSIDE), destination=str(BOB))["before_nat"] == str(INSIDE)
    assert ask(napt, command="why", source=str(ALICE), destination=str(BOB))["before_nat"] is None


def test_timeline_and_drop_take_a_translated_host_for_what_it_becomes(napt):
    napt.keyed()
    drawn = ask(napt, command="timeline", source=str(INSIDE), destination=str(BOB))
    assert drawn["source"] == str(ALICE) and drawn["entries"]
    assert ask(napt, command="drop", source=str(INSIDE), destination=str(BOB))["dropped"]
    assert napt.daemon.connections.get(FLOW) is None


def test_flow_of_its_own_is_not_taken_for_what_it_would_become(napt):
    """As one of a configured tunnel between private networks."""
    own = Flow(INSIDE, BOB)
    napt.daemon.acquired(own)
    assert ask(napt, command="why", source=str(INSIDE), destination=str(BOB))["before_nat"] is None


def test_why_says_whose_flows_are_never_decided_here(napt):
    assert first_line(napt, STRANGER, BOB) == (
        f"{STRANGER} -> {BOB} is not decided here: {STRANGER} is neither this gateway nor among its clients, nor "
        "translated by [gateway] translated; if the firewall translates it all the same, ask for what it becomes")
    assert first_line(napt, BOB, ALICE) == (
        f"{BOB} -> {ALICE} is not decided here: the host on this side comes first: oegw why {ALICE} {BOB}")


def test_translated_host_to_which_nothing_leads_is_told_so(napt):
    def nowhere(peer):
        raise OSError("Network is unreachable")

    napt.translations = (Translation(ip_network("10.1.0.0/24")),)
    napt.daemon.local_address = nowhere
    question = {"command": "why", "source": str(INSIDE), "destination": str(BOB)}
    assert talk(napt, json.dumps(question).encode())["error"] == f"nothing leads to {BOB}: Network is unreachable"
