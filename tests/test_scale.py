"""What one flow among very many takes; bench/scale measures the same, and tunnels, on a kernel."""

import gc
import tracemalloc
from ipaddress import ip_address

from twisted.internet.task import Clock

from oesvc.daemon import KeyingDaemon
from oesvc.discovery import Discovery
from oesvc.journal import Journal
from oesvc.kernel.hold import Datagram
from oesvc.kernel.queue import read_flow
from oesvc.oe.aging import Lifespans
from oesvc.oe.authorization import DnssecPolicy
from oesvc.oe.connections import Connections
from oesvc.operator import report
from tests.fakes import FakeEngine, FakeResolver
from tests.kernel.test_service import Kernel, Plane
from tests.oe.parts import PERMISSIVE
from tests.oe.test_connections import table

FLOWS = 2500
CLIENTS = 20
MOST = 1000
"Octets."


class Nothing(list):
    """A diary that nobody reads."""

    def append(self, entry):
        pass

    def __iadd__(self, entries):
        return self


class World:
    """A daemon with the real plane, on a kernel that does at once what it is asked for."""

    def __init__(self):
        kernel = Kernel()
        kernel.diary = Nothing()
        self.plane, clock = Plane(kernel=kernel), Clock()
        self.daemon = KeyingDaemon(
            connections=Connections(table(default=PERMISSIVE), Lifespans()),
            discovery=Discovery(FakeResolver(Nothing()), DnssecPolicy.PREFER, lambda: 0.5), plane=self.plane,
            engine=FakeEngine(Nothing()), journal=Journal(), clock=clock, unix_time=clock.seconds, send=print,
            local_address=lambda peer: peer, is_ours=lambda address: True)
        self.plane._listener = self.daemon
        self.plane.released = Nothing()

    def begin(self, numbers):
        """Flows of some clients, each with hosts that have no record."""
        for number in numbers:
            header = bytearray(20)
            header[0] = 0x45
            header[12:16] = (ip_address("192.1.0.1") + number % CLIENTS).packed
            header[16:20] = (ip_address("198.18.0.0") + number // CLIENTS).packed
            self.plane._datagram_arrived(Datagram(number, read_flow(bytes(header)), 0, 0))


def test_a_flow_takes_less_than_a_kilobyte_with_its_story_and_leaves_no_garbage():
    world = World()
    world.begin(range(FLOWS))
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        gc.disable()
        world.begin(range(FLOWS, 2 * FLOWS))
        garbage = gc.collect()
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        gc.enable()
        tracemalloc.stop()
    assert report.status(world.daemon, "", 0.0)["flows"] == {"clear-text": 2 * FLOWS}
    assert garbage < FLOWS / 10
    assert taken / FLOWS < MOST
