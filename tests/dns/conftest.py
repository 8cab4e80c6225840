"""Real parts: the tree on nsd, behind unbound as a plain resolver, and behind unbound, BIND and Knot Resolver as
validating ones, on loopback addresses."""

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from tests.dns.tree import LAME, LAME_ADDRESS, SLOW, SLOW_ADDRESS, ZONES
from tests.zones import (
    Endpoint,
    ZoneTree,
    build_tree,
    kresd_conf,
    named_conf,
    nsd_conf,
    root_hints,
    unbound_conf,
)

AUTHORITY = "127.0.0.10"


@dataclass(frozen=True)
class Servers:
    directory: Path
    tree: ZoneTree
    anchor: Path
    authority: Endpoint
    "nsd"
    plain: Endpoint
    "unbound that hands on what it finds"
    oracle: Endpoint
    "unbound that validates"
    bind: Endpoint
    "named that recurses and validates"
    knot: Endpoint
    "Knot Resolver that validates what `plain` finds"


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    directory = tmp_path_factory.mktemp("zones")
    tree = build_tree(directory, ZONES)
    anchor = directory / "anchor"
    anchor.write_text(tree.anchor + "\n")
    port = _common_port("127.0.0.1", AUTHORITY, SLOW_ADDRESS, LAME_ADDRESS)
    authority, bind = (AUTHORITY, port), ("127.0.0.1", port)
    odd = {SLOW: OddServer((SLOW_ADDRESS, port), lambda question: late(question, authority)),
           LAME: OddServer((LAME_ADDRESS, port), refused)}
    plain, oracle, knot = (unused(f"127.0.0.{host}") for host in (54, 53, 55))
    hints = directory / "hints"
    hints.write_text(root_hints(addresses=[AUTHORITY]))
    stubs = [(zone.name, odd[zone.name_server].endpoint if zone.name_server else authority) for zone in ZONES]
    served = {
        "nsd": (authority, nsd_conf(directory, tree, [authority])),
        "unbound-plain": (plain, unbound_conf(directory, [plain], stubs=stubs)),
        "unbound-oracle": (oracle, unbound_conf(directory, [oracle], stubs=stubs, anchor=anchor)),
        "named": (bind, named_conf(directory, tree, bind, hints)),
        "kresd": (knot, kresd_conf(tree, knot, plain)),
    }
    running = [start(directory, name, text) for name, (_, text) in served.items()]
    for server in odd.values():
        server.start()
    try:
        for process, (endpoint, _) in zip(running, served.values(), strict=True):
            wait_until_answering(process, endpoint)
        yield Servers(directory, tree, anchor, authority, plain, oracle, bind, knot)
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(10)
        for server in odd.values():
            server.close()


class OddServer(threading.Thread):
    """Answers each question as `respond` says, in a thread of its own."""

    def __init__(self, endpoint: Endpoint, respond: Callable[[bytes], bytes]) -> None:
        super().__init__(daemon=True)
        self.endpoint, self._respond = endpoint, respond
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(endpoint)

    def run(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._answer, args=self._socket.recvfrom(65535), daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def _answer(self, question: bytes, client: Endpoint) -> None:
        with suppress(OSError):
            self._socket.sendto(self._respond(question), client)


def late(question: bytes, server: Endpoint) -> bytes:
    """What a server answers, a fifth of a second later."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(2)
        sock.sendto(question, server)
        time.sleep(0.2)
        return sock.recv(65535)


def refused(question: bytes) -> bytes:
    """QR and REFUSED, as from a server that does not have the zone."""
    return question[:2] + bytes([question[2] | 0x80, 5]) + question[4:]


def await_result(deferred: "Deferred[Any]", patience: float = 30.0) -> Any:
    """Run the reactor until the Deferred fires."""
    results: list[Any] = []

    def done(result: Any) -> None:
        results.append(result)
        reactor.callLater(0, reactor.crash)

    deferred.addTimeout(patience, reactor).addBoth(done)
    reactor.run(installSignalHandlers=False)
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return results[0]


def unused(address: str) -> Endpoint:
    """A port that is free: other sessions run these tests on the same host."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind((address, 0))
        return address, sock.getsockname()[1]


def _common_port(*addresses: str) -> int:
    """A port that is free at all of these addresses: BIND asks authorities at the port at which it listens."""
    for _ in range(100):
        _, port = unused(addresses[0])
        with ExitStack() as stack, suppress(OSError):
            for address in addresses:
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    stack.enter_context(socket.socket(socket.AF_INET, kind)).bind((address, port))
            return port
    raise AssertionError(f"no port is free at all of {addresses}")


def start(directory: Path, name: str, configuration: str) -> "subprocess.Popen[bytes]":
    path = directory / f"{name}.conf"
    path.write_text(configuration)
    log = (directory / f"{name}.log").open("wb")
    server = name.partition("-")[0]
    in_foreground = {"named": ["-f"], "kresd": ["-n", "-q", str(directory)]}.get(server, ["-d"])
    return subprocess.Popen([server, "-c", str(path), *in_foreground], stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def wait_until_answering(process: "subprocess.Popen[bytes]", endpoint: Endpoint) -> None:
    address, port = endpoint
    for _ in range(100):
        assert process.poll() is None, f"{process.args} ended"
        asked = subprocess.run(["dig", f"@{address}", "-p", str(port), "+time=1", "+tries=1", "+short", ".", "SOA"],
                               capture_output=True, timeout=5, check=False)
        if asked.stdout.strip():
            return
        time.sleep(0.05)
    raise AssertionError(f"{process.args} does not answer")

