"""Keying channels replaced before they end, by whichever side is first (RFC 2409 section 5.5; decisions 1E.11, 1E.12).

Tunnels belong to the peer, not to a channel: they live on under the next one. One that nobody needs is closed.
"""

from collections.abc import Sequence

from oesvc.ike.identity import Identity
from oesvc.ike.v1.channels import Channel
from oesvc.ike.v1.constants import KILOBYTE, REKEY_SPACING, WORN_EXCHANGES
from oesvc.ike.v1.core import Core
from oesvc.ike.v1.main_mode import Expectation
from oesvc.ike.v1.mapping import path_to
from oesvc.ike.v1.phase1 import Phase1
from oesvc.ipsec.rsa_key import RsaPublicKey

INITIATOR_SHARE, RESPONDER_SHARE = 0.85, 0.92
"Of its lifetime, after which a channel is replaced; who began it is earlier, so that rarely both do."
JITTER_SHARE = 0.05
VOLUME_SHARE = 0.85


class Renewal:
    """Watches over the lifetimes of channels."""

    def __init__(self, core: Core, phase1: Phase1) -> None:
        self._core, self._phase1 = core, phase1

    def watch(self, channel: Channel, now: float) -> None:
        """A channel has come to stand, or is to end at another time."""
        if channel.standing:
            share = INITIATOR_SHARE if channel.initiator else RESPONDER_SHARE
            jitter = JITTER_SHARE * channel.cookie_i[0] / 256
            lifetime = channel.standing.expires - channel.standing.since
            channel.renews_at = channel.standing.since + (share + jitter) * lifetime
            self._look_again(channel, now)

    def wear(self, channel: Channel, octets: int, now: float) -> None:
        """An authentic message of so many octets has come: its keys, and its memory of message IDs, are used up."""
        standing = channel.standing
        if standing is None or not self._core.channels.get(channel.id):
            return
        channel.octets += octets
        most = standing.kilobytes * KILOBYTE
        if most and channel.octets >= most:
            self._phase1.close(channel, "the keying channel has protected as much as was agreed on")
        elif now < channel.renews_at and (len(channel.used_ids) >= WORN_EXCHANGES
                                          or (most and channel.octets >= VOLUME_SHARE * most)):
            channel.renews_at = now
            self._look(channel, now)

    def keys_found(self, channel: Channel, identity: Identity, keys: Sequence[RsaPublicKey], now: float) -> None:
        """The keys that the DNS has for the peer now: with one of them it is to prove itself again."""
        if (channel.standing and channel.standing.identity == identity and channel.wants_keys
                and self._core.channels.is_newest(channel)):
            channel.wants_keys = False
            expectation = Expectation(identity, tuple(keys))
            deadline = now + self._core.config.keying_time
            path = path_to(self._core, channel.local.address, channel.peer.address, expectation)
            self._phase1.begin(path, expectation, deadline, now)

    def _look(self, channel: Channel, now: float) -> None:
        """Close it, if nobody needs it; replace it in time, and look again whether that has worked."""
        if not self._is_needed(channel, now):
            self._phase1.close(channel, "no tunnel has needed the keying channel")
            return
        if now >= channel.renews_at and self._core.channels.is_newest(channel) and not self._is_replaced(channel):
            channel.wants_keys = True
            self._phase1.want_keys(channel)
        self._look_again(channel, now)

    def _look_again(self, channel: Channel, now: float) -> None:
        when = now + REKEY_SPACING
        if now < channel.renews_at:
            when = min(channel.renews_at, max(when, channel.used_at + self._core.config.channel_idle))
        if channel.rekey:
            channel.rekey.cancel()
        channel.rekey = self._core.timers.at(when, self._look, channel)

    def _is_replaced(self, channel: Channel) -> bool:
        """With another key, maybe: the peer may have rolled its key over."""
        return any(other.standing and channel.standing and other.standing.identity == channel.standing.identity
                   and other.standing.since >= channel.renews_at
                   for other in self._core.channels.with_peer(channel.peer.address))

    def _is_needed(self, channel: Channel, now: float) -> bool:
        return (now - channel.used_at < self._core.config.channel_idle
                or any(map(channel.shares, self._core.tunnels.of_peer(channel.peer.address))))
