"""New keys under way: a stream of datagrams loses none and shows none in clear, whatever makes the keys end."""

import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from tests.lab.conftest import build
from tests.lab.gateway import ENVIRONMENT, PYTHON
from tests.lab.names import SPARE_BOB6, SPARE_BOBS
from tests.lab.network import OUT, Host, Network, address_of, stop
from tests.lab.peers.expire import expire_softly
from tests.lab.peers.site import wait_until
from tests.lab.stream import READY

pytestmark = pytest.mark.lab

ALICES = {address_of("alice", version) for version in (4, 6)}
OPTIONS = {"ike": {"tunnel-kilobytes": "6000", "min-tunnel-kilobytes": "100"}}
"""What is left of them, where they are renewed by volume, is a tenth or more: of a stream of RATE / 2 datagrams of 544
octets two seconds or more, which an emulated machine needs."""
REKEYS = 20
RATE = 1000
"Datagrams a second."
QUEUE = Path("/proc/sys/net/core/netdev_max_backlog")
PATIENCE = 60.0
"Seconds, for an emulated machine."


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    """With daemons whose keys are good for 6,000 kilobytes."""
    with long_queues(), Network() as net:
        build(net, OPTIONS)
        yield net


@contextmanager
def long_queues() -> Iterator[None]:
    """Between namespaces datagrams wait in one queue a processor, where a busy machine would lose them."""
    before = QUEUE.read_text()
    QUEUE.write_text("100000")
    yield
    QUEUE.write_text(before)


@dataclass(frozen=True)
class Course:
    """Whence a stream goes where."""

    sender: Host
    source: str
    receiver: Host
    destination: str


class Stream:
    """Numbered datagrams on a course, so many a second of so many octets; `sent` and `came` in the end."""

    def __init__(self, net: Network, course: Course, rate: int, octets: int) -> None:
        self._folder, self._name = net.folder, f"stream-{course.destination}"
        self._receiver = self._start("receive", course.receiver, course.destination)
        wait_until(lambda: READY in self._said("receive"), "a receiver")
        self._sender = self._start("send", course.sender, course.source, course.destination, str(rate), str(octets))

    def end_sending(self) -> None:
        assert stop(self._sender, PATIENCE) == 0
        self.sent = self._told("send")

    def end_receiving(self) -> None:
        stop(self._receiver)
        self.came = self._told("receive")

    def lost_nothing(self) -> bool:
        sent = self.sent["sent"]
        return self.came == {"received": sent, "different": sent, "highest": sent - 1, "missing": []}

    def __str__(self) -> str:
        sent, seconds = self.sent["sent"], self.sent["seconds"]
        return f"{sent} datagrams in {seconds:.1f} s, {sent / seconds:.0f} a second; {self.came}"

    def _start(self, role: str, host: Host, *arguments: str) -> subprocess.Popen[bytes]:
        return host.popen([PYTHON, "-m", "tests.lab.stream", role, *arguments], f"{self._name}.{role}", ENVIRONMENT)

    def _told(self, role: str) -> Any:
        return json.loads(self._said(role).splitlines()[-1])

    def _said(self, role: str) -> str:
        return (self._folder / f"{self._name}.{role}").read_text()


def lost_in_queues() -> int:
    """Datagrams that this machine's processors had no room for, on the way from namespace to namespace."""
    return sum(int(row.split()[1], 16) for row in Path("/proc/net/softnet_stat").read_text().splitlines())


@contextmanager
def nothing_is_lost(net: Network, courses: Sequence[Course], rate: int, octets: int, title: str) -> Iterator[None]:
    """While what is done inside goes on under streams: each datagram comes once, and on the Internet none is seen."""
    bobs = sorted({address for course in courses for address in (course.source, course.destination)} - ALICES)
    assert net["alice"].ping_each(bobs, wait=60) == [1] * len(bobs)
    gateways = net["sg-a"], net["sg-b"]
    errors, lost = [gateway.xfrm_errors() for gateway in gateways], lost_in_queues()
    with net.capture("internet", f"udp port 500 or host {' or host '.join(bobs)}") as tap:
        streams = [Stream(net, course, rate, octets) for course in courses]
        time.sleep(1)
        yield
        time.sleep(2)
        for stream in streams:
            stream.end_sending()
        time.sleep(3)
        for stream in streams:
            stream.end_receiving()
        seen = tap.end()
    told = (f"{title}: {'; '.join(map(str, streams))}; of XFRM's errors before {errors}, now "
            f"{[gateway.xfrm_errors() for gateway in gateways]}; {lost_in_queues() - lost} lost in queues")
    print(told)
    with (OUT / "rekey.txt").open("a") as file:
        file.write(f"{told}\n")
    assert all(stream.lost_nothing() for stream in streams), told
    assert [str(packet) for packet in seen if {*packet.flow} & {*bobs}] == []
    assert any(packet.is_isakmp for packet in seen)


def outbound(net: Network, bob: str) -> set[int]:
    """SPIs by which Alice's datagrams to this Bob may leave SG-A."""
    return set(net["sg-a"].sas(f"dst {ip_network(bob)}"))


def renewed(net: Network, bob: str, used: set[int]) -> set[int]:
    """The SPI of an SA that has taken the place of those."""
    wait_until(lambda: len(outbound(net, bob) - used) == len(outbound(net, bob)) == 1, "a new SA instead of the old")
    return outbound(net, bob)


@pytest.mark.conformance("C-3.2.6-04", "C-3.2.6-06", "C-3.4.2-09", "C-Abs-02")
@pytest.mark.parametrize("version, bob", [(4, SPARE_BOBS[-1]), (6, SPARE_BOB6)], ids=["IPv4", "IPv6"])
def test_a_thousand_datagrams_a_second_through_twenty_rekeys_lose_none(net: Network, version: int, bob: str) -> None:
    course = Course(net["alice"], address_of("alice", version), net["bob"], bob)
    with nothing_is_lost(net, [course], RATE, 60, f"20 rekeys in IPv{version}"):
        used = outbound(net, bob)
        for _ in range(REKEYS):
            expire_softly(net["sg-a"], address_of("sg-b", version), next(iter(outbound(net, bob))))
            used |= renewed(net, bob, used)
    assert len(used) == REKEYS + 1


@pytest.mark.conformance("C-3.2.6-04")
def test_who_began_the_tunnel_renews_it_when_its_peer_has_nearly_sent_all_that_the_keys_are_good_for(
        net: Network) -> None:
    """SG-B has only responded: it leaves it to SG-A, where nothing but the inbound SA counts what Bob sends."""
    bobs = {4: SPARE_BOBS[-2], 6: address_of("bob", 6)}
    courses = [Course(net["bob"], bob, net["alice"], address_of("alice", version)) for version, bob in bobs.items()]
    with nothing_is_lost(net, courses, RATE // 2, 544, "a rekey by volume in each family"):
        used = {bob: outbound(net, bob) for bob in bobs.values()}
        assert all(renewed(net, bob, spis) for bob, spis in used.items())
