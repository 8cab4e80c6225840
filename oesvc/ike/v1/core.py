"""What the parts of an engine share: its tables, its timers, and what it wants to have sent and told."""

from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

from oesvc.ike.datagram import Datagram, Path
from oesvc.ike.events import IkeEvent, Job, MessageSeen, Way, Work, WorkId
from oesvc.ike.v1.arithmetic import Backlog, Whose
from oesvc.ike.v1.budgets import Budgets
from oesvc.ike.v1.channels import Channel, Channels
from oesvc.ike.v1.config import EngineConfig, Entropy
from oesvc.ike.v1.constants import (
    COOKIE_LENGTH,
    NAT_KEEPALIVE,
    NAT_TRAVERSAL_PORT,
    NO_COOKIE,
    NON_ESP_MARKER,
    RESERVED_SPIS,
)
from oesvc.ike.v1.counters import Counters
from oesvc.ike.v1.exchange import Calculate, Calculation, Exchange
from oesvc.ike.v1.fragments import LARGEST, Fragments, split
from oesvc.ike.v1.invitations import Invitations
from oesvc.ike.v1.main_mode import invite
from oesvc.ike.v1.retransmit import Retransmission
from oesvc.ike.v1.timers import Timers
from oesvc.ike.v1.tunnels import Tunnels
from oesvc.ipsec.flow import Address, Flow


class Core:
    """The engine's state; it decides nothing."""

    def __init__(self, config: EngineConfig, entropy: Entropy) -> None:
        self.config, self.entropy = config, entropy
        self.timers, self.channels, self.tunnels = Timers(), Channels(), Tunnels()
        self.message_1 = invite(config)
        self.counters = Counters()
        self.invitations = Invitations(config, entropy, self.timers)
        self.backlog, self.fragments = Backlog(), Fragments(config.max_fragment_octets)
        self.budgets = Budgets(config, self.channels, self.tunnels, self.invitations, self.backlog,
                               self.fragments)
        self._datagrams: list[Datagram] = []
        self._events: list[IkeEvent] = []
        self._work: dict[WorkId, tuple[Whose, Address, int, Callable[[Any, float], None]]] = {}
        self._work_numbers = count(1)
        self._fragmented = 0
        self.calculate: Calculate = self._calculate
        "One object for all exchanges, which are many."

    def _calculate(self, whose: Whose, peer: Address, calculation: Calculation, wanted: Callable[[], bool],
                   then: Callable[[Any, float], None]) -> None:
        id = WorkId(next(self._work_numbers))
        self._work[id] = whose, peer, calculation.cost, then
        self.backlog.add(whose, peer, calculation.cost)
        self.tell(Work(id, Job(whose * calculation.cost, partial(_attempt, calculation.run, wanted))))

    def work_done(self, id: WorkId, result: Any, now: float) -> None:
        if id in self._work:
            whose, peer, cost, then = self._work.pop(id)
            self.backlog.add(whose, peer, -cost)
            then(result, now)

    @property
    def work_under_way(self) -> int:
        return len(self._work)

    def send(self, data: bytes, path: Path) -> None:
        marker = NON_ESP_MARKER if path.local.port == NAT_TRAVERSAL_PORT else b""
        self._datagrams.append(Datagram(marker + data, path.local, path.peer))

    def send_keepalive(self, path: Path) -> None:
        self._datagrams.append(Datagram(NAT_KEEPALIVE, path.local, path.peer))

    def send_on(self, channel: Channel, data: bytes, path: Path | None = None) -> None:
        """Send a message to a channel's peer, by its path or this one; in pieces, if need be and it knows them."""
        path = path or channel.path
        if channel.standing:
            channel.octets += len(data)
        if not channel.takes_fragments or len(data) <= LARGEST:
            self.send(data, path)
            return
        self._fragmented = self._fragmented % 0xFFFF + 1
        for piece in split(data, self._fragmented):
            self.send(piece, path)

    def repeat(self, channel: Channel, exchange: Exchange, data: bytes, now: float) -> None:
        """Send a message again until it is answered, but not while its answer is being worked on."""
        def again(now: float) -> None:
            if not exchange.busy:
                self.send_on(channel, data)

        exchange.retransmission = Retransmission(self.timers, self.config.retransmission, again, now)

    def tell(self, event: IkeEvent) -> None:
        self._events.append(event)

    def saw(self, way: Way, name: str, channel: Channel, flow: Flow | None, encrypted: bool) -> None:
        self.tell(MessageSeen(way, name, channel.path.local.address, channel.path.peer.address, flow, encrypted))

    def take_datagrams(self) -> list[Datagram]:
        datagrams, self._datagrams = self._datagrams, []
        return datagrams

    def take_events(self) -> list[IkeEvent]:
        events, self._events = self._events, []
        return events

    def new_cookie(self) -> bytes:
        while (cookie := self.entropy(COOKIE_LENGTH)) == NO_COOKIE:
            pass
        return cookie

    def new_message_id(self, channel: Channel) -> int:
        while not (message_id := int.from_bytes(self.entropy(4), "big")) or message_id in channel.used_ids:
            pass
        channel.used_ids.add(message_id)
        return message_id

    def new_spi(self) -> int:
        while (spi := int.from_bytes(self.entropy(4), "big")) < RESERVED_SPIS or self.tunnels.is_inbound(spi):
            pass
        return spi


def _attempt(run: Callable[[], Any], wanted: Callable[[], bool]) -> Any:
    """The result, or the error that it ran into; nothing for whom does not wait any more."""
    try:
        return run() if wanted() else None
    except Exception as error:  # raised again in work_done, where it belongs
        return error
