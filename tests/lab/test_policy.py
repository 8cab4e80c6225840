"""Policies at both ends: every pair of classes, ports that are excepted, and reloads while a session goes on."""

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from socket import AF_INET, SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET, socket

import pytest

from tests.lab.capture import TCP, Packet
from tests.lab.conftest import Lab
from tests.lab.gateway import Gateway
from tests.lab.names import BY_CLASS
from tests.lab.network import address_of
from tests.lab.test_life_and_death import eventually

pytestmark = pytest.mark.lab

ALICE, BOB = address_of("alice"), address_of("bob")
CLASSES = ("block", "clear", "clear-or-private", "private-or-clear", "private")
OPPORTUNISTIC = {"clear-or-private", "private-or-clear", "private"}
INITIATING = {"private-or-clear", "private"}
ALICES, BOBS = ({name: [hosts[version][number] for version in (4, 6)] for number, name in enumerate(CLASSES)}
                for hosts in (BY_CLASS["alice"], BY_CLASS["bob"]))
"By the class that the other end's gateway has for them."
PORT = 4322
LASTING = "[lifespans]\nfirst = 3600\n"
PATIENCE = 60
EVERYWHERE = "0.0.0.0/0\n::/0\n"


def reload(gateway: Gateway, policies: Mapping[str, str]) -> None:
    """Put other policy files in force; the resolvers always reach the name server, and no flow ends by itself."""
    for name in CLASSES:
        resolver = f"{address_of('dns')}\n" if name == "clear" else ""
        (gateway.folder / "policies" / name).write_text(resolver + policies.get(name, ""))
    configuration = gateway.folder / "oegw.conf"
    configuration.write_text(configuration.read_text().partition(LASTING)[0] + LASTING)
    gateway.ask("policy reload")


@pytest.fixture
def policies(lab: Lab) -> Iterator[Lab]:
    """The lab, whose policies are as they were when a test ends."""
    files = [file for gateway in (lab.a, lab.b) for file in
             (gateway.folder / "oegw.conf", *(gateway.folder / "policies" / name for name in CLASSES)) if file.exists()]
    before = {file: file.read_text() for file in files}
    yield lab
    for gateway in (lab.a, lab.b):
        (gateway.folder / "policies/clear-or-private").write_text("")
    for file, text in before.items():
        file.write_text(text)
    for gateway in (lab.a, lab.b):
        gateway.ask("policy reload")


def outcome(one: str, other: str) -> str:
    """What becomes of traffic between two ends of these classes, whoever begins (RFC 4322 sections 3.2, 3.3.2)."""
    if "block" in (one, other):
        return "nothing"
    if {one, other} <= OPPORTUNISTIC and {one, other} & INITIATING:
        return "encrypted"
    return "nothing" if "private" in (one, other) else "clear"


def state(own: str, result: str) -> str:
    """That of the flow that leaves an end, where its gateway has this class for it."""
    if result == "encrypted":
        return "keyed"
    if own == "block" or (own == "private" and result == "nothing"):
        return "deny"
    return "clear-text"


@pytest.mark.conformance("C-3.3.2-09", "C-3.3.2-10", "C-3.3.2-05", "C-1.2-04", "C-1.2-05", "C-3.2-09", "C-3.2-10")
def test_every_pair_of_policies_does_what_both_say_whoever_begins(policies: Lab) -> None:
    """25 pairs, IPv4 and IPv6, Alice first and then Bob: replies, states at both ends, and what passes in clear."""
    lab = policies
    for client, hosts in BY_CLASS.items():
        lab.net[client].run(["ip", "-batch", "-"], stdin="\n".join(
            f"address replace {host}/{length} dev eth0 {how}"
            for version, length, how in ((4, 24, ""), (6, 64, "nodad preferred_lft 0")) for host in hosts[version]))
    for began, (here, there) in (("alice", (ALICES, BOBS)), ("bob", (BOBS, ALICES))):
        for gateway in (lab.a, lab.b):
            reload(gateway, {"block": EVERYWHERE})
            assert set(states(gateway).values()) <= {"deny"}
        reload(lab.a, {name: "\n".join(hosts) for name, hosts in BOBS.items()})
        reload(lab.b, {name: "\n".join(hosts) for name, hosts in ALICES.items()})
        own, other = (lab.a, lab.b) if began == "alice" else (lab.b, lab.a)
        with lab.net.capture("internet", "icmp[icmptype] == icmp-echo or (icmp6 and ip6[40] == 128)") as tap:
            asked = ask_all(lab, began, here, there)
        passed = {packet.flow for packet in tap.end()}
        kept = {gateway: states(gateway) for gateway in (own, other)}
        wrong = []
        for ends, (mine, yours) in product(range(2), product(CLASSES, CLASSES)):
            # Ours is the class that our gateway has for them, theirs what theirs has for us.
            source, destination = here[yours][ends], there[mine][ends]
            result = outcome(mine, yours)
            may_pass = not (mine in ("block", "private") or (mine == "private-or-clear" and result == "encrypted"))
            found = (asked[source, destination], kept[own].get((source, destination)),
                     (source, destination) in passed)
            expected = (result != "nothing", state(mine, result), may_pass)
            if found != expected:
                wrong.append((began, mine, yours, source, destination, found, expected))
            if may_pass or result == "encrypted":
                back = kept[other].get((destination, source))
                if back != state(yours, result):
                    wrong.append((began, mine, yours, destination, source, back, state(yours, result)))
        assert wrong == []


