"""oegw on SG-A and other people's daemons on SG-B: IKEv1 with every suite that both have, in both roles.

The peer's side is a static tunnel with one suite; ours is plain opportunistic encryption, with records in the DNS.
`make check-lab` tries a selection; `make interop` all of it, and writes docs/interop.md.
"""

import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from oesvc.oe.connection import CROSSING
from tests.lab.capture import Packet
from tests.lab.gateway import GATEWAYS, Gateway
from tests.lab.names import SPARE_BOBS, canonical_tree, serve_names
from tests.lab.network import OUT, Host, Network
from tests.lab.peers.expire import expire_softly
from tests.lab.peers.libreswan import Libreswan
from tests.lab.peers.peer import ALICE, OURS, PATIENCE, THEIRS, Peer
from tests.lab.peers.strongswan import StrongSwan
from tests.lab.peers.suites import SUITES, Suite

pytestmark = pytest.mark.lab

OPTIONS = {
    # All algorithms; time enough for the largest groups on an emulated machine; keying channels that end soon.
    "ike": {"profile": "rfc4322", "keying-time": "60", "min-channel-lifetime": "30"},
    # A tunnel that is not used is deleted soon.
    "lifespans": {"first": "30", "used": "20", "in-use-within": "5"},
}
PEERS: tuple[type[Peer], ...] = (StrongSwan, Libreswan)
FULL = os.environ.get("OEGW_INTEROP") == "full"
CHOSEN = {"initiator": (0,), "responder": (11,)}
"Places in SUITES that `make check-lab` tries, by our role."
_fresh = iter(SPARE_BOBS)


@dataclass
class Site:
    """The network with oegw on SG-A."""

    net: Network
    a: Gateway
    peers: dict[type[Peer], Peer] = field(default_factory=dict)

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


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Network() as net:
        serve_names(net, canonical_tree(), resolvers=["sg-a"])
        net["bob"].run(["ip", "-batch", "-"], stdin="\n".join(f"address add {bob}/24 dev eth0" for bob in SPARE_BOBS))
        site = Site(net, Gateway(net, GATEWAYS[0], OPTIONS))
        site.a.start()
        site.a.wait(300)
        yield site


def cases() -> Iterator[object]:
    for kind, role in itertools.product(PEERS, CHOSEN):
        for place, suite in enumerate(SUITES):
            if (FULL or place in CHOSEN[role]) and suite.phase1.group not in kind.lacks:
                yield pytest.param(kind, role, suite, id=f"{kind.__name__}-{role}-{suite.id}")


def wait_until(so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 2 * PATIENCE
    while not so():
        assert time.monotonic() < deadline, f"not within {2 * PATIENCE} s: {what}"
        time.sleep(0.2)


@contextmanager
def told(**row: str) -> Iterator[dict[str, str]]:
    """A row of docs/interop.md: each thing that was shown is entered when it is."""
    row["result"] = "fails"
    try:
        yield row
        row["result"] = "passes"
    finally:
        with (OUT / "interop.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")


@pytest.mark.parametrize(("kind", "role", "suite"), cases())
def test_alice_reaches_bob_by_every_suite(site: Site, kind: type[Peer], role: str, suite: Suite) -> None:
    """A tunnel, new keys for it begun by either side, and its end."""
    peer, alice, bob = site.peer(kind), site.net["alice"], next(_fresh)
    peer.configure(suite, bob)
    with (told(peer=kind.title, role=role, suite=str(suite), rekey="", delete="") as row,
          site.net.capture("internet", f"host {THEIRS} or net 192.2.0.0/24") as tap):
        if role == "responder":
            peer.initiate()
        reaches(alice, bob)
        stands = time.time()
        assert_moves(site, bob)
        assert begun_by(tap.packets()) == (OURS if role == "initiator" else THEIRS)
        if role == "initiator":
            rekeyed(site, bob, lambda: expire_softly(site.net["sg-a"], THEIRS, max(site.outbound(bob))))
            row["rekey"] = "oegw"
        if role == "responder" or FULL:
            if role == "initiator":
                # Sooner, it would be an initiation that crossed ours; of these ours, with the lower address, stays.
                time.sleep(CROSSING)
            rekeyed(site, bob, peer.rekey_tunnel)
            row["rekey"] = ", ".join(filter(None, (row["rekey"], peer.name)))
        peer.delete()
        wait_until(lambda: not any(gateway.sas() for gateway in site.gateways), "no SAs")
        row["delete"] = peer.name
    assert in_clear(tap.packets(), stands) == []


@pytest.mark.parametrize("kind", PEERS)
def test_peer_begins_a_new_keying_channel_and_we_delete_what_is_not_used(site: Site, kind: type[Peer]) -> None:
    peer, bob = site.peer(kind), next(_fresh)
    peer.configure(SUITES[3], bob, channel_seconds=60)
    with (told(peer=kind.title, role="initiator", suite=str(SUITES[3]), rekey="", delete="") as row,
          site.net.capture("internet", f"host {THEIRS} or net 192.2.0.0/24") as tap):
        reaches(site.net["alice"], bob)
        stands = time.time()
        wait_until(lambda: site.net["alice"].ping(bob) == 1 and begun_by(tap.packets()) == THEIRS,
                   "a main mode begun by the peer")
        assert_moves(site, bob)
        row["rekey"] = f"{peer.name} (phase 1)"
        wait_until(lambda: not any(gateway.sas() for gateway in site.gateways), "no SAs")
        row["delete"] = "oegw"
    assert in_clear(tap.packets(), stands) == []
    peer.delete()


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


def rekeyed(site: Site, bob: str, begin: Callable[[], None]) -> None:
    before = site.outbound(bob)
    begin()
    wait_until(lambda: bool(site.outbound(bob) - before), "a new SA")
    assert_moves(site, bob)


def begun_by(packets: list[Packet]) -> str:
    """Who sent the first message of the newest main mode."""
    return [packet.source for packet in packets if packet.is_isakmp and packet.payload[8:16] == bytes(8)][-1]


def in_clear(packets: list[Packet], stands: float) -> list[str]:
    """Of Alice's datagrams, and of Bob's since the tunnel stands at the peer, too."""
    return [str(packet) for packet in packets
            if packet.source == ALICE or (packet.destination == ALICE and packet.time > stands)]
