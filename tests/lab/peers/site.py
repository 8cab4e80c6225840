"""The network with oegw on SG-A and a peer on SG-B, and what is asked of the two together."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.lab.capture import Packet
from tests.lab.gateway import GATEWAYS, Gateway
from tests.lab.names import SPARE_BOBS, canonical_tree, serve_names
from tests.lab.network import OUT, Host, Network
from tests.lab.peers.peer import ALICE, PATIENCE, Peer
from tests.lab.peers.suites import Suite


@dataclass
class Site:
    """oegw runs; of the peers, one at a time."""

    net: Network
    a: Gateway
    peers: dict[type[Peer], Peer] = field(default_factory=dict)
    bobs: Iterator[str] = field(default_factory=lambda: iter(SPARE_BOBS))
    "Destinations that no test has used."

    def peer(self, kind: type[Peer]) -> Peer:
        """Running, and no other."""
        wanted = self.peers.get(kind) or self.peers.setdefault(kind, kind(self.net))
        if not wanted.running:
            for other in self.peers.values():
                other.stop()
            wanted.start()
        return wanted

    @property
    def gateways(self) -> tuple[Host, Host]:
        """Ours and the peer's."""
        return self.net["sg-a"], self.net["sg-b"]

    def outbound(self, bob: str) -> set[int]:
        """SPIs by which Alice's datagrams to Bob may leave SG-A."""
        return set(self.net["sg-a"].sas(f"dst {bob}/32"))

    def no_sas(self) -> bool:
        return not any(gateway.sas() for gateway in self.gateways)


@contextmanager
def site_with(options: Mapping[str, Mapping[str, str]],
              policies: Mapping[str, Iterable[str]] | None = None) -> Iterator[Site]:
    """oegw with these options and policy files, and the default ones."""
    with Network() as net:
        serve_names(net, canonical_tree(), resolvers=["sg-a"])
        net["bob"].run(["ip", "-batch", "-"], stdin="\n".join(f"address add {bob}/24 dev eth0" for bob in SPARE_BOBS))
        site = Site(net, Gateway(net, GATEWAYS[0], options, policies))
        site.a.start()
        site.a.wait(300)
        yield site


def wait_until(so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 2 * PATIENCE
    while not so():
        assert time.monotonic() < deadline, f"not within {2 * PATIENCE} s: {what}"
        time.sleep(0.2)


@contextmanager
def told(peer: Peer, role: str, suite: Suite) -> Iterator[dict[str, str]]:
    """A row of docs/interop.md: each thing that was shown is entered when it is."""
    row = {"peer": peer.title, "role": role, "suite": str(suite), "rekey": "", "delete": "", "liveness": "",
           "result": "fails"}
    try:
        yield row
        row["result"] = "passes"
    except BaseException:
        peer.kill()  # the next test shall not find a keying channel that is not its own
        raise
    finally:
        with (OUT / "interop.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")


def reaches(alice: Host, bob: str) -> None:
    """Bob answers, if not the first time: a peer may still be installing its SAs when his first answer comes."""
    wait_until(lambda: alice.ping(bob, wait=5) == 1, "an answer")


def assert_moves(site: Site, bob: str) -> None:
    """The counters of both gateways' SAs count what Alice and Bob say to each other."""
    before = [gateway.sas() for gateway in site.gateways]
    assert site.net["alice"].ping(bob, 2) == 2
    for gateway, earlier in zip(site.gateways, before, strict=True):
        now = gateway.sas()
        grown = [spi for spi, octets in now.items() if octets > earlier.get(spi, 0)]
        assert len(grown) == 2, f"{gateway.name}: {earlier} has become {now}"


def main_modes(packets: list[Packet]) -> list[str]:
    """Who began each main mode, in order."""
    begun = {packet.payload[:8]: packet.source for packet in packets
             if packet.is_isakmp and packet.payload[8:16] == bytes(8)}
    return list(begun.values())


def in_clear(packets: list[Packet], stands: float) -> list[str]:
    """Of Alice's datagrams, and of Bob's since the tunnel stands at the peer, too."""
    return [str(packet) for packet in packets
            if packet.source == ALICE or (packet.destination == ALICE and packet.time > stands)]
