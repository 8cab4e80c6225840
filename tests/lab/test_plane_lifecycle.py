"""What the forwarding plane leaves in the kernel when it stops, when it is killed, and when it begins again."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from oesvc.kernel.constants import TRAP_REQID
from tests.kernel.plane import A_TO_B, ALICE, BOB, CAROL, CONFIG_A, CONFIG_B, FRANK, SG_A, Plane, send
from tests.lab.network import Network, address_of, stop
from tests.lab.test_life_and_death import eventually

pytestmark = pytest.mark.lab

UNDECIDED = address_of("q")
TABLE = ["nft", "list", "tables"]


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    with Network() as net:
        yield net


@contextmanager
def streams_never_clear(net: Network, *destinations: str) -> Iterator[None]:
    """Alice and SG-A send there all the time, and none of it leaves but as ESP."""
    with net.capture("internet", " or ".join(f"dst host {each}" for each in destinations)) as tap:
        # Again and again, for ping gives up where it begins while its destination is blocked.
        pinging = [net[host].popen(["sh", "-c", f"while :; do ping -n -q -c 5 -i 0.1 -W 1 {each}; done"], "ping.log")
                   for host in ("alice", "sg-a") for each in destinations]
        yield
        assert all(process.poll() is None for process in pinging)
        seen = tap.end()
        for process in pinging:
            stop(process)
    assert [str(packet) for packet in seen if not packet.is_esp] == []


def policies(net: Network, host: str = "sg-a") -> list[str]:
    """One line each: selector, action, direction, priority."""
    text = net[host].run(["ip", "-o", "xfrm", "policy", "list"]).stdout
    return [line for line in text.splitlines() if "socket" not in line]


def acquire_expires(net: Network, host: str) -> int:
    with net[host].entered():
        return int(Path("/proc/sys/net/core/xfrm_acq_expires").read_text())


def test_what_a_killed_daemon_leaves_stays_closed_and_the_next_one_takes_it_out(net: Network) -> None:
    slow = {**CONFIG_A, "trap_seconds": 200}
    first, second = Plane(net, net["sg-a"], slow), Plane(net, net["sg-a"], slow)
    first.launch()
    first.connect()
    first.order("start")
    for source in (ALICE, SG_A):
        first.order("key", flow=[source, BOB], **A_TO_B)
    first.order("install", flow=[ALICE, CAROL], policy="PASS")
    with streams_never_clear(net, FRANK, BOB, UNDECIDED):
        assert net["alice"].ping(CAROL) == 1
        first.kill()
        assert net["alice"].ping(CAROL) == 1, "a flow that was decided goes on"
        second.launch()
        second.connect()
        second.order("start")
        assert not any(f"{BOB}/32" in policy or f"{CAROL}/32" in policy for policy in policies(net))
        assert "auth-trunc" not in net["sg-a"].xfrm("state")
        assert "aead" not in net["sg-a"].xfrm("state")
        second.rule(CAROL, "PASS")
        assert net["alice"].ping(CAROL) == 1
        assert second.order("report")["failures"] == []
    second.order("stop")
    stop(second.process)


@pytest.mark.conformance("C-3.2-10", "C-3.1.4-01")
def test_when_no_other_daemon_comes_flows_go_on_in_clear_when_undecided_or_without_keys_but_never_paranoid_ones(
        net: Network) -> None:
    alice, sg_a = net["alice"], net["sg-a"]
    plane = Plane(net, sg_a, {**CONFIG_A, "trap_seconds": 4, "keys_last": 60})
    plane.launch()
    plane.connect()
    plane.order("start")
    for source in (ALICE, SG_A):
        plane.order("key", flow=[source, BOB], seconds=60, **A_TO_B)
    time.sleep(6)
    assert any(str(TRAP_REQID) in policy for policy in policies(net)), "the living put their traps again"
    with streams_never_clear(net, FRANK):
        with streams_never_clear(net, BOB):
            plane.kill()
            assert eventually(lambda: alice.ping(CAROL, wait=1) == 1)
            assert eventually(lambda: sg_a.ping(UNDECIDED, wait=1) == 1), "the gateway's own traffic alike"
        assert eventually(lambda: alice.ping(BOB, wait=1) == 1), "the keys have ended"
        assert alice.ping(FRANK, wait=1) == 0
    for command in (["ip", "xfrm", "policy", "flush"], ["ip", "xfrm", "state", "flush"], ["nft", "flush", "ruleset"]):
        sg_a.run(command)


def test_a_stopped_daemon_leaves_blocks_for_what_must_never_go_in_clear(net: Network) -> None:
    plane = Plane(net, net["sg-a"], CONFIG_A)
    plane.launch()
    plane.connect()
    plane.order("start")
    plane.order("key", flow=[ALICE, FRANK], gateways=[SG_A, FRANK])
    with streams_never_clear(net, FRANK):
        for _ in range(3):
            plane.order("stop")
            left = policies(net)
            assert [line for line in left if "action block" in line and "192.1.1.128/25" in line]
            assert not [line for line in left if "tmpl" in line or f"{FRANK}/32" in line]
            assert "queue" not in net["sg-a"].run(["nft", "list", "ruleset"]).stdout
            assert net["sg-a"].sas() == {}
            assert net["alice"].ping(CAROL) == 1
            assert net["sg-a"].ping("192.1.0.65") == 1, "the LAN is spared"
            plane.order("restart")
            assert [line for line in policies(net) if str(TRAP_REQID) in line]
            plane.rule(CAROL, "PASS", 0.1)
            assert net["alice"].ping(CAROL) == 1
    plane.order("stop")
    stop(plane.process)
    net["sg-a"].run(["ip", "xfrm", "policy", "flush"])
    net["sg-a"].run(["nft", "delete", "table", "inet", "oegw"])


def test_from_an_address_that_comes_later_nothing_goes_where_clear_text_must_not(net: Network) -> None:
    later, sg_a = "192.1.1.44", net["sg-a"]
    plane = Plane(net, sg_a, CONFIG_A)
    plane.launch()
    plane.connect()
    plane.order("start")
    sg_a.run(["ip", "address", "add", f"{later}/24", "dev", "wan0"])
    with net.capture("internet", f"src host {later}") as tap:
        assert (sg_a.ping(FRANK, wait=1, source=later), sg_a.ping(CAROL, source=later)) == (0, 1)
        plane.order("stop")
        assert (sg_a.ping(FRANK, wait=1, source=later), sg_a.ping(CAROL, source=later)) == (0, 1)
    stop(plane.process)
    sg_a.run(["ip", "address", "delete", f"{later}/24", "dev", "wan0"])
    sg_a.run(["nft", "delete", "table", "inet", "oegw"])
    sg_a.run(["ip", "xfrm", "policy", "flush"])
    assert {packet.destination for packet in tap.end() if packet.flow[0] == later} == {CAROL}


def test_without_such_prefixes_a_stopped_daemon_leaves_nothing(net: Network) -> None:
    before = acquire_expires(net, "sg-b")
    plane = Plane(net, net["sg-b"], CONFIG_B)
    plane.launch()
    plane.connect()
    plane.order("start")
    assert policies(net, "sg-b")
    assert acquire_expires(net, "sg-b") != before
    plane.order("stop")
    assert policies(net, "sg-b") == []
    assert net["sg-b"].xfrm("state") == ""
    assert net["sg-b"].run(TABLE).stdout == ""
    assert acquire_expires(net, "sg-b") == before
    stop(plane.process)


def test_after_so_many_datagrams_new_keys_are_asked_for_and_the_old_ones_serve_on(net: Network) -> None:
    plane = Plane(net, net["sg-a"], {**CONFIG_A, "tunnel_packets": 20})
    plane.launch()
    plane.connect()
    plane.order("start")
    plane.order("key", flow=[ALICE, BOB], **A_TO_B)
    with net.capture("internet", "esp") as tap:
        for number in range(24):
            send(net["alice"], ALICE, BOB, str(number))
        eventually(lambda: plane.order("report")["expired"])
        seen = tap.end()
    assert len(seen) == 24
    assert plane.order("report")["expired"] == [["sa", f"{ALICE} -> {BOB}", False]]
    plane.order("stop")
    stop(plane.process)
