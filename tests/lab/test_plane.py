"""The forwarding plane alone on real kernels: no IKE, a test plays the daemon (RFC 4322 sections 3.1 and 12.1)."""

import itertools
import time
from collections import defaultdict
from collections.abc import Iterator

import pytest

from tests.kernel.plane import (
    A_TO_B,
    ALICE,
    B_TO_A,
    BEHIND_B,
    BOB,
    CAROL,
    FRANK,
    OUTSIDE,
    PORT,
    SG_A,
    SOURCES,
    Plane,
    clear,
    plane_network,
    received,
    receiver,
    send,
    start_planes,
    talk,
)
from tests.lab.network import Network, address_of

pytestmark = pytest.mark.lab

PAIRS = {"ENCRYPT": list(itertools.product(SOURCES, BEHIND_B)), "PASS": list(itertools.product(SOURCES, OUTSIDE))}


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    yield from plane_network()


@pytest.fixture(scope="module")
def planes(net: Network) -> Iterator[tuple[Plane, Plane]]:
    yield from start_planes(net)


@pytest.fixture
def a(planes: tuple[Plane, Plane]) -> Iterator[Plane]:
    """SG-A's plane; what a test has left there goes afterwards."""
    yield planes[0]
    report = planes[0].order("report")
    planes[0].order("reset")
    assert report["failures"] == []


@pytest.fixture
def b(planes: tuple[Plane, Plane]) -> Iterator[Plane]:
    yield planes[1]
    planes[1].order("reset")


