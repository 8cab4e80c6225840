"""RFC 4322 section 8 on real parts: Alice's network has two exits, SG-A and SG-D, and both speak for her."""

import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import pytest

from tests.lab.gateway import GATEWAYS, SECOND_EXIT, Gateway, start_gateways
from tests.lab.names import SPARE_BOB6, SPARE_BOBS, TWO_EXITS, canonical_tree, serve_names
from tests.lab.network import Network, address_of
from tests.lab.test_main_job import clear

pytestmark = pytest.mark.lab

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
BOBS, SG_AS, SG_BS, SG_DS = (
    {version: address_of(name, version) for version in FAMILIES} for name in ("bob", "sg-a", "sg-b", "sg-d"))
CALLERS = {4: SPARE_BOBS[0], 6: SPARE_BOB6}
"Further addresses of Bob's, whose flows SG-B begins."
NET_B = {4: "192.2.0.0/24", 6: "2001:db8:2::/64"}
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
        for version, hop in {"sg-a": {4: "192.1.0.1", 6: "2001:db8:1::1"},
                             "sg-d": {4: "192.1.0.254", 6: "2001:db8:1::254"}}[exit].items():
            self.net["alice"].run(["ip", "route", "replace", NET_B[version], "via", hop])

    def outbound(self, gateways: Mapping[int, str]) -> list[int]:
        """Octets that SG-B has sent to TWO_EXITS by this gateway, in each family."""
        return [sum(self.net["sg-b"].sas(f"{SG_BS[version]} dst {gateway}\n").values())
                for version, gateway in gateways.items()]

    def inbound(self, gateways: Mapping[int, str]) -> list[int]:
        return [sum(self.net["sg-b"].sas(f"{gateway} dst {SG_BS[version]}\n").values())
                for version, gateway in gateways.items()]


@pytest.fixture(scope="module")
def exits() -> Iterator[Exits]:
    with Network() as net:
        brisk = {"ike": {"dpd-idle": "4"}}
        a, b, d = (Gateway(net, row, brisk) for row in (*GATEWAYS, SECOND_EXIT))
        for name, addresses in (("alice", TWO_EXITS), ("bob", CALLERS)):
            net[name].run(["ip", "address", "add", f"{addresses[4]}/24", "dev", "eth0"])
            net[name].run(["ip", "address", "add", f"{addresses[6]}/64", "dev", "eth0", "nodad"])
        for version, hop in ((4, "192.3.0.1"), (6, "2001:db8:3::1")):
            net["as1"].run(["ip", "route", "add", NET_B[version], "via", hop])
        serve_names(net, canonical_tree(), ("sg-a", "sg-b", "sg-d"))
        start_gateways((a, b, d))
        yield Exits(net, b, d)


class Talk:
    """A TCP connection from Alice to Bob in one family."""

    def __init__(self, net: Network, version: int) -> None:
        listener = net["bob"].socket(FAMILIES[version], socket.SOCK_STREAM)
        listener.bind((BOBS[version], PORT))
        listener.listen()
        self._alice = net["alice"].socket(FAMILIES[version], socket.SOCK_STREAM)
        self._alice.settimeout(PATIENCE)
        self._alice.bind((TWO_EXITS[version], 0))
        self._alice.connect((BOBS[version], PORT))
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
def test_tcp_sessions_in_both_families_outlive_changes_of_the_path_and_the_death_of_a_gateway(exits: Exits) -> None:
    net = exits.net
    with net.capture("internet") as tap:
        talks = [Talk(net, version) for version in FAMILIES]
        assert all(talk.goes_on() for talk in talks)
        assert len(net["sg-b"].sas()) == 4

        exits.leave_by("sg-d")
        assert all(talk.goes_on() for talk in talks)
        assert [len(net[gateway].sas()) for gateway in ("sg-a", "sg-b", "sg-d")] == [4, 8, 4]
        by_a, by_d = exits.outbound(SG_AS), exits.outbound(SG_DS)
        assert all(by_a) and all(by_d), "SG-B sent to SG-A, then to SG-D"

        exits.leave_by("sg-a")
        received = exits.inbound(SG_AS)
        assert all(talk.goes_on() for talk in talks)
        assert grown(received, exits.inbound(SG_AS)), "SG-B accepts from SG-A"
        assert exits.outbound(SG_AS) == by_a and grown(by_d, exits.outbound(SG_DS)), "and sends to whom keyed last"
        assert net["sg-b"].xfrm_errors() == {}

        exits.d.kill()
        net["sg-d"].run(["ip", "link", "set", "wan0", "down"])
        assert all(talk.goes_on() for talk in talks), "after DPD has found SG-D dead"
        assert grown(by_a, exits.outbound(SG_AS))
        for version, two_exits in TWO_EXITS.items():
            assert f"it is sent by {SG_AS[version]} now" in exits.b.why(BOBS[version], two_exits)
        for talk in talks:
            talk.close()

        for version, caller in CALLERS.items():
            assert net["bob"].ping(TWO_EXITS[version], wait=60, source=caller) == 1, "one that SG-B begins"
    assert clear(tap.end(), *BOBS.values(), *CALLERS.values()) == []


def grown(before: Iterable[int], after: Iterable[int]) -> bool:
    """Whether each is more than it was."""
    return all(now > then for then, now in zip(before, after, strict=True))
