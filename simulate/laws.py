"""The invariants. What is broken is told with the seed, the time and the flow's journal; the world ends with it."""

from collections import Counter
from typing import TYPE_CHECKING, Any

from oesvc.ike.v1.tunnels import TunnelState
from oesvc.interfaces import PlaneError
from oesvc.ipsec.flow import Flow
from oesvc.ipsec.policy import ForwardingPolicy
from oesvc.ipsec.sa import IpsecSa
from oesvc.journal import OTHER_FLOWS, PEERS, Party
from oesvc.oe.connection import Connection
from oesvc.timeline import render

if TYPE_CHECKING:
    from simulate.gateway import Gateway, Process
    from simulate.world import World

DECISION = 26.0 + 8.0 * 8
"""Seconds in which a flow is decided: three look-ups one after the other of 8 s each (TXT, the gateway's KEY, what its
name delegates to itself), the keying time of each of up to eight gateways, and what the kernel may take."""
LOOSE_ENDS = 60.0
"Seconds in which a tunnel that no connection uses is deleted: the grace time, three tries of 10 s, and some slowness."
BEREFT = 120.0
"""Seconds in which a gateway finds out that a peer has lost its SAs: the silence before DPD asks, five questions, and
the look at each gateway in its turn."""
IN_USE = 30.0
"Seconds since the last datagram."
SWEEP_EVERY = 25
"Events between two looks at everything that some gateway has."

NAMES = {Party.HERE: "here", Party.GATEWAY: "gateway", Party.DNS: "DNS", Party.PEER: "peer", Party.THERE: "there"}


def _tunnels(connection: Connection | None) -> set[int]:
    return {path.tunnel for path in connection.paths} if connection else set()


class BrokenLawError(Exception):
    """An invariant does not hold."""


