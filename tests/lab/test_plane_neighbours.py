"""The forwarding plane beside other programs on its gateway: firewalls, configured tunnels, another daemon."""

import re
import time
from collections.abc import Iterator

import pytest

from tests.kernel.plane import (
    A_TO_B,
    ALICE,
    BOB,
    CAROL,
    CONFIG_A,
    FRANK,
    SG_A,
    SG_B,
    Plane,
    clear,
    received,
    receiver,
    send,
)
from tests.lab.network import Network, stop

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    with Network() as net:
        yield net


@pytest.fixture(scope="module")
def a(net: Network) -> Iterator[Plane]:
    plane = Plane(net, net["sg-a"], CONFIG_A)
    plane.launch()
    plane.connect()
    plane.order("start")
    yield plane
    assert plane.order("report")["failures"] == []
    plane.order("stop")
    stop(plane.process)


def test_only_one_plane_has_a_host(a: Plane) -> None:
    with pytest.raises(RuntimeError, match="is another oegw running"):
        a.order("second")


def test_a_policy_that_somebody_configured_is_not_replaced(net: Network, a: Plane) -> None:
    net["sg-a"].run(["ip", *f"xfrm policy add src {ALICE} dst {CAROL} dir out action block priority 7".split()])
    try:
        with pytest.raises(RuntimeError, match="another program has a policy for this very pair"):
            a.order("install", flow=[ALICE, CAROL], policy="DENY")
        left = net["sg-a"].run(["ip", *f"xfrm policy get src {ALICE} dst {CAROL} dir out".split()]).stdout
        assert "action block" in left
        assert "priority 7 " in left
    finally:
        net["sg-a"].run(["ip", *f"xfrm policy delete src {ALICE} dst {CAROL} dir out".split()])
    send(net["alice"], ALICE, CAROL, "still held")
    a.wait_held(1)
    a.order("reset")


def test_a_flushed_ruleset_is_restored_with_the_flows_that_were_known(net: Network, a: Plane) -> None:
    a.order("key", flow=[ALICE, BOB], **A_TO_B)
    net["sg-a"].run(["nft", "flush", "ruleset"])
    deadline = time.monotonic() + 60
    while f"{ALICE} . {BOB}" not in net["sg-a"].run(["nft", "list", "ruleset"]).stdout:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    with net.capture("internet") as tap:
        send(net["alice"], ALICE, BOB, "encrypted")
        send(net["alice"], ALICE, FRANK, "held")
        a.wait_held(1)
    seen = tap.end()
    assert [packet.is_esp for packet in seen if packet.destination == SG_B] == [True]
    assert clear(seen, ALICE, BOB) == []


@pytest.mark.conformance("C-12.1-02")
def test_a_firewall_can_tell_opportunistic_tunnels_from_configured_ones(net: Network, a: Plane) -> None:
    net["sg-a"].run(["nft", "-f", "-"], stdin="""
        table ip test {
          chain forward {
            type filter hook forward priority 0;
            ipsec in reqid 0xe0000001-0xefffffff counter comment "opportunistic"
            ipsec in reqid 7 counter comment "configured"
          }
        }""")
    a.order("key", flow=[ALICE, CAROL], gateways=[SG_A, CAROL])
    a.order("lie", host_flow=[CAROL, ALICE], gateways=[CAROL, SG_A], namespace=net["carol"].namespace,
            wide=f"{ALICE}/32")
    configured = f"src {FRANK} dst {SG_A} proto esp"
    key = "aead rfc4106(gcm(aes)) 0x" + "17" * 20 + " 128"
    try:
        for host, reqid in (("sg-a", 7), ("frank", 9)):
            net[host].run(["ip", *f"xfrm state add {configured} spi 7 mode tunnel reqid {reqid} {key}".split()])
        net["frank"].run(["ip", *f"xfrm policy add dst {ALICE} dir out tmpl {configured} reqid 9 mode tunnel".split()])
        net["sg-a"].run(["ip", *f"xfrm policy add src {FRANK} dst {ALICE} dir fwd tmpl {configured} reqid 7 "
                         "mode tunnel".split()])
        with receiver(net["alice"]) as sock:
            for host, address in (("carol", CAROL), ("frank", FRANK), ("frank", FRANK)):
                send(net[host], address, ALICE, host)
            assert sorted(received(sock, 3)) == ["carol", "frank", "frank"]
        counters = net["sg-a"].run(["nft", "list", "table", "ip", "test"]).stdout
        assert re.findall(r'counter packets (\d+) .* comment "(\w+)"', counters) == [
            ("1", "opportunistic"), ("2", "configured")]
    finally:
        net["sg-a"].run(["nft", "delete", "table", "ip", "test"])
        net["sg-a"].run(["ip", *f"xfrm policy delete src {FRANK} dst {ALICE} dir fwd".split()])
        net["sg-a"].run(["ip", *f"xfrm state delete {configured} spi 7".split()])
        for host in ("carol", "frank"):
            net[host].run(["ip", "xfrm", "policy", "flush"])
            net[host].run(["ip", "xfrm", "state", "flush"])
