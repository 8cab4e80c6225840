"""Ends of tunnels and channels, coordinated by deletes: RFC 4322 sections 3.4.2 and 9.3."""

from oesvc.ike.events import SpiRefused, TunnelDeleted, TunnelGone, TunnelLost
from oesvc.ike.failures import KeyingFailure
from oesvc.ike.v1.channels import Channel
from oesvc.ike.v1.constants import DELETE_SPACING, DELETE_TRIES, DPD_TRIES, Protocol
from oesvc.ike.v1.core import Core
from oesvc.ike.v1.informational import Informational
from oesvc.ike.v1.phase1 import Phase1
from oesvc.ike.v1.phase2 import Phase2
from oesvc.ike.v1.phase2_offer import SPI_OCTETS
from oesvc.ike.v1.tunnels import TunnelRecord, TunnelState
from oesvc.ike.v1.wire.payloads import Deletion
from oesvc.ipsec.flow import Address, Flow


class Teardown:
    """Takes tunnels down, by our will or the peer's."""

    def __init__(self, core: Core, phase1: Phase1, phase2: Phase2, informational: Informational) -> None:
        self._core, self._phase1, self._phase2, self._informational = core, phase1, phase2, informational

    def delete(self, tunnel: TunnelRecord, now: float) -> None:
        """Begin to delete a standing tunnel, or give up one that is being negotiated."""
        if tunnel.state is TunnelState.UP:
            tunnel.state = TunnelState.DELETING
            self._try(tunnel, now)
        elif tunnel.state is not TunnelState.DELETING:
            self._announce(tunnel)
            self._gone(tunnel, confirmed=False)

    def received(self, channel: Channel, deletion: Deletion, now: float) -> None:
        """An authentic delete. Those for what we do not have have crossed ours: they are ignored in silence."""
        if deletion.protocol == Protocol.ESP:
            self._tunnels_deleted(channel, {int.from_bytes(spi, "big") for spi in deletion.spis})
        elif deletion.protocol == Protocol.ISAKMP:
            for other in self._core.channels.of_same_peer(channel):
                if other.cookie_i + other.cookie_r in deletion.spis:
                    self._phase1.ended_by_peer(other, "the peer closed the keying channel", now)
            self._doubt_unwatched(channel)

    def _doubt_unwatched(self, closed: Channel) -> None:
        """The peer has closed its last keying channel: its deletes of the tunnels may be lost, or too late to be read.

        Without a channel nobody would notice that the peer has them no more. New keys for one will tell.
        """
        for tunnel in self._core.tunnels.of_peer(closed.peer.address):
            if (closed.shares(tunnel) and tunnel.state is TunnelState.UP
                    and self._core.channels.standing(tunnel.peer, tunnel.identity, tunnel.keys) is None):
                self._core.tell(SpiRefused(tunnel.id, tunnel.flow, tunnel.peer,
                                           f"{tunnel.peer} has closed its last keying channel with us"))
                return

    def initial_contact(self, channel: Channel, now: float) -> None:
        """The authenticated peer knows of nothing older than this channel (RFC 2407 section 4.6.3.3).

        What came to stand after this channel had begun is not older: two first channels may cross.
        """
        for other in self._core.channels.of_same_peer(channel):
            if other.standing and other.standing.since < channel.begun:
                self._phase1.ended_by_peer(other, "the peer has rebooted", now)
        for tunnel in self._core.tunnels.of_peer(channel.peer.address):
            if channel.shares(tunnel) and tunnel.up_since is not None and tunnel.up_since < channel.begun:
                self._lost_by_peer(tunnel)

    def peer_died(self, channel: Channel, now: float) -> None:
        """The peer does not answer under its newest channel: nothing that it shares with us is of use."""
        peer = channel.peer.address
        detail = f"{peer} answered none of {DPD_TRIES} questions whether it is there"
        for other in self._core.channels.of_same_peer(channel):
            self._phase1.end(other, KeyingFailure.PEER_SILENT, detail)
        for tunnel in self._core.tunnels.of_peer(peer):
            if channel.shares(tunnel) and tunnel.state is TunnelState.UP:
                self._phase2.forget(tunnel)
                self._core.tell(TunnelLost(tunnel.id, tunnel.flow, peer, detail))

    def address_gone(self, local: Address) -> None:
        """Nobody can be told from there any more."""
        detail = f"our address {local} is gone"
        for channel in self._core.channels:
            if channel.local.address == local:
                self._phase1.end(channel, KeyingFailure.PEER_SILENT, detail)
        for tunnel in self._core.tunnels:
            if tunnel.local == local:
                self._phase2.forget(tunnel)
                self._core.tell(TunnelLost(tunnel.id, tunnel.flow, tunnel.peer, detail)
                                if tunnel.state is TunnelState.UP else TunnelGone(tunnel.id, tunnel.flow, False))

    def close(self, now: float) -> None:
        """Delete everything. What is being negotiated fails; tunnels wait for the peers' confirmation as ever."""
        for channel in self._core.channels:
            if not channel.standing:
                self._phase1.end(channel, KeyingFailure.CLOSING, "this gateway is shutting down")
        for tunnel in self._core.tunnels:
            if tunnel.state in (TunnelState.WAITING, TunnelState.NEGOTIATING):
                self._announce(tunnel)
                self._phase2.fail(tunnel, KeyingFailure.CLOSING, "this gateway is shutting down")
            else:
                self.delete(tunnel, now)
        for channel in self._core.channels:
            deletion = Deletion(Protocol.ISAKMP, (channel.cookie_i + channel.cookie_r,))
            self._informational.send_delete(channel, deletion, None)

    def _try(self, tunnel: TunnelRecord, now: float) -> None:
        if tunnel.tries == DELETE_TRIES or not self._announce(tunnel):
            self._gone(tunnel, confirmed=False)
            return
        tunnel.tries += 1
        tunnel.deadline = self._core.timers.at(now + DELETE_SPACING, self._try, tunnel)

    def _announce(self, tunnel: TunnelRecord) -> bool:
        """Tell the peer, under the newest keying channel with it; False when there is nobody or nothing to tell."""
        channel = self._core.channels.standing(tunnel.peer, tunnel.identity, tunnel.keys)
        if channel is None or tunnel.inbound_spi is None or tunnel.outbound_spi is None:
            return False
        self._send(channel, [tunnel.inbound_spi], tunnel.flow)
        return True

    def _send(self, channel: Channel, spis: list[int], flow: Flow | None) -> None:
        deletion = Deletion(Protocol.ESP, tuple(spi.to_bytes(SPI_OCTETS, "big") for spi in spis))
        self._informational.send_delete(channel, deletion, flow)

    def _tunnels_deleted(self, channel: Channel, spis: set[int]) -> None:
        answers: list[TunnelRecord] = []
        for spi in sorted(spis):
            tunnel = self._core.tunnels.sending_to(channel.peer.address, spi)
            if tunnel and channel.shares(tunnel):
                if tunnel.state is not TunnelState.DELETING:
                    answers.append(tunnel)
                self._lost_by_peer(tunnel)
        if answers:
            inbound = [tunnel.inbound_spi for tunnel in answers if tunnel.inbound_spi is not None]
            self._send(channel, inbound, answers[0].flow if len(answers) == 1 else None)

    def _lost_by_peer(self, tunnel: TunnelRecord) -> None:
        """The peer has the tunnel no longer."""
        if tunnel.state is TunnelState.DELETING:
            self._gone(tunnel, confirmed=True)
        elif tunnel.state is TunnelState.UP:
            self._phase2.forget(tunnel)
            self._core.tell(TunnelDeleted(tunnel.id, tunnel.flow, tunnel.peer))
        elif tunnel.state is TunnelState.NEGOTIATING:
            self._phase2.fail(tunnel, KeyingFailure.PHASE2_REFUSED,
                              f"the peer deleted the tunnel for {tunnel.flow} before it was finished")

    def _gone(self, tunnel: TunnelRecord, confirmed: bool) -> None:
        self._phase2.forget(tunnel)
        self._core.tell(TunnelGone(tunnel.id, tunnel.flow, confirmed))
