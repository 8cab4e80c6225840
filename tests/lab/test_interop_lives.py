"""Keying channels that oegw replaces, and the dead noticed (RFC 3706), with other people's daemons on SG-B."""

import time
from collections.abc import Iterator

import pytest

from oesvc.ike.v1.constants import ExchangeType
from tests.lab.capture import Packet
from tests.lab.peers.expire import expire_softly
from tests.lab.peers.libreswan import Libreswan
from tests.lab.peers.peer import DEAD, OURS, THEIRS, Peer
from tests.lab.peers.site import Site, assert_moves, in_clear, main_modes, reaches, site_with, told, wait_until
from tests.lab.peers.strongswan import StrongSwan
from tests.lab.peers.suites import SUITES

pytestmark = [pytest.mark.lab, pytest.mark.parametrize("kind", [StrongSwan, Libreswan])]

SUITE = SUITES[3]
OPTIONS = {"ike": {"keying-time": "60", "channel-lifetime": "60", "dpd-idle": "5"}}


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with site_with(OPTIONS) as site:
        yield site


def informed(packets: list[Packet], source: str) -> int:
    """How many informational messages came from there."""
    return sum(packet.is_isakmp and packet.source == source and packet.payload[18] == ExchangeType.INFORMATIONAL
               for packet in packets)


def test_we_begin_a_new_keying_channel_and_the_peer_answers_that_it_is_there(site: Site, kind: type[Peer]) -> None:
    """Nothing is said by IKE meanwhile, but that we ask every five seconds; without answers the tunnel would end."""
    peer, bob = site.peer(kind), next(site.bobs)
    peer.configure(SUITE, bob)
    with (told(peer, "initiator", SUITE) as row,
          site.net.capture("internet", f"host {THEIRS} or net 192.2.0.0/24") as tap):
        reaches(site.net["alice"], bob)
        stands, before = time.time(), site.outbound(bob)
        wait_until(lambda: site.net["alice"].ping(bob) == 1 and OURS in main_modes(tap.packets())[1:],
                   "another main mode of ours")
        assert informed(tap.packets(), THEIRS) >= 3
        assert site.outbound(bob) == before
        row |= {"liveness": "oegw", "rekey": "oegw (phase 1)"}
        expire_softly(site.net["sg-a"], THEIRS, max(before))
        wait_until(lambda: bool(site.outbound(bob) - before), "a new SA, by the new channel")
        assert_moves(site, bob)
        peer.delete()
        wait_until(site.no_sas, "no SAs")
        row["delete"] = peer.name
    assert in_clear(tap.packets(), stands) == []


def test_peer_learns_that_we_are_there_and_we_learn_that_it_is_not(site: Site, kind: type[Peer]) -> None:
    peer, bob, alice = site.peer(kind), next(site.bobs), site.net["alice"]
    peer.configure(SUITE, bob, silence=2)
    with (told(peer, "initiator", SUITE) as row,
          site.net.capture("internet", f"host {THEIRS} or net 192.2.0.0/24") as tap):
        reaches(alice, bob)
        before = [set(gateway.sas()) for gateway in site.gateways]
        time.sleep(DEAD + 5)
        assert min(informed(tap.packets(), end) for end in (OURS, THEIRS)) >= 3
        assert [set(gateway.sas()) for gateway in site.gateways] == before
        peer.kill()
        wait_until(lambda: not site.net["sg-a"].sas(), "no SA with a peer that is dead")
        site.peer(kind).configure(SUITE, bob)
        reaches(alice, bob)
        assert_moves(site, bob)
        row["liveness"] = f"{peer.name}, oegw"
        peer.delete()
        wait_until(site.no_sas, "no SAs")