@pytest.mark.conformance("C-3.1.1-02", "C-3.1.2-04", "C-3.1.2-06", "C-3.1.3-03", "C-3.1.5-02")
@pytest.mark.parametrize("verdict", ["ENCRYPT", "PASS"])
@pytest.mark.parametrize("count", [1, 10, 100, 300])
def test_of_each_new_flow_exactly_the_first_and_the_last_datagram_come_out_in_order(
        net: Network, a: Plane, b: Plane, verdict: str, count: int) -> None:
    pairs = PAIRS[verdict][::len(PAIRS[verdict]) // count]
    if verdict == "ENCRYPT":
        b.order("key_all", flows=[pair[::-1] for pair in pairs], **B_TO_A)
    with net.capture("internet") as tap, receiver(net["bob" if verdict == "ENCRYPT" else "carol"]) as sock:
        for number in range(5):
            for source, destination in pairs:
                send(net["alice"], source, destination, f"{source} {destination} {number}")
        a.wait_held(2 * count)
        assert a.order("decide", verdict=verdict, **A_TO_B) == count
        texts = received(sock, 2 * count)
    came = defaultdict(list)
    for text in texts:
        source, destination, number = text.split()
        came[source, destination].append(number)
    assert came == {pair: ["0", "4"] for pair in pairs}
    seen = tap.end()
    if verdict == "ENCRYPT":
        assert clear(seen, *SOURCES, *BEHIND_B) == []
        assert sum(packet.is_esp for packet in seen) == 2 * count
    assert sum(a.order("report")["acquired"].values()) >= count


@pytest.mark.conformance("C-3.1.2-07")
def test_a_single_datagram_is_sent_once(net: Network, a: Plane) -> None:
    with receiver(net["carol"]) as sock:
        send(net["alice"], ALICE, CAROL, "only")
        a.wait_held(1)
        a.order("decide", verdict="PASS")
        assert received(sock, 1) == ["only"]


@pytest.mark.conformance("C-3.1-02", "C-3.1.4-01", "C-3.1.4-02")
def test_a_denied_flow_is_discarded_what_was_held_and_what_follows(net: Network, a: Plane) -> None:
    with net.capture("internet") as tap, receiver(net["carol"]) as sock:
        send(net["alice"], ALICE, CAROL, "first")
        send(net["alice"], ALICE, CAROL, "last")
        a.wait_held(2)
        a.order("decide", verdict="DENY")
        send(net["alice"], ALICE, CAROL, "after")
        a.order("install", flow=[SOURCES[0], CAROL], policy="PASS")
        send(net["alice"], SOURCES[0], CAROL, "other flow")
        assert received(sock, 1) == ["other flow"]
    assert clear(tap.end(), ALICE) == []


@pytest.mark.conformance("C-3.1.2-01", "C-3.1.2-02", "C-3.1.2-03", "C-3.1.1-01")
def test_a_flow_on_hold_is_announced_again_less_than_once_a_second(net: Network, a: Plane) -> None:
    with net.capture("internet") as tap:
        for _ in range(40):
            send(net["alice"], ALICE, CAROL, "anybody?")
            time.sleep(0.1)
    report = a.order("report")
    assert report["acquired"] == {f"{ALICE} -> {CAROL}": len(report["acquired_at"])}
    gaps = [later - earlier for earlier, later in itertools.pairwise(report["acquired_at"])]
    assert len(gaps) >= 2
    # The plane's own clock is exact (tests/kernel/test_hold.py); the daemon reads it a little later.
    assert sum(gaps) > len(gaps) - 0.5
    assert clear(tap.end(), ALICE) == []


@pytest.mark.conformance("C-3.1.2-05")
@pytest.mark.parametrize(("verdict", "server"), [("ENCRYPT", "bob"), ("PASS", "carol")])
def test_a_tcp_connection_through_a_new_flow_needs_no_second_syn(
        net: Network, a: Plane, b: Plane, verdict: str, server: str) -> None:
    address = address_of(server)
    b.order("key", flow=[BOB, ALICE], **B_TO_A)
    a.rule("0.0.0.0/0", verdict, 0.2)
    syn = "tcp[tcpflags] == tcp-syn"
    with net.capture("net-a", syn) as tap:
        talk(net["alice"], net[server], address)
    assert len(tap.end()) == 1


@pytest.mark.parametrize("version", [4, 6])
def test_datagrams_of_the_gateway_itself_are_held_and_released(
        net: Network, a: Plane, b: Plane, version: int) -> None:
    own, bob, carol = (address_of(name, version) for name in ("sg-a", "bob", "carol"))
    b.order("key", flow=[bob, own], **B_TO_A)
    a.order("rules", rules=[{"prefix": bob, "verdict": "ENCRYPT", "delay": 0.3, "tunnel": A_TO_B},
                            {"prefix": carol, "verdict": "PASS", "delay": 0.3}])
    with net.capture("internet") as tap, receiver(net["bob"], version) as behind, \
            receiver(net["carol"], version) as outside:
        send(net["sg-a"], own, bob, "to bob")
        assert received(behind, 1) == ["to bob"]
        send(net["sg-a"], own, carol, "to carol")
        assert received(outside, 1) == ["to carol"]
        assert net["sg-a"].ping(bob, 2) == 2
    assert clear(tap.end(), bob) == []


@pytest.mark.parametrize("version", [4, 6])
def test_a_tcp_connection_of_the_gateway_itself_is_encrypted_from_its_first_syn(
        net: Network, a: Plane, b: Plane, version: int) -> None:
    bob, own = address_of("bob", version), address_of("sg-a", version)
    b.order("key", flow=[bob, own], **B_TO_A)
    a.rule(f"{bob}/{32 if version == 4 else 128}", "ENCRYPT", 0.2)
    with net.capture("internet") as tap:
        talk(net["sg-a"], net["bob"], bob)
    seen = tap.end()
    assert clear(seen, bob) == []
    assert any(packet.is_esp for packet in seen)


def test_an_ipv6_flow_is_held_and_goes_through_a_tunnel_between_ipv4_gateways(
        net: Network, a: Plane, b: Plane) -> None:
    alice, bob = address_of("alice", 6), address_of("bob", 6)
    b.order("key", flow=[bob, alice], **B_TO_A)
    a.rule("::/0", "ENCRYPT", 0.2)
    with net.capture("internet") as tap:
        # The first goes alone: of those that are held together only first and last are kept.
            assert net["alice"].ping(bob) + net["alice"].ping(bob, 2) == 3
    seen = tap.end()
    assert clear(seen, alice, bob) == []
    assert sum(packet.is_esp for packet in seen) == 6


def test_an_ipv6_tunnel_between_ipv6_gateways_with_cbc_and_hmac(net: Network, a: Plane, b: Plane) -> None:
    alice, bob = address_of("alice", 6), address_of("bob", 6)
    gateways = [address_of("sg-a", 6), address_of("sg-b", 6)]
    b.order("key", flow=[bob, alice], gateways=gateways[::-1], transform="cbc")
    a.rule("::/0", "ENCRYPT", 0.2, tunnel={"gateways": gateways, "transform": "cbc"})
    with net.capture("internet") as tap:
        assert net["alice"].ping(bob, 3) == 3
    assert clear(tap.end(), alice, bob) == []


def test_a_stream_never_shows_in_clear_while_its_tunnel_comes_and_goes(net: Network, a: Plane, b: Plane) -> None:
    flow = [ALICE, BOB]
    with net.capture("internet") as tap, receiver(net["bob"]) as sock, net["alice"].socket() as sender:
        def stream(number: int) -> None:
            for _ in range(10):
                sender.sendto(str(number).encode(), (BOB, PORT))

        for number in range(10):
            stream(number)
            b.order("key", flow=[BOB, ALICE], generation=number, **B_TO_A)
            a.order("key", flow=flow, generation=number, **A_TO_B)
            stream(number)
            a.order("install", flow=flow, policy="HOLD")
            stream(number)
            a.order("install", flow=flow, policy="DENY")
            stream(number)
            a.order("install", flow=flow, policy="ENCRYPT", **A_TO_B)
            stream(number)
            a.order("unkey", flow=flow, generation=number, **A_TO_B)
            stream(number)
        texts = received(sock, 1)
    seen = tap.end()
    assert {*texts} == {str(number) for number in range(10)}
    assert clear(seen, ALICE, BOB) == []
    assert sum(packet.is_esp for packet in seen) == len(texts)


@pytest.mark.conformance("C-12.1-04", "C-12.1-05")
@pytest.mark.parametrize("version", [4, 6])
def test_a_peer_that_lies_about_the_inner_addresses_is_not_heard(net: Network, a: Plane, version: int) -> None:
    """Carol keys a tunnel for herself to Alice, and then sends other addresses through it."""
    alice, carol, bob, other = address_of("alice", version), address_of("carol", version), address_of("bob", version), \
        SOURCES[0] if version == 4 else "2001:db8:1::77"
    net["alice"].run(["ip", "address", "replace", f"{other}/{24 if version == 4 else 64}", "dev", "eth0",
                      *(["nodad"] if version == 6 else [])])
    net["carol"].run(["ip", "address", "add", f"{bob}/{32 if version == 4 else 128}", "dev", "lo"])
    a.order("key", flow=[alice, carol], gateways=[SG_A, CAROL])
    a.order("lie", host_flow=[carol, alice], gateways=[CAROL, SG_A], namespace=net["carol"].namespace,
            wide="192.1.0.0/24" if version == 4 else "2001:db8:1::/64")
    try:
        before = net["sg-a"].xfrm_errors().get("XfrmInStateMismatch", 0)
        with receiver(net["alice"], version) as sock, net.capture("internet", "esp") as tap:
            send(net["carol"], bob, alice, "bob's source")
            send(net["carol"], carol, other, "another destination")
            send(net["carol"], carol, alice, "true")
            assert received(sock, 1) == ["true"]
        assert len(tap.end()) == 3
        assert net["sg-a"].xfrm_errors()["XfrmInStateMismatch"] == before + 2
    finally:
        net["carol"].run(["ip", "xfrm", "policy", "flush"])
        net["carol"].run(["ip", "xfrm", "state", "flush"])
        net["carol"].run(["ip", "address", "del", f"{bob}/{32 if version == 4 else 128}", "dev", "lo"])


@pytest.mark.parametrize("version", [4, 6])
def test_clear_datagrams_of_a_keyed_flow_are_dropped_on_arrival(net: Network, a: Plane, version: int) -> None:
    alice, carol, gateway = (address_of(name, version) for name in ("alice", "carol", "sg-a"))
    other = OUTSIDE[0] if version == 4 else "2001:db8:1:1::101"
    net["carol"].run(["ip", "address", "replace", f"{other}/{24 if version == 4 else 64}", "dev", "eth0",
                      *(["nodad"] if version == 6 else [])])
    a.order("key", flow=[alice, carol], gateways=[SG_A, CAROL])
    a.order("key", flow=[gateway, carol], gateways=[SG_A, CAROL])
    with receiver(net["alice"], version) as sock, receiver(net["sg-a"], version) as own:
        for destination in (alice, gateway):
            send(net["carol"], carol, destination, "forged")
        send(net["carol"], other, gateway, "of a flow without a tunnel")
        send(net["carol"], other, alice, "of a flow without a tunnel")
        assert received(sock, 1) == ["of a flow without a tunnel"]
        assert received(own, 1) == ["of a flow without a tunnel"]
    assert net["sg-a"].xfrm_errors()["XfrmInTmplMismatch"] >= 2


@pytest.mark.conformance("C-3.1.5-03")
@pytest.mark.parametrize("limit", [{"seconds": 4}, {"kilobytes": 1}, {"packets": 8}, {"shortened": 4}])
def test_at_the_end_of_its_sa_a_flow_returns_to_hold(
        net: Network, a: Plane, b: Plane, limit: dict[str, int]) -> None:
    b.order("key", flow=[BOB, ALICE], **B_TO_A)
    from_the_start = {name: limit[name] for name in limit if name in ("seconds", "kilobytes")}
    a.order("key", flow=[ALICE, BOB], **A_TO_B, **from_the_start)
    if "packets" in limit:
        a.order("limit_packets", flow=[ALICE, BOB], **A_TO_B, soft=4, hard=8)
    elif "shortened" in limit:
        a.order("shorten", flow=[ALICE, BOB], **A_TO_B, seconds=4)
    expired = ["sa", f"{ALICE} -> {BOB}", True]
    with net.capture("internet") as tap:
        deadline = time.monotonic() + 60
        while expired not in a.order("report")["expired"]:
            assert time.monotonic() < deadline
            send(net["alice"], ALICE, BOB, "x" * 300)
            time.sleep(0.1)
        for _ in range(2):
            send(net["alice"], ALICE, BOB, "held again")
        a.wait_held(2)
    assert a.order("report")["acquired"][f"{ALICE} -> {BOB}"] >= 1
    assert ["sa", f"{ALICE} -> {BOB}", False] in a.order("report")["expired"]
    assert clear(tap.end(), ALICE, BOB) == []


def test_a_flow_whose_sas_somebody_flushed_is_held_again_and_its_end_told(net: Network, a: Plane, b: Plane) -> None:
    b.order("key", flow=[BOB, ALICE], **B_TO_A)
    a.order("key", flow=[ALICE, BOB], **A_TO_B)
    net["sg-a"].run(["ip", "xfrm", "state", "flush"])
    with net.capture("internet") as tap:
        deadline = time.monotonic() + 60
        while not (expired := a.order("report")["expired"]):
            assert time.monotonic() < deadline
            send(net["alice"], ALICE, BOB, "through a tunnel that is gone")
            time.sleep(0.2)
        send(net["alice"], ALICE, BOB, "held")
        a.wait_held(1)
    assert expired == [["sa", f"{ALICE} -> {BOB}", True]]
    assert clear(tap.end(), ALICE, BOB) == []


@pytest.mark.conformance("C-3.4.1-05")
def test_last_use_is_told_for_either_direction(net: Network, a: Plane, b: Plane) -> None:
    b.order("key", flow=[BOB, ALICE], **B_TO_A)
    a.order("key", flow=[ALICE, BOB], **A_TO_B)
    assert a.order("last_use", flow=[ALICE, BOB]) == 0.0
    with receiver(net["alice"]) as sock:
        send(net["bob"], BOB, ALICE, "inbound only")
        assert received(sock, 1) == ["inbound only"]
    assert abs(a.order("last_use", flow=[ALICE, BOB]) - time.time()) < 60
    assert a.order("last_use", flow=[ALICE, CAROL]) == 0.0


def test_a_socket_of_the_daemon_is_neither_held_nor_trapped(net: Network, a: Plane) -> None:
    a.order("key", flow=[SG_A, CAROL], gateways=[SG_A, CAROL])
    for destination, host in ((FRANK, "frank"), (CAROL, "carol")):
        with receiver(net[host]) as sock:
            a.socket.sendall(a.line("send", destination=destination, port=PORT, text="hello"))
            data, sender = sock.recvfrom(100)
            assert (data, sender[0]) == (b"hello", SG_A)
            sock.sendto(b"answer", sender)
            assert a.answer() == "answer"


@pytest.mark.parametrize(("version", "absent"), [(4, "192.1.0.99"), (6, "2001:db8:1::99")])
def test_an_error_message_does_not_show_what_came_out_of_a_tunnel(
        net: Network, a: Plane, b: Plane, version: int, absent: str) -> None:
    bob, carol = address_of("bob", version), address_of("carol", version)
    b.order("key", flow=[bob, absent], **B_TO_A)
    a.order("key", flow=[absent, bob], **A_TO_B)
    with net.capture("internet", "not (icmp6 and ip6[40] >= 130)") as tap:
        send(net["bob"], bob, absent, "secret")
        time.sleep(5)
        send(net["carol"], carol, absent, "clear")
        deadline = time.monotonic() + 30
        while not clear(tap.packets(), carol)[1:]:
            assert time.monotonic() < deadline, "SG-A says that the host of a clear flow is not there"
            time.sleep(0.2)
    seen = tap.end()
    assert clear(seen, bob) == []
    assert not any(b"secret" in packet.payload for packet in seen)


def test_queries_of_a_resolver_are_left_alone(net: Network, a: Plane) -> None:
    resolver = SOURCES[1]
    with net.capture("internet") as tap:
        send(net["alice"], resolver, CAROL, "not a query")
        send(net["alice"], resolver, CAROL, "query", 53)
        send(net["alice"], SOURCES[2], CAROL, "query of another", 53)
        a.wait_held(2)
    assert [packet.payload for packet in tap.end() if packet.source in SOURCES] == [b"query"]


@pytest.mark.conformance("C-3.1.4-03")
@pytest.mark.parametrize(("version", "prohibited", "routers"), [
    (4, "icmp[0:2] == 0x030d", ("192.1.0.1", "192.2.0.1")),
    (6, "icmp6 and ip6[40:2] == 0x0101", ("2001:db8:1::1", "2001:db8:2::1"))])
def test_a_denied_datagram_is_answered_only_where_that_is_wanted(
        net: Network, a: Plane, b: Plane, version: int, prohibited: str, routers: tuple[str, str]) -> None:
    alice, bob, carol = (address_of(name, version) for name in ("alice", "bob", "carol"))
    for plane, client in ((a, alice), (b, bob)):
        plane.order("install", flow=[client, carol], policy="DENY")
    with net.capture("net-a", prohibited) as at_a, net.capture("net-b", prohibited) as at_b:
        for host, client, router in zip(("alice", "bob"), (alice, bob), routers, strict=True):
            for _ in range(50):
                send(net[host], client, carol, "denied")
            assert net[host].ping(router) == 1
    answers = at_a.end()
    assert {packet.flow for packet in answers} == {(routers[0], alice)}
    assert 1 <= len(answers) < 50
    assert at_b.end() == []


@pytest.mark.conformance("C-3-02", "C-3.1.3-01")
def test_datagrams_of_a_decided_flow_never_reach_the_daemon(net: Network, a: Plane, b: Plane) -> None:
    b.order("key", flow=[BOB, ALICE], **B_TO_A)
    a.order("key", flow=[ALICE, BOB], **A_TO_B)
    a.order("install", flow=[ALICE, CAROL], policy="PASS")
    a.order("install", flow=[ALICE, OUTSIDE[0]], policy="DENY")
    queued = a.queued()
    with net["alice"].socket() as sock, receiver(net["bob"]) as bob, receiver(net["carol"]) as carol:
        for number in range(1000):
            for destination in (BOB, CAROL, OUTSIDE[0]):
                sock.sendto(str(number).encode(), (destination, PORT))
        assert len(received(bob, 1000)) == 1000
        assert len(received(carol, 1000)) == 1000
    assert a.queued() == queued
