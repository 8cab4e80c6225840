"""Tunnels that end, daemons that are stopped, killed and started again: nothing that must not, goes in clear."""

import socket
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_network

import pytest

from tests.lab.conftest import Lab, build
from tests.lab.network import Host, Network, address_of
from tests.lab.test_main_job import clear

pytestmark = pytest.mark.lab

ALICES, BOBS, CAROLS, FRANKS, SG_AS = (
    [address_of(name, version) for version in (4, 6)] for name in ("alice", "bob", "carol", "frank", "sg-a"))
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
    bobs = [str(ip_network(bob)) for bob in BOBS]
    return [line for line in host.xfrm("policy").splitlines() if any(bob in line for bob in bobs)]


def reaches_bob(net: Network, count: int = 1, wait: float = 60) -> bool:
    """Whether Alice's pings are all answered, in both families."""
    return net["alice"].ping_each(BOBS, count, wait=wait) == [count, count]


def never_reaches_frank(net: Network) -> bool:
    return net["alice"].ping_each(FRANKS, 2, wait=2) == [0, 0]


@pytest.mark.conformance("C-3.2.8-01", "C-3.4.1-01", "C-3.2.7-02", "C-Abs-02", "C-3.4.2-01")
def test_idle_tunnels_leave_nothing_behind_at_either_end_and_nothing_in_clear(brief_lab: Lab) -> None:
    net = brief_lab.net
    gateways = net["sg-a"], net["sg-b"]
    with net.capture("internet") as tap:
        assert reaches_bob(net)
        assert [len(gateway.sas()) for gateway in gateways] == [4, 4]
        assert eventually(lambda: not any(gateway.sas() for gateway in gateways))
        assert [flow_policies(gateway) for gateway in gateways] == [[], []]
        assert reaches_bob(net)
    assert clear(tap.end(), *ALICES, *BOBS) == []
    for alice, bob in zip(ALICES, BOBS, strict=True):
        assert "nothing used it lately" in brief_lab.a.why(alice, bob)


@pytest.mark.conformance("C-3.4.1-07", "C-3.2.7-08", "C-3.2.7-09")
def test_tunnels_in_use_are_kept_by_traffic_in_one_direction(brief_lab: Lab) -> None:
    """Alice only sends, Bob only receives: both gateways look at them several times meanwhile."""
    net = brief_lab.net
    assert reaches_bob(net)
    before = set(net["sg-b"].sas())
    with net["alice"].socket() as sender, net["alice"].socket(socket.AF_INET6) as sender6:
        for _ in range(100):
            for each, bob in zip((sender, sender6), BOBS, strict=True):
                each.sendto(b"on and on", (bob, 9))
            time.sleep(0.25)
    assert len(before) == 4
    assert set(net["sg-b"].sas()) == before


@pytest.mark.conformance("C-3.2-10", "C-9.3-02")
def test_killed_daemon_leaks_nothing_and_its_successor_tidies_up(brief_lab: Lab) -> None:
    net = brief_lab.net
    assert reaches_bob(net)
    brief_lab.a.kill()
    with net.capture("internet") as tap:
        assert reaches_bob(net, 2, wait=5), "at once: the other end closes what is idle for seconds"
        assert never_reaches_frank(net)
        assert eventually(lambda: net["alice"].ping_each(CAROLS, wait=2) == [1, 1]), \
            "new flows go in clear, where they may"
        assert never_reaches_frank(net)
        brief_lab.a.start()
        brief_lab.a.wait()
        assert reaches_bob(net)
        assert never_reaches_frank(net)
    assert clear(tap.end(), *BOBS, *FRANKS) == []
    assert len(net["sg-a"].sas()) == 4
    assert "it left flows: " in brief_lab.a.log.read_text()
    assert eventually(lambda: len(net["sg-b"].sas()) == 4)


@pytest.mark.conformance("C-9.3-04", "C-9.3-06", "C-3.4.2-01")
def test_stopped_daemon_takes_leave_and_keeps_the_paranoid_class_blocked(brief_lab: Lab) -> None:
    net = brief_lab.net
    assert reaches_bob(net)
    with net.capture("internet", f"host {' or host '.join(FRANKS)}") as tap:
        assert brief_lab.a.stop()
        assert net["sg-a"].sas() == {}
        assert eventually(lambda: net["sg-b"].sas() == {})
        left = [line for line in net["sg-a"].xfrm("policy").splitlines() if line.startswith("src")]
        assert left and not [line for line in left if of_a_single_flow(line)]
        assert net["sg-a"].xfrm("policy").count("block") >= 2
        assert "queue" not in net["sg-a"].run(["nft", "list", "ruleset"]).stdout
        assert never_reaches_frank(net)
        assert net["alice"].ping_each(CAROLS, wait=10) == [1, 1]
        brief_lab.a.start()
        brief_lab.a.wait()
        assert never_reaches_frank(net)
    assert clear(tap.end(), *ALICES) == []
    with net.capture("internet") as tap:
        assert reaches_bob(net)
    assert clear(tap.end(), *BOBS) == []


def of_a_single_flow(line: str) -> bool:
    """Of a policy's first line in `ip xfrm policy`: between two addresses, none of them the gateway's own."""
    _, source, _, destination, *_ = line.split()
    return all(ip_network(each).num_addresses == 1 and each.partition("/")[0] not in SG_AS
               for each in (source, destination))
