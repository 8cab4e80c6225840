"""Sockets of the daemon itself, whose datagrams must reach the peer's daemon and the DNS whatever the SPD says."""

import os
import socket

from oesvc.interfaces import PlaneError
from oesvc.kernel.constants import IP_XFRM_POLICY, IPV6_XFRM_POLICY, UDP_ENCAP, UDP_ENCAP_ESPINUDP, Direction
from oesvc.kernel.spd import EVERYWHERE, VERSION, Policy, Selector, policy_fields
from oesvc.kernel.structs import PolicyMessage, encode

OPTIONS = {socket.AF_INET: (socket.IPPROTO_IP, IP_XFRM_POLICY),
           socket.AF_INET6: (socket.IPPROTO_IPV6, IPV6_XFRM_POLICY)}


def bypass(direction: Direction, version: int) -> bytes:
    """struct xfrm_userpolicy_info of a policy that lets everything pass."""
    everything = Selector(EVERYWHERE[version], EVERYWHERE[version])
    return encode(PolicyMessage, policy_fields(Policy(direction, everything, 0)))


def exempt_socket(sock: socket.socket, mark: int) -> None:
    """Exempt a socket from the SPD both ways and from being held. Needs CAP_NET_ADMIN; raises PlaneError.

    An IPv6 socket is exempt for IPv6 alone: the kernel keeps no second policy for mapped addresses.
    """
    level, option = OPTIONS[sock.family]
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        for direction in (Direction.OUT, Direction.IN):
            sock.setsockopt(level, option, bypass(direction, VERSION[sock.family]))
    except OSError as error:
        raise PlaneError(f"exempt a socket from the SPD: {os.strerror(error.errno or 0)}"
                         " (needed: CAP_NET_ADMIN, and a kernel with XFRM)") from None


def receive_esp(sock: socket.socket) -> None:
    """Let the kernel take ESP out of a UDP socket's datagrams, and NAT keepalives; what has the marker of IKE is left.

    Raises PlaneError (RFC 3948 section 3).
    """
    try:
        sock.setsockopt(socket.IPPROTO_UDP, UDP_ENCAP, UDP_ENCAP_ESPINUDP)
    except OSError as error:
        raise PlaneError(f"receive ESP within UDP: {os.strerror(error.errno or 0)}"
                         " (needed: a kernel with XFRM)") from None