class Laws:
    """Looks at the flow that an event was about, and in turn at whole gateways."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._dirty: dict[Process, set[Flow]] = {}
        self._turn = 0
        self._logged: list[str] = []
        self.checked: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        "The most that was seen of what is bounded, at one gateway."
        self._since: dict[tuple[Process, str, object], float] = {}
        "When something was first seen that may not last."

    def heard(self, event: dict[str, Any]) -> None:
        """What Twisted logs: no exception is expected but the kernel's refusals, which are chance here."""
        failure = event.get("log_failure")
        if failure is not None and not failure.check(PlaneError):
            self._logged.append(failure.getTraceback())

    # What is to be looked at

    def touched(self, process: "Process") -> None:
        self._dirty.setdefault(process, set())

    def changed(self, process: "Process", flow: Flow) -> None:
        self._dirty.setdefault(process, set()).add(flow)

    def held(self, process: "Process", flow: Flow) -> None:
        """A hold begins: look again when it must be over."""
        self.changed(process, flow)
        since = process.clock.seconds()
        process.clock.callLater(DECISION, self._decided_by_now, process, flow, since)

    def _decided_by_now(self, process: "Process", flow: Flow, since: float) -> None:
        self.checked["every flow is decided within its budget"] += 1
        if process.plane.holds.since(flow) == since and flow not in process.plane.refused:
            self._broken(process, flow, f"it is held for {DECISION:g} s and not decided")

    def step(self) -> None:
        """After every event."""
        if self._logged:
            raise BrokenLawError(f"seed {self._world.seed}, {self._world.clock.seconds():.3f} s: an exception\n"
                                 + "\n".join(self._logged))
        if self._dirty:
            dirty, self._dirty = self._dirty, {}
            for process, flows in dirty.items():
                if process.clock.alive:
                    for flow in flows:
                        self.check_flow(process, flow)
                    self._check_bounds(process)
        self._turn += 1
        if self._turn % SWEEP_EVERY == 0:
            gateways = self._world.gateways
            self.check_gateway(gateways[self._turn // SWEEP_EVERY % len(gateways)])

    # One flow

    def check_flow(self, process: "Process", flow: Flow) -> None:
        kernel, daemon = process.gateway.kernel, process.daemon
        policy, connection = kernel.spd.get(flow), daemon.connections.get(flow)
        never_clear = process.gateway.classes.find(flow.destination).connection_class.never_clear
        passes = policy is not None and policy.action is ForwardingPolicy.PASS
        self.checked["paranoid and deny never go in clear"] += 1
        if passes and never_clear:
            self._broken(process, flow, "it is never to go in clear, and passes")
        entry = process.plane.entries.get(flow)
        if entry is not None and entry.jobs:
            return
        self.checked["no flow is downgraded while it is encrypted"] += 1
        if passes and connection is not None and connection.tunnel is not None:
            self._broken(process, flow, "it passes in clear while it has a tunnel")
        self._check_policy(process, flow, connection)
        self._check_sas(process, flow)

    def _check_policy(self, process: "Process", flow: Flow, connection: Connection | None) -> None:
        """SPD, set and connection say the same. What the kernel has refused is put right at the next datagram."""
        kernel = process.gateway.kernel
        installed = kernel.spd[flow].action if flow in kernel.spd else None
        wanted = connection.forwarding if connection else None
        if wanted is ForwardingPolicy.HOLD:
            wanted = None
        self.checked["one policy per pair, the one that its connection wants"] += 1
        if (flow in kernel.known) is not (installed is not None):
            self._broken(process, flow, f"the SPD has {installed} and the set of known flows does not agree")
        if installed is not wanted and flow not in process.plane.refused:
            self._lasts(process, "policy", flow, 2.0, f"its policy is {installed} instead of {wanted}")
        else:
            self._passed(process, "policy", flow)

    def _check_sas(self, process: "Process", flow: Flow) -> None:
        kernel, daemon = process.gateway.kernel, process.daemon
        self.checked["no SA without its tunnel"] += 1
        spis = [*kernel.outbound.get(flow, ()), *(spi for spi, one in kernel.inbound.items() if one.flow == flow)]
        for spi in spis:
            if daemon.tunnels.with_spi(flow, spi) is None:
                self._broken(process, flow, f"its SA {spi:#010x} belongs to no tunnel")

    # One gateway

    def check_gateway(self, gateway: "Gateway") -> None:
        process = gateway.process
        if process is None:
            return
        daemon, now = process.daemon, self._world.clock.seconds()
        flows = {*(connection.flow for connection in daemon.connections), *gateway.kernel.spd,
                 *gateway.kernel.outbound, *gateway.kernel.ingress}
        for flow in sorted(flows, key=str):
            self.check_flow(process, flow)
        for connection in list(daemon.connections):
            self._check_progress(process, connection, now)
        self._check_tunnels(process)
        self._check_other_ends(process)
        self._check_bounds(process)

    def _check_other_ends(self, process: "Process") -> None:
        """Whoever is sent to can read it, but for the time in which a peer is found to be dead or to have forgotten."""
        self.checked["whoever is sent to has the SA"] += 1
        kernel = process.gateway.kernel
        for flow, sas in kernel.outbound.items():
            sa, policy = next(reversed(sas.values())).sa, kernel.spd.get(flow)
            in_use = policy is not None and self._world.unix_time() - policy.used < IN_USE
            if not in_use or self._is_well(process.gateway, sa):
                self._passed(process, "other end", sa.spi)
            else:
                self._lasts(process, "other end", sa.spi, BEREFT,
                            f"it is sent by {sa.spi:#010x}, which nobody at {sa.destination} has", flow)

    def _is_well(self, gateway: "Gateway", sa: IpsecSa) -> bool:
        """Or nobody can help it: the peer is off, out of reach, or its key is one that caches of the DNS have not."""
        peer = self._world.by_address.get(sa.destination)
        return (peer is None or peer.process is None or sa.spi in peer.kernel.inbound
                or peer.mistaken_until > self._world.clock.seconds()
                or self._world.network.is_cut(gateway.address, peer.address))

    def _check_progress(self, process: "Process", connection: Connection, now: float) -> None:
        """No connection waits for ever: its lifespan ends, or what it has begun does."""
        self.checked["no connection waits for ever"] += 1
        if connection.deadline is not None and connection.deadline < now - 1.0:
            self._broken(process, connection.flow, f"its lifespan ended {now - connection.deadline:.0f} s ago")
        if connection.deadline is None and connection._now < now - DECISION:
            self._broken(process, connection.flow, f"nothing has come to it for {now - connection._now:.0f} s")

    def _check_tunnels(self, process: "Process") -> None:
        """Daemon and engine have the same tunnels; those that stand are in use, or about to be deleted."""
        daemon = process.daemon
        engine = {tunnel.id: tunnel for tunnel in process.engine._core.tunnels}
        self.checked["daemon and engine have the same tunnels"] += 1
        for number in daemon.tunnels._by_id.keys() ^ engine.keys():
            record = daemon.tunnels.get(number) or engine[number]
            where = "engine" if number in engine else "daemon"
            self._broken(process, record.flow, f"tunnel {number} is only in the {where}")
        for number, tunnel in engine.items():
            connection = daemon.connections.get(tunnel.flow)
            self.checked["no tunnel without its connection"] += 1
            if tunnel.state is not TunnelState.UP or number in _tunnels(connection):
                self._passed(process, "tunnel", number)
            else:
                self._lasts(process, "tunnel", number, LOOSE_ENDS, f"tunnel {number} stands and nobody uses it",
                            tunnel.flow)
        for connection in daemon.connections:
            for number in _tunnels(connection) - engine.keys():
                self._broken(process, connection.flow, f"its tunnel {number} is gone")

    def _check_bounds(self, process: "Process") -> None:
        self.checked["state is bounded"] += 1
        core, daemon = process.engine._core, process.daemon
        channels, tunnels, flows = len(core.channels), len(core.tunnels), len(daemon.connections)
        journal = daemon.journal
        state = {
            "connections": (flows, daemon.connections._max_flows + 1),
            "tunnels": (tunnels, core.config.max_tunnels),
            "keying channels": (channels, core.config.max_channels),
            "half-open channels": (core.channels.half_open(), core.config.max_half_open),
            "calculations": (core.work_under_way, 2 * channels + tunnels + 10),
            "deadlines of IKE": (len(core.timers), 12 * channels + 8 * tunnels + 200),
            "flows in the journal": (len(journal._live) + len(journal._others), flows + OTHER_FLOWS),
            "peers in the journal": (len(journal._peers), PEERS),
            "SAs of the kernel": (len(process.gateway.kernel.inbound) + sum(
                map(len, process.gateway.kernel.outbound.values())), 2 * tunnels + 8),
        }
        for what, (used, limit) in state.items():
            if used > self.most[what]:
                self.most[what] = used
            if used > limit:
                self._broken(process, None, f"{used} {what}, more than {limit}")

    # When all is quiet

    def check_quiet(self, gateway: "Gateway") -> None:
        """Nobody has used anything for hours: nothing is left."""
        process = gateway.process
        if process is None:
            return
        self.checked["nothing is left behind"] += 1
        core, kernel = process.engine._core, gateway.kernel
        left = {"connections": len(process.daemon.connections), "tunnels": len(core.tunnels),
                "tunnels of the daemon": len(process.daemon.tunnels), "channels": len(core.channels),
                "calculations": core.work_under_way, "deadlines": len(core.timers), "policies": len(kernel.spd),
                "SAs": len(kernel.inbound) + len(kernel.outbound), "ingress policies": len(kernel.ingress),
                "known flows": len(kernel.known), "entries of the plane": len(process.plane.entries),
                "delayed calls": self._world.clock.waiting(process.clock)}
        if any(left.values()):
            flow = next(iter(process.plane.entries), None) or next(
                (connection.flow for connection in process.daemon.connections), None)
            self._broken(process, flow, f"all is quiet, and left are {({k: v for k, v in left.items() if v})}")

    # What is broken

    def _lasts(self, process: "Process", what: str, key: object, most: float, text: str,
               flow: Flow | None = None) -> None:
        """What may be for a moment."""
        now = self._world.clock.seconds()
        since = self._since.setdefault((process, what, key), now)
        if now - since > most:
            self._broken(process, flow or key, f"{text}, for {now - since:.0f} s")  # type: ignore[arg-type]

    def _passed(self, process: "Process", what: str, key: object) -> None:
        self._since.pop((process, what, key), None)

    def forget(self, process: "Process") -> None:
        """It is dead."""
        self._dirty.pop(process, None)
        self._since = {key: since for key, since in self._since.items() if key[0] is not process}

    def _broken(self, process: "Process", flow: Flow | None, what: str) -> None:
        world, daemon = self._world, process.daemon
        connection = daemon.connections.get(flow) if flow else None
        said = [f"seed {world.seed}, {world.clock.seconds():.3f} s: {process.gateway}, "
                f"life {process.gateway.processes}, {flow}: {what}"]
        if connection:
            said.append(f"{connection.state.value}, tunnel {connection.tunnel}: {connection.reason}")
        if flow:
            said.append(render(daemon.journal.entries(flow), NAMES))
            if other := next((one for one in world.gateways if flow.destination in one.ours and one.process), None):
                said.append(f"at {other}:")
                said.append(render(other.process.daemon.journal.entries(flow.reversed()), NAMES))  # type: ignore[union-attr]
        raise BrokenLawError("\n".join(said))
