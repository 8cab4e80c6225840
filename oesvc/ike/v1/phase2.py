"""Runs quick mode for all tunnels, in both roles: RFC 2409 section 5.5, RFC 4322 sections 3.2.5 and 3.3.2."""

from collections.abc import Callable, Sequence

from oesvc.ike.datagram import Endpoint, Path
from oesvc.ike.events import DatagramRefused, LifetimeShortened, SasReady, TunnelFailed, TunnelProposed, TunnelUp, Way
from oesvc.ike.failures import KeyingFailure
from oesvc.ike.v1.arithmetic import Whose
from oesvc.ike.v1.channels import Channel, Standing
from oesvc.ike.v1.constants import (
    COMMIT_WAIT,
    LAST_ERROR_NOTIFY,
    LINGER,
    MAX_EXCHANGES,
    NOT_READ,
    PORT,
    TIME_TO_RENEW,
    ExchangeType,
    NotifyType,
    Protocol,
)
from oesvc.ike.v1.core import Core
from oesvc.ike.v1.errors import BusyError, PeerError, RefusedError, SpiError, UnexpectedError
from oesvc.ike.v1.exchange import Exchange, Ladder, Outcome
from oesvc.ike.v1.informational import Informational
from oesvc.ike.v1.mapping import heard
from oesvc.ike.v1.nat import explain, hides
from oesvc.ike.v1.negotiation import lifetime_notice, read_lifetime
from oesvc.ike.v1.phase2_offer import SPI_OCTETS
from oesvc.ike.v1.quick_mode import (
    INITIATOR,
    NAME_SENT,
    RESPONDER,
    Answered,
    AnswerSent,
    Complete,
    ConfirmedByPeer,
    NotBegun,
    Proposed,
    Terms,
    ToAnswer,
    ToAuthorize,
    authorized,
    out_1,
    out_2,
    out_3,
)
from oesvc.ike.v1.tunnels import TunnelRecord, TunnelState
from oesvc.ike.v1.wire.header import COMMIT, Header
from oesvc.ike.v1.wire.payloads import Deletion, Notification
from oesvc.ipsec.flow import Address
from oesvc.ipsec.sa import IpsecSa, Lifetime
from oesvc.ipsec.subnets import Subnets


