"""The keying daemon: carries out what connections ask for, and tells them what came of it (RFC 4322 section 3.2)."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial, singledispatchmethod
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from oesvc.alarm import Alarm
from oesvc.discovery import Discovery
from oesvc.ike import events as ike
from oesvc.ike.datagram import Datagram
from oesvc.ike.identity import AddressIdentity
from oesvc.interfaces import Clock, ForwardingPlane, KeyingEngine
from oesvc.ipsec.flow import Address, Flow
from oesvc.ipsec.policy import ForwardingPolicy
from oesvc.journal import Arrow, Ink, Journal, Party
from oesvc.keylog import KeyLog
from oesvc.notes import Notes
from oesvc.oe import actions
from oesvc.oe import events as ev
from oesvc.oe.connection import Connection, UnexpectedEventError
from oesvc.oe.connections import Connections
from oesvc.oe.machine import State
from oesvc.outcomes import FAILURES
from oesvc.statistics import Statistics
from oesvc.tunnels import TunnelRecord, Tunnels

GRACE = 10.0
"Seconds that a replaced tunnel still receives: its peer sends by it until our last message has come, often repeated."

REKEY_AGAIN = (10.0,) * 6 + (60.0,) * 5
"Seconds until a rekey that failed is tried again, as long as the old keys last (decisions 1E.11)."


class KeyingDaemon:
    """The one place where the OE machine meets DNS, IKE and the forwarding plane."""

    log = Logger()

    def __init__(self, *, connections: Connections, discovery: Discovery, plane: ForwardingPlane, engine: KeyingEngine,
                 journal: Journal, clock: Clock, unix_time: Callable[[], float],
                 send: Callable[[Datagram], None], local_address: Callable[[Address], Address],
                 is_ours: Callable[[Address], bool],
                 calculate: Callable[[ike.Job], "Deferred[Any]"] = maybeDeferred,
                 key_directory: Path = Path("/var/lib/oegw/wireshark"), statistics: Statistics | None = None) -> None:
        """`local_address` is ours towards a peer; `is_ours` tells whether an address is one that we protect;
        `calculate` does a job, in a thread where there are some; `key_directory` is for Wireshark's files.
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
        self._clock = clock
        self._unix_time = unix_time
        self._send = send
        self._local_address = local_address
        self._is_ours = is_ours
        self._calculate = calculate
        self._lifespans = Alarm(clock, self._lifespans_ended)
        self._deadline = Alarm(clock, partial(self._engine, lambda now: self.engine.handle_deadline(now)))

    # What the forwarding plane reports

    def acquired(self, flow: Flow) -> None:
        """A datagram of a flow without policy is held."""
        connection = self.connections.instantiate(flow)
        if connection.forwarding is None:
            arrow = Arrow("5", Ink.CLEAR, Party.HERE, Party.GATEWAY)
            self.notes.take(flow, "a datagram of a flow without policy is held", arrow)
        self.tell(connection, ev.Acquired())
        if (displaced := self.connections.displaced()) is not None:
            self.tell(displaced, ev.RoomWanted("there are as many flows as max-flows allows"))

    def sa_expired(self, flow: Flow, spi: int, hard: bool) -> None:
        """An SA of a tunnel reached its soft or hard lifetime."""
        tunnel = self.tunnels.with_spi(flow, spi)
        connection = self.connections.get(flow)
        if tunnel is None or connection is None or connection.tunnel != tunnel.id:
            return
        if hard:
            self.tell(connection, ev.HardLifetimeReached(f"the SA with SPI {spi:#010x} reached its hard lifetime"))
            self._delete(tunnel.id)
        else:
            self.tell(connection, ev.SoftLifetimeReached(f"the SA with SPI {spi:#010x} nears its hard lifetime"))

    def policy_expired(self, flow: Flow, hard: bool) -> None:
        """A policy was idle for its time: the kernel's word for the end of a lifespan."""
        connection = self.connections.get(flow)
        if connection is not None and connection.deadline is not None:
            self.tell(connection, ev.LifespanEnded())

    # Connections

    def tell(self, connection: Connection, event: ev.Event) -> None:
        """Hand an event to a connection and do what it then asks for."""
        before = connection.settled_state
        try:
            todo = connection.handle(event, self._clock.seconds())
        except UnexpectedEventError as late:
            self.log.debug("{late}: too late to matter", late=late)
            return
        self.journal.begin(connection.flow)
        self.statistics.told(event)
        if connection.settled_state is not before:
            text = f"{connection.state.value}: {connection.reason}"
            self.notes.take(connection.flow, text)
            self.log.info("{flow}: {text}", flow=connection.flow, text=text)
        for action in todo:
            self.perform(action, connection)
        self.connections.schedule(connection)
        self._lifespans.set(self.connections.next_deadline())

    def _lifespans_ended(self) -> None:
        for connection in self.connections.due(self._clock.seconds()):
            self._log_failure(maybeDeferred(self.tell, connection, ev.LifespanEnded()), f"{connection.flow}: lifespan")
        self._lifespans.set(self.connections.next_deadline())

    @singledispatchmethod
    def perform(self, action: actions.Action, connection: Connection) -> None:
        raise TypeError(f"nobody performs {action}")

    @perform.register
    def _(self, action: actions.InstallPolicy, connection: Connection) -> None:
        installed = self.plane.install_policy(connection.flow, action.policy, action.gateways)
        installed.addCallback(lambda _: self._in_force(connection, action.policy))
        self._log_failure(installed, f"{connection.flow}: {action.policy.value} policy",
                          lambda why: self.notes.take(connection.flow, why))

    @perform.register
    def _(self, action: actions.LookUpDelegation, connection: Connection) -> None:
        async def look_up() -> None:
            note = partial(self.notes.question, connection.flow, False)
            answered = await self.discovery.delegations(action.destination, note, connection.flow.source)
            self.tell(connection, self._in_clock_time(answered))
        self._log_failure(Deferred.fromCoroutine(look_up()), f"{connection.flow}: looking up its delegation",
                          lambda why: self.tell(connection, ev.LookUpFailed(why, self._clock.seconds())))

    @perform.register
    def _(self, action: actions.StartKeying, connection: Connection) -> None:
        gateway = action.delegation.gateway
        if isinstance(gateway, str):
            raise TypeError(f"{action.delegation} cannot be called")
        try:
            local = self._local_address(gateway)
        except OSError as error:
            # Not at once: a record may name hundreds of such gateways, and each would be tried within the last one.
            silent = ev.PeerSilent(f"there is no route to gateway {gateway}: {error}")
            self._clock.callLater(0, self.tell, connection, silent)
            return
        tunnel = self.engine.initiate(connection.flow, local, gateway, AddressIdentity(gateway),
                                      action.delegation.keys, self._clock.seconds())
        self.tunnels.begin(TunnelRecord(tunnel, connection.flow, gateway, begun_here=True))
        self._turn_engine()

    @perform.register
    def _(self, action: actions.QueryLastUse, connection: Connection) -> None:
        def judge(last_use: float) -> None:
            ago = self._unix_time() - last_use
            in_use = ago <= self.connections.lifespans.in_use_within
            detail = f"its last datagram is {ago:.0f} s ago" if last_use else "it was never used"
            self.tell(connection, ev.FoundInUse(detail) if in_use else ev.FoundIdle(detail))
        asked = self.plane.last_use(connection.flow)
        asked.addCallback(judge)
        self._log_failure(asked, f"{connection.flow}: last use",
                          lambda why: self.tell(connection, ev.FoundInUse(why)))

    @perform.register
    def _(self, action: actions.TearDown, connection: Connection) -> None:
        self._log_failure(self.plane.forget(connection.flow), f"{connection.flow}: removal")
        if action.tunnel is not None:
            self._delete(ike.TunnelId(action.tunnel))
        self.connections.forget(connection)
        self.journal.end(connection.flow)

    @perform.register
    def _(self, action: actions.CloseTunnel, connection: Connection) -> None:
        closing = self.tunnels.get(action.tunnel)
        if closing is not None:
            self._log_failure(self.plane.remove_sas(closing.flow, closing.outbound), f"{closing.flow}: old outbound SA")
            self._clock.callLater(GRACE, self._delete, closing.id)

    # The keying engine

    def receive_datagram(self, datagram: Datagram) -> None:
        """A datagram came to an IKE port."""
        self._engine(lambda now: self.engine.receive_datagram(datagram, now))

    def peer_unreachable(self, peer: Address) -> None:
        """An ICMP unreachable came about a datagram of ours to a peer (section 9.2)."""
        self._engine(lambda now: self.engine.peer_unreachable(peer, now))

    def close(self) -> None:
        """Tell all peers that this gateway goes; no negotiation is begun or answered from now on (section 9.3)."""
        self._lifespans.stop()
        self._engine(self.engine.close)
        self._deadline.stop()

    def _engine(self, call: Callable[[float], object]) -> None:
        call(self._clock.seconds())
        self._turn_engine()

    def _turn_engine(self) -> None:
        """Send what the engine has to send and hear what it has to say, until it has nothing more."""
        for event in self.engine.events():
            self.key_log.heard(event)
            self.statistics.heard(event)
            self.hear(event)
        for datagram in self.engine.datagrams_to_send():
            self._send(datagram)
        self._deadline.set(self.engine.next_deadline())

    def _delete(self, tunnel: ike.TunnelId) -> None:
        self._engine(lambda now: self.engine.delete_tunnel(tunnel, now))

    @singledispatchmethod
    def hear(self, event: ike.IkeEvent) -> None:
        raise TypeError(f"nobody hears {event}")

    @hear.register
    def _(self, event: ike.Work) -> None:
        done = self._calculate(event.calculate)
        done.addCallback(lambda result: self._engine(lambda now: self.engine.work_done(event.id, result, now)))
        self._log_failure(done, "arithmetic of IKE")

    @hear.register
    def _(self, event: ike.KeysWanted) -> None:
        async def find_keys() -> None:
            found = await self.discovery.keys(event.identity, partial(self.notes.peer_question, event.peer), event.peer)
            if found.keys:
                self._engine(lambda now: self.engine.keys_found(event.channel, event.identity, found.keys, now))
            else:
                self.log.info("{peer}: no key for {identity}: {detail}", peer=event.peer, identity=event.identity,
                              detail=found.detail)
                self._engine(lambda now: self.engine.keys_missing(event.channel, event.identity, found.detail, now))
        self._log_failure(Deferred.fromCoroutine(find_keys()), f"{event.peer}: looking up {event.identity}'s keys")

    @hear.register
    def _(self, event: ike.TunnelProposed) -> None:
        self.journal.adopt(event.flow, event.peer)
        self.tunnels.begin(TunnelRecord(event.tunnel, event.flow, event.peer, begun_here=False))
        line = self.connections.classes.find(event.flow.destination)
        if not self._is_ours(event.flow.source):
            self._refuse(event, f"{event.flow.source} is not behind this gateway")
        elif not line.connection_class.opportunistic:
            self._refuse(event, f"the policy here is {line}")
        else:
            authorized = Deferred.fromCoroutine(self._authorize(event))
            self._log_failure(authorized, f"{event.flow}: authorization of {event.peer}")

    async def _authorize(self, event: ike.TunnelProposed) -> None:
        note = partial(self.notes.question, event.flow, True)
        verdict = await self.discovery.authorization(event.flow.destination, event.identity, event.key, note,
                                                     event.peer)
        if self.tunnels.get(event.tunnel) is None:
            return  # the peer has given up meanwhile
        if not verdict.authorized:
            self._refuse(event, verdict.detail)
            return
        self.tell(self.connections.instantiate(event.flow), ev.PeerAuthorized(verdict.detail))
        self._engine(lambda now: self.engine.accept_tunnel(event.tunnel, now))

    def _refuse(self, event: ike.TunnelProposed, why: str) -> None:
        text = f"refused the tunnel that {event.peer} proposed: {why}"
        self.notes.take(event.flow, text)
        self.log.info("{flow}: {text}", flow=event.flow, text=text)
        self.tunnels.end(event.tunnel)
        self._engine(lambda now: self.engine.refuse_tunnel(event.tunnel, why, now))

    @hear.register
    def _(self, event: ike.SasReady) -> None:
        self.tunnels.add_sas(event.tunnel, event.sas)

        def installed(_: None) -> None:
            if self.tunnels.get(event.tunnel) is not None:
                self._engine(lambda now: self.engine.sas_installed(event.tunnel, now))

        adding = self.plane.add_sas(event.flow, event.sas)
        adding.addCallback(installed)
        adding.addErrback(lambda failure: (self._give_up(event, failure.getErrorMessage())))
        self._log_failure(adding, f"{event.flow}: new SAs")

    def _give_up(self, event: ike.SasReady, why: str) -> None:
        """The kernel refused the SAs of a tunnel: nothing can come of it."""
        self.log.error("{flow}: the kernel refused the SAs: {why}", flow=event.flow, why=why)
        self.notes.take(event.flow, f"the kernel refused the SAs: {why}")
        self._failed(event.tunnel, event.flow, ev.SasRefused(why))
        self._delete(event.tunnel)

    @hear.register
    def _(self, event: ike.TunnelUp) -> None:
        tunnel = self.tunnels.get(event.tunnel)
        connection = self.connections.get(event.flow)
        if tunnel is None or connection is None:
            self._delete(event.tunnel)
            return
        self.tunnels.settle(tunnel)
        detail = f"with {event.peer}, which proved to be {event.identity}; {tunnel.protection}"
        self.tell(connection, ev.TunnelNegotiated(detail, event.tunnel, Flow(event.local, event.peer),
                                                  tunnel.begun_here))

    @hear.register
    def _(self, event: ike.LifetimeShortened | ike.TunnelMoved) -> None:
        if isinstance(event, ike.TunnelMoved) and (connection := self.connections.get(event.flow)):
            connection.follow(event.tunnel, event.gateways)
        if sas := self.tunnels.change(event):
            self._log_failure(self.plane.change_sas(event.flow, sas), f"{event.flow}: changed SAs")

    @hear.register
    def _(self, event: ike.TunnelFailed) -> None:
        detail = f"gateway {event.peer}: {event.failure.value}; {event.detail}"
        self._failed(event.tunnel, event.flow, FAILURES[event.failure](detail))

    def _failed(self, tunnel_id: ike.TunnelId, flow: Flow, failure: ev.Event) -> None:
        """An attempt came to nothing: its SAs go, and its flow's connection hears of it."""
        tunnel = self.tunnels.end(tunnel_id)
        connection = self.connections.get(flow)
        if tunnel is None:
            return
        self.notes.take(flow, failure.detail)
        self._log_failure(self.plane.remove_sas(flow, tunnel.sas), f"{flow}: SAs of a failed tunnel")
        if connection is not None and tunnel.begun_here:
            self.tell(connection, failure)
            if connection.rekey_failed and connection.state is State.KEYED:
                self._rekey_later(connection)
        elif connection is not None and not self.tunnels.is_proposed(flow):
            self.tell(connection, ev.ProposalLapsed(failure.detail))

    def _rekey_later(self, connection: Connection) -> None:
        """The old keys still serve: try again, ever less often."""
        if connection.rekeys_failed <= len(REKEY_AGAIN):
            wait, old = REKEY_AGAIN[connection.rekeys_failed - 1], connection.tunnel
            self._clock.callLater(wait, self._rekey_again, connection, old)

    def _rekey_again(self, connection: Connection, old: int) -> None:
        if self.connections.get(connection.flow) is connection and connection.tunnel == old:
            self.tell(connection, ev.SoftLifetimeReached("a rekey that failed is tried again"))

    @hear.register
    def _(self, event: ike.TunnelDeleted | ike.TunnelLost | ike.TunnelGone) -> None:
        connection = self.connections.get(event.flow)
        if connection and connection.tunnel == event.tunnel and not isinstance(event, ike.TunnelGone):
            # What the peer deletes while it proposes anew is wanted on: its flow is held until the new tunnel stands.
            lost = ev.HardLifetimeReached if self.tunnels.is_proposed(event.flow) else ev.PeerDeleted
            self.tell(connection, lost(event.detail))
        if tunnel := self.tunnels.end(event.tunnel):
            self._log_failure(self.plane.remove_sas(tunnel.flow, tunnel.sas), f"{tunnel.flow}: its SAs")

    @hear.register
    def _(self, event: ike.ChannelUp) -> None:
        self.log.info("{peer}: a keying channel stands; it proved to be {identity}", peer=event.peer,
                      identity=event.identity)

    @hear.register
    def _(self, event: ike.ChannelFailed) -> None:
        self.log.info("{peer}: no keying channel: {failure}; {detail}", peer=event.peer, failure=event.failure.value,
                      detail=event.detail)

    @hear.register
    def _(self, event: ike.MessageSeen) -> None:
        self.notes.message(event)

    @hear.register
    def _(self, event: ike.DatagramRefused) -> None:
        self.log.debug("{peer}: dropped a datagram: {reason}", peer=event.peer, reason=event.reason)
        if event.flow is not None:
            self.notes.take(event.flow, f"refused the tunnel that {event.peer} proposed: {event.reason}")

    # The journal, and what goes wrong inside

    def _in_force(self, connection: Connection, policy: ForwardingPolicy) -> None:
        tunnel = self.tunnels.get(connection.tunnel) if connection.tunnel is not None else None
        if policy is ForwardingPolicy.ENCRYPT and tunnel is not None and tunnel.begun_here:
            self.notes.take(connection.flow, "the held datagrams leave through the tunnel",
                       Arrow("6", Ink.ESP, Party.GATEWAY, Party.PEER))

    def _in_clock_time(self, answered: ev.Answered) -> ev.Answered:
        """Answers expire in UNIX time, connections live in the clock's."""
        ahead = answered.expires - self._unix_time()
        return replace(answered, expires=self._clock.seconds() + ahead)

    def _log_failure(self, deferred: "Deferred[Any]", what: str,
                     instead: Callable[[str], object] = lambda why: None) -> None:
        """Log what should not fail, and do `instead`, so that no connection waits for it for ever."""
        def failed(failure: Failure) -> None:
            self.log.failure("{what} failed", failure=failure, what=what)
            instead(f"{what} failed: {failure.getErrorMessage()}")
        deferred.addErrback(failed)
