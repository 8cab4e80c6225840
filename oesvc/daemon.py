"""The keying daemon: carries out what connections ask for, and tells them what came of it (RFC 4322 section 3.2)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial, singledispatchmethod
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from oesvc.alarm import Alarm
from oesvc.configured_peers import ConfiguredPeers
from oesvc.coroutines import begin
from oesvc.discovery import Discovery
from oesvc.ike import events as ike
from oesvc.ike.datagram import Datagram
from oesvc.ike.identity import AddressIdentity, Identity
from oesvc.interfaces import Clock, ForwardingPlane, KeyingEngine
from oesvc.ipsec.flow import Address, Flow
from oesvc.ipsec.policy import ForwardingPolicy
from oesvc.ipsec.rsa_key import RsaPublicKey
from oesvc.ipsec.subnets import Subnets
from oesvc.journal import Arrow, Ink, Journal, Party
from oesvc.keying import Keying
from oesvc.keylog import KeyLog
from oesvc.multihoming import Multihoming
from oesvc.notes import Notes, log_failure
from oesvc.oe import actions
from oesvc.oe import events as ev
from oesvc.oe.aging import Lifespans
from oesvc.oe.classes import ClassTable, PolicyLine
from oesvc.oe.configured import ConfiguredTunnel
from oesvc.oe.connection import Connection, UnexpectedEventError
from oesvc.oe.connections import Connections, Instance
from oesvc.oe.machine import State
from oesvc.oe.paths import Choice
from oesvc.partners import Partners
from oesvc.recovery import Recovery
from oesvc.statistics import Statistics
from oesvc.tunnels import Tunnels

GRACE = 10.0
"Seconds that a replaced tunnel still receives: its peer sends by it until our last message has come, often repeated."

UNDER_WAY = (State.POTENTIAL_OE, State.PENDING_OE)
"States that the journal tells of, but not the log: that has a line an outcome."


ENDED_AT_ONCE = 64
"Flows that a reload ends; more answers of the kernel would come than the reactor reads in one turn."
FORGET_AGAIN = (0.0, 1.0, 5.0)
"Seconds until the kernel is told again of ended flows that it has not acknowledged; its answers may have been lost."


HELD = Arrow("5", Ink.CLEAR, Party.HERE, Party.GATEWAY)
LEFT = Arrow("6", Ink.ESP, Party.GATEWAY, Party.PEER)


class KeyingDaemon:
    """The one place where the OE machine meets DNS, IKE and the forwarding plane."""

    log = Logger()

    def __init__(self, *, connections: Connections, discovery: Discovery, plane: ForwardingPlane, engine: KeyingEngine,
                 journal: Journal, clock: Clock, unix_time: Callable[[], float],
                 send: Callable[[Datagram], None], local_address: Callable[[Address], Address],
                 is_ours: Callable[[Address], bool], choice: Choice = Choice.LAST_KEYED,
                 calculate: Callable[[ike.Job], "Deferred[Any]"] = maybeDeferred,
                 key_directory: Path = Path("/var/lib/oegw/wireshark"), statistics: Statistics | None = None,
                 peers: ConfiguredPeers | None = None, partners: Partners | None = None) -> None:
        """`local_address` is ours towards a peer; `is_ours` tells whether an address is one that we protect;
        `choice` is among several gateways of a host (section 8);
        `calculate` does a job, in a thread where there are some; `key_directory` is for Wireshark's files;
        `peers` knows those of configured tunnels;
        `partners` are the connected gateways, in storage that survives us or in memory alone.
        """
        self.connections = connections
        self.discovery = discovery
        self.plane = plane
        self.engine = engine
        self.journal = journal
        self.notes = Notes(journal, unix_time)
        self.key_log = KeyLog(engine, clock, key_directory)
        self.statistics = statistics or Statistics()
        self.tunnels = Tunnels()
        self.peers = peers or ConfiguredPeers((), discovery)
        self.began = unix_time()
        "UNIX time since which everything is counted."
        self._clock = clock
        self._unix_time = unix_time
        self.local_address = local_address
        self.is_ours = is_ours
        self._lifespans = Alarm(clock, self._lifespans_ended)
        self.partners = partners or Partners()
        self.recovery = Recovery(self.partners, clock, key=self._key_anew,
                                 disown=lambda *spi: self.keying.disown(*spi))
        self.keying = Keying(
            engine=engine, discovery=discovery, peers=self.peers, plane=plane, connections=connections,
            tunnels=self.tunnels, notes=self.notes, key_log=self.key_log, statistics=self.statistics, clock=clock,
            send=send, is_ours=is_ours, calculate=calculate, tell=self.tell, partners=self.partners,
            spi_refused=self.recovery.spi_refused)
        self._perform = self.perform
        "Looked up once: `singledispatchmethod` makes a function each time, and each new flow takes three."
        self.multihoming = Multihoming(choice, plane, self.tunnels, clock, self.tell)

    # What the forwarding plane reports

    def acquired(self, flow: Flow) -> None:
        """A datagram of a flow without policy is held."""
        connection = self.connections.instantiate(flow)
        if connection.forwarding is None:
            self.notes.take(flow, "a datagram of a flow without policy is held", HELD)
        self.tell(connection, ev.Acquired())
        if (displaced := self.connections.displaced()) is not None:
            self.tell(displaced, ev.RoomWanted("there are as many flows as max-flows allows"))

    def sa_expired(self, flow: Flow, spi: int, hard: bool) -> None:
        """An SA of a tunnel reached its soft or hard lifetime."""
        tunnel = self.tunnels.with_spi(flow, spi)
        connection = self.connections.get(flow)
        if tunnel is None or connection is None:
            return
        if connection.tunnel != tunnel.id:
            # One that only receives is not renewed by us: it just runs out (3.4.1).
            if hard:
                connection.drop(tunnel.id)
                self.keying.delete(tunnel.id)
        elif hard:
            self.tell(connection, ev.HardLifetimeReached(f"the SA with SPI {spi:#010x} reached its hard lifetime"))
            self.keying.delete(tunnel.id)
            if not (connection.connection_class.initiates or self.tunnels.is_proposed(flow)):
                self.tell(connection, ev.ProposalLapsed("no peer proposes new keys"))
        else:
            self.tell(connection, ev.SoftLifetimeReached(f"the SA with SPI {spi:#010x} nears its hard lifetime"))

    def _key_anew(self, flow: Flow, why: str) -> None:
        """Key with a flow's gateway although no datagram waits for that (sections 3.2.6 and 9.3)."""
        connection = self.connections.get(flow)
        if connection is not None and connection.tunnel is not None:
            self.tell(connection, ev.KeysDoubted(why))
        elif connection is not None or (not isinstance(flow, Subnets) and self.is_ours(flow.source)):
            # The configuration may be another one than that of a former run.
            self.notes.take(flow, f"its gateway is to be keyed with anew: {why}")
            self.acquired(flow)

    def address_gone(self, address: Address) -> None:
        """An address of ours is gone, and another there: what was keyed from it is keyed anew from that."""
        affected = [connection for connection in self.connections
                    if isinstance(connection, Connection) and self.is_ours(connection.flow.source)
                    and (connection.state is State.PENDING_OE
                         or any(path.gateways.source == address for path in connection.paths))]
        self.keying.address_gone(address)
        for connection in affected:
            if connection.keying_failed and connection.tunnel is None:
                self.tell(connection, ev.RoomWanted(f"our address {address} is gone"))
            self.acquired(connection.flow)

    # Connections

    def begin_configured(self) -> None:
        """The forwarding plane stands: configured tunnels that are to be begun at once are due."""
        self._lifespans.set(self.connections.next_deadline())

    def tell(self, connection: Instance, event: ev.Event) -> None:
        """Hand an event to a connection and do what it then asks for."""
        before = connection.settled_state, connection.gateway
        try:
            todo = connection.handle(event, self._clock.seconds())
        except UnexpectedEventError as late:
            self.log.debug("{late}: too late to matter", late=late)
            return
        self.journal.begin(connection.flow)
        self.statistics.told(event)
        if (connection.settled_state, connection.gateway) != before:
            text = f"{connection.state.value}: {connection.reason}"
            self.notes.take(connection.flow, text)
            if connection.state not in UNDER_WAY:
                self.log.info("{flow}: {text}", flow=connection.flow, text=text, state=connection.state.value,
                          because=connection.reason.because.name)
        for action in todo:
            self._perform(action, connection)
        self.connections.schedule(connection)
        if isinstance(connection, Connection):
            self.multihoming.watch(connection)
        self._lifespans.set(self.connections.next_deadline())

    def _lifespans_ended(self) -> None:
        for connection in self.connections.due(self._clock.seconds()):
            log_failure(maybeDeferred(self.tell, connection, ev.LifespanEnded()), connection.flow, "lifespan")
        self._lifespans.set(self.connections.next_deadline())

    @singledispatchmethod
    def perform(self, action: actions.Action, connection: Instance) -> None:
        raise TypeError(f"nobody performs {action}")

    @perform.register
    def _(self, action: actions.InstallPolicy, connection: Instance) -> None:
        installed = self.plane.install_policy(connection.flow, action.policy, action.gateways,
                                              action.because.name if action.because else "")
        installed.addCallback(lambda _: self._in_force(connection, action.policy))
        log_failure(installed, connection.flow, f"{action.policy.value} policy",
                    lambda why: self.notes.take(connection.flow, why))

    @perform.register
    def _(self, action: actions.LookUpDelegation, connection: Connection) -> None:
        async def look_up() -> None:
            note = partial(self.notes.question, connection.flow, False)
            answered = await self.discovery.delegations(action.destination, note, connection.flow.source,
                                                        connection.line.options.dnssec)
            self.tell(connection, self._in_clock_time(answered))
        log_failure(begin(look_up()), connection.flow, "looking up its delegation",
                    lambda why: self.tell(connection, ev.LookUpFailed(why, self._clock.seconds())))

    @perform.register
    def _(self, action: actions.StartKeying, connection: Connection) -> None:
        gateway = action.delegation.gateway
        if isinstance(gateway, str):
            raise TypeError(f"{action.delegation} cannot be called")
        self._call(connection, gateway, AddressIdentity(gateway), action.delegation.keys)

    @perform.register
    def _(self, action: actions.KeyConfigured, connection: ConfiguredTunnel) -> None:
        async def call() -> None:
            callee = await self.peers.callee(connection.flow, partial(self.notes.question, connection.flow, False))
            if callee.addresses:
                address = callee.addresses[connection.failures % len(callee.addresses)]
                self._call(connection, address, callee.identity, callee.keys)
            else:
                self.tell(connection, ev.LookUpFailed(callee.detail))
        log_failure(Deferred.fromCoroutine(call()), connection.flow, "finding its peer",
                    lambda why: self.tell(connection, ev.LookUpFailed(why)))

    def _call(self, connection: Instance, gateway: Address, identity: Identity, keys: Sequence[RsaPublicKey]) -> None:
        try:
            local = self.local_address(gateway)
        except OSError as error:
            # Not at once: a record may name hundreds of such gateways, and each would be tried within the last one.
            silent = ev.PeerSilent(f"there is no route to gateway {gateway}: {error}")
            self._clock.callLater(0, self.tell, connection, silent)
            return
        self.keying.initiate(connection, local, gateway, identity, keys)

    @perform.register
    def _(self, action: actions.QueryLastUse, connection: Connection) -> None:
        def judge(last_use: float) -> None:
            ago = self._unix_time() - last_use
            in_use = ago <= connection.lifespans.in_use_within
            detail = f"its last datagram is {ago:.0f} s ago" if last_use else "it was never used"
            if in_use:
                self.tell(connection, ev.FoundInUse(detail))
            else:
                asked = self.plane.is_connected(connection.flow)
                asked.addCallback(lambda is_open: self.tell(connection, (
                    ev.FoundConnected if is_open else ev.FoundIdle)(detail)))
                log_failure(asked, connection.flow, "TCP connections",
                            lambda why: self.tell(connection, ev.FoundIdle(detail)))
        asked = self.plane.last_use(connection.flow)
        asked.addCallback(judge)
        log_failure(asked, connection.flow, "last use",
                    lambda why: self.tell(connection, ev.FoundInUse(why)))

    @perform.register
    def _(self, action: actions.TearDown, connection: Connection) -> None:
        log_failure(self.plane.forget(connection.flow), connection.flow, "removal")
        for tunnel in action.tunnels:
            self.keying.delete(ike.TunnelId(tunnel))
        self.connections.forget(connection)
        self.journal.end(connection.flow)

    @perform.register
    def _(self, action: actions.CloseTunnel, connection: Instance) -> None:
        closing = self.tunnels.get(action.tunnel)
        if closing is not None:
            self.keying.take_out(closing, closing.outbound)
            self._clock.callLater(GRACE, self.keying.delete, closing.id)

    async def reclassify(self, classes: ClassTable, lifespans: Lifespans) -> None:
        """From now on these classes are in force; flows that are treated otherwise by them are decided anew (3.2).

        At no moment is a flow in clear that neither the former class nor the new one lets go so: those that cannot go
        on are held, those first that may not be in clear any more. Returns when the forwarding plane holds them all,
        or has failed to as often as it is asked.
        """
        self.connections.classes.become(classes)
        self.connections.lifespans = lifespans
        ended: list[tuple[PolicyLine, Connection]] = []
        for connection in self.connections:
            line = classes.find(connection.flow.destination)
            if not connection.reclassify(line, line.options.lifespans or lifespans):
                ended.append((line, connection))
        ended.sort(key=lambda end: not end[0].connection_class.never_clear)
        passing: list[Flow] = []
        for start in range(0, len(ended), ENDED_AT_ONCE):
            some = ended[start:start + ENDED_AT_ONCE]
            for line, connection in some:
                told = maybeDeferred(self.tell, connection, ev.PolicyChanged(str(line)))
                log_failure(told, connection.flow, "another policy")
            # Once more, for it is done when what was asked before is.
            passing += await self._hold(connection.flow for _, connection in some)
        await self._hold_again(passing)

    async def _hold_again(self, passing: list[Flow]) -> None:
        for wait in FORGET_AGAIN:
            if not passing:
                return
            turn: Deferred[None] = Deferred()
            self._clock.callLater(wait, turn.callback, None)
            await turn
            passing = await self._hold(passing)
        if passing:
            self.log.critical("{count} flows may go on as the former policy let them, for the kernel does not "
                              "acknowledge their end: {flows}", count=len(passing), flows=", ".join(map(str, passing)))

    async def _hold(self, flows: Iterable[Flow]) -> list[Flow]:
        """Hold those that have no connection; returns those that the forwarding plane has failed to."""
        failed: list[Flow] = []

        def not_held(failure: Failure, flow: Flow) -> None:
            self.log.error("{flow}: not held: {why}", flow=flow, why=failure.getErrorMessage())
            failed.append(flow)

        await DeferredList([self.plane.forget(flow).addErrback(not_held, flow) for flow in flows
                            if self.connections.get(flow) is None])
        return failed

    # From the network

    def receive_datagram(self, datagram: Datagram) -> None:
        """A datagram came to an IKE port."""
        self.keying.receive_datagram(datagram)

    def peer_unreachable(self, peer: Address) -> None:
        """An ICMP unreachable came about a datagram of ours to a peer (section 9.2)."""
        self.keying.peer_unreachable(peer)

    def close(self) -> None:
        """Take leave of all peers (section 9.3)."""
        self._lifespans.stop()
        self.multihoming.stop()
        self.keying.close()

    def _in_force(self, connection: Instance, policy: ForwardingPolicy) -> None:
        tunnel = self.tunnels.get(connection.tunnel) if connection.tunnel is not None else None
        if policy is ForwardingPolicy.ENCRYPT and tunnel is not None and tunnel.begun_here:
            self.notes.take(connection.flow, "the held datagrams leave through the tunnel", LEFT)

    def _in_clock_time(self, answered: ev.Answered) -> ev.Answered:
        """Answers expire in UNIX time, connections live in the clock's."""
        ahead = answered.expires - self._unix_time()
        return replace(answered, expires=self._clock.seconds() + ahead)
