"""The forwarding plane of one daemon on the modelled kernel; what it does and when is that of oesvc/kernel/service.py.

All that concerns one flow is done in order, each job after the time that the kernel takes to acknowledge.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from twisted.internet.defer import Deferred, succeed

from oesvc.interfaces import Bounds, PlaneError, PlaneListener, Traffic
from oesvc.ipsec.account import Account
from oesvc.ipsec.flow import Flow
from oesvc.ipsec.policy import ForwardingPolicy
from oesvc.ipsec.sa import IpsecSa
from oesvc.kernel.hold import HoldTable
from simulate.clock import OwnedClock
from simulate.kernel import InstalledSa, Kernel, Mode, Packet, Policy

REFUSED = 0.0005
"Share of jobs that the kernel refuses."
UNHEARD = 0.01
"Share of what the kernel says unasked that is lost."
SLOW = 0.01
"Share of jobs that take up to a second."


@dataclass(slots=True, eq=False)
class Entry:
    """What stands in the kernel for a flow, as the daemon's process knows it."""

    flow: Flow
    policy: ForwardingPolicy | None = None
    inbound: dict[int, IpsecSa] = field(default_factory=dict)
    outbound: dict[int, IpsecSa] = field(default_factory=dict)
    done_at: float = 0.0
    "When the last of its jobs is done."
    jobs: int = 0


