"""oegw on SG-A and other people's daemons on SG-B: IKEv1 with every suite that both have, in both roles.

The peer's side is a static tunnel with one suite; ours is plain opportunistic encryption, with records in the DNS.
`make check-lab` tries a selection; `make interop` all of it, and writes docs/interop.md.
"""

import itertools
import os
import time
from collections.abc import Callable, Iterator

import pytest

from oesvc.oe.paths import CROSSING
from tests.lab.peers.expire import expire_softly
from tests.lab.peers.libreswan import Libreswan
from tests.lab.peers.peer import OURS, THEIRS, Peer
from tests.lab.peers.site import Site, assert_moves, in_clear, main_modes, reaches, site_with, told, wait_until
from tests.lab.peers.strongswan import StrongSwan
from tests.lab.peers.suites import SUITES, Suite

pytestmark = pytest.mark.lab

OPTIONS = {
    # All algorithms; time enough for the largest groups on an emulated machine; keying channels that end soon.
    "ike": {"profile": "rfc4322", "keying-time": "60", "min-channel-lifetime": "30"},
    # A tunnel that is not used is deleted soon.
    "lifespans": {"first": "30", "used": "20", "in-use-within": "10"},
}
PEERS: tuple[type[Peer], ...] = (StrongSwan, Libreswan)
FULL = os.environ.get("OEGW_INTEROP") == "full"
CHOSEN = {"initiator": (0,), "responder": (11,)}
"Places in SUITES that `make check-lab` tries, by our role."


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with site_with(OPTIONS) as site:
        yield site


def cases() -> Iterator[object]:
    for kind, role in itertools.product(PEERS, CHOSEN):
        for place, suite in enumerate(SUITES):
            if (FULL or place in CHOSEN[role]) and suite.phase1.group not in kind.lacks:
                yield pytest.param(kind, role, suite, id=f"{kind.__name__}-{role}-{suite.id}")


@pytest.mark.parametrize(("kind", "role", "suite"), cases())
def test_alice_reaches_bob_by_every_suite(site: Site, kind: type[Peer], role: str, suite: Suite) -> None:
    """A tunnel, new keys for it begun by either side, and its end."""
    peer, alice, bob = site.peer(kind), site.net["alice"], next(site.bobs)
    peer.configure(suite, bob)
    with (told(peer, role, suite) as row,
          site.net.capture("internet", f"host {THEIRS} or net 192.2.0.0/24") as tap):
        if role == "responder":
            peer.initiate()
        reaches(alice, bob)
        stands = time.time()
        assert_moves(site, bob)
        assert main_modes(tap.packets())[-1] == (OURS if role == "initiator" else THEIRS)
        if role == "initiator":
            rekeyed(site, bob, lambda: expire_softly(site.net["sg-a"], THEIRS, max(site.outbound(bob))))
            row["rekey"] = "oegw"
        if role == "responder" or FULL:
            if role == "initiator":
                # Sooner, it would be an initiation that crossed ours; of these ours, with the lower address, stays.
                # Meanwhile the tunnel is used, or it would be deleted.
                assert alice.ping(bob, round(CROSSING), interval=1) == CROSSING
            rekeyed(site, bob, peer.rekey_tunnel)
            row["rekey"] = ", ".join(filter(None, (row["rekey"], peer.name)))
        peer.delete()
        wait_until(site.no_sas, "no SAs")
        row["delete"] = peer.name
    assert in_clear(tap.packets(), stands) == []


@pytest.mark.parametrize("kind", PEERS)
def test_peer_begins_a_new_keying_channel_and_we_delete_what_is_not_used(site: Site, kind: type[Peer]) -> None:
    peer, bob = site.peer(kind), next(site.bobs)
    peer.configure(SUITES[3], bob, channel_seconds=60)
    with (told(peer, "initiator", SUITES[3]) as row,
          site.net.capture("internet", f"host {THEIRS} or net 192.2.0.0/24") as tap):
        reaches(site.net["alice"], bob)
        stands = time.time()
        wait_until(lambda: site.net["alice"].ping(bob) == 1 and main_modes(tap.packets())[-1] == THEIRS,
                   "a main mode begun by the peer")
        assert_moves(site, bob)
        row["rekey"] = f"{peer.name} (phase 1)"
        wait_until(site.no_sas, "no SAs")
        row["delete"] = "oegw"
    assert in_clear(tap.packets(), stands) == []
    peer.delete()


def rekeyed(site: Site, bob: str, begin: Callable[[], None]) -> None:
    before = site.outbound(bob)
    begin()
    wait_until(lambda: bool(site.outbound(bob) - before), "a new SA")
    # strongSwan as responder has its SAs in place only some time after it has read quick mode 3.
    reaches(site.net["alice"], bob)
    assert_moves(site, bob)
