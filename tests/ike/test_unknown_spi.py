"""SPIs that one side has forgotten: told and heard (RFC 4322 section 3.2.6)."""

import pytest

from oesvc.ike.events import SpiRefused, TunnelDeleted, TunnelUp
from oesvc.ike.v1.config import EngineConfig
from oesvc.ike.v1.engine import IkeEngine
from oesvc.ipsec.flow import Flow
from tests.ike.nat_box import OUTSIDE, behind_nat
from tests.ike.pair import ALICE, ALICE_TO_BOB, BOB, SG_A, SG_B, Pair, entropy, faithful, private_key

OTHER = Flow(ALICE, SG_B)


def forgotten(flow):
    """SG-B has deleted the newest of A's tunnels, and none of its deletes arrived; the SPI that SG-A sends by."""
    pair = Pair()
    for each in (Flow(ALICE, BOB), flow):
        pair.initiate(each)
        pair.run()
    spi = max(pair.b.sas.items())[1][0].spi
    pair.fault = lambda number, datagram: [] if datagram.peer.address == SG_B else faithful(number, datagram)
    pair.do(pair.b, pair.b.engine.delete_tunnel, pair.b.heard(TunnelUp)[-1].tunnel)
    pair.run(35.0)
    pair.fault = faithful
    assert pair.a.heard(TunnelDeleted) == []
    return pair, spi


@pytest.mark.conformance("C-3.2.6-07")
def test_under_a_keying_channel_the_peer_is_told_by_a_delete_which_ends_that_tunnel_alone():
    pair, spi = forgotten(OTHER)
    pair.do(pair.b, pair.b.engine.disown, SG_B, SG_A, spi, None)
    pair.run(2.0)
    assert [event.flow for event in pair.a.heard(TunnelDeleted)] == [OTHER]
    assert pair.a.heard(SpiRefused) == []


def test_one_who_has_nothing_left_says_it_in_clear_and_that_ends_nothing():
    pair, spi = forgotten(OTHER)
    fresh = Pair(seed="fresh").b
    pair.do(fresh, fresh.engine.disown, SG_B, SG_A, spi, None)
    pair.run(2.0)
    (told,) = pair.a.heard(SpiRefused)
    assert (told.flow, told.peer) == (OTHER, SG_B)
    assert "nothing vouches for it" in told.detail and f"{spi:#010x}" in told.detail
    assert len(pair.capture[-1].data) + 28 <= 76, "no more than the shortest ESP that can have caused it"
    assert pair.a.heard(TunnelDeleted) == []


def test_who_is_shutting_down_disowns_nothing():
    pair, spi = forgotten(OTHER)
    pair.do(pair.b, pair.b.engine.close)
    before = len(pair.capture)
    pair.do(pair.b, pair.b.engine.disown, SG_B, SG_A, spi, None)
    assert len(pair.capture) == before


def test_through_a_nat_the_peer_hears_it_where_its_esp_came_from():
    pair, box = behind_nat()
    pair.initiate()
    pair.run()
    spi = pair.b.sas[pair.b.heard(TunnelUp)[0].tunnel][0].spi
    pair.b.engine = IkeEngine(EngineConfig(private_key("b")), entropy("another life"))
    port = next(outside.port for inside, outside in box.mappings.items() if inside.port == 4500)
    pair.do(pair.b, pair.b.engine.disown, SG_B, OUTSIDE, spi, port)
    pair.run(1.0)
    assert [event.flow for event in pair.a.heard(SpiRefused)] == [ALICE_TO_BOB]
