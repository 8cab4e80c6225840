"""What peers may cost: how much of each budget is used, and how often more was asked for (RFC 4322 section 12.3)."""

from collections import Counter

from oesvc.ike.v1.arithmetic import Backlog
from oesvc.ike.v1.channels import Channels
from oesvc.ike.v1.config import EngineConfig
from oesvc.ike.v1.fragments import Fragments
from oesvc.ike.v1.invitations import Invitations
from oesvc.ike.v1.tunnels import Tunnels


class Budgets:
    """Those of an EngineConfig, by the names of its fields."""

    def __init__(self, config: EngineConfig, channels: Channels, tunnels: Tunnels, invitations: Invitations,
                 backlog: Backlog, fragments: Fragments) -> None:
        self._config, self._channels, self._tunnels, self._invitations = config, channels, tunnels, invitations
        self._backlog, self._fragments = backlog, fragments
        self._refused: Counter[str] = Counter()

    def exhausted(self, name: str, used: int) -> bool:
        """Whether nothing is left of a budget; counted, for then something is refused."""
        over: bool = used >= getattr(self._config, name)
        self._refused[name] += over
        return over

    def overrun(self, name: str, times: int) -> None:
        """Count what had to make way."""
        self._refused[name] += times

    def bounds(self, now: float) -> dict[str, tuple[int, int, int]]:
        """Of each: how much is used, of how much, and how often that was not enough. By the options' names.

        Of a budget per peer or prefix, what the one with the most uses.
        """
        channels, tunnels = self._channels, self._tunnels
        used = {
            "max_half_open": channels.half_open(),
            "max_half_open_per_prefix": channels.most_half_open_near(),
            "max_stranger_work": self._backlog.waiting,
            "max_stranger_work_per_prefix": self._backlog.most_near(),
            "max_channels": len(channels),
            "max_channels_per_peer": channels.most_standing(),
            "max_channels_per_prefix": channels.most_near(),
            "max_tunnels": len(tunnels),
            "max_tunnels_per_peer": tunnels.most_with_peer(),
            "max_tunnels_per_prefix": tunnels.most_near(),
        }
        return {name.replace("_", "-"): (number, getattr(self._config, name), self._refused[name])
                for name, number in used.items()} | self._invitations.bounds(now) | {
                    "max-fragment-octets": (self._fragments.memory, self._config.max_fragment_octets,
                                            self._fragments.lost)}
