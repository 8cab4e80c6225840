"""RFC 4322 section 8 on real parts: Alice's network has two exits, SG-A and SG-D, and both speak for her."""

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.lab.gateway import GATEWAYS, SECOND_EXIT, Gateway, start_gateways
from tests.lab.names import SPARE_BOBS, TWO_EXITS, canonical_tree, serve_names
from tests.lab.network import Network, address_of
from tests.lab.test_main_job import clear

pytestmark = pytest.mark.lab

BOB, SG_A, SG_B, SG_D = (address_of(name) for name in ("bob", "sg-a", "sg-b", "sg-d"))
NET_B = "192.2.0.0/24"
PORT = 4325
PATIENCE = 120.0
"Seconds, for an emulated machine: TCP's own repetitions are up to half a minute apart."


@dataclass
class Exits:
    """The network with its three daemons."""

    net: Network
    b: Gateway
    d: Gateway

    def leave_by(self, exit: str) -> None:
        """Alice's routers change their mind: her datagrams to Bob leave by this gateway."""
        hop = {"sg-a": "192.1.0.1", "sg-d": "192.1.0.254"}[exit]
        self.net["alice"].run(["ip", "route", "replace", NET_B, "via", hop])

    def outbound(self, gateway: str) -> int:
        """Octets that SG-B has sent to TWO_EXITS by this gateway."""
        return sum(self.net["sg-b"].sas(f"{SG_B} dst {gateway}\n").values())

    def inbound(self, gateway: str) -> int:
        return sum(self.net["sg-b"].sas(f"{gateway} dst {SG_B}\n").values())


@pytest.fixture(scope="module")
def exits() -> Iterator[Exits]:
    with Network() as net:
        brisk = {"ike": {"dpd-idle": "4"}}
        a, b, d = (Gateway(net, row, brisk) for row in (*GATEWAYS, SECOND_EXIT))
        net["alice"].run(["ip", "address", "add", f"{TWO_EXITS}/24", "dev", "eth0"])
        net["bob"].run(["ip", "address", "add", f"{SPARE_BOBS[0]}/24", "dev", "eth0"])
        net["as1"].run(["ip", "route", "add", NET_B, "via", "192.3.0.1"])
        serve_names(net, canonical_tree(), ("sg-a", "sg-b", "sg-d"))
        start_gateways((a, b, d))
        yield Exits(net, b, d)


class Talk:
    """A TCP connection from Alice to Bob."""

    def __init__(self, net: Network) -> None:
        listener = net["bob"].socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.bind((BOB, PORT))
        listener.listen()
        self._alice = net["alice"].socket(socket.AF_INET, socket.SOCK_STREAM)
        self._alice.settimeout(PATIENCE)
        self._alice.bind((TWO_EXITS, 0))
        self._alice.connect((BOB, PORT))
        self._bob, _ = listener.accept()
        self._bob.settimeout(PATIENCE)
        listener.close()
        self._said = 0

    def goes_on(self, times: int = 3) -> bool:
        """Question and answer, each waited for."""
        for _ in range(times):
            self._said += 1
            message = b"%6d" % self._said
            for sender, receiver in ((self._alice, self._bob), (self._bob, self._alice)):
                sender.sendall(message)
                assert receiver.recv(6, socket.MSG_WAITALL) == message
            time.sleep(0.1)
        return True

    def close(self) -> None:
        self._alice.close()
        self._bob.close()


@pytest.mark.conformance("C-8-01", "C-8-02", "C-8-03", "C-8-07", "C-8-08")
def test_a_tcp_session_outlives_changes_of_the_path_and_the_death_of_a_gateway(exits: Exits) -> None:
    net = exits.net
    with net.capture("internet") as tap:
        talk = Talk(net)
        assert talk.goes_on()
        assert len(net["sg-b"].sas()) == 2

        exits.leave_by("sg-d")
        assert talk.goes_on()
        assert [len(net[gateway].sas()) for gateway in ("sg-a", "sg-b", "sg-d")] == [2, 4, 2]
        by_a, by_d = exits.outbound(SG_A), exits.outbound(SG_D)
        assert by_a and by_d, "SG-B sent to SG-A, then to SG-D"

        exits.leave_by("sg-a")
        received = exits.inbound(SG_A)
        assert talk.goes_on()
        assert exits.inbound(SG_A) > received, "SG-B accepts from SG-A"
        assert (exits.outbound(SG_A), exits.outbound(SG_D) > by_d) == (by_a, True), "and sends to whom keyed last"
        assert net["sg-b"].xfrm_errors() == {}

        exits.d.kill()
        net["sg-d"].run(["ip", "link", "set", "wan0", "down"])
        assert talk.goes_on(), "after DPD has found SG-D dead"
        assert exits.outbound(SG_A) > by_a
        assert f"it is sent by {SG_A} now" in exits.b.why(BOB, TWO_EXITS)
        talk.close()

        assert net["bob"].ping(TWO_EXITS, wait=60, source=SPARE_BOBS[0]) == 1, "one that SG-B begins"
    assert clear(tap.end(), BOB, SPARE_BOBS[0]) == []
