"""The forwarding planes of SG-A and SG-B in the lab's network, each in a process that a test orders about."""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from oesvc.kernel.constants import SO_RCVBUFFORCE
from tests.lab.capture import Packet
from tests.lab.gateway import ENVIRONMENT, PYTHON
from tests.lab.network import Host, Network, address_of, stop

ALICE, BOB, CAROL, FRANK, SG_A, SG_B = (
    address_of(name) for name in ("alice", "bob", "carol", "frank", "sg-a", "sg-b"))
PORT = 9999
A_TO_B = {"gateways": [SG_A, SG_B]}
B_TO_A = {"gateways": [SG_B, SG_A]}
SOURCES = [f"192.1.0.{number}" for number in range(101, 121)]
BEHIND_B = [f"192.2.0.{number}" for number in range(101, 116)]
OUTSIDE = [f"192.1.1.{number}" for number in range(101, 116)]

CONFIG_A = {"clients": ["192.1.0.0/24", "2001:db8:1::/64"], "own": [SG_A, address_of("sg-a", 6)], "inside": ["lan0"],
            "never_clear": ["192.1.1.128/25"], "resolver_sources": ["192.1.0.102/32"],
            "icmp_on_deny": True}
CONFIG_B = {"clients": ["192.2.0.0/24", "2001:db8:2::/64"], "own": [SG_B, address_of("sg-b", 6)]}


class Plane:
    """A `tests.kernel.plane_daemon` on a gateway."""

    def __init__(self, net: Network, host: Host, config: dict[str, Any]) -> None:
        self.net, self.host, self.config = net, host, config
        self.path = net.folder / f"plane-{host.name}"

    def launch(self) -> None:
        """Begin, without waiting."""
        self.path.unlink(missing_ok=True)
        command = [PYTHON, "-m", "tests.kernel.plane_daemon", str(self.path), json.dumps(self.config)]
        self.process = self.host.popen(command, f"plane-{self.host.name}.log", ENVIRONMENT)

    def connect(self) -> None:
        deadline = time.monotonic() + 120
        self.socket = socket.socket(socket.AF_UNIX)
        while self.socket.connect_ex(str(self.path)):
            assert self.process.poll() is None, "the daemon ended"
            assert time.monotonic() < deadline
            time.sleep(0.1)
        self.socket.settimeout(60)
        self.lines = self.socket.makefile("rb")

    def line(self, do: str, **arguments: Any) -> bytes:
        return json.dumps({"do": do, **arguments}).encode() + b"\n"

    def answer(self) -> Any:
        answer = json.loads(self.lines.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["result"]

    def order(self, do: str, **arguments: Any) -> Any:
        """Have something done; raises with the daemon's words when it failed."""
        self.socket.sendall(self.line(do, **arguments))
        return self.answer()

    def rule(self, prefix: str, verdict: str, delay: float = 0.1, **more: Any) -> None:
        """From now on new flows to `prefix` are decided so, after `delay` seconds."""
        self.order("rules", rules=[{"prefix": prefix, "verdict": verdict, "delay": delay, "tunnel": A_TO_B, **more}])

    def wait_held(self, count: int) -> None:
        """Until so many datagrams, and no more, wait in the kernel for a verdict."""
        deadline = time.monotonic() + 60
        while (held := self.held()) != count:
            assert time.monotonic() < deadline, f"{held} datagrams are held, not {count}"
            time.sleep(0.1)

    def held(self) -> int:
        """How many datagrams wait in the queue."""
        return self._queue_column(2)

    def queued(self) -> int:
        """How many datagrams have been put into the queue so far."""
        return self._queue_column(7)

    def _queue_column(self, number: int) -> int:
        with self.host.entered():
            rows = Path("/proc/thread-self/net/netfilter/nfnetlink_queue").read_text().splitlines()
        return sum(int(row.split()[number]) for row in rows)

    def kill(self) -> None:
        """End it without a chance to tidy up."""
        self.process.kill()
        self.process.wait()


def plane_network() -> Iterator[Network]:
    """For a fixture: the network, with many addresses on Alice, Bob and Carol."""
    with Network() as net:
        for name, addresses in (("alice", SOURCES), ("bob", BEHIND_B), ("carol", OUTSIDE)):
            lines = "\n".join(f"address add {each}/24 dev eth0" for each in addresses)
            net[name].run(["ip", "-batch", "-"], stdin=lines)
        yield net


def start_planes(net: Network) -> Iterator[tuple[Plane, Plane]]:
    """For a fixture: both planes, started together."""
    planes = Plane(net, net["sg-a"], CONFIG_A), Plane(net, net["sg-b"], CONFIG_B)
    for plane in planes:
        plane.launch()
    for plane in planes:
        plane.connect()
        plane.order("start")
    yield planes
    for plane in planes:
        plane.order("stop")
        stop(plane.process)


def receiver(host: Host, version: int = 4) -> socket.socket:
    sock = host.socket(socket.AF_INET if version == 4 else socket.AF_INET6)
    sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 22)
    sock.bind(("", PORT))
    sock.settimeout(10)
    return sock


def send(host: Host, source: str, destination: str, text: str, port: int = PORT) -> None:
    with host.socket(socket.AF_INET6 if ":" in source else socket.AF_INET) as sock:
        sock.bind((source, 0))
        sock.sendto(text.encode(), (destination, port))


def received(sock: socket.socket, count: int, settle: float = 1.0) -> list[str]:
    """At least `count` datagrams, and whatever else comes until nothing came for `settle` seconds."""
    texts: list[str] = []
    while True:
        sock.settimeout(30 if len(texts) < count else settle)
        try:
            texts.append(sock.recv(2000).decode())
        except TimeoutError:
            return texts


def talk(client: Host, server: Host, address: str) -> None:
    """A TCP connection that carries a word."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with server.socket(family, socket.SOCK_STREAM) as listening, client.socket(family, socket.SOCK_STREAM) as sock:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((address, PORT))
        listening.listen()
        sock.settimeout(20)
        sock.connect((address, PORT))
        sock.sendall(b"through")
        accepted, _ = listening.accept()
        with accepted:
            accepted.settimeout(20)
            assert accepted.recv(100) == b"through"


def clear(packets: list[Packet], *addresses: str) -> list[str]:
    """Datagrams on the Internet that show one of these inner addresses."""
    return [str(packet) for packet in packets if {*packet.flow} & {*addresses}]
