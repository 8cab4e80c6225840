"""Real parts: the tree on nsd, behind unbound as a plain and as a validating resolver, on loopback addresses."""

import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from tests.dns.tree import ZONES
from tests.zones import Endpoint, ZoneTree, build_tree, nsd_conf, unbound_conf


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


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    directory = tmp_path_factory.mktemp("zones")
    tree = build_tree(directory, ZONES)
    anchor = directory / "anchor"
    anchor.write_text(tree.anchor + "\n")
    authority, plain, oracle = endpoints = [_unused(address) for address in ("127.0.0.10", "127.0.0.54", "127.0.0.53")]
    stubs = [(name, authority) for name in tree.files]
    configurations = {
        "nsd": nsd_conf(directory, tree, [authority]),
        "unbound-plain": unbound_conf(directory, [plain], stubs=stubs),
        "unbound-oracle": unbound_conf(directory, [oracle], stubs=stubs, anchor=anchor),
    }
    running = [_start(directory, name, text) for name, text in configurations.items()]
    try:
        for process, endpoint in zip(running, endpoints, strict=True):
            _wait_until_answering(process, endpoint)
        yield Servers(directory, tree, anchor, authority, plain, oracle)
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(10)


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


def _unused(address: str) -> Endpoint:
    """A port that is free: other sessions run these tests on the same host."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind((address, 0))
        return address, sock.getsockname()[1]


def _start(directory: Path, name: str, configuration: str) -> "subprocess.Popen[bytes]":
    path = directory / f"{name}.conf"
    path.write_text(configuration)
    log = (directory / f"{name}.log").open("wb")
    return subprocess.Popen([name.partition("-")[0], "-d", "-c", str(path)], stdout=log, stderr=log)


def _wait_until_answering(process: "subprocess.Popen[bytes]", endpoint: Endpoint) -> None:
    address, port = endpoint
    for _ in range(100):
        assert process.poll() is None, f"{process.args} ended"
        asked = subprocess.run(["dig", f"@{address}", "-p", str(port), "+time=1", "+tries=1", "+short", ".", "SOA"],
                               capture_output=True, timeout=5, check=False)
        if asked.stdout.strip():
            return
        time.sleep(0.05)
    raise AssertionError(f"{process.args} does not answer")

