"""A gateway loses its power and comes back: sessions go on, whoever began them and whoever knows of it (9.3, 3.2.6)."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.kernel.spi_listener import READY
from tests.lab.conftest import Lab, build
from tests.lab.gateway import ENVIRONMENT, PYTHON, Gateway
from tests.lab.network import OUT, Host, Network, address_of, stop
from tests.lab.test_life_and_death import eventually
from tests.lab.test_main_job import clear

pytestmark = pytest.mark.lab

ALICE, BOB, SG_A, SG_B = (address_of(name) for name in ("alice", "bob", "sg-a", "sg-b"))
PORT = 4323
PATIENCE = 90.0
"Seconds, for an emulated machine."
took: dict[str, float] = {}
"Seconds from when a daemon has started until the session goes on, kept with the logs."


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Network() as net:
        yield build(net)
        (OUT / "reboots.json").write_text(json.dumps(took))


def set_forwarding(host: Host, on: bool) -> None:
    host.run(["sysctl", "-q", f"net.ipv4.ip_forward={int(on)}", f"net.ipv6.conf.all.forwarding={int(on)}"])


def lose_power(gateway: Gateway) -> None:
    """The daemon and all that the kernel knew are gone, and nothing is forwarded."""
    gateway.kill()
    set_forwarding(gateway.host, on=False)
    for command in (["ip", "xfrm", "state", "flush"], ["ip", "xfrm", "policy", "flush"], ["nft", "flush", "ruleset"]):
        gateway.host.run(command)


def come_back(gateway: Gateway) -> None:
    gateway.start()
    gateway.wait()
    set_forwarding(gateway.host, on=True)


@contextmanager
def session(net: Network) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A TCP session from Alice to Bob: her end and his."""
    with (net["bob"].socket(kind=socket.SOCK_STREAM) as listener,
          net["alice"].socket(kind=socket.SOCK_STREAM) as alice):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((BOB, PORT))
        listener.listen()
        alice.settimeout(PATIENCE)
        alice.connect((BOB, PORT))
        bob, _ = listener.accept()
        with bob:
            bob.settimeout(PATIENCE)
            yield alice, bob


def talk(alice: socket.socket, bob: socket.socket) -> None:
    """Each hears the other within patience, or TimeoutError is raised."""
    for sender, receiver in ((alice, bob), (bob, alice)):
        sender.sendall(b"still there?")
        assert receiver.recv(100) == b"still there?"


@pytest.mark.conformance("C-9.3-02", "C-9.3-03", "C-9.3-07", "C-9.3-08")
@pytest.mark.parametrize("role", ["responder", "initiator"])
def test_a_tcp_session_survives_that_a_gateway_loses_its_power(lab: Lab, role: str) -> None:
    """The other gateway goes on sending by SPIs that nobody knows, until it hears INITIAL-CONTACT."""
    rebooted, other = (lab.b, lab.a) if role == "responder" else (lab.a, lab.b)
    with session(lab.net) as ends, lab.net.capture("internet", "tcp or icmp or esp") as tap:
        talk(*ends)
        before = set(other.host.sas())
        lose_power(rebooted)
        ends[role == "initiator"].sendall(b"into the void")
        come_back(rebooted)
        back = time.monotonic()
        sender, receiver = ("alice", BOB) if role == "responder" else ("bob", ALICE)
        assert lab.net[sender].ping(receiver, wait=60) == 1
        took[role] = round(time.monotonic() - back, 2)
        assert ends[role != "initiator"].recv(13) == b"into the void"
        talk(*ends)
        assert clear(tap.end(), ALICE, BOB) == []
    assert "which are told" in rebooted.log.read_text()
    assert before and not before & set(other.host.sas())


@pytest.mark.conformance("C-3.2.6-07", "C-3.2.6-08")
def test_one_who_sends_by_lost_spis_learns_of_it_though_nothing_is_known_of_him(lab: Lab) -> None:
    """Bob sends, Alice says nothing, and SG-A's list of partners is lost with its power."""
    net = lab.net
    assert net["alice"].ping(BOB, wait=60) == 1
    lose_power(lab.a)
    for file in (lab.a.folder / "state").glob("partners.*"):
        file.unlink()
    with net["alice"].socket() as alice, net["bob"].socket() as bob, net.capture("internet", "udp or esp") as tap:
        alice.bind((ALICE, PORT))
        alice.settimeout(1.0)
        come_back(lab.a)
        back, heard = time.monotonic(), b""
        while not heard and time.monotonic() < back + PATIENCE:
            bob.sendto(b"into the void", (ALICE, PORT))
            try:
                heard = alice.recv(100)
            except TimeoutError:
                continue
        took["unknown SPI"] = round(time.monotonic() - back, 2)
        assert heard == b"into the void"
        seen = tap.end()
    assert clear(seen, ALICE, BOB) == []
    assert "ISAKMP informational" in {packet.describe() for packet in seen if packet.flow == (SG_A, SG_B)}
    assert "nothing vouches for it" in lab.b.log.read_text()


@pytest.mark.conformance("C-3.2.6-07")
def test_lost_spis_are_heard_once_in_both_families_and_within_udp_and_after_a_flush_again(lab: Lab) -> None:
    """On a node without a daemon, whose kernel has no SA: three datagrams of each kind, and what is no ESP."""
    carol, q = lab.net["carol"], lab.net["q"]
    listener = carol.popen([PYTHON, "-m", "tests.kernel.spi_listener"], "spis.log", ENVIRONMENT)
    log = lab.net.folder / "spis.log"
    assert eventually(lambda: READY in log.read_text())
    esp = bytes.fromhex("deadbeef00000001") + bytes(40)
    expected = []
    for family, version in ((socket.AF_INET, 4), (socket.AF_INET6, 6)):
        here, there = address_of("q", version), address_of("carol", version)
        with q.socket(family, socket.SOCK_RAW, socket.IPPROTO_ESP) as raw, q.socket(family) as within_udp:
            within_udp.bind((here, 4501))
            for _ in range(3):
                raw.sendto(esp, (there, 0))
                for datagram in (esp, b"\xff", bytes(4) + esp):
                    within_udp.sendto(datagram, (there, 4500))
        expected += [f"{here} -> {there} 0xdeadbeef {port}" for port in (None, 4501)]
    assert eventually(lambda: len(log.read_text().splitlines()) > len(expected))
    assert sorted(log.read_text().splitlines()) == sorted([*expected, READY])
    carol.run(["nft", "flush", "ruleset"])
    assert eventually(lambda: "oegw-spis" in carol.run(["nft", "list", "tables"]).stdout)
    assert stop(listener) == 0
    assert "oegw-spis" not in carol.run(["nft", "list", "tables"]).stdout
