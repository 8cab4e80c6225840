"""The tunnels of a gateway, from the first attempt to the last delete."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from oesvc.ike.events import LifetimeShortened, TunnelId, TunnelMoved
from oesvc.ike.identity import Identity
from oesvc.ipsec.flow import Address, Flow
from oesvc.ipsec.sa import IpsecSa
from oesvc.oe.authorization import DnssecPolicy


@dataclass(slots=True)
class TunnelRecord:
    """One tunnel, or one attempt at it."""

    id: TunnelId
    flow: Flow
    peer: Address
    begun_for: object = None
    "Whose attempt it is; None if the peer began it. A reload may put another connection in its place."
    dnssec: DnssecPolicy | None = None
    "By what its peer's keys, or its say for the flow, were believed when it began; None as for all."
    sas: list[IpsecSa] = field(default_factory=list)
    "Those that are in the kernel, or on their way there."
    proposed: bool = False
    "The peer began it, and it does not stand yet."
    identity: Identity | None = None
    "What the peer has proved to be; None until the tunnel stands."

    @property
    def begun_here(self) -> bool:
        return self.begun_for is not None

    @property
    def outbound(self) -> list[IpsecSa]:
        return [sa for sa in self.sas if sa.flow == self.flow]

    @property
    def inbound(self) -> list[IpsecSa]:
        return [sa for sa in self.sas if sa.flow != self.flow]

    @property
    def protection(self) -> str:
        """How its datagrams are protected, for people."""
        if not self.sas:
            return "no SA"
        return f"{self.sas[0].transform} within UDP" if self.sas[0].udp else str(self.sas[0].transform)


class Tunnels:
    """All tunnels, by their number and by the SPIs of their SAs."""

    def __init__(self) -> None:
        self._by_id: dict[int, TunnelRecord] = {}
        self._by_spi: dict[tuple[Flow, int], TunnelRecord] = {}
        self._proposed: Counter[Flow] = Counter()

    def __len__(self) -> int:
        return len(self._by_id)

    def begin(self, tunnel: TunnelRecord) -> None:
        self._by_id[tunnel.id] = tunnel
        if not tunnel.begun_here:
            tunnel.proposed = True
            self._proposed[tunnel.flow] += 1

    def __iter__(self) -> Iterator[TunnelRecord]:
        return iter(self._by_id.values())

    def settle(self, tunnel: TunnelRecord) -> None:
        """It stands, or has come to nothing."""
        if tunnel.proposed:
            tunnel.proposed = False
            self._proposed[tunnel.flow] -= 1
            if not self._proposed[tunnel.flow]:
                del self._proposed[tunnel.flow]

    def is_proposed(self, flow: Flow) -> bool:
        """Whether a peer's proposal for a flow is under way."""
        return flow in self._proposed

    def get(self, tunnel_id: int) -> TunnelRecord | None:
        return self._by_id.get(tunnel_id)

    def with_spi(self, flow: Flow, spi: int) -> TunnelRecord | None:
        """The tunnel of a flow (outbound direction) to which an SA of either direction belongs."""
        return self._by_spi.get((flow, spi))

    def add_sas(self, tunnel_id: TunnelId, sas: Sequence[IpsecSa]) -> None:
        tunnel = self._by_id[tunnel_id]
        tunnel.sas.extend(sas)
        for sa in sas:
            self._by_spi[tunnel.flow, sa.spi] = tunnel

    def change(self, event: LifetimeShortened | TunnelMoved) -> list[IpsecSa]:
        """Note what became of a tunnel; those of its SAs that are not what they were."""
        tunnel = self._by_id.get(event.tunnel)
        if tunnel is None:
            return []
        before = tunnel.sas
        tunnel.sas = [_changed(sa, event) for sa in before]
        return [sa for sa, was in zip(tunnel.sas, before, strict=True) if sa != was]

    def end(self, tunnel_id: int) -> TunnelRecord | None:
        """Forget a tunnel; what it was, or None when it was gone already."""
        tunnel = self._by_id.pop(tunnel_id, None)
        if tunnel is not None:
            self.settle(tunnel)
            for sa in tunnel.sas:
                self._by_spi.pop((tunnel.flow, sa.spi), None)
        return tunnel


def _changed(sa: IpsecSa, event: LifetimeShortened | TunnelMoved) -> IpsecSa:
    if isinstance(event, TunnelMoved):
        return sa.moved(event.flow, event.gateways, event.udp)
    return replace(sa, lifetime=sa.lifetime.shorter(event.lifetime))
