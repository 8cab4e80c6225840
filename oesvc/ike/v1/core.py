"""What the parts of an engine share: its tables, its timers, and what it wants to have sent and told."""

from oesvc.ike.datagram import Datagram, Endpoint
from oesvc.ike.events import IkeEvent, MessageSeen, Way
from oesvc.ike.v1.channels import Channel, Channels
from oesvc.ike.v1.config import EngineConfig, Entropy
from oesvc.ike.v1.constants import COOKIE_LENGTH, NAT_TRAVERSAL_PORT, NO_COOKIE, NON_ESP_MARKER, RESERVED_SPIS
from oesvc.ike.v1.timers import Timers
from oesvc.ike.v1.tunnels import Tunnels
from oesvc.ipsec.flow import Flow


class Core:
    """The engine's state; it decides nothing."""

    def __init__(self, config: EngineConfig, entropy: Entropy) -> None:
        self.config, self.entropy = config, entropy
        self.timers, self.channels, self.tunnels = Timers(), Channels(), Tunnels()
        self._datagrams: list[Datagram] = []
        self._events: list[IkeEvent] = []

    def send(self, data: bytes, local: Endpoint, peer: Endpoint) -> None:
        marker = NON_ESP_MARKER if NAT_TRAVERSAL_PORT in (local.port, peer.port) else b""
        self._datagrams.append(Datagram(marker + data, local, peer))

    def tell(self, event: IkeEvent) -> None:
        self._events.append(event)

    def saw(self, way: Way, name: str, channel: Channel, flow: Flow | None, encrypted: bool) -> None:
        self.tell(MessageSeen(way, name, channel.local.address, channel.peer.address, flow, encrypted))

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
