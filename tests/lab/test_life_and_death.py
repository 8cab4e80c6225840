"""Tunnels that end, daemons that are stopped, killed and started again: nothing that must not, goes in clear."""

import time
from collections.abc import Callable, Iterator

import pytest

from tests.lab.conftest import Lab, build
from tests.lab.network import Host, Network, address_of
from tests.lab.test_main_job import clear

pytestmark = pytest.mark.lab

ALICE, BOB, CAROL, FRANK, SG_A, SG_B = (address_of(name) for name in ("alice", "bob", "carol", "frank", "sg-a", "sg-b"))
BRIEF = {"lifespans": {"first": "8", "used": "8", "in-use-within": "4"}}
PATIENCE = 90.0
"Seconds, for an emulated machine."


@pytest.fixture(scope="module")
def brief_lab() -> Iterator[Lab]:
    """A lab whose tunnels are looked at every few seconds."""
    with Network() as net:
        yield build(net, BRIEF)


def eventually(what: Callable[[], bool], patience: float = PATIENCE) -> bool:
    """Whether it comes true before patience ends."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if what():
            return True
        time.sleep(0.5)
    return False


def flow_policies(host: Host) -> list[str]:
    """Policies of single flows, to or from Bob."""
    return [line for line in host.xfrm("policy").splitlines() if f"{BOB}/32" in line]


@pytest.mark.conformance("C-3.2.8-01", "C-3.4.1-01", "C-3.2.7-02", "C-Abs-02", "C-3.4.2-01")
def test_idle_tunnel_leaves_nothing_behind_at_either_end_and_nothing_in_clear(brief_lab: Lab) -> None:
    net = brief_lab.net
    gateways = net["sg-a"], net["sg-b"]
    with net.capture("internet") as tap:
        assert net["alice"].ping(BOB, wait=60) == 1
        assert [len(gateway.sas()) for gateway in gateways] == [2, 2]
        assert eventually(lambda: not any(gateway.sas() for gateway in gateways))
        assert [flow_policies(gateway) for gateway in gateways] == [[], []]
        assert net["alice"].ping(BOB, wait=60) == 1
    assert clear(tap.end(), ALICE, BOB) == []
    assert "nothing used it lately" in brief_lab.a.why(ALICE, BOB)


@pytest.mark.conformance("C-3.4.1-07", "C-3.2.7-08", "C-3.2.7-09")
def test_tunnel_in_use_is_kept_by_traffic_in_one_direction(brief_lab: Lab) -> None:
    """Alice only sends, Bob only receives: both gateways look at it several times meanwhile."""
    net = brief_lab.net
    assert net["alice"].ping(BOB, wait=60) == 1
    before = set(net["sg-b"].sas())
    with net["alice"].socket() as sender:
        for _ in range(100):
            sender.sendto(b"on and on", (BOB, 9))
            time.sleep(0.25)
    assert len(before) == 2
    assert set(net["sg-b"].sas()) == before


@pytest.mark.conformance("C-3.2-10", "C-9.3-02")
def test_killed_daemon_leaks_nothing_and_its_successor_tidies_up(brief_lab: Lab) -> None:
    net = brief_lab.net
    assert net["alice"].ping(BOB, wait=60) == 1
    brief_lab.a.kill()
    with net.capture("internet") as tap:
        assert net["alice"].ping(BOB, 2, wait=5) == 2, "at once: the other end closes what is idle for seconds"
        assert net["alice"].ping(FRANK, 2, wait=2) == 0
        assert eventually(lambda: net["alice"].ping(CAROL, wait=2) == 1), "a new flow goes in clear, where it may"
        assert net["alice"].ping(FRANK, 2, wait=2) == 0
        brief_lab.a.start()
        brief_lab.a.wait()
        assert net["alice"].ping(BOB, wait=60) == 1
        assert net["alice"].ping(FRANK, 2, wait=2) == 0
    assert clear(tap.end(), BOB, FRANK) == []
    assert len(net["sg-a"].sas()) == 2
    assert "it left flows: " in brief_lab.a.log.read_text()
    assert eventually(lambda: len(net["sg-b"].sas()) == 2)


@pytest.mark.conformance("C-9.3-04", "C-9.3-06", "C-3.4.2-01")
def test_stopped_daemon_takes_leave_and_keeps_the_paranoid_class_blocked(brief_lab: Lab) -> None:
    net = brief_lab.net
    assert net["alice"].ping(BOB, wait=60) == 1
    with net.capture("internet", f"host {FRANK}") as tap:
        assert brief_lab.a.stop()
        assert net["sg-a"].sas() == {}
        assert eventually(lambda: net["sg-b"].sas() == {})
        left = [line for line in net["sg-a"].xfrm("policy").splitlines() if line.startswith("src")]
        assert left and not [line for line in left if "/32 dst 192" in line and SG_A not in line]
        assert "block" in net["sg-a"].xfrm("policy")
        assert "queue" not in net["sg-a"].run(["nft", "list", "ruleset"]).stdout
        assert net["alice"].ping(FRANK, 2, wait=2) == 0
        assert net["alice"].ping(CAROL, wait=10) == 1
        brief_lab.a.start()
        brief_lab.a.wait()
        assert net["alice"].ping(FRANK, 2, wait=2) == 0
    assert clear(tap.end(), ALICE) == []
    with net.capture("internet") as tap:
        assert net["alice"].ping(BOB, wait=60) == 1
    assert clear(tap.end(), BOB) == []
