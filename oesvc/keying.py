"""The keying engine at work: what it sends, what it says, and what the DNS and the kernel answer it."""

from collections.abc import Callable, Sequence
from functools import partial, singledispatchmethod
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from oesvc.alarm import Alarm
from oesvc.configured_peers import ConfiguredPeers
from oesvc.discovery import Discovery
from oesvc.ike import events as ike
from oesvc.ike.datagram import Datagram
from oesvc.ike.identity import Identity
from oesvc.interfaces import Clock, ForwardingPlane, KeyingEngine, Traffic
from oesvc.ipsec.flow import Address, Flow
from oesvc.ipsec.rsa_key import RsaPublicKey
from oesvc.ipsec.sa import IpsecSa
from oesvc.ipsec.subnets import Subnets
from oesvc.keylog import KeyLog
from oesvc.notes import Notes, log_failure
from oesvc.oe import events as ev
from oesvc.oe.classes import PolicyLine
from oesvc.oe.configured import ConfiguredTunnel
from oesvc.oe.connection import Connection
from oesvc.oe.connections import Connections, Instance
from oesvc.oe.machine import State
from oesvc.outcomes import FAILURES
from oesvc.partners import Partners
from oesvc.statistics import Statistics
from oesvc.tunnels import TunnelRecord, Tunnels

REKEY_AGAIN = (10.0,) * 6 + (60.0,) * 5
"Seconds until a rekey that failed is tried again, as long as the old keys last (decisions 1E.11)."


