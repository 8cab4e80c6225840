"""Keying channels replaced before they end, by whichever side is first (RFC 2409 section 5.5; decisions 1E.11, 1E.12).

Tunnels belong to the peer, not to a channel: they live on under the next one. One that nobody needs is left to end.
"""

from collections.abc import Sequence

from oesvc.ike.identity import Identity
from oesvc.ike.v1.channels import Channel
from oesvc.ike.v1.constants import REKEY_SPACING
from oesvc.ike.v1.core import Core
from oesvc.ike.v1.main_mode import Expectation
from oesvc.ike.v1.mapping import path_to
from oesvc.ike.v1.phase1 import Phase1
from oesvc.ipsec.rsa_key import RsaPublicKey

INITIATOR_SHARE, RESPONDER_SHARE = 0.85, 0.92
"Of its lifetime, after which a channel is replaced; who began it is earlier, so that rarely both do."
JITTER_SHARE = 0.05


class Renewal:
    """Watches over the lifetimes of channels."""

    def __init__(self, core: Core, phase1: Phase1) -> None:
        self._core, self._phase1 = core, phase1

    def watch(self, channel: Channel) -> None:
        """A channel has come to stand."""
        if channel.standing:
            share = INITIATOR_SHARE if channel.initiator else RESPONDER_SHARE
            jitter = JITTER_SHARE * channel.cookie_i[0] / 256
            when = channel.standing.since + (share + jitter) * (channel.standing.expires - channel.standing.since)
            channel.rekey = self._core.timers.at(when, lambda now: self._look(channel, now))

    def keys_found(self, channel: Channel, identity: Identity, keys: Sequence[RsaPublicKey], now: float) -> None:
        """The keys that the DNS has for the peer now: with one of them it is to prove itself again."""
        standing = channel.standing
        if standing and standing.identity == identity and channel.wants_keys and self._is_newest(channel):
            channel.wants_keys = False
            expectation = Expectation(standing.identity, tuple(keys))
            deadline = now + self._core.config.keying_time
            path = path_to(self._core, channel.local.address, channel.peer.address, standing.identity)
            self._phase1.begin(path, expectation, deadline, now)

    def _look(self, channel: Channel, now: float) -> None:
        """Replace it, if it is needed, and look again whether that has worked."""
        if self._is_newest(channel) and self._is_needed(channel, now):
            channel.wants_keys = True
            self._phase1.want_keys(channel)
            channel.rekey = self._core.timers.at(now + REKEY_SPACING, lambda now: self._look(channel, now))

    def _is_newest(self, channel: Channel) -> bool:
        standing = channel.standing
        return standing is not None and self._core.channels.standing(
            channel.peer.address, standing.identity) is channel

    def _is_needed(self, channel: Channel, now: float) -> bool:
        identity = channel.standing and channel.standing.identity
        return (now - channel.used_at < self._core.config.channel_idle
                or any(tunnel.identity == identity for tunnel in self._core.tunnels.of_peer(channel.peer.address)))