def ask_all(lab: Lab, began: str, here: Mapping[str, list[str]],
            there: Mapping[str, list[str]]) -> dict[tuple[str, str], bool]:
    """Ping from every address of one end to every one of the other; which were answered."""
    def ask(pair: tuple[str, str, str]) -> bool:
        source, destination, result = pair
        wait = 3 if result == "nothing" else PATIENCE
        return bool(lab.net[began].ping(destination, 1, wait=wait, source=source))
    pairs = [(here[yours][ends], there[mine][ends], outcome(mine, yours))
             for ends in range(2) for mine, yours in product(CLASSES, CLASSES)]
    with ThreadPoolExecutor(8) as pool:
        answered = list(pool.map(ask, pairs))
    return {(source, destination): done for (source, destination, _), done in zip(pairs, answered, strict=True)}


def states(gateway: Gateway) -> dict[tuple[str, str], str]:
    flows = gateway.ask("flows")["flows"]
    return {(flow["source"], flow["destination"]): flow["state"] for flow in flows}


class Session:
    """A TCP connection from Alice to Bob."""

    def __init__(self, lab: Lab) -> None:
        with lab.net["bob"].socket(AF_INET, SOCK_STREAM) as listener:
            listener.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
            listener.bind((BOB, PORT))
            listener.listen()
            self.client: socket = lab.net["alice"].socket(AF_INET, SOCK_STREAM)
            self.client.settimeout(PATIENCE)
            self.client.connect((BOB, PORT))
            self.server, _ = listener.accept()
        self.server.settimeout(PATIENCE)

    def talk(self) -> float:
        """A word there and back; the seconds that it took."""
        began = time.monotonic()
        for speaker, hearer in ((self.client, self.server), (self.server, self.client)):
            speaker.sendall(b"word")
            assert hearer.recv(16) == b"word"
        return time.monotonic() - began

    def close(self) -> None:
        self.client.close()
        self.server.close()


def from_alice(packets: list[Packet]) -> list[Packet]:
    return [packet for packet in packets if packet.flow == (ALICE, BOB) and packet.protocol == TCP]


def test_session_survives_reloads_and_is_never_clear_where_it_may_not_be(policies: Lab) -> None:
    """Permissive, paranoid (by the same keys), clear, denied for a moment, paranoid again: one TCP connection."""
    lab, net = policies, policies.net
    reload(lab.b, {"clear-or-private": ALICE, "private-or-clear": EVERYWHERE})
    session = Session(lab)
    session.talk()
    sas = set(net["sg-a"].sas())
    with net.capture("internet", "tcp") as tap:
        reload(lab.a, {"private": BOB, "private-or-clear": EVERYWHERE})
        session.talk()
    assert from_alice(tap.end()) == [] and set(net["sg-a"].sas()) == sas != set()
    reload(lab.a, {"clear": BOB})
    with net.capture("internet", "tcp") as tap:
        session.talk()
    assert from_alice(tap.end()) != []
    reload(lab.a, {"block": BOB})
    with net.capture("internet", "tcp") as tap:
        session.client.sendall(b"held ")
        time.sleep(2)
        reload(lab.a, {"private": BOB, "private-or-clear": EVERYWHERE})
        assert session.server.recv(16) == b"held "
        session.talk()
    assert from_alice(tap.end()) == []
    (lab.a.folder / "policies/private").write_text("")
    (lab.a.folder / "policies/clear").write_text(f"{BOB}\nnonsense\n")
    lab.a.hang_up()
    assert eventually(lambda: "clear:2: 'nonsense' is no network prefix" in lab.a.log.read_text())
    with net.capture("internet", "tcp") as tap:
        session.talk()
    assert from_alice(tap.end()) == []
    session.close()


@pytest.mark.conformance("C-3.2-05")
def test_excepted_ports_pass_beside_the_tunnel(policies: Lab) -> None:
    """Both gateways say so: Alice's of the port called, Bob's of the port that answers."""
    lab, net = policies, policies.net
    reload(lab.a, {"private": BOB, "clear": f"{BOB}/32 tcp 0 {PORT}"})
    reload(lab.b, {"clear": f"{ALICE}/32 tcp {PORT} 0"})
    assert net["alice"].ping(BOB, wait=PATIENCE) == 1
    with net.capture("internet", "tcp or icmp or esp") as tap:
        session = Session(lab)
        session.talk()
        session.close()
        assert net["alice"].ping(BOB, 3, wait=10) == 3
    packets = tap.end()
    assert {packet.protocol for packet in packets if set(packet.flow) == {ALICE, BOB}} == {TCP}
    assert sum(packet.is_esp for packet in packets) >= 6
    reload(lab.a, {"private": BOB, "private-or-clear": EVERYWHERE})
    with net.capture("internet", "tcp") as tap, net["alice"].socket(AF_INET, SOCK_STREAM) as caller:
        caller.settimeout(PATIENCE)
        with pytest.raises(ConnectionRefusedError):
            caller.connect((BOB, PORT + 1))
    assert from_alice(tap.end()) == []