class Keying:
    """Where IKE meets DNS, kernel and connections."""

    log = Logger()

    def __init__(self, *, engine: KeyingEngine, discovery: Discovery, peers: ConfiguredPeers, plane: ForwardingPlane,
                 connections: Connections, tunnels: Tunnels, notes: Notes, key_log: KeyLog, statistics: Statistics,
                 clock: Clock, send: Callable[[Datagram], None], is_ours: Callable[[Address], bool],
                 calculate: Callable[[ike.Job], "Deferred[Any]"],
                 tell: Callable[[Instance, ev.Event], None], partners: Partners,
                 spi_refused: Callable[[Address, Flow, str], object]) -> None:
        """`tell` hands an event to a connection, `spi_refused` tells Recovery; the rest is as in KeyingDaemon."""
        self.engine = engine
        self._discovery = discovery
        self._peers = peers
        self._plane = plane
        self._connections = connections
        self._tunnels = tunnels
        self._notes = notes
        self._key_log = key_log
        self._statistics = statistics
        self._clock = clock
        self._send = send
        self._is_ours = is_ours
        self._calculate = calculate
        self._tell = tell
        self._partners = partners
        self._spi_refused = spi_refused
        self._hear = self.hear
        "Looked up once: `singledispatchmethod` makes a function each time."
        self._deadline = Alarm(clock, partial(self._call, engine.handle_deadline))

    def receive_datagram(self, datagram: Datagram) -> None:
        """A datagram came to an IKE port."""
        self._call(lambda now: self.engine.receive_datagram(datagram, now))

    def peer_unreachable(self, peer: Address) -> None:
        """An ICMP unreachable came about a datagram of ours to a peer (section 9.2)."""
        self._call(lambda now: self.engine.peer_unreachable(peer, now))

    def address_gone(self, address: Address) -> None:
        """An address of ours is gone; keys agreed on from there are of no use."""
        self._call(lambda now: self.engine.address_gone(address, now))

    def initiate(self, connection: Instance, local: Address, gateway: Address, identity: Identity,
                 keys: Sequence[RsaPublicKey]) -> None:
        """Begin a tunnel with a gateway that must prove to be `identity` by one of `keys`."""
        flow, options = connection.flow, connection.line.options
        tunnel = self.engine.initiate(flow, local, gateway, identity, keys, self._clock.seconds(), options.keying_time)
        self._tunnels.begin(TunnelRecord(tunnel, flow, gateway, begun_for=connection, dnssec=options.dnssec))
        self.turn()

    def disown(self, local: Address, peer: Address, spi: int, port: int | None) -> None:
        """A gateway sends by an SPI that we do not have: tell it."""
        self._call(lambda now: self.engine.disown(local, peer, spi, port, now))

    def close(self) -> None:
        """Tell all peers that this gateway goes; no negotiation is begun or answered from now on (section 9.3)."""
        self._call(self.engine.close)
        self._deadline.stop()

    def _call(self, call: Callable[[float], object]) -> None:
        call(self._clock.seconds())
        self.turn()

    def turn(self) -> None:
        """Send what the engine has to send and hear what it has to say, until it has nothing more."""
        for event in self.engine.events():
            self._key_log.heard(event)
            self._statistics.heard(event)
            self._hear(event)
        for datagram in self.engine.datagrams_to_send():
            self._send(datagram)
        self._deadline.set(self.engine.next_deadline())

    def delete(self, tunnel: ike.TunnelId) -> None:
        """Tell the peer that a tunnel ends."""
        self._call(lambda now: self.engine.delete_tunnel(tunnel, now))

    @singledispatchmethod
    def hear(self, event: ike.IkeEvent) -> None:
        raise TypeError(f"nobody hears {event}")

    @hear.register
    def _(self, event: ike.Work) -> None:
        done = self._calculate(event.calculate)
        done.addCallback(lambda result: self._call(lambda now: self.engine.work_done(event.id, result, now)))
        log_failure(done, "IKE", "arithmetic")

    @hear.register
    def _(self, event: ike.KeysWanted) -> None:
        async def find_keys() -> None:
            note = partial(self._notes.peer_question, event.peer)
            policy = self._discovery.most_lenient(self._connections.classes.dnssec_policies)
            found = await self._peers.keys(event.identity, note, event.peer, policy)
            if found.keys:
                self._call(lambda now: self.engine.keys_found(event.channel, event.identity, found.keys, now))
            else:
                self.log.info("{peer}: no key for {identity}: {detail}", peer=event.peer, identity=event.identity,
                              detail=found.detail)
                self._call(lambda now: self.engine.keys_missing(event.channel, event.identity, found.detail, now))
        log_failure(Deferred.fromCoroutine(find_keys()), event.peer, f"looking up {event.identity}'s keys")

    @hear.register
    def _(self, event: ike.TunnelProposed) -> None:
        self._notes.adopt(event.flow, event.peer)
        line = self._connections.classes.find(event.flow.destination)
        self._tunnels.begin(TunnelRecord(event.tunnel, event.flow, event.peer, dnssec=line.options.dnssec))
        configured = isinstance(event.flow, Subnets)
        if not configured and not self._is_ours(event.flow.source):
            self._refuse(event, f"{event.flow.source} is not behind this gateway")
        elif not configured and not line.connection_class.opportunistic:
            self._refuse(event, f"the policy here is {line}")
        else:
            authorized = Deferred.fromCoroutine(self._authorize(event, line))
            log_failure(authorized, event.flow, f"authorization of {event.peer}")

    async def _authorize(self, event: ike.TunnelProposed, line: PolicyLine) -> None:
        note = partial(self._notes.question, event.flow, True)
        verdict = await self._peers.authorization(event.flow, event.identity, event.key, note, event.peer,
                                                 line.options.dnssec, event.calls_from_there)
        if self._tunnels.get(event.tunnel) is None:
            return  # the peer has given up meanwhile
        now_in_force = self._connections.classes.find(event.flow.destination)
        if not verdict.authorized:
            self._refuse(event, verdict.detail)
        elif not now_in_force.treats_alike(line):
            self._refuse(event, f"the policy was changed meanwhile: {now_in_force}")
        else:
            self._tell(self._connections.instantiate(event.flow), ev.PeerAuthorized(verdict.detail, verdict.status))
            self._call(lambda now: self.engine.accept_tunnel(event.tunnel, now))

    def _refuse(self, event: ike.TunnelProposed, why: str) -> None:
        text = f"refused the tunnel that {event.peer} proposed: {why}"
        self._notes.take(event.flow, text)
        self.log.info("{flow}: {text}", flow=event.flow, text=text)
        self._tunnels.end(event.tunnel)
        self._call(lambda now: self.engine.refuse_tunnel(event.tunnel, why, now))

    @hear.register
    def _(self, event: ike.SasReady) -> None:
        self._tunnels.add_sas(event.tunnel, event.sas)

        def installed(_: None) -> None:
            if self._tunnels.get(event.tunnel) is not None:
                self._call(lambda now: self.engine.sas_installed(event.tunnel, now))

        adding = self._plane.add_sas(event.flow, event.sas)
        adding.addCallback(installed)
        adding.addErrback(lambda failure: (self._give_up(event, failure.getErrorMessage())))
        log_failure(adding, event.flow, "new SAs")

    def _give_up(self, event: ike.SasReady, why: str) -> None:
        """The kernel refused the SAs of a tunnel: nothing can come of it."""
        self.log.error("{flow}: the kernel refused the SAs: {why}", flow=event.flow, why=why)
        self._notes.take(event.flow, f"the kernel refused the SAs: {why}")
        self._failed(event.tunnel, event.flow, ev.SasRefused(why))
        self.delete(event.tunnel)

    @hear.register
    def _(self, event: ike.TunnelUp) -> None:
        tunnel = self._tunnels.get(event.tunnel)
        connection = self._connections.get(event.flow)
        if tunnel is None or connection is None or not (
                isinstance(connection, ConfiguredTunnel) or connection.connection_class.opportunistic):
            self.delete(event.tunnel)
            return
        self._tunnels.settle(tunnel)
        if isinstance(connection, Connection) and tunnel.dnssec is not connection.line.options.dnssec:
            self._overtaken(tunnel, connection)
            return
        tunnel.identity = event.identity
        self._discovery.has_answered(event.peer)
        self._partners.connected(event.tunnel, event.peer, event.flow)
        detail = f"with {event.peer}, which proved to be {event.identity}; {tunnel.protection}"
        self._tell(connection, ev.TunnelNegotiated(detail, event.tunnel, Flow(event.local, event.peer),
                                                  tunnel.begun_here))

    def _overtaken(self, tunnel: TunnelRecord, connection: Connection) -> None:
        """A reload has changed what keys are believed: the connection is another one, and asks for itself.

        No attempt of its own has come to nothing, but it may wait for this proposal.
        """
        why = f"the tunnel with {tunnel.peer} is not used: the policy was changed meanwhile: {connection.line}"
        self._notes.take(tunnel.flow, why)
        self.delete(tunnel.id)
        if not (tunnel.begun_here or self._tunnels.is_proposed(tunnel.flow)):
            self._tell(connection, ev.ProposalLapsed(why))

    @hear.register
    def _(self, event: ike.LifetimeShortened | ike.TunnelMoved) -> None:
        if isinstance(event, ike.TunnelMoved) and (connection := self._connections.get(event.flow)):
            connection.follow(event.tunnel, event.gateways)
        if sas := self._tunnels.change(event):
            log_failure(self._plane.change_sas(event.flow, sas), event.flow, "changed SAs")

    @hear.register
    def _(self, event: ike.TunnelFailed) -> None:
        detail = f"gateway {event.peer}: {event.failure.value}; {event.detail}"
        self._failed(event.tunnel, event.flow, FAILURES[event.failure](detail))

    def _failed(self, tunnel_id: ike.TunnelId, flow: Flow, failure: ev.Event) -> None:
        """An attempt came to nothing: its SAs go, and the connection whose it was hears of it."""
        tunnel = self._tunnels.end(tunnel_id)
        connection = self._connections.get(flow)
        if tunnel is None:
            return
        self._notes.take(flow, failure.detail)
        log_failure(self._plane.remove_sas(flow, tunnel.sas), flow, "SAs of a failed tunnel")
        if isinstance(failure, ev.PeerSilent) and tunnel.begun_here:
            self._discovery.was_silent(tunnel.peer)
        if connection is not None and connection is tunnel.begun_for:
            self._tell(connection, failure)
            if isinstance(connection, Connection) and connection.rekey_failed and connection.state is State.KEYED:
                self._rekey_later(connection)
        elif connection is not None and not (tunnel.begun_here or self._tunnels.is_proposed(flow)):
            self._tell(connection, ev.ProposalLapsed(failure.detail))

    def _rekey_later(self, connection: Connection) -> None:
        """The old keys still serve: try again, ever less often."""
        if connection.rekeys_failed <= len(REKEY_AGAIN):
            wait, old = REKEY_AGAIN[connection.rekeys_failed - 1], connection.tunnel
            self._clock.callLater(wait, self._rekey_again, connection, old)

    def _rekey_again(self, connection: Connection, old: int) -> None:
        if self._connections.get(connection.flow) is connection and connection.tunnel == old:
            self._tell(connection, ev.SoftLifetimeReached("a rekey that failed is tried again"))

    @hear.register
    def _(self, event: ike.TunnelDeleted | ike.TunnelLost | ike.TunnelGone) -> None:
        connection = self._connections.get(event.flow)
        if isinstance(event, ike.TunnelLost):
            self._discovery.was_silent(event.peer)
        if connection and connection.tunnel != event.tunnel:
            connection.drop(event.tunnel)
        elif connection and not isinstance(event, ike.TunnelGone):
            lost = ev.PeerLost if isinstance(event, ike.TunnelLost) else ev.PeerDeleted
            # What the peer deletes while it proposes anew is wanted on: its flow is held until the new tunnel stands.
            wanted_on = self._tunnels.is_proposed(event.flow)
            self._tell(connection, (ev.HardLifetimeReached if wanted_on else lost)(event.detail))
        self._partners.parted(event.tunnel)
        if tunnel := self._tunnels.end(event.tunnel):
            self.take_out(tunnel, tunnel.sas)

    def take_out(self, tunnel: TunnelRecord, sas: Sequence[IpsecSa]) -> None:
        """Remove SAs of a tunnel from the kernel, and tell how much went by them (section 3.2.8)."""
        def tell(traffic: Traffic) -> None:
            for sa in sas:
                octets, datagrams = traffic.get((sa.spi, sa.destination), (0, 0))
                if datagrams:
                    verb = "sent" if sa.flow == tunnel.flow else "received"
                    text = f"{verb} by the tunnel with {tunnel.peer}: {datagrams} datagrams of {octets} octets"
                    self._notes.take(tunnel.flow, text)
                    self.log.info("{flow}: {text}", flow=tunnel.flow, text=text)
        counting, removing = self._plane.traffic(sas), self._plane.remove_sas(tunnel.flow, sas)
        log_failure(counting.addCallback(tell), tunnel.flow, "final counts")
        log_failure(removing, tunnel.flow, "removal of SAs")

    @hear.register
    def _(self, event: ike.SpiRefused) -> None:
        self._spi_refused(event.peer, event.flow, event.detail)

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
        self._notes.message(event)

    @hear.register
    def _(self, event: ike.DatagramRefused) -> None:
        self.log.debug("{peer}: dropped a datagram: {reason}", peer=event.peer, reason=event.reason)
        if event.flow is not None:
            self._notes.take(event.flow, f"refused the tunnel that {event.peer} proposed: {event.reason}")
