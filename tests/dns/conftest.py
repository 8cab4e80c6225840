"""Real parts: the tree on nsd, behind unbound as a plain resolver, and behind unbound, BIND and Knot Resolver as
validating ones (`peers`). Resolvers find the servers of the tree at port 53 of loopback addresses: that takes root."""

import errno
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from tests.dns.peers import PEERS, Root
from tests.dns.tree import LAME, NAME_SERVER, SLOW, ZONES
from tests.zones import Endpoint, ZoneTree, build_tree, nsd_conf, root_hints, unbound_conf

AUTHORITY = "127.0.0.10"
"For servers of a single test's, at a free port."
DNS_PORT = 53


@dataclass(frozen=True)
class Servers:
    directory: Path
    tree: ZoneTree
    root: Root
    authority: Endpoint
    "nsd with the whole tree"
    plain: Endpoint
    "unbound that hands on what it finds"
    oracle: Endpoint
    "unbound that recurses and validates"

    @property
    def anchor(self) -> Path:
        return self.root.anchor


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    directory = tmp_path_factory.mktemp("zones")
    root_server, slow, lame = (free_address() for _ in range(3))
    authority, plain = unused(AUTHORITY), unused("127.0.0.54")
    top = replace(ZONES[0], records=f"{ZONES[0].records}\n{SLOW} IN A {slow[0]}\n{LAME} IN A {lame[0]}\n")
    tree = build_tree(directory, [top, *ZONES[1:]], NAME_SERVER, [root_server[0]])
    root = Root(NAME_SERVER, root_server[0], directory / "anchor")
    root.anchor.write_text(tree.anchor + "\n")
    hints = directory / "hints"
    hints.write_text(root_hints(NAME_SERVER, [root_server[0]]))
    # Who serves parent and child is not asked for the delegation: the zones of other servers are not on this one.
    common = replace(tree, files={zone.name: tree.files[zone.name] for zone in ZONES if not zone.name_server})
    (directory / "common").mkdir()
    with ExitStack() as stack:
        for server in (OddServer(slow, lambda question: late(question, authority)), OddServer(lame, refused)):
            stack.callback(server.close)
            server.start()
        for name, endpoint, configuration in (
                ("nsd", authority, nsd_conf(directory, tree, [authority])),
                ("nsd-common", root_server, nsd_conf(directory / "common", common, [root_server])),
                ("unbound-plain", plain, unbound_conf(directory, [plain], root_hints=hints))):
            stack.enter_context(running(directory, name, configuration, endpoint))
        oracle = stack.enter_context(running_peer("unbound", tmp_path_factory.mktemp("oracle"), root))
        yield Servers(directory, tree, root, authority, plain, oracle)


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


def free_address() -> Endpoint:
    """A loopback address whose port 53 is free: resolvers look nowhere else for those to whom a zone is delegated."""
    for _ in range(100):
        endpoint = ".".join(["127", *(str(secrets.randbelow(254) + 1) for _ in range(3))]), DNS_PORT
        with ExitStack() as stack:
            try:
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    stack.enter_context(socket.socket(socket.AF_INET, kind)).bind(endpoint)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
            return endpoint
    raise AssertionError("port 53 is in use at every loopback address")


@contextmanager
def running(directory: Path, name: str, configuration: str, endpoint: Endpoint) -> Iterator[Endpoint]:
    process = start(directory, name, configuration)
    try:
        wait_until_answering(process, endpoint)
        yield endpoint
    finally:
        process.terminate()
        process.wait(10)


def running_peer(name: str, directory: Path, root: Root) -> AbstractContextManager[Endpoint]:
    """One of `peers`, its cache empty, with a directory of its own."""
    address, conf = PEERS[name]
    endpoint = unused(address)
    return running(directory, name, conf(directory, endpoint, root), endpoint)


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
        # dig tells of its troubles there too, behind semicolons.
        if asked.stdout.strip() and b";" not in asked.stdout:
            return
        time.sleep(0.05)
    raise AssertionError(f"{process.args} does not answer")

