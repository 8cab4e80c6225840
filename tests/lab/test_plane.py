"""The forwarding plane alone on real kernels: no IKE, a test plays the daemon (RFC 4322 sections 3.1 and 12.1)."""

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.gateway import ENVIRONMENT, PYTHON
from tests.lab.network import Host, Network, address_of, stop

pytestmark = pytest.mark.lab

ALICE, BOB, CAROL, FRANK, SG_A, SG_B = (
    address_of(name) for name in ("alice", "bob", "carol", "frank", "sg-a", "sg-b"))
A_TO_B = {"gateways": [SG_A, SG_B]}
B_TO_A = {"gateways": [SG_B, SG_A]}
CONFIG_A = {"clients": ["192.1.0.0/24", "2001:db8:1::/64"], "own": [SG_A, address_of("sg-a", 6)], "inside": ["lan0"],
            "never_clear": ["192.1.1.128/25"], "queue_length": 1000}
CONFIG_B = {"clients": ["192.2.0.0/24", "2001:db8:2::/64"], "own": [SG_B, address_of("sg-b", 6)], "inside": ["lan0"]}


class Plane:
    """A `tests.kernel.plane_daemon` on a gateway."""

    def __init__(self, net: Network, host: Host, config: dict[str, Any]) -> None:
        self.net, self.host, self.config = net, host, config
        self.path = net.folder / f"plane-{host.name}"
        self.launch()

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

    def order(self, do: str, **arguments: Any) -> Any:
        """Have something done; raises with the daemon's words when it failed."""
        self.socket.sendall(json.dumps({"do": do, **arguments}).encode() + b"\n")
        answer = json.loads(self.lines.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["result"]

    def rule(self, prefix: str, verdict: str, delay: float = 0.1, **more: Any) -> None:
        self.order("rules", rules=[{"prefix": prefix, "verdict": verdict, "delay": delay, "tunnel": A_TO_B, **more}])


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    with Network() as net:
        yield net


@pytest.fixture(scope="module")
def planes(net: Network) -> Iterator[tuple[Plane, Plane]]:
    a, b = Plane(net, net["sg-a"], CONFIG_A), Plane(net, net["sg-b"], CONFIG_B)
    for plane in (a, b):
        plane.connect()
        plane.order("start")
    yield a, b
    for plane in (a, b):
        plane.order("stop")
        stop(plane.process)


def test_the_first_datagram_of_an_encrypted_flow_is_held_and_leaves_as_esp(
        net: Network, planes: tuple[Plane, Plane]) -> None:
    a, b = planes
    b.order("key", flow=[BOB, ALICE], **B_TO_A)
    a.rule(BOB, "ENCRYPT", 0.3)
    with net.capture("internet") as tap:
        assert net["alice"].ping(BOB, 3) == 3
    seen = [packet for packet in tap.end() if {*packet.flow} & {SG_A, SG_B, ALICE, BOB}]
    print(*seen, a.order("report"), a.host.xfrm("policy"), a.host.xfrm("state"), a.host.xfrm_errors(), sep="\n")
    assert [(packet.flow, packet.is_esp) for packet in seen] == [((SG_A, SG_B), True), ((SG_B, SG_A), True)] * 3
