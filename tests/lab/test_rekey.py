"""New keys under way: a stream of datagrams loses none and shows none in clear, whatever makes the keys end."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.lab.conftest import build
from tests.lab.gateway import ENVIRONMENT, PYTHON
from tests.lab.names import SPARE_BOBS
from tests.lab.network import OUT, Host, Network, address_of, stop
from tests.lab.peers.expire import expire_softly
from tests.lab.stream import READY

pytestmark = pytest.mark.lab

ALICE, SG_A, SG_B = (address_of(name) for name in ("alice", "sg-a", "sg-b"))
OPTIONS = {"ike": {"tunnel-kilobytes": "3000", "min-tunnel-kilobytes": "100"}}
REKEYS = 20
RATE = 1000
"Datagrams a second."
PATIENCE = 60.0
"Seconds, for an emulated machine."


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    """With daemons whose keys are good for 3,000 kilobytes."""
    with Network() as net:
        build(net, OPTIONS)
        yield net


class Stream:
    """Numbered datagrams from one host to another, RATE a second; `sent` and `came` in the end."""

    def __init__(self, net: Network, sender: tuple[Host, str], receiver: tuple[Host, str], octets: int) -> None:
        self._folder, self._name = net.folder, f"stream-{receiver[1]}"
        self._receiver = self._start("receive", receiver[0], receiver[1])
        wait_until(lambda: READY in self._said("receive"), "a receiver")
        self._sender = self._start("send", sender[0], sender[1], receiver[1], str(RATE), str(octets))

    def end(self) -> None:
        stop(self._sender)
        time.sleep(3)
        stop(self._receiver)
        self.sent, self.came = (json.loads(self._said(role).splitlines()[-1]) for role in ("send", "receive"))

    def _start(self, role: str, host: Host, *arguments: str):
        return host.popen([PYTHON, "-m", "tests.lab.stream", role, *arguments], f"{self._name}.{role}", ENVIRONMENT)

    def _said(self, role: str) -> str:
        return (self._folder / f"{self._name}.{role}").read_text()


def wait_until(so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not so():
        assert time.monotonic() < deadline, f"not within {PATIENCE:.0f} s: {what}"
        time.sleep(0.1)


@contextmanager
def nothing_is_lost(net: Network, sender: tuple[Host, str], receiver: tuple[Host, str], octets: int,
                    title: str) -> Iterator[None]:
    """While what is done inside goes on under a stream: each datagram comes once, and on the Internet none is seen."""
    bob = next(address for _, address in (sender, receiver) if address != ALICE)
    assert net["alice"].ping(bob, wait=60) == 1
    errors = [net[gateway].xfrm_errors() for gateway in ("sg-a", "sg-b")]
    with net.capture("internet", f"host {bob} or udp port 500") as tap:
        stream = Stream(net, sender, receiver, octets)
        time.sleep(1)
        yield
        time.sleep(2)
        stream.end()
        seen = tap.end()
    told = (f"{title}: {stream.sent['sent']} datagrams in {stream.sent['seconds']:.1f} s, "
            f"{stream.sent['sent'] / stream.sent['seconds']:.0f} a second; {stream.came}; of XFRM's errors before "
            f"{errors}, now {[net[gateway].xfrm_errors() for gateway in ('sg-a', 'sg-b')]}")
    print(told)
    with (OUT / "rekey.txt").open("a") as file:
        file.write(f"{told}\n")
    sent = stream.sent["sent"]
    assert stream.came == {"received": sent, "different": sent, "highest": sent - 1, "missing": []}, told
    assert [str(packet) for packet in seen if bob in packet.flow] == [] and any(packet.is_isakmp for packet in seen)


def outbound(net: Network, bob: str) -> set[int]:
    """SPIs by which Alice's datagrams to this Bob may leave SG-A."""
    return set(net["sg-a"].sas(f"dst {bob}/32"))


def renewed(net: Network, bob: str, used: set[int]) -> set[int]:
    """The SPI of an SA that has taken the place of those."""
    wait_until(lambda: len(outbound(net, bob) - used) == len(outbound(net, bob)) == 1, "a new SA instead of the old")
    return outbound(net, bob)


@pytest.mark.conformance("C-3.2.6-04", "C-3.2.6-06", "C-3.4.2-09", "C-Abs-02")
def test_a_thousand_datagrams_a_second_through_twenty_rekeys_lose_none(net: Network) -> None:
    bob = SPARE_BOBS[-1]
    with nothing_is_lost(net, (net["alice"], ALICE), (net["bob"], bob), 60, "20 rekeys"):
        used = outbound(net, bob)
        for _ in range(REKEYS):
            expire_softly(net["sg-a"], SG_B, next(iter(outbound(net, bob))))
            used |= renewed(net, bob, used)
    assert len(used) == REKEYS + 1


@pytest.mark.conformance("C-3.2.6-04")
def test_who_began_the_tunnel_renews_it_when_its_peer_has_nearly_sent_all_that_the_keys_are_good_for(
        net: Network) -> None:
    """SG-B has only responded: it leaves it to SG-A, where nothing but the inbound SA counts what Bob sends."""
    bob = SPARE_BOBS[-2]
    with nothing_is_lost(net, (net["bob"], bob), (net["alice"], ALICE), 272, "2 rekeys by volume"):
        for _ in range(2):
            renewed(net, bob, outbound(net, bob))
