"""Thirty gateways for a day on a simulated clock, with all that can go wrong; and the laws see what is broken."""

import pytest

from oesvc.ike import events as ike
from oesvc.ipsec.flow import Flow
from oesvc.ipsec.policy import ForwardingPolicy
from oesvc.oe import events as oe
from oesvc.oe.classes import ClassTable, ConnectionClass
from oesvc.oe.machine import State
from simulate.kernel import Policy
from simulate.laws import BrokenLawError
from simulate.report import report
from simulate.traffic import Habit, Stream
from simulate.world import FAULTS, Size, World

SMALL = Size(gateways=30, days=1.0, flows=1.7, calm_days=2.0)
TINY = Size(gateways=6, days=0.25, flows=5.0, calm_days=0.3)


@pytest.mark.conformance("C-Abs-01", "C-9.1-01")
@pytest.mark.parametrize("seed", [1, 2])
def test_a_day_of_thirty_gateways_breaks_no_law(seed):
    """Every law holds at every step, and 16 hours after the last datagram nothing is left of anything."""
    world = World(seed, SMALL)
    world.run()
    tally = world.tally
    assert set(tally.faults) == {kind for kind, _ in FAULTS}
    assert all(len(delays) >= 10 for delays in tally.delays.values()), "every outcome was reached"
    assert min(tally.told[what] for what in (oe.TunnelNegotiated, oe.FoundInUse, oe.FoundIdle, oe.PeerDeleted)) >= 10
    assert tally.told[oe.SoftLifetimeReached] > 0 and tally.told[oe.LookUpFailed] > 0
    assert tally.keying[ike.DatagramRefused] > 0 and world.network.counts["lost"] > 0
    assert min(world.laws.checked.values()) > 0
    assert "flows decided" in report(world)


def test_same_seed_is_the_same_world():
    reports = []
    for _ in range(2):
        world = World(7, TINY)
        world.run()
        reports.append(report(world))
    assert reports[0] == reports[1]
    other = World(8, TINY)
    other.run()
    assert report(other) != reports[0]


def keyed_world():
    """Two gateways, and a flow between them that is encrypted: the world, a process, its connection."""
    world = World(3, Size(gateways=2, days=1.0, flows=0.0, calm_days=1000.0, loss=0.0))
    for gateway in world.gateways:
        gateway.classes = gateway.kernel.classes = ClassTable([], ConnectionClass.OE_PERMISSIVE)
        world.published[gateway] = "as it should be"
    world.open()
    here, there = world.gateways
    Stream(world, world.clock, Flow(here.address, there.address), Habit(3600.0, 10.0, one_way=False), 3600.0)
    world.clock.run(30.0, world.laws.step)
    (connection,) = here.process.daemon.connections
    assert connection.state is State.KEYED
    return world, here.process, connection


def passes_in_clear(process, connection):
    process.gateway.kernel.spd[connection.flow] = Policy(ForwardingPolicy.PASS)


def never_clear_passes(process, connection):
    process.gateway.kernel.spd[connection.flow] = Policy(ForwardingPolicy.PASS)
    process.gateway.classes = ClassTable([], ConnectionClass.OE_PARANOID)


def set_and_spd_differ(process, connection):
    process.gateway.kernel.known.discard(connection.flow)


def sa_has_no_tunnel(process, connection):
    spi = next(iter(process.gateway.kernel.outbound[connection.flow]))
    del process.daemon.tunnels._by_spi[connection.flow, spi]


def tunnel_is_forgotten(process, connection):
    process.daemon.tunnels.end(connection.tunnel)


def lifespan_is_missed(process, connection):
    connection.lifespan_ends = process.clock.seconds() - 60.0


def too_many_flows(process, connection):
    process.daemon.connections._max_flows = -1


def test_law_sees_that_a_peer_has_lost_its_keys_for_good():
    world, process, connection = keyed_world()
    peer = world.by_address[connection.gateway]
    peer.kernel.plane.unknown_spi = lambda ends, spi: None
    (inbound,) = peer.kernel.inbound
    del peer.kernel.inbound[inbound]
    (back,) = peer.process.daemon.connections
    back.lifespan_ends = 1e9  # else the peer would close the tunnel, for nothing comes by it
    with pytest.raises(BrokenLawError, match=r"it is sent by 0x.*, which nobody at .* has"):
        world.clock.run(400.0, lambda: world.laws._check_other_ends(process))


@pytest.mark.parametrize("breaks, what", [
    (passes_in_clear, "passes in clear while it has a tunnel"),
    (never_clear_passes, "it is never to go in clear"),
    (set_and_spd_differ, "the set of known flows does not agree"),
    (sa_has_no_tunnel, "belongs to no tunnel"),
    (tunnel_is_forgotten, "belongs to no tunnel"),
    (lifespan_is_missed, "its lifespan ended"),
    (too_many_flows, "connections, more than 0"),
])
def test_law_sees_what_is_broken(breaks, what):
    world, process, connection = keyed_world()
    world.laws.check_gateway(process.gateway)
    breaks(process, connection)
    with pytest.raises(BrokenLawError, match=what) as broken:
        world.laws.check_gateway(process.gateway)
    assert "seed 3" in str(broken.value)
