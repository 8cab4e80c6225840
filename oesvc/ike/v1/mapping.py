"""What a NAT maps a peer to may change, and what it maps us to is to last: RFC 3947 sections 4 and 6, RFC 3948 4.

Only an authentic message that is no repetition shows where a peer is. What else it shares with us follows it there.
"""

from oesvc.ike.datagram import Endpoint, Path
from oesvc.ike.events import TunnelMoved
from oesvc.ike.v1.channels import Channel
from oesvc.ike.v1.constants import KEEPALIVE_SPACING, NAT_TRAVERSAL_PORT, PORT
from oesvc.ike.v1.core import Core
from oesvc.ike.v1.main_mode import Expectation
from oesvc.ipsec.flow import Address


def path_to(core: Core, local: Address, peer: Address, expected: Expectation) -> Path:
    """Where main mode begins: where the peer was last, if a NAT lies between; else where every gateway is."""
    return next((channel.path for channel in reversed(core.channels.with_peer(peer))
                 if channel.nat.between and channel.local.address == local and channel.standing
                 and channel.standing.identity == expected.identity and channel.standing.key in expected.keys),
                Path(Endpoint(local, PORT), Endpoint(peer, PORT)))


def change_port(core: Core, channel: Channel) -> None:
    """From message 5 on all goes by port 4500, if a NAT was found and it does not yet."""
    local, peer = channel.local, channel.peer
    if channel.nat.between and local.port != NAT_TRAVERSAL_PORT:
        core.channels.move(channel, Path(Endpoint(local.address, NAT_TRAVERSAL_PORT),
                                         Endpoint(peer.address, NAT_TRAVERSAL_PORT)))


def heard(core: Core, channel: Channel, path: Path, now: float) -> None:
    """A message under the channel's keys that never came before has come by this path."""
    channel.heard_at = now
    if channel.standing and path != channel.path and channel.may_come_by(path):
        before = channel.peer.address
        core.channels.move(channel, path)
        _gather(core, channel, before)


def stands(core: Core, channel: Channel, now: float) -> None:
    """A channel has come to stand; where a NAT was found, maybe by another path than the peer's former one."""
    if channel.nat.between:
        _gather(core, channel, channel.peer.address)
    if channel.nat.here:
        _keep_alive_later(core, channel, now)


def _gather(core: Core, channel: Channel, address: Address) -> None:
    """What else the peer has had at this address goes by its channel's path from now on."""
    path = channel.path
    for other in core.channels.with_peer(address):
        if channel.is_with_peer_of(other) and other.nat.between:
            core.channels.move(other, path)
    for tunnel in core.tunnels.of_peer(address):
        if channel.shares(tunnel) and tunnel.path and tunnel.path != path:
            core.tunnels.move(tunnel, path)
            core.tell(TunnelMoved(tunnel.id, tunnel.flow, *tunnel.ends(path)))


def _keep_alive_later(core: Core, channel: Channel, now: float) -> None:
    channel.keepalive = core.timers.at(now + KEEPALIVE_SPACING, _keep_alive, core, channel)


def _keep_alive(core: Core, channel: Channel, now: float) -> None:
    """By the newest channel with the peer, while there are tunnels with it."""
    if core.channels.is_newest(channel) and any(map(channel.shares, core.tunnels.of_peer(channel.peer.address))):
        core.send_keepalive(channel.path)
    _keep_alive_later(core, channel, now)
