"""Who may begin what: strangers, who have shown no more than that they receive at their addresses (section 12.3)."""

from collections.abc import Callable

from oesvc.ike.failures import KeyingFailure
from oesvc.ike.v1.channels import Channel
from oesvc.ike.v1.core import Core
from oesvc.ike.v1.errors import BusyError
from oesvc.ipsec.flow import Address


class Admission:
    """Holds strangers' keying channels and their arithmetic within their budgets."""

    def __init__(self, core: Core, end: Callable[[Channel, KeyingFailure, str], None],
                 close: Callable[[Channel, str], None]) -> None:
        """`end` forgets a channel, `close` tells its peer as well."""
        self._core, self._end, self._close = core, end, close

    def admit(self, peer: Address) -> None:
        """Let a stranger begin a keying channel, for which another one may have to make room. Raises BusyError."""
        channels, backlog, exhausted = self._core.channels, self._core.backlog, self._core.budgets.exhausted
        for budget, have, what in (
                ("max_half_open_per_prefix", channels.half_open_near(peer), "half-open keying channels near {peer}"),
                ("max_channels_per_prefix", channels.near(peer), "keying channels near {peer}"),
                ("max_stranger_work", backlog.waiting, "milliseconds of arithmetic for strangers"),
                ("max_stranger_work_per_prefix", backlog.near(peer), "milliseconds of arithmetic near {peer}")):
            if exhausted(budget, have):
                raise BusyError(f"there are {have} {what.format(peer=peer)}, and no more are allowed")
        if exhausted("max_half_open", channels.half_open()):
            self._end(channels.most_crowded_half_open(), KeyingFailure.PEER_SILENT, "others need its room")
        if exhausted("max_channels", len(channels)):
            idle = next((channel for channel in channels.longest_unused() if not self._serves(channel)), None)
            if idle is None:
                raise BusyError(f"there are {len(channels)} keying channels, and no more are allowed")
            self._close(idle, "others need its room")

    def _serves(self, channel: Channel) -> bool:
        return any(map(channel.shares, self._core.tunnels.of_peer(channel.peer.address)))
