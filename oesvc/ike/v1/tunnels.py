"""Tunnels: each one, from its proposal to its deletion, and all of them by what finds them."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import count

from oesvc.ike.datagram import Path
from oesvc.ike.events import ChannelId, TunnelId
from oesvc.ike.identity import Identity
from oesvc.ike.v1.exchange import Exchange
from oesvc.ike.v1.prefixes import PerPrefix
from oesvc.ike.v1.quick_mode import Terms
from oesvc.ike.v1.timers import Timer
from oesvc.ipsec.flow import Address, Flow
from oesvc.ipsec.rsa_key import RsaPublicKey
from oesvc.ipsec.sa import IpsecSa, UdpPorts


class TunnelState(Enum):
    WAITING = "for its keying channel"
    NEGOTIATING = "in quick mode"
    UP = "both SAs are installed"
    DELETING = "we have told the peer"


@dataclass(slots=True, eq=False, repr=False)
class TunnelRecord:
    """One tunnel, or attempt at one."""

    id: TunnelId
    flow: Flow
    local: Address
    peer: Address
    identity: Identity
    keys: tuple[RsaPublicKey, ...]
    state: TunnelState
    gives_up: float
    "When the negotiation must be over."
    renewed: bool = False
    "It was begun anew once, because its keying channel had come to nothing."
    channel_id: ChannelId | None = None
    path: Path | None = None
    "On which its datagrams go within UDP; None: they go as ESP."
    quick_mode: Exchange | None = None
    terms: Terms | None = None
    "Of the quick mode."
    inbound_spi: int | None = None
    outbound_spi: int | None = None
    up_since: float | None = None
    awaits_connected: bool = False
    "The peer has set the commit bit: nothing is to be sent before it says CONNECTED (RFC 2408 section 3.1)."
    deadline: Timer | None = None
    "Of the negotiation, then of each try to delete."
    tries: int = 0
    "To delete."

    def place(self, sa: IpsecSa) -> IpsecSa:
        """An SA of its between where both ends are now: a NAT may have moved the peer since it was agreed on."""
        return sa.moved(self.flow, *self.ends(self.path)) if self.path else sa

    @staticmethod
    def ends(path: Path) -> tuple[Flow, UdpPorts]:
        """Of its outbound SA."""
        return Flow(path.local.address, path.peer.address), UdpPorts(path.local.port, path.peer.port)


class Tunnels:
    """All tunnels behind one port."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._by_id: dict[TunnelId, TunnelRecord] = {}
        self._inbound: set[int] = set()
        self._with_peer: dict[Address, dict[TunnelId, TunnelRecord]] = {}
        self._near = PerPrefix()
        self._by_outbound: dict[tuple[Address, int], TunnelRecord] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[TunnelRecord]:
        return iter(list(self._by_id.values()))

    def next_id(self) -> TunnelId:
        return TunnelId(next(self._numbers))

    def add(self, tunnel: TunnelRecord) -> None:
        self._by_id[tunnel.id] = tunnel
        self._with_peer.setdefault(tunnel.peer, {})[tunnel.id] = tunnel
        self._near.add(tunnel.peer)

    def with_peer(self, peer: Address) -> int:
        return len(self._with_peer.get(peer, ()))

    def of_peer(self, peer: Address) -> list[TunnelRecord]:
        return list(self._with_peer.get(peer, {}).values())

    def near(self, peer: Address) -> int:
        return self._near.count(peer)

    def most_with_peer(self) -> int:
        return max(map(len, self._with_peer.values()), default=0)

    def most_near(self) -> int:
        return self._near.most()

    def get(self, id: TunnelId) -> TunnelRecord | None:
        return self._by_id.get(id)

    def remove(self, tunnel: TunnelRecord) -> None:
        """Forget a tunnel; its quick mode lives on in its channel until nobody repeats messages any more."""
        if self._by_id.pop(tunnel.id, None) is None:
            return
        self._leave_peer(tunnel, tunnel.peer)
        if tunnel.inbound_spi is not None:
            self._inbound.discard(tunnel.inbound_spi)
        if tunnel.deadline:
            tunnel.deadline.cancel()
        if tunnel.quick_mode:
            tunnel.quick_mode.stop()

    def receives_by(self, tunnel: TunnelRecord, spi: int) -> None:
        if tunnel.inbound_spi is not None:
            self._inbound.discard(tunnel.inbound_spi)
        tunnel.inbound_spi = spi
        self._inbound.add(spi)

    def sends_by(self, tunnel: TunnelRecord, spi: int) -> None:
        tunnel.outbound_spi = spi
        self._by_outbound[tunnel.peer, spi] = tunnel

    def move(self, tunnel: TunnelRecord, path: Path) -> None:
        """Its peer is elsewhere."""
        tunnel.path, before, tunnel.peer = path, tunnel.peer, path.peer.address
        if before == tunnel.peer:
            return
        self._leave_peer(tunnel, before)
        self._with_peer.setdefault(tunnel.peer, {})[tunnel.id] = tunnel
        self._near.add(tunnel.peer)
        if tunnel.outbound_spi is not None:
            self.sends_by(tunnel, tunnel.outbound_spi)

    def is_inbound(self, spi: int) -> bool:
        return spi in self._inbound

    def _leave_peer(self, tunnel: TunnelRecord, peer: Address) -> None:
        self._near.remove(peer)
        del self._with_peer[peer][tunnel.id]
        if not self._with_peer[peer]:
            del self._with_peer[peer]
        if tunnel.outbound_spi is not None and self.sending_to(peer, tunnel.outbound_spi) is tunnel:
            del self._by_outbound[peer, tunnel.outbound_spi]

    def sending_to(self, peer: Address, spi: int) -> TunnelRecord | None:
        """The tunnel whose outbound SA the peer knows by this SPI."""
        return self._by_outbound.get((peer, spi))
