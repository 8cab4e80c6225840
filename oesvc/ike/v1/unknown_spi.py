"""SPIs that one side has forgotten: told to the peer, and heard from it (RFC 4322 section 3.2.6)."""

from collections.abc import Sequence

from oesvc.ike.datagram import Endpoint, Path
from oesvc.ike.events import SpiRefused
from oesvc.ike.v1.constants import NAT_TRAVERSAL_PORT, NO_COOKIE, PORT, ExchangeType, NotifyType, PayloadType, Protocol
from oesvc.ike.v1.core import Core
from oesvc.ike.v1.informational import Informational
from oesvc.ike.v1.phase2_offer import SPI_OCTETS
from oesvc.ike.v1.tunnels import TunnelState
from oesvc.ike.v1.wire.header import Header
from oesvc.ike.v1.wire.message import seal_clear
from oesvc.ike.v1.wire.payloads import Deletion, Notification, Payload
from oesvc.ipsec.flow import Address


def path_of(local: Address, peer: Address, port: int | None) -> Path:
    """On which a peer hears of its ESP, which came within UDP from `port`, or (None) as such."""
    ours, theirs = (PORT, PORT) if port is None else (NAT_TRAVERSAL_PORT, port)
    return Path(Endpoint(local, ours), Endpoint(peer, theirs))


def disown(core: Core, informational: Informational, path: Path, spi: int) -> None:
    """Tell a peer that we do not receive by an SPI: by a delete, which it can believe, if there is a keying channel.

    Without one by INVALID-SPI in clear: no more than a hint, and 72 octets, as long as the shortest ESP in tunnel mode.
    """
    if core.tunnels.is_inbound(spi):
        return
    octets = spi.to_bytes(SPI_OCTETS, "big")
    channels = [channel for channel in core.channels.with_peer(path.peer.address) if core.channels.is_newest(channel)
                and (path.local.port == PORT or channel.peer == path.peer)]
    for channel in channels:
        informational.send_delete(channel, Deletion(Protocol.ESP, (octets,)), None)
    if not channels:
        header = Header(core.new_cookie(), NO_COOKIE, 0, ExchangeType.INFORMATIONAL, 0,
                        int.from_bytes(core.entropy(4), "big"))
        hint = Notification(Protocol.ESP, NotifyType.INVALID_SPI, octets)
        core.send(seal_clear(header, [Payload(PayloadType.NOTIFICATION, hint.pack())]), path)


def refused(core: Core, peer: Address, notifications: Sequence[Notification], vouched: bool) -> bool:
    """A peer says that it does not receive by an SPI; whether that is one which a tunnel sends by. Changes nothing."""
    found = [tunnel for notification in notifications
             if notification.type == NotifyType.INVALID_SPI and notification.protocol == Protocol.ESP
             and (spi := notification.spi or notification.data[:SPI_OCTETS])
             and (tunnel := core.tunnels.sending_to(peer, int.from_bytes(spi, "big")))
             and tunnel.state is TunnelState.UP]
    says = "says, and proves to be itself," if vouched else "says, and nothing vouches for it,"
    for tunnel in found[:1]:
        core.tell(SpiRefused(tunnel.id, tunnel.flow, peer,
                             f"{peer} {says} that it does not have the SPI {tunnel.outbound_spi:#010x}"))
    return bool(found)