class SimulatedPlane:
    """The ForwardingPlane of `oesvc.interfaces`."""

    def __init__(self, kernel: Kernel, clock: OwnedClock, random: Random,
                 decided: Callable[[Flow, ForwardingPolicy, float], None],
                 held: Callable[[Flow], None], changed: Callable[[Flow], None],
                 unknown_spi: Callable[[Flow, int], None]) -> None:
        """`held` and `decided` are told of the beginning and the end of each hold, `changed` of all else.

        `unknown_spi` is told of ESP that no SA is there for: between which gateways, and its SPI.
        """
        self.unknown_spi = unknown_spi
        self.kernel, self._clock, self._random = kernel, clock, random
        self._decided, self._held, self._changed = decided, held, changed
        self._listener: PlaneListener | None = None
        self.holds = HoldTable()
        self.entries: dict[Flow, Entry] = {}
        self.refused: set[Flow] = set()
        "Flows whose policy the kernel has refused and not taken since: the next datagram is to put that right."

    def start(self, listener: PlaneListener) -> "Deferred[None]":
        """See oesvc.interfaces."""
        self.kernel.flush()
        self.kernel.mode, self.kernel.plane, self._listener = Mode.GUARDED, self, listener
        return succeed(None)

    def stop(self) -> "Deferred[None]":
        """See oesvc.interfaces."""
        self.kernel.flush()
        self.kernel.mode, self.kernel.plane, self._listener = Mode.STOPPED, None, None
        return succeed(None)

    # What the kernel says

    def datagram_arrived(self, packet: Packet) -> None:
        entry = self.entries.get(packet.flow)
        if entry is not None and entry.policy is not None:
            self._judge(entry.policy, [packet])
            return
        if self.holds.since(packet.flow) is None:
            self._held(packet.flow)
        asking = self.holds.ask(packet.flow, self._clock.seconds())
        self.holds.keep(packet)
        if asking and self._listener:
            self._listener.acquired(packet.flow)

    def acquire(self, flow: Flow, trapped: bool) -> None:
        """A datagram met the trap, or the policy of an encrypted flow without SA."""
        entry = self.entries.get(flow)
        policy = entry.policy if entry else None
        missed = policy is None and trapped
        bereft = policy is ForwardingPolicy.ENCRYPT and not trapped
        if entry is not None and bereft and entry.outbound:
            for sa in list(entry.outbound.values()):
                self._told_expired(entry, sa, hard=True)
        elif (missed or bereft) and self._listener and self.holds.ask(flow, self._clock.seconds()):
            if bereft:
                self._back_to_hold(flow)
            self._listener.acquired(flow)

    def sa_expired(self, installed: InstalledSa, hard: bool) -> None:
        entry = self.entries.get(installed.flow)
        if entry is not None and self._random.random() >= UNHEARD:
            self._told_expired(entry, installed.sa, hard)

    def _told_expired(self, entry: Entry, sa: IpsecSa, hard: bool) -> None:
        if self._listener is None or sa.spi not in entry.inbound.keys() | entry.outbound.keys():
            return
        if hard:
            entry.inbound.pop(sa.spi, None)
            entry.outbound.pop(sa.spi, None)
            if not entry.outbound and entry.policy is ForwardingPolicy.ENCRYPT:
                self._back_to_hold(entry.flow)
        self._listener.sa_expired(entry.flow, sa.spi, hard)

    def _back_to_hold(self, flow: Flow) -> None:
        self.install_policy(flow, ForwardingPolicy.HOLD).addErrback(lambda failure: None)

    def _judge(self, policy: ForwardingPolicy, packets: Sequence[Packet]) -> None:
        for packet in packets:
            if policy is ForwardingPolicy.DENY:
                self.kernel.drops["denied"] += 1
            else:
                self.kernel.consult_spd(packet)

    # What the daemon asks

    def _run(self, flow: Flow, job: Callable[[Entry], None], may_fail: bool = True) -> "Deferred[None]":
        entry = self.entries.get(flow)
        if entry is None:
            entry = self.entries[flow] = Entry(flow)
        entry.jobs += 1
        now = self._clock.seconds()
        takes = self._random.uniform(0.0003, 0.003) if self._random.random() >= SLOW else self._random.random()
        entry.done_at = max(now, entry.done_at) + takes
        done: Deferred[None] = Deferred()
        self._clock.callLater(entry.done_at - now, self._do, entry, job, done,
                              may_fail and self._random.random() < REFUSED)
        return done

    def _do(self, entry: Entry, job: Callable[[Entry], None], done: "Deferred[None]", refused: bool) -> None:
        try:
            if self._listener is None:
                raise PlaneError("the forwarding plane is not running")
            if refused:
                self.refused.add(entry.flow)
                raise PlaneError("the kernel has no memory")
            job(entry)
        except PlaneError as error:
            self._finish(entry)
            done.errback(error)
        else:
            self._finish(entry)
            done.callback(None)
        self._changed(entry.flow)

    def _finish(self, entry: Entry) -> None:
        entry.jobs -= 1
        if not (entry.jobs or entry.policy or entry.inbound or entry.outbound):
            self.entries.pop(entry.flow, None)

    def install_policy(self, flow: Flow, policy: ForwardingPolicy, gateways: Flow | None = None,
                       because: str = "") -> "Deferred[None]":
        """See oesvc.interfaces."""
        if policy is ForwardingPolicy.HOLD:
            return self._run(flow, self._withdraw, may_fail=False)
        return self._run(flow, lambda entry: self._enforce(entry, policy, gateways))

    def _enforce(self, entry: Entry, policy: ForwardingPolicy, gateways: Flow | None) -> None:
        if policy is ForwardingPolicy.ENCRYPT and gateways is None:
            raise PlaneError(f"encrypt {entry.flow}: the gateways are missing")
        installed = self.kernel.spd.get(entry.flow)
        if entry.policy is not policy or (installed and installed.gateways != gateways):
            self.kernel.spd[entry.flow] = Policy(policy, gateways=gateways)
            self.kernel.known.add(entry.flow)
            entry.policy = policy
        self.refused.discard(entry.flow)
        since = self.holds.since(entry.flow)
        self._judge(policy, self.holds.take(entry.flow))  # type: ignore[arg-type]
        if since is not None:
            self._decided(entry.flow, policy, self._clock.seconds() - since)

    def _withdraw(self, entry: Entry) -> None:
        entry.policy = None
        self.kernel.known.discard(entry.flow)
        self.kernel.spd.pop(entry.flow, None)

    def forget(self, flow: Flow) -> "Deferred[None]":
        """See oesvc.interfaces."""
        self.kernel.drops["forgotten"] += len(self.holds.take(flow))
        return self._run(flow, self._withdraw, may_fail=False)

    def last_use(self, flow: Flow) -> "Deferred[float]":
        """See oesvc.interfaces."""
        asked: Deferred[float] = Deferred()
        self._clock.callLater(0.001, lambda: asked.callback(self.kernel.last_use(flow)))
        return asked

    def account(self) -> "Deferred[Account]":
        """See oesvc.interfaces. Nothing is counted here."""
        return succeed({})

    def is_connected(self, flow: Flow) -> "Deferred[bool]":
        """See oesvc.interfaces. Hosts here have no sockets."""
        return succeed(False)

    def traffic(self, sas: Sequence[IpsecSa]) -> "Deferred[Traffic]":
        """See oesvc.interfaces. Of a datagram here it is known only that it came."""
        return succeed({})

    def add_sas(self, flow: Flow, sas: Sequence[IpsecSa]) -> "Deferred[None]":
        """See oesvc.interfaces."""
        def add(entry: Entry) -> None:
            for sa in sas:
                self.kernel.add_sa(sa, flow)
                (entry.outbound if sa.flow == flow else entry.inbound)[sa.spi] = sa
        return self._run(flow, add)

    def change_sas(self, flow: Flow, sas: Sequence[IpsecSa]) -> "Deferred[None]":
        """See oesvc.interfaces."""
        def change(entry: Entry) -> None:
            for sa in sas:
                table = entry.outbound if sa.flow == flow else entry.inbound
                if sa.spi in table:
                    table[sa.spi] = sa
                    self.kernel.change_sa(sa, flow)
        return self._run(flow, change)

    def remove_sas(self, flow: Flow, sas: Sequence[IpsecSa]) -> "Deferred[None]":
        """See oesvc.interfaces."""
        def remove(entry: Entry) -> None:
            for sa in sas:
                table = entry.outbound if sa.flow == flow else entry.inbound
                if table.pop(sa.spi, None):
                    self.kernel.delete_sa(sa, flow)
            if not entry.inbound:
                self.kernel.ingress.pop(flow, None)
        return self._run(flow, remove, may_fail=False)

    def bounds(self) -> Bounds:
        return {}
