"""Datagrams that the firewall is going to translate: held as they come in, decided as they leave."""

from ipaddress import ip_address, ip_network
from typing import Any

from twisted.internet.defer import Deferred, succeed

from oesvc.ipsec.account import Verdict
from oesvc.ipsec.flow import Address, Flow
from oesvc.ipsec.translation import Translation
from oesvc.kernel.hold import Datagram
from oesvc.kernel.netlink import Request
from oesvc.kernel.plane_config import PlaneConfig
from oesvc.kernel.ruleset import ruleset
from oesvc.kernel.sets import FlowSets
from tests.kernel.test_service import DENY, PASS, Kernel, Plane, done

OWN, BOB = ip_address("192.1.1.4"), ip_address("192.2.0.66")
LEAVES = Flow(OWN, BOB)
INNER, OTHER = (Flow(ip_address(source), BOB) for source in ("10.1.0.65", "10.1.0.66"))
CONFIG = PlaneConfig(own=(OWN,), translated=(Translation(ip_network("10.1.0.0/24")),))


class Translating(Plane):
    def __init__(self) -> None:
        super().__init__(CONFIG, Included())
        self._local_address = self.towards

    def towards(self, peer: Address) -> Address:
        if peer == BOB:
            return OWN
        raise OSError("no route")

    def arrives(self, number: int, flow: Flow) -> None:
        self._datagram_arrived(Datagram(number, flow, 0, 0))


class Included(Kernel):
    def include(self, inner: Flow, flow: Flow, verdict: Verdict) -> "Deferred[list[Any]]":
        return self._ask(f"{inner} is {flow}: {verdict.policy.name}")


class Sets(FlowSets):
    """The sets, but for the kernel."""

    def __init__(self) -> None:
        self._inner = {}
        self.asked: list[str] = []

    def _transaction(self, *requests: Request) -> "Deferred[list[Any]]":
        self.asked += [request.asks for request in requests]
        return succeed([])

    def said(self) -> list[str]:
        asked, self.asked = self.asked, []
        return asked


def test_clients_behind_a_napt_are_one_flow_which_is_acquired_once_and_released_together() -> None:
    plane = Translating()
    plane.arrives(1, INNER)
    plane.arrives(2, OTHER)
    assert plane.listener.heard == [("acquired", LEAVES)]
    done(plane.install_policy(LEAVES, PASS))
    assert plane.said()[-4:] == [f"{INNER} is {LEAVES}: PASS", f"{OTHER} is {LEAVES}: PASS", "accept 1", "accept 2"]


def test_one_that_comes_after_the_decision_is_let_go_at_once() -> None:
    plane = Translating()
    done(plane.install_policy(LEAVES, DENY))
    plane.said()
    plane.arrives(3, OTHER)
    assert plane.said() == [f"{OTHER} is {LEAVES}: DENY", "drop 3"]


def test_what_leads_nowhere_is_dropped() -> None:
    plane = Translating()
    plane.arrives(4, Flow(INNER.source, OWN))
    assert plane.said() == ["drop 4"] and plane.listener.heard == []


def test_what_is_translated_into_a_flow_goes_with_it_from_set_to_set() -> None:
    sets = Sets()
    sets.change(LEAVES, None, Verdict(PASS))
    sets.include(INNER, LEAVES, Verdict(PASS))
    assert sets.said() == [f"add to the set known: {LEAVES}", f"add to the set known: {INNER}"]
    sets.include(INNER, LEAVES, Verdict(PASS))
    assert sets.said() == []
    sets.change(LEAVES, Verdict(PASS), Verdict(DENY))
    assert sets.said() == [f"{deed}: {flow}" for flow in (LEAVES, INNER) for deed in (
        "delete from the set known", "add to the set known", "add to the set denied")]
    sets.change(LEAVES, Verdict(DENY), None)
    assert sets.said() == [f"delete from the set {name}: {flow}" for flow in (LEAVES, INNER)
                           for name in ("known", "denied")]
    sets.change(LEAVES, None, Verdict(PASS))
    assert sets.said() == [f"add to the set known: {LEAVES}"]


def test_sources_that_are_translated_are_held_and_never_leave_for_the_spd_as_they_are() -> None:
    rules = ruleset(CONFIG)
    assert "set translated4 { type ipv4_addr; flags interval; auto-merge; elements = { 10.1.0.0/24 }; }" in rules
    assert "ip saddr @translated4 goto inner4" in rules
    assert "ip saddr @translated4 jump closed" in rules
