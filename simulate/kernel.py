"""A gateway's kernel: SPD, SAD and the set of known flows, and what becomes of each datagram (RFC 4322 section 3.1).

It lives on when the daemon is killed, and ends with its machine.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from oesvc.ipsec.flow import Flow
from oesvc.ipsec.policy import ForwardingPolicy
from oesvc.ipsec.sa import IpsecSa
from oesvc.kernel.sad import soft_share
from oesvc.oe.classes import ClassTable
from simulate.clock import Call, HeapClock

if TYPE_CHECKING:
    from simulate.plane import SimulatedPlane


class Mode(Enum):
    OFF = "the machine is off"
    GUARDED = "hooks and traps are in place"
    STOPPED = "the daemon was stopped in order: all passes but what is never to go in clear"


@dataclass(frozen=True, slots=True, eq=False)
class Packet:
    """One datagram of a host's, or its answer."""

    flow: Flow
    answered: Callable[["Packet"], None]
    "Called when it has come to the other host."


@dataclass(slots=True, eq=False)
class Policy:
    """One entry of the SPD, and its counterparts for what comes back."""

    action: ForwardingPolicy
    used: float = 0.0
    gateways: Flow | None = None
    "Between which its datagrams are sent, if they are encrypted."


@dataclass(slots=True, eq=False)
class InstalledSa:
    """One entry of the SAD."""

    sa: IpsecSa
    flow: Flow
    "The tunnel's outbound direction."
    added: float
    timers: list[Call] = field(default_factory=list)


class Kernel:
    """`transmit` takes what leaves: in clear, or (with an SA) as ESP."""

    def __init__(self, clock: HeapClock, unix_time: Callable[[], float], classes: ClassTable,
                 transmit: Callable[[Packet, IpsecSa | None], None]) -> None:
        self._clock, self._unix_time, self.classes, self._transmit = clock, unix_time, classes, transmit
        self.mode = Mode.OFF
        self.plane: SimulatedPlane | None = None
        "Who reads the queue, and hears what we say."
        self.spd: dict[Flow, Policy] = {}
        self.known: set[Flow] = set()
        self.ingress: dict[Flow, Policy] = {}
        "By the tunnel's outbound direction."
        self.outbound: dict[Flow, dict[int, InstalledSa]] = {}
        "The newest SA of a flow is the last."
        self.inbound: dict[int, InstalledSa] = {}
        self.drops: Counter[str] = Counter()

    # Datagrams

    def send(self, packet: Packet) -> None:
        """From one of our hosts: prerouting, then the SPD."""
        if self.mode is Mode.OFF:
            self.drops["machine off"] += 1
        elif self.mode is Mode.STOPPED:
            if self.classes.find(packet.flow.destination).connection_class.never_clear:
                self.drops["blocked while stopped"] += 1
            else:
                self._transmit(packet, None)
        elif packet.flow in self.known or self.plane is None:
            self.consult_spd(packet)
        else:
            self.plane.datagram_arrived(packet)

    def consult_spd(self, packet: Packet) -> None:
        """What is known to the hooks, or was let go by the daemon."""
        policy = self.spd.get(packet.flow)
        if policy is None:
            self.drops["trapped"] += 1
            if self.plane:
                self.plane.acquire(packet.flow, trapped=True)
            return
        policy.used = self._unix_time()
        if policy.action is ForwardingPolicy.DENY:
            self.drops["denied"] += 1
        elif policy.action is ForwardingPolicy.PASS:
            self._transmit(packet, None)
        elif installed := self._sa_for(packet.flow, policy):
            self._transmit(packet, installed.sa)
        else:
            self.drops["no SA"] += 1
            if self.plane:
                self.plane.acquire(packet.flow, trapped=False)

    def _sa_for(self, flow: Flow, policy: Policy) -> InstalledSa | None:
        """The newest to the policy's gateway."""
        return next((one for one in reversed(self.outbound.get(flow, {}).values())
                     if policy.gateways is None or one.sa.destination == policy.gateways.destination), None)

    def arrived(self, packet: Packet, sa: IpsecSa | None) -> bool:
        """From outside, as ESP by the peer's SA or in clear: whether it is let in (RFC 4322 section 12.1)."""
        if self.mode is Mode.OFF:
            self.drops["machine off"] += 1
            return False
        ingress = self.ingress.get(packet.flow.reversed())
        if sa is None:
            if ingress:
                self.drops["clear where ESP is due"] += 1
            return ingress is None
        installed = self.inbound.get(sa.spi)
        if installed is None or installed.sa.encryption_key != sa.encryption_key or ingress is None:
            self.drops["ESP by no SA"] += 1
            if installed is None and self.plane:
                self.plane.unknown_spi(Flow(sa.source, sa.destination), sa.spi)
            return False
        ingress.used = self._unix_time()
        return True

    # SAs

    def add_sa(self, sa: IpsecSa, flow: Flow) -> None:
        installed = InstalledSa(sa, flow, self._clock.seconds())
        if sa.flow == flow:
            self.outbound.setdefault(flow, {})[sa.spi] = installed
        else:
            self.inbound[sa.spi] = installed
            self.ingress.setdefault(flow, Policy(ForwardingPolicy.ENCRYPT))
        self._set_timers(installed)

    def change_sa(self, sa: IpsecSa, flow: Flow) -> None:
        table = self.outbound.get(flow, {}) if sa.flow == flow else self.inbound
        if installed := table.get(sa.spi):
            installed.sa = sa
            self._set_timers(installed)

    def _set_timers(self, installed: InstalledSa) -> None:
        sa = installed.sa
        for timer in installed.timers:
            timer.cancel()
        age = self._clock.seconds() - installed.added
        installed.timers = [self._clock.callLater(max(0.0, sa.lifetime.seconds - age), self._expired, installed, True)]
        if sa.flow == installed.flow:
            soft = max(0.0, int(sa.lifetime.seconds * soft_share(sa.spi)) - age)
            installed.timers.append(self._clock.callLater(soft, self._expired, installed, False))

    def _expired(self, installed: InstalledSa, hard: bool) -> None:
        if hard:
            self.delete_sa(installed.sa, installed.flow)
        if self.plane:
            self.plane.sa_expired(installed, hard)

    def delete_sa(self, sa: IpsecSa, flow: Flow) -> None:
        if sa.flow == flow:
            sas = self.outbound.get(flow, {})
            gone = sas.pop(sa.spi, None)
            if gone and not sas:
                del self.outbound[flow]
        else:
            gone = self.inbound.pop(sa.spi, None)
        for timer in gone.timers if gone else ():
            timer.cancel()

    def last_use(self, flow: Flow) -> float:
        """The kernel counts in seconds."""
        return float(int(max((policy.used for policy in (self.spd.get(flow), self.ingress.get(flow)) if policy),
                             default=0.0)))

    def flush(self) -> None:
        """All that was there for flows."""
        for installed in [*self.inbound.values(), *(sa for sas in self.outbound.values() for sa in sas.values())]:
            for timer in installed.timers:
                timer.cancel()
        for table in self.spd, self.known, self.ingress, self.outbound, self.inbound:
            table.clear()

    def sas(self, flow: Flow) -> int:
        """How many a flow has."""
        return len(self.outbound.get(flow, ())) + sum(one.flow == flow for one in self.inbound.values())
