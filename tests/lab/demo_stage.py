"""What the acts of `make demo-deb` play on: the network, two booted sites, pings that go on while something happens."""

import re
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tests.lab.capture import Packet
from tests.lab.demo import ALICE, BOB, CAROL, FRANK, PINGS, Story, indented
from tests.lab.network import Network
from tests.lab.site import Site, Step


@dataclass(frozen=True)
class Stage:
    """`typed` and `records`: what has been typed at each site, and what is published."""

    story: Story
    net: Network
    a: Site
    b: Site
    typed: dict[str, list[Step]]
    records: list[str]

    @property
    def sites(self) -> tuple[Site, Site]:
        return self.a, self.b

    def tell_what_failed(self) -> None:
        for site in self.sites:
            print(f"\n--- {site.row.host}: what failed, and its journal\n{indented(site.failed())}", flush=True)

    def reach_bob(self) -> int:
        """How many of Alice's PINGS Bob answers; the first alone: of several that wait not all are kept (3.1.1)."""
        return sum(self.net["alice"].ping(BOB, count, wait=30) for count in (1, PINGS - 1))

    def while_pinging(self, name: str, happens: Callable[[], object]) -> "Seen":
        """Alice pings Bob, Carol and Frank five times a second while it `happens`, watched on the Internet."""
        with self.net.capture("internet", name=name) as tap:
            pings = {to: self.net["alice"].popen(["ping", "-n", "-i", "0.2", to], f"{name}-{to}.log")
                     for to in (BOB, CAROL, FRANK)}
            time.sleep(2)
            began = time.time()
            happens()
            for ping in pings.values():
                ping.send_signal(signal.SIGINT)
                ping.wait(30)
            packets = tap.end()
        counts = {to: _counts((self.net.folder / f"{name}-{to}.log").read_text()) for to in pings}
        return Seen(packets, counts, began)


@dataclass(frozen=True)
class Seen:
    """`counts`: echo requests that Alice sent to each, and answers that she got. `began`: UNIX seconds."""

    packets: list[Packet]
    counts: dict[str, tuple[int, int]]
    began: float

    def tell(self, story: Story, away: tuple[float, float]) -> None:
        """`away`: between which UNIX seconds there was no daemon at SG-A that did anything."""
        print(f"    for {away[1] - away[0]:.0f} s there was no daemon; five pings a second meanwhile:")
        for who, address in (("Bob, private", BOB), ("Frank, private, without gateway", FRANK),
                             ("Carol, permissive, without gateway", CAROL)):
            sent, answered = self.counts[address]
            print(f"    {sent:5} to {who}: {answered} answered; {self._left_in_clear(address)} left in clear")
        story.claim("not one datagram from Alice to Bob or Frank left in clear",
                    self._left_in_clear(BOB) == self._left_in_clear(FRANK) == 0)
        during = [packet for packet in self.packets if away[0] < packet.time < away[1]]
        story.claim("without a daemon Carol went on to be answered",
                    any(packet.flow == (CAROL, ALICE) for packet in during))

    def _left_in_clear(self, destination: str) -> int:
        # What comes back is by the class that it has on the other side, where Bob's gateway is permissive.
        return sum(packet.flow == (ALICE, destination) for packet in self.packets)


def in_clear(packets: Iterable[Packet], address: str) -> int:
    return sum(address in packet.flow for packet in packets)


def _counts(said: str) -> tuple[int, int]:
    """Of the last lines of ping."""
    found = re.search(r"(\d+) packets transmitted, (\d+) received", said)
    assert found, said[-500:]
    return int(found[1]), int(found[2])