class Phase2:
    """Brings tunnels up."""

    def __init__(self, core: Core, informational: Informational,
                 noticed: Callable[[Channel, Sequence[Notification], float], None]) -> None:
        """`noticed` is told of the authentic status notifies that come with a quick mode."""
        self._core, self._informational, self._noticed = core, informational, noticed

    def begin(self, tunnel: TunnelRecord, channel: Channel, standing: Standing, now: float) -> None:
        """Propose a tunnel under a standing channel."""
        for whose, host in ("our", tunnel.flow.source), ("the peer's", tunnel.flow.destination):
            if not isinstance(tunnel.flow, Subnets) and hides(channel.peer.address, host, channel.nat):
                self.fail(tunnel, KeyingFailure.NO_IDENTITY, explain(f"{whose} host", host, channel.peer.address))
                return
        message_id = self._core.new_message_id(channel)
        terms, spi = self._terms(channel, standing, message_id), self._core.new_spi()
        exchange = self._exchange(channel, standing, message_id, Whose.OURS, INITIATOR)
        self._core.tunnels.receives_by(tunnel, spi)
        self._negotiate(tunnel, channel, terms, exchange)
        exchange.climb(out_1(terms, tunnel.flow, spi, standing.group),
                       lambda outcome, now: self._send(tunnel, channel, outcome, now, repeat=True),
                       lambda error: self._not_taken(channel, error), now)

    def unanswered(self, channel: Channel) -> list[TunnelRecord]:
        """Tunnels that we have proposed under this channel and that the peer has not answered yet."""
        return [tunnel for tunnel in channel.quick_modes.values() if tunnel.channel_id == channel.id
                and tunnel.quick_mode and isinstance(tunnel.quick_mode.stage, NotBegun | Proposed)]

    def withdraw(self, tunnel: TunnelRecord) -> None:
        """Forget a negotiation, so that the tunnel can begin another one."""
        channel = self._channel(tunnel)
        if channel and tunnel.quick_mode:
            channel.quick_modes.pop(tunnel.quick_mode.message_id, None)
        if tunnel.quick_mode:
            tunnel.quick_mode.stop()
        if tunnel.deadline:
            tunnel.deadline.cancel()
        tunnel.quick_mode = tunnel.terms = None

    def message(self, channel: Channel, header: Header, data: bytes, path: Path, now: float) -> None:
        """Take a message of quick mode. Raises PeerError."""
        tunnel = channel.quick_modes.get(header.message_id)
        if tunnel is None or tunnel.quick_mode is None or tunnel.terms is None:
            self._first_message(channel, header, data, path, now)
            return
        exchange = tunnel.quick_mode
        if exchange.repeats(data):
            again = exchange.answer_again(now)
            if again:
                # Behind a NAT, somebody may have sent a copy from elsewhere before the peer's own message came.
                self._core.send_on(channel, again, path if channel.may_come_by(path) else None)
            return
        exchange.take(tunnel.terms, header, data, now,
                      lambda name, outcome, now: self._climbed(tunnel, channel, name, outcome, header, path, now),
                      lambda error: self._not_taken(channel, error))

    def _climbed(self, tunnel: TunnelRecord, channel: Channel, name: str, outcome: Outcome, header: Header,
                 path: Path, now: float) -> None:
        tunnel.awaits_connected |= bool(header.flags & COMMIT)
        self._core.channels.use(channel, now)
        heard(self._core, channel, path, now)
        self._core.saw(Way.RECEIVED, name, channel, tunnel.flow, encrypted=True)
        if isinstance(outcome.stage, Answered):
            spi = outcome.stage.outbound.spi
            if self._core.tunnels.sending_to(tunnel.peer, spi):
                self.fail(tunnel, KeyingFailure.PHASE2_REFUSED,
                          f"the peer has chosen the SPI {spi:#010x} of another tunnel for {tunnel.flow}")
                return
            self._noticed(channel, outcome.stage.notices, now)
            self._core.tunnels.sends_by(tunnel, spi)
            self._tell_sas(tunnel, outcome.stage.inbound, outcome.stage.outbound)
        elif isinstance(outcome.stage, ConfirmedByPeer):
            self._tell_sas(tunnel, outcome.stage.outbound)

    def _tell_sas(self, tunnel: TunnelRecord, *sas: IpsecSa) -> None:
        self._core.tell(SasReady(tunnel.id, tunnel.flow, tuple(map(tunnel.place, sas))))

    def _not_taken(self, channel: Channel, error: PeerError) -> None:
        """Arithmetic has shown that a message is not what it should be."""
        self._core.tell(DatagramRefused(channel.peer.address, str(error)))

    def accept(self, tunnel: TunnelRecord, now: float) -> None:
        """The owner authorizes a proposed tunnel."""
        channel, exchange, terms = self._channel(tunnel), tunnel.quick_mode, tunnel.terms
        if not channel or not exchange or not terms or exchange.busy or not isinstance(exchange.stage, ToAuthorize):
            return
        spi, proposal = self._core.new_spi(), exchange.stage
        self._core.tunnels.receives_by(tunnel, spi)

        def keyed(outcome: Outcome, now: float) -> None:
            self._tell_sas(tunnel, outcome.stage.inbound)

        def unusable(error: PeerError) -> None:
            self._refuse(channel, tunnel, proposal, error.notify)
            self.fail(tunnel, KeyingFailure.PHASE2_REFUSED, f"the peer's key exchange value: {error}")

        exchange.climb(authorized(terms, proposal, spi), keyed, unusable, now)

    def refuse(self, tunnel: TunnelRecord, reason: str) -> None:
        """The owner does not authorize a proposed tunnel: the peer is told so by an authenticated notify."""
        channel, exchange = self._channel(tunnel), tunnel.quick_mode
        if not channel or not exchange or not isinstance(exchange.stage, ToAuthorize):
            return
        self._refuse(channel, tunnel, exchange.stage, NotifyType.INVALID_ID_INFORMATION)
        self._core.tell(DatagramRefused(tunnel.peer, f"the tunnel {tunnel.flow} is refused: {reason}"))
        self.forget(tunnel)

    def installed(self, tunnel: TunnelRecord, now: float) -> None:
        """The owner has put the last SAs into the kernel: go on."""
        channel, exchange = self._channel(tunnel), tunnel.quick_mode
        if not channel or not exchange:
            return
        if isinstance(exchange.stage, ToAnswer):
            outcome = out_2(exchange.stage)
            exchange.go(outcome)
            self._send(tunnel, channel, outcome, now, repeat=True)
        elif isinstance(exchange.stage, Answered):
            outcome = out_3(exchange.stage)
            exchange.go(outcome)
            self._send(tunnel, channel, outcome, now, repeat=False)
            self._up(tunnel, channel, now)
        elif isinstance(exchange.stage, ConfirmedByPeer):
            exchange.go(Outcome(Complete()))
            self._up(tunnel, channel, now)

    def refused_by_peer(self, channel: Channel, notification: Notification) -> None:
        """An authentic error notify: it ends the negotiation that it names, or the only one (section 3.2.5)."""
        if notification.type > LAST_ERROR_NOTIFY or notification.type in NOT_READ:
            return
        negotiating = [tunnel for tunnel in channel.quick_modes.values() if tunnel.state is TunnelState.NEGOTIATING
                       and (exchange := tunnel.quick_mode) and not exchange.busy
                       and isinstance(exchange.stage, Proposed | AnswerSent)]
        spi = int.from_bytes(notification.spi, "big")
        meant = [tunnel for tunnel in negotiating if spi in (tunnel.inbound_spi, tunnel.outbound_spi)]
        if not meant and len(negotiating) == 1:
            meant = negotiating
        for tunnel in meant:
            self.fail(tunnel, KeyingFailure.PHASE2_REFUSED,
                      f"the peer's gateway {channel.peer.address} answered our proposal for {tunnel.flow} with "
                      f"the authenticated notify {notification.name}")

    def channel_ends(self, channel: Channel, failure: KeyingFailure, detail: str) -> None:
        """Tunnels that are not up yet fail with their channel; the others live on."""
        for tunnel in list(channel.quick_modes.values()):
            if tunnel.state is TunnelState.NEGOTIATING and tunnel.channel_id == channel.id:
                self.fail(tunnel, failure, detail)

    def fail(self, tunnel: TunnelRecord, failure: KeyingFailure, detail: str) -> None:
        self.forget(tunnel)
        self._core.tell(TunnelFailed(tunnel.id, tunnel.flow, tunnel.peer, failure, detail))

    def forget(self, tunnel: TunnelRecord) -> None:
        """Remove a tunnel and its negotiation without a word."""
        self.withdraw(tunnel)
        self._core.tunnels.remove(tunnel)

    def _first_message(self, channel: Channel, header: Header, data: bytes, path: Path, now: float) -> None:
        standing = channel.standing
        if standing is None:
            raise UnexpectedError("quick mode before phase 1 is over")
        if not header.message_id or header.message_id in channel.used_ids:
            raise UnexpectedError("quick mode with a message ID that was used before")
        if len(channel.used_ids) >= MAX_EXCHANGES:
            raise BusyError("too many exchanges under one keying channel")
        terms = self._terms(channel, standing, header.message_id)
        exchange = self._exchange(channel, standing, header.message_id, Whose.PEERS, RESPONDER)
        try:
            exchange.take(terms, header, data, now,
                          lambda name, outcome, now: self._proposed(channel, standing, terms, exchange, header,
                                                                    path, now),
                          lambda error: self._not_taken(channel, error))
        except RefusedError as error:
            channel.use_id(header.message_id)
            self._core.saw(Way.RECEIVED, "quick mode 1", channel, error.flow, encrypted=True)
            notification = Notification(Protocol.ESP, error.notify, error.spi)
            self._informational.send_notify(channel, notification, error.flow)
            raise

    def _proposed(self, channel: Channel, standing: Standing, terms: Terms, exchange: Exchange, header: Header,
                  path: Path, now: float) -> None:
        """A good quick mode 1: the owner is asked. Raises PeerError."""
        self._check_budgets(exchange.stage, channel.peer.address)
        self._check_spi(exchange.stage, channel.peer.address)
        channel.use_id(exchange.message_id)
        self._core.channels.use(channel, now)
        heard(self._core, channel, path, now)
        self._noticed(channel, exchange.stage.notices, now)
        flow = exchange.stage.flow
        tunnel = TunnelRecord(self._core.tunnels.next_id(), flow, channel.local.address, channel.peer.address,
                              standing.identity, (standing.key,), TunnelState.NEGOTIATING,
                              now + self._core.config.keying_time)
        tunnel.awaits_connected = bool(header.flags & COMMIT)
        self._core.tunnels.add(tunnel)
        self._core.tunnels.sends_by(tunnel, exchange.stage.spi)
        self._core.saw(Way.RECEIVED, "quick mode 1", channel, flow, encrypted=True)
        self._negotiate(tunnel, channel, terms, exchange)
        there = channel.peer == Endpoint(flow.destination, PORT) and not channel.nat.between
        self._core.tell(TunnelProposed(tunnel.id, flow, tunnel.peer, standing.identity, standing.key, there))

    def _check_budgets(self, stage: ToAuthorize, peer: Address) -> None:
        tunnels = self._core.tunnels
        for budget, have, whose in (("max_tunnels", len(tunnels), "in all"),
                                    ("max_tunnels_per_peer", tunnels.with_peer(peer), "with {peer}"),
                                    ("max_tunnels_per_prefix", tunnels.near(peer), "with peers near {peer}")):
            if self._core.budgets.exhausted(budget, have):
                busy = BusyError(f"the tunnel {stage.flow} is one more than the {have} {whose.format(peer=peer)}: no "
                                 "more are allowed")
                raise RefusedError(busy, stage.chosen.spi, stage.flow)

    def _check_spi(self, stage: ToAuthorize, peer: Address) -> None:
        """By address and SPI the kernel tells SAs apart, whoever is at that address."""
        if self._core.tunnels.sending_to(peer, stage.spi):
            raise RefusedError(SpiError(f"the SPI {stage.spi:#010x} is that of another tunnel with {peer}"),
                               stage.chosen.spi, stage.flow)

    def _negotiate(self, tunnel: TunnelRecord, channel: Channel, terms: Terms, exchange: Exchange) -> None:
        tunnel.state, tunnel.channel_id = TunnelState.NEGOTIATING, channel.id
        tunnel.terms, tunnel.quick_mode = terms, exchange
        tunnel.path = channel.path if channel.nat.between else None
        channel.quick_modes[exchange.message_id] = tunnel
        tunnel.deadline = self._core.timers.at(tunnel.gives_up, self._out_of_time, tunnel, channel)

    def _out_of_time(self, tunnel: TunnelRecord, channel: Channel, _: float) -> None:
        if tunnel.quick_mode and isinstance(tunnel.quick_mode.stage, AnswerSent):
            # The initiator may well have confirmed and think that the tunnel is up.
            spi = tunnel.quick_mode.stage.inbound.spi.to_bytes(SPI_OCTETS, "big")
            self._informational.send_delete(channel, Deletion(Protocol.ESP, (spi,)), tunnel.flow)
        error = tunnel.quick_mode.error if tunnel.quick_mode else None
        said = f"; the last message that came was refused: {error}" if error else ""
        self.fail(tunnel, KeyingFailure.PHASE2_SILENT,
                  f"the keying channel with {tunnel.peer} stands, but quick mode for {tunnel.flow} was not "
                  f"finished in time{said}")

    def connected(self, channel: Channel, notification: Notification, now: float) -> None:
        """A peer that has set the commit bit says that its SAs are installed."""
        spi = int.from_bytes(notification.spi, "big")
        for tunnel in list(channel.quick_modes.values()):
            if tunnel.awaits_connected and spi in (tunnel.inbound_spi, tunnel.outbound_spi):
                if tunnel.quick_mode and isinstance(tunnel.quick_mode.stage, Complete):
                    self._commit(tunnel, channel, now)
                else:
                    tunnel.awaits_connected = False

    def shorten(self, channel: Channel, notification: Notification, now: float) -> None:
        """The peer lets a tunnel's keys end earlier than was agreed. Raises MalformedError."""
        if notification.protocol != Protocol.ESP or not channel.standing:
            return
        said, spi = read_lifetime(notification.data, Protocol.ESP), int.from_bytes(notification.spi, "big")
        for tunnel in self._core.tunnels.of_peer(channel.peer.address):
            if spi in (tunnel.inbound_spi, tunnel.outbound_spi) and channel.shares(tunnel):
                age = 0.0 if tunnel.up_since is None else now - tunnel.up_since
                least = self._core.config.phase2_floor
                seconds = max(said.seconds, least.seconds, int(age) + TIME_TO_RENEW) if said.seconds else 0
                kilobytes = max(said.kilobytes, least.kilobytes) if said.kilobytes else 0
                self._core.tell(LifetimeShortened(tunnel.id, tunnel.flow, Lifetime(seconds, kilobytes)))

    def _commit(self, tunnel: TunnelRecord, channel: Channel, now: float) -> None:
        tunnel.awaits_connected = False
        self._up(tunnel, channel, now)

    def _up(self, tunnel: TunnelRecord, channel: Channel, now: float) -> None:
        if tunnel.deadline:
            tunnel.deadline.cancel()
        if tunnel.awaits_connected:
            # Its word may be lost, and is not repeated: then time has to do.
            tunnel.deadline = self._core.timers.at(now + COMMIT_WAIT, self._commit, tunnel, channel)
            return
        tunnel.state, tunnel.up_since = TunnelState.UP, now
        self._core.timers.at(now + LINGER, self._linger_ends, tunnel, channel)
        self._core.tell(TunnelUp(tunnel.id, tunnel.flow, tunnel.local, tunnel.peer, tunnel.identity))

    def _linger_ends(self, tunnel: TunnelRecord, channel: Channel, _: float) -> None:
        """Nobody repeats messages of this quick mode any more."""
        if tunnel.quick_mode:
            channel.quick_modes.pop(tunnel.quick_mode.message_id, None)
        tunnel.quick_mode = tunnel.terms = None

    def _send(self, tunnel: TunnelRecord, channel: Channel, outcome: Outcome, now: float, repeat: bool) -> None:
        exchange = tunnel.quick_mode
        if exchange is None:
            return
        data = exchange.seal(channel.header(ExchangeType.QUICK_MODE, exchange.message_id), outcome, now)
        self._core.send_on(channel, data)
        channel.greeted = True
        self._core.saw(Way.SENT, NAME_SENT[type(outcome.stage)], channel, tunnel.flow, encrypted=True)
        if repeat:
            self._core.repeat(channel, exchange, data, now)

    def _refuse(self, channel: Channel, tunnel: TunnelRecord, stage: ToAuthorize, type: NotifyType) -> None:
        notification = Notification(Protocol.ESP, type, stage.spi.to_bytes(SPI_OCTETS, "big"))
        self._informational.send_notify(channel, notification, tunnel.flow)

    def _terms(self, channel: Channel, standing: Standing, message_id: int) -> Terms:
        config = self._core.config
        return Terms(standing.secrets, message_id, config.profile, config.phase2_lifetime, config.phase2_floor,
                     self._core.entropy, channel.local.address, channel.peer.address, channel.nat,
                     _greeting(channel, standing), config.configured)

    def _exchange(self, channel: Channel, standing: Standing, message_id: int, whose: Whose,
                  ladder: Ladder) -> Exchange:
        state = standing.secrets.phase2_state(standing.last_block, message_id)
        return Exchange(ExchangeType.QUICK_MODE, message_id, ladder, NotBegun(), self._core.calculate, whose,
                        channel.peer.address, state)

    def _channel(self, tunnel: TunnelRecord) -> Channel | None:
        return self._core.channels.get(tunnel.channel_id) if tunnel.channel_id is not None else None


def _greeting(channel: Channel, standing: Standing) -> tuple[Notification, ...]:
    """What goes with the first quick mode under a channel, whose HASH covers it; in main mode nothing would."""
    cookies, notices = channel.cookie_i + channel.cookie_r, []
    if channel.first_contact and not channel.greeted:
        notices.append(Notification(Protocol.ISAKMP, NotifyType.INITIAL_CONTACT, cookies))
    if standing.shortened and not channel.greeted:
        notices.append(lifetime_notice(Protocol.ISAKMP, cookies, standing.shortened))
    return tuple(notices)
