"""One gateway: a machine with its kernel and its caching resolver, and the process of the real daemon on it."""

from collections.abc import Callable
from functools import cache
from random import Random
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from twisted.internet.defer import Deferred

from oesvc.daemon import KeyingDaemon
from oesvc.discovery import Discovery
from oesvc.ike.datagram import Datagram
from oesvc.ike.events import Job
from oesvc.ike.v1.config import EngineConfig
from oesvc.ike.v1.engine import IkeEngine
from oesvc.ipsec.flow import Address, Flow
from oesvc.ipsec.policy import ForwardingPolicy
from oesvc.ipsec.rsa_key import RsaPublicKey
from oesvc.ipsec.sa import IpsecSa
from oesvc.journal import Journal
from oesvc.keys.key_pair import public_key
from oesvc.oe.aging import Lifespans
from oesvc.oe.authorization import DnssecPolicy
from oesvc.oe.classes import ClassTable
from oesvc.oe.connections import Connections
from simulate.clock import OwnedClock
from simulate.kernel import Kernel, Mode, Packet
from simulate.names import CachingResolver
from simulate.plane import SimulatedPlane

if TYPE_CHECKING:
    from simulate.world import World

EPOCH = 1_800_000_000.0
"UNIX time at the beginning of the world."
KEY_POOL = 40
ARITHMETIC = 0.003
"Seconds that a calculation takes until its result is there."


@cache
def pooled_key(number: int) -> RSAPrivateKey:
    """One of KEY_POOL keys; which numbers it has changes nothing of what happens."""
    return generate_private_key(65537, 1024)


class Gateway:
    """A machine; it is switched on by `start`."""

    def __init__(self, world: "World", number: int, address: Address, clients: list[Address], classes: ClassTable,
                 options: dict[str, Any], dnssec: DnssecPolicy, max_flows: int) -> None:
        self.world, self.number, self.address, self.clients, self.classes = world, number, address, clients, classes
        self.ours = {address, *clients}
        "Whom it protects; a backup of others protects theirs too."
        self._options, self._dnssec, self._max_flows = options, dnssec, max_flows
        self.key_number = number % KEY_POOL
        self.kernel = Kernel(world.clock, world.unix_time, classes, self._transmit)
        self.resolver = CachingResolver(world.zones, Random(f"{world.seed} names {number}"), world.unix_time)
        self.process: Process | None = None
        self.processes = 0
        self.off_since = 0.0
        self.mistaken_until = 0.0
        "Until when somebody may take another key for ours, and for as long as a tunnel lasts with whom we have lost."

    def __str__(self) -> str:
        return f"gateway {self.number} ({self.address})"

    @property
    def key(self) -> RsaPublicKey:
        return public_key(pooled_key(self.key_number))

    @property
    def config(self) -> EngineConfig:
        return EngineConfig(pooled_key(self.key_number), **self._options)

    def start(self) -> None:
        if self.process is None:
            self.processes += 1
            self.process = Process(self, Random(f"{self.world.seed} gateway {self.number} life {self.processes}"))
            self.world.network.receivers[self.address] = self.process.receive
            self.process.start()

    def kill(self) -> None:
        """The daemon dies without a word; the kernel goes on without it."""
        if self.process is not None:
            self.world.note_end(self)
            self.process.clock.alive = False
            self.process = self.kernel.plane = None
            del self.world.network.receivers[self.address]

    def stop(self) -> None:
        """The daemon ends in order (section 9.3)."""
        if self.process is not None:
            self.process.daemon.close()
            self.process.plane.stop()
            self.kill()

    def switch_off(self) -> None:
        self.kill()
        self.kernel.flush()
        self.kernel.mode = Mode.OFF

    @property
    def is_off(self) -> bool:
        return self.kernel.mode is Mode.OFF

    def _transmit(self, packet: Packet, sa: IpsecSa | None) -> None:
        self.world.leaves(self, packet, sa)

    def build(self, process: "Process") -> KeyingDaemon:
        world, clock, random = self.world, process.clock, process.random
        return KeyingDaemon(
            connections=Connections(self.classes, Lifespans(), self._max_flows),
            discovery=Discovery(self.resolver.for_process(clock), self._dnssec, random.random),
            plane=process.plane, engine=process.engine, journal=Journal(), clock=clock, unix_time=world.unix_time,
            send=world.network.send, local_address=lambda peer: self.address, is_ours=self.ours.__contains__,
            calculate=process.calculate)


class Process:
    """One life of the daemon."""

    def __init__(self, gateway: Gateway, random: Random) -> None:
        world = gateway.world
        self.gateway, self.random = gateway, random
        self.clock = OwnedClock(world.clock)
        self.begun = world.clock.seconds()
        self.plane = SimulatedPlane(gateway.kernel, self.clock, random, self._decided, self._held, self._changed,
                                    lambda ends, spi: self.daemon.recovery.unknown_spi(ends, spi))
        self.engine = IkeEngine(gateway.config, random.randbytes)
        self.daemon = gateway.build(self)

    def start(self) -> None:
        self.plane.start(self.daemon)

    def receive(self, datagram: Datagram) -> None:
        self.gateway.world.laws.touched(self)
        self.daemon.receive_datagram(datagram)

    def calculate(self, job: Job) -> "Deferred[Any]":
        """Done when its time is over, as in a thread."""
        done: Deferred[Any] = Deferred()
        run: Callable[[], None] = lambda: done.callback(job())  # noqa: E731
        self.clock.callLater(ARITHMETIC * self.random.uniform(0.5, 3), run)
        return done

    def _held(self, flow: Flow) -> None:
        self.gateway.world.laws.held(self, flow)

    def _decided(self, flow: Flow, policy: ForwardingPolicy, seconds: float) -> None:
        self.gateway.world.tally.decided(policy, seconds)

    def _changed(self, flow: Flow) -> None:
        self.gateway.world.laws.changed(self, flow)
