"""ESP, within UDP too, that comes to this host by an SPI that the kernel does not have (RFC 4322 section 3.2.6).

The kernel only counts it. So nftables logs (NFLOG) the first datagram of each source and SPI in a minute, whether the
SPI is known or not, and the SAD is asked: that costs tunnels nothing when they are made, and floods little.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock, inlineCallbacks
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from oesvc.interfaces import PlaneError
from oesvc.ipsec.flow import Flow
from oesvc.kernel.constants import (
    IPPROTO_ESP,
    IPPROTO_UDP,
    NAT_TRAVERSAL_PORT,
    NETLINK_NETFILTER,
    NETLINK_XFRM,
    NFNL_SUBSYS_ULOG,
    NFNLGRP_NFTABLES,
    NFT_MSG_GETTABLE,
    NFULA_CFG_CMD,
    NFULA_PAYLOAD,
    NFULNL_CFG_CMD_BIND,
    NFULNL_MSG_CONFIG,
    NFULNL_MSG_PACKET,
    NLA_TYPE_MASK,
)
from oesvc.kernel.netlink import Message, NetlinkSocket, Request, attribute, attributes
from oesvc.kernel.queue import NFGEN, read_flow
from oesvc.kernel.ruleset import load
from oesvc.kernel.sad import get_sa
from oesvc.kernel.sets import NFTA_TABLE_NAME, table_deleted, table_request, text

TABLE = "oegw-spis"
GROUP = 4322
"Of NFLOG, 0 to 65535."

LOG = f"log group {GROUP} snaplen 128 queue-threshold 1"
MARKER = "@th,64,32"
"The first four octets behind the UDP header: an SPI, or what tells IKE from ESP."
WITHIN_UDP4, WITHIN_UDP6 = (f"{version} saddr . {version} daddr . udp sport . {MARKER}" for version in ("ip", "ip6"))

RULES = f"""\
add table inet {TABLE}
delete table inet {TABLE}
table inet {TABLE} {{
  # Who sends to us, and by which SPI: each is looked at once a minute.
  set seen4 {{ typeof ip saddr . ip daddr . esp spi; flags dynamic, timeout; timeout 1m; size 16384; }}
  set seen6 {{ typeof ip6 saddr . ip6 daddr . esp spi; flags dynamic, timeout; timeout 1m; size 16384; }}
  set seen_within_udp4 {{ typeof {WITHIN_UDP4}; flags dynamic, timeout; timeout 1m; size 16384; }}
  set seen_within_udp6 {{ typeof {WITHIN_UDP6}; flags dynamic, timeout; timeout 1m; size 16384; }}
  chain seldom {{
    fib daddr type != local accept
    limit rate over 100/second burst 100 packets accept
  }}
  chain as_esp {{
    ip saddr . ip daddr . esp spi @seen4 accept
    ip6 saddr . ip6 daddr . esp spi @seen6 accept
    jump seldom
    add @seen4 {{ ip saddr . ip daddr . esp spi }} {LOG}
    add @seen6 {{ ip6 saddr . ip6 daddr . esp spi }} {LOG}
  }}
  # A keepalive is shorter, and IKE begins with four octets of zero (RFC 3948 section 2).
  chain within_udp {{
    udp length < 28 accept
    {MARKER} 0 accept
    {WITHIN_UDP4} @seen_within_udp4 accept
    {WITHIN_UDP6} @seen_within_udp6 accept
    jump seldom
    add @seen_within_udp4 {{ {WITHIN_UDP4} }} {LOG}
    add @seen_within_udp6 {{ {WITHIN_UDP6} }} {LOG}
  }}
  chain prerouting {{
    type filter hook prerouting priority raw; policy accept;
    meta l4proto esp goto as_esp
    udp dport {NAT_TRAVERSAL_PORT} goto within_udp
  }}
}}
"""

NO_RULES = f"add table inet {TABLE}\ndelete table inet {TABLE}\n"

CONFIG = (NFNL_SUBSYS_ULOG << 8) | NFULNL_MSG_CONFIG
PACKET = (NFNL_SUBSYS_ULOG << 8) | NFULNL_MSG_PACKET
IPV6_HEADER, UDP_HEADER, SPI_OCTETS = 40, 8, 4

Job = Generator[Deferred[Any], Any, None]


@dataclass(frozen=True, slots=True)
class Esp:
    """Of one datagram: between whom it goes, by which SPI, and within UDP (RFC 3948) from which port."""

    ends: Flow
    spi: int
    port: int | None = None


def read_esp(packet: bytes) -> Esp | None:
    """None for any other IP datagram, and for what is none."""
    ends = read_flow(packet)
    if ends is None:
        return None
    protocol, start = (packet[9], 4 * (packet[0] & 0xF)) if ends.source.version == 4 else (packet[6], IPV6_HEADER)
    body, port = packet[start:], None
    if protocol == IPPROTO_UDP and len(body) >= UDP_HEADER:
        port, body = int.from_bytes(body[:2], "big"), body[UDP_HEADER:]
    elif protocol != IPPROTO_ESP:
        return None
    return Esp(ends, int.from_bytes(body[:SPI_OCTETS], "big"), port) if len(body) >= SPI_OCTETS else None


class UnknownSpis:
    """Listens from `start` to `close`. `heard` is told who sent to whom, the SPI, and (within UDP) from which port."""

    def __init__(self, reactor: Any, heard: Callable[[Flow, int, int | None], object]) -> None:
        self._log = Logger()
        self._reactor, self._heard = reactor, heard
        self._open: list[NetlinkSocket] = []
        self._turn = DeferredLock()

    def start(self) -> "Deferred[None]":
        """Fails with PlaneError, and leaves nothing behind, where the kernel lacks a part or another one listens."""
        return self._turn.run(self._start)

    def close(self) -> "Deferred[None]":
        """Take the rules out."""
        return self._turn.run(self._close)

    @inlineCallbacks
    def _start(self) -> Job:
        try:
            self._xfrm = NetlinkSocket(self._reactor, NETLINK_XFRM)
            self._open.append(self._xfrm)
            self._netfilter = NetlinkSocket(self._reactor, NETLINK_NETFILTER, self._told, (NFNLGRP_NFTABLES,))
            self._open.append(self._netfilter)
            bind = NFGEN.pack(0, 0, GROUP) + attribute(NFULA_CFG_CMD, bytes([NFULNL_CFG_CMD_BIND]))
            yield self._netfilter.request(Request(CONFIG, bind, f"listen to the NFLOG group {GROUP}"))
            yield self._load()
        except PlaneError:
            self._close_sockets()
            raise

    def _load(self, rules: str = RULES) -> "Deferred[None]":
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), load, rules)

    @inlineCallbacks
    def _close(self) -> Job:
        if self._open:
            self._close_sockets()
            yield self._load(NO_RULES)

    def _close_sockets(self) -> None:
        while self._open:
            self._open.pop().close()

    def _told(self, message: Message) -> None:
        """A datagram was logged, or tables were changed."""
        if message.kind == PACKET:
            parts = {kind & NLA_TYPE_MASK: value for kind, value in attributes(message.body[NFGEN.size:])}
            if esp := read_esp(parts.get(NFULA_PAYLOAD, b"")):
                self._judge(esp).addErrback(self._failed)
        elif table_deleted(message, TABLE):
            self._turn.run(self._restore).addErrback(self._failed)

    @inlineCallbacks
    def _judge(self, esp: Esp) -> Job:
        if not (yield self._xfrm.request(get_sa(esp.spi, esp.ends.destination))):
            self._heard(esp.ends, esp.spi, esp.port)

    @inlineCallbacks
    def _restore(self) -> Job:
        """Somebody has flushed the ruleset; or it was we who replaced our own."""
        if self._open and not (yield self._netfilter.request(
                table_request(NFT_MSG_GETTABLE, text(NFTA_TABLE_NAME, TABLE), "get the table"))):
            yield self._load()

    def _failed(self, failure: Failure) -> None:
        if self._open:
            self._log.failure("listening for unknown SPIs", failure=failure)
