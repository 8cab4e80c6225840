"""ICMP unreachables about datagrams of IKE -> the keying engine (RFC 4322 sections 3.2.5 and 9.2).

They are read from raw sockets. An error queue on the IKE sockets (IP_RECVERR) would let an error about one peer, which
anybody can forge, cost the next datagram to another, and the reactor takes a socket with such a queue for closed.
"""

import socket
import struct
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from zope.interface import implementer

from oesvc.ike.datagram import Endpoint
from oesvc.ipsec.flow import Address

# From the protocol: RFC 792, RFC 4443
ICMP_UNREACHABLE, ICMPV6_UNREACHABLE = 3, 1
FRAGMENTATION_NEEDED = 4
ICMP_HEADER = 8
FRAGMENT_OFFSET = 0x1FFF
IPV6_HEADER = 40

# From the kernel: linux/icmp.h, linux/icmpv6.h. A bit that is set keeps a type out.
SOL_RAW = 255
ICMP_FILTER = 1
FAMILIES = {
    4: (socket.AF_INET, socket.IPPROTO_ICMP, SOL_RAW, struct.pack("=I", ~(1 << ICMP_UNREACHABLE) & 0xFFFFFFFF)),
    6: (socket.AF_INET6, socket.IPPROTO_ICMPV6, socket.IPPROTO_ICMPV6,
        struct.pack("=8I", ~(1 << ICMPV6_UNREACHABLE) & 0xFFFFFFFF, *[0xFFFFFFFF] * 7)),
}

READS_AT_ONCE = 64
"After so many messages other readers of the reactor get their turn."
MOST_OCTETS = 256
"Two IP headers with all their options, and what stands between and behind."


def about_ipv4(packet: bytes) -> tuple[Endpoint, Address] | None:
    """Which UDP datagram an ICMP unreachable quotes: whence it came, and whither it went. None for anything else.

    A raw socket of IPv4 shows the IP header too.
    """
    message = packet[4 * (packet[0] & 15):] if packet else b""
    quote = message[ICMP_HEADER:]
    if len(quote) < 20 or message[0] != ICMP_UNREACHABLE or message[1] == FRAGMENTATION_NEEDED:
        return None
    fragment = int.from_bytes(quote[6:8], "big") & FRAGMENT_OFFSET
    return _datagram(quote[9], quote[12:16], quote[16:20], b"" if fragment else quote[4 * (quote[0] & 15):])


def about_ipv6(message: bytes) -> tuple[Endpoint, Address] | None:
    """The same for ICMPv6, whose raw sockets show no IP header. What we send has no extension headers."""
    quote = message[ICMP_HEADER:]
    if len(quote) < IPV6_HEADER or message[0] != ICMPV6_UNREACHABLE:
        return None
    return _datagram(quote[6], quote[8:24], quote[24:40], quote[IPV6_HEADER:])


def _datagram(protocol: int, source: bytes, destination: bytes, rest: bytes) -> tuple[Endpoint, Address] | None:
    if protocol != socket.IPPROTO_UDP or len(rest) < 2:
        return None
    return Endpoint(ip_address(source), int.from_bytes(rest[:2], "big")), ip_address(destination)


ABOUT = {4: about_ipv4, 6: about_ipv6}


@implementer(IReadDescriptor)
class UnreachablePort:
    """Hears of all UDP datagrams of this host, of one IP version, that somebody calls undeliverable."""

    log = Logger()

    def __init__(self, reactor: Any, version: int, heard: Callable[[Endpoint, Address], object],
                 prepare: Callable[[socket.socket], None]) -> None:
        """`heard` is told of the sender and the destination. Raises OSError; needs CAP_NET_RAW."""
        family, protocol, level, types = FAMILIES[version]
        self._reactor = reactor
        self._about = ABOUT[version]
        self._heard = heard
        self._socket = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
        try:
            self._socket.setsockopt(level, ICMP_FILTER, types)
            prepare(self._socket)
        except OSError:
            self._socket.close()
            raise
        reactor.addReader(self)

    def doRead(self) -> None:
        for _ in range(READS_AT_ONCE):
            try:
                message = self._socket.recv(MOST_OCTETS)
            except OSError:
                return
            if found := self._about(message):
                try:
                    self._heard(*found)
                except Exception:
                    # The reactor drops a reader that raises for good.
                    self.log.failure("ICMP: a message was not dealt with")

    def close(self) -> None:
        self._reactor.removeReader(self)
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def connectionLost(self, reason: Any) -> None:
        self.log.error("ICMP: the reactor gave the socket up: {reason}", reason=reason.value)

    def logPrefix(self) -> str:
        return "icmp"
