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

ALICES, BOBS, SG_AS, SG_BS = (
    {version: address_of(name, version) for version in (4, 6)} for name in ("alice", "bob", "sg-a", "sg-b"))
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
PORT = 4323
PATIENCE = 90.0
"Seconds, for an emulated machine."
took: dict[str, float] = {}
"Seconds from when a daemon has started until the session goes on, kept with the logs."


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Network() as net:
        # Long enough that no tunnel ends by itself while a daemon starts, which may take a slow machine a minute.
        yield build(net, {"lifespans": {"first": "600"}})
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
def session(net: Network, version: int) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A TCP session from Alice to Bob: her end and his."""
    family, address = FAMILIES[version], (BOBS[version], PORT)
    with (net["bob"].socket(family, socket.SOCK_STREAM) as listener,
          net["alice"].socket(family, socket.SOCK_STREAM) as alice):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
        alice.settimeout(PATIENCE)
        alice.connect(address)
        bob, _ = listener.accept()
        with bob:
            bob.settimeout(PATIENCE)
            yield alice, bob


def talk(*sessions: tuple[socket.socket, socket.socket]) -> None:
    """Each hears the other within patience, or TimeoutError is raised."""
    for alice, bob in sessions:
        for sender, receiver in ((alice, bob), (bob, alice)):
            sender.sendall(b"still there?")
            assert receiver.recv(100) == b"still there?"


@pytest.mark.conformance("C-9.3-02", "C-9.3-03", "C-9.3-07", "C-9.3-08")
@pytest.mark.parametrize("role", ["responder", "initiator"])
def test_tcp_sessions_in_both_families_survive_that_a_gateway_loses_its_power(lab: Lab, role: str) -> None:
    """The other gateway goes on sending by SPIs that nobody knows, until it hears INITIAL-CONTACT."""
    rebooted, other = (lab.b, lab.a) if role == "responder" else (lab.a, lab.b)
    sender, receivers = ("alice", BOBS) if role == "responder" else ("bob", ALICES)
    with (session(lab.net, 4) as one, session(lab.net, 6) as two,
          lab.net.capture("internet", "tcp or icmp or esp or ip6") as tap):
        talk(one, two)
        before = set(other.host.sas())
        lose_power(rebooted)
        for ends in (one, two):
            ends[role == "initiator"].sendall(b"into the void")
        come_back(rebooted)
        back = time.monotonic()
        assert lab.net[sender].ping_each([*receivers.values()], wait=60) == [1, 1]
        took[role] = round(time.monotonic() - back, 2)
        assert [ends[role != "initiator"].recv(13) for ends in (one, two)] == [b"into the void"] * 2
        talk(one, two)
        assert clear(tap.end(), *ALICES.values(), *BOBS.values()) == []
    assert "which are told" in rebooted.log.read_text()
    assert len(before) >= 4 and not before & set(other.host.sas())


@pytest.mark.conformance("C-3.2.6-07", "C-3.2.6-08")
def test_one_who_sends_by_lost_spis_learns_of_it_though_nothing_is_known_of_him(lab: Lab) -> None:
    """Bob sends, Alice says nothing, and SG-A's list of partners is lost with its power."""
    net = lab.net
    assert net["alice"].ping(BOBS[4], wait=60) == 1
    lose_power(lab.a)
    for file in (lab.a.folder / "state").glob("partners.*"):
        file.unlink()
    with net["alice"].socket() as alice, net["bob"].socket() as bob, net.capture("internet", "udp or esp") as tap:
        alice.bind((ALICES[4], PORT))
        alice.settimeout(1.0)
        come_back(lab.a)
        back, heard = time.monotonic(), b""
        while not heard and time.monotonic() < back + PATIENCE:
            bob.sendto(b"into the void", (ALICES[4], PORT))
            try:
                heard = alice.recv(100)
            except TimeoutError:
                continue
        took["unknown SPI"] = round(time.monotonic() - back, 2)
        assert heard == b"into the void"
        seen = tap.end()
    assert clear(seen, ALICES[4], BOBS[4]) == []
    assert "ISAKMP informational" in {packet.describe() for packet in seen if packet.flow == (SG_AS[4], SG_BS[4])}
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
    for version, family in FAMILIES.items():
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
