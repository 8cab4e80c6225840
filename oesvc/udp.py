"""UDP/500 and 4500 <-> the keying engine."""

import errno
import math
import socket
import time
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Any

from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger

from oesvc.ike.datagram import Datagram, Endpoint
from oesvc.ipsec.flow import Address
from oesvc.kernel.constants import SO_RCVBUFFORCE

IKE_PORT = 500
WARNING_SPACING = 10.0
"Seconds between two warnings: who spoofs addresses that have no route does not write the log."
RECEIVE_BUFFER = 4 << 20
"Octets: a flood of 20,000 datagrams a second fills them in half a second, in which other things may be done."


class IkePort(DatagramProtocol):
    """One address and port that IKE is served on."""

    log = Logger()
    noisy = False
    transport: Any
    "IUDPTransport, set by Twisted."

    def __init__(self, local: Endpoint, receive: Callable[[Datagram], None],
                 seconds: Callable[[], float] = time.monotonic) -> None:
        self.local = local
        self._receive, self._seconds = receive, seconds
        self._warns_from = -math.inf
        self._unsent = 0

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        if not addr[1]:
            return  # Nobody can be answered at port 0, so nobody sends from there.
        # A link-local address comes with its zone ("fe80::1%eth0"), which is no part of an identity.
        host = addr[0].partition("%")[0]
        self._receive(Datagram(datagram, self.local, Endpoint(ip_address(host), addr[1])))

    def send(self, datagram: Datagram) -> None:
        try:
            self.transport.write(datagram.data, (str(datagram.peer.address), datagram.peer.port))
        except OSError as error:
            # As if lost on the way: retransmission and the keying time deal with it.
            self._unsent += 1
            if self._seconds() >= self._warns_from:
                self._warns_from = self._seconds() + WARNING_SPACING
                self.log.warn("{count} datagrams could not be sent so far, the last one to {peer}: {error}",
                              count=self._unsent, peer=datagram.peer, error=error)


def open_socket(local: Endpoint, prepare: Callable[[socket.socket], None]) -> socket.socket:
    """A bound, non-blocking UDP socket that the gateway's own policies let through. Raises OSError."""
    family = socket.AF_INET if local.address.version == 4 else socket.AF_INET6
    opened = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        prepare(opened)
        _make_room(opened)
        opened.bind((str(local.address), local.port))
    except OSError:
        opened.close()
        raise
    return opened


def _make_room(opened: socket.socket) -> None:
    """So much as we want where we may, else so much as this host allows."""
    try:
        opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
    except PermissionError:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)


def source_address(own: Sequence[Address], peer: Address, prepare: Callable[[socket.socket], None]) -> Address:
    """Which of our own addresses leads to a peer, by the routing table. Raises OSError when none does."""
    candidates = [address for address in own if address.version == peer.version]
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise OSError(errno.EAFNOSUPPORT, f"this gateway has no IPv{peer.version} address")
    family = socket.AF_INET if peer.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        prepare(asking)
        # Connecting a UDP socket sends nothing; the kernel only chooses the route.
        asking.connect((str(peer), IKE_PORT))
        chosen = ip_address(asking.getsockname()[0])
    return chosen if chosen in candidates else candidates[0]
