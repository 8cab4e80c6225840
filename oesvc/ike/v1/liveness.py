"""Dead peers noticed: RFC 3706. A peer that is silent while there are tunnels with it is asked whether it is there.

Its notifies carry sequence numbers, which tell repeated ones apart; so their message IDs need not be remembered. Ours
are made of the sequence number by a keyed hash, so that what comes back to us reflected is known for our own.
"""

import struct
from collections.abc import Callable
from hashlib import blake2b

from oesvc.ike.datagram import Path
from oesvc.ike.v1.channels import Channel
from oesvc.ike.v1.constants import DPD_SPACING, DPD_TRIES, SEQUENCE_OCTETS, NotifyType, Protocol
from oesvc.ike.v1.core import Core
from oesvc.ike.v1.errors import UnexpectedError
from oesvc.ike.v1.informational import Informational
from oesvc.ike.v1.mapping import heard
from oesvc.ike.v1.tunnels import TunnelState
from oesvc.ike.v1.vendor import Extension
from oesvc.ike.v1.wire.payloads import Notification

SECRET_OCTETS = 32


class Liveness:
    """Asks, answers, and says who is dead."""

    def __init__(self, core: Core, informational: Informational, dead: Callable[[Channel, float], None]) -> None:
        self._core, self._informational, self._dead = core, informational, dead
        self._secret = core.entropy(SECRET_OCTETS)

    def watch(self, channel: Channel, now: float) -> None:
        """A channel has come to stand."""
        standing, idle = channel.standing, self._core.config.dpd_idle
        if idle and standing and Extension.DEAD_PEER_DETECTION in standing.extensions:
            channel.liveness = self._core.timers.at(now + idle, self._look, channel)

    def received(self, channel: Channel, notification: Notification, message_id: int, path: Path, now: float) -> None:
        """An authentic R-U-THERE or R-U-THERE-ACK. Raises UnexpectedError for repeated and reflected ones."""
        sequence = int.from_bytes(notification.data, "big")
        if len(notification.data) != SEQUENCE_OCTETS:
            raise UnexpectedError(f"{notification.name} with {len(notification.data)} octets of sequence number")
        if message_id == self._message_id(channel, notification.type, sequence):
            raise UnexpectedError(f"a {notification.name} of our own")
        if notification.type == NotifyType.R_U_THERE:
            if sequence < channel.dpd_seen:
                raise UnexpectedError(f"R-U-THERE number {sequence} after {channel.dpd_seen}")
            if sequence == channel.dpd_seen:
                # Our answer may have been lost; but it may be somebody else who repeats it, too.
                self._send(channel, NotifyType.R_U_THERE_ACK, sequence)
                return
            channel.dpd_seen = sequence
            heard(self._core, channel, path, now)
            self._send(channel, NotifyType.R_U_THERE_ACK, sequence)
        elif not 0 <= channel.dpd_asked - sequence < channel.dpd_tries:
            raise UnexpectedError(f"R-U-THERE-ACK number {sequence} is no answer")
        else:
            heard(self._core, channel, path, now)
        channel.dpd_tries = 0

    def _look(self, channel: Channel, now: float) -> None:
        """Ask once more, or wait until there is something to ask for."""
        idle, last = self._core.config.dpd_idle, channel.heard_at
        if last + idle > now:
            channel.dpd_tries, wait = 0, last + idle - now
        elif not self._is_needed(channel):
            channel.dpd_tries, wait = 0, idle
        elif channel.dpd_tries == DPD_TRIES:
            self._dead(channel, now)
            return
        else:
            channel.dpd_tries += 1
            channel.dpd_asked += 1
            self._send(channel, NotifyType.R_U_THERE, channel.dpd_asked)
            wait = DPD_SPACING
        channel.liveness = self._core.timers.at(now + wait, self._look, channel)

    def _is_needed(self, channel: Channel) -> bool:
        """Whether it is the newest channel with a peer that there are tunnels with."""
        return (self._core.channels.is_newest(channel)
                and any(channel.shares(tunnel) and tunnel.state is TunnelState.UP
                        for tunnel in self._core.tunnels.of_peer(channel.peer.address)))

    def _send(self, channel: Channel, type: NotifyType, sequence: int) -> None:
        spi, data = channel.cookie_i + channel.cookie_r, sequence.to_bytes(SEQUENCE_OCTETS, "big")
        message_id = self._message_id(channel, type, sequence)
        self._informational.send_unremembered(channel, Notification(Protocol.ISAKMP, type, spi, data), message_id)

    def _message_id(self, channel: Channel, type: int, sequence: int) -> int:
        what = channel.cookie_i + channel.cookie_r + struct.pack(">HL", type, sequence)
        return int.from_bytes(blake2b(what, key=self._secret, digest_size=4).digest(), "big") or 1
