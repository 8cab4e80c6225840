"""The kernel's packet queue (NFQUEUE): datagrams of undecided flows wait in it for a verdict.

Packed by hand and not by `nlmsg`: a stream on hold costs every datagram's worth of this, and it is ten times faster.
"""

import struct
from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from oesvc.ipsec.flow import Flow
from oesvc.kernel.constants import (
    NETLINK_NETFILTER,
    NF_ACCEPT,
    NF_DROP,
    NF_INET_LOCAL_OUT,
    NFNL_SUBSYS_QUEUE,
    NFQA_CAP_LEN,
    NFQA_CFG_CMD,
    NFQA_CFG_F_GSO,
    NFQA_CFG_FLAGS,
    NFQA_CFG_MASK,
    NFQA_CFG_PARAMS,
    NFQA_CFG_QUEUE_MAXLEN,
    NFQA_MARK,
    NFQA_PACKET_HDR,
    NFQA_PAYLOAD,
    NFQA_VERDICT_HDR,
    NFQNL_CFG_CMD_BIND,
    NFQNL_COPY_PACKET,
    NFQNL_MSG_CONFIG,
    NFQNL_MSG_PACKET,
    NFQNL_MSG_VERDICT,
    NLA_TYPE_MASK,
)
from oesvc.kernel.hold import Datagram
from oesvc.kernel.netlink import Message, NetlinkSocket, Request, attribute, attributes

QUEUES = Path("/proc/net/netfilter/nfnetlink_queue")
"A line a queue: number, port, datagrams held, mode, octets copied, two counts of losses, number of the newest, 1."
COPIED_OCTETS = 40
"Of each datagram: the addresses of both families are within."

NFGEN = struct.Struct("!BBH")
"struct nfgenmsg: family, version, resource (here the queue's number)."

PACKET = (NFNL_SUBSYS_QUEUE << 8) | NFQNL_MSG_PACKET
VERDICT = (NFNL_SUBSYS_QUEUE << 8) | NFQNL_MSG_VERDICT
CONFIG = (NFNL_SUBSYS_QUEUE << 8) | NFQNL_MSG_CONFIG


shared_address = lru_cache(maxsize=8192)(ip_address)
"From octets. Many flows have the same address at one end, and keep it for hours."


def read_flow(packet: bytes) -> Flow | None:
    """Source and destination of an IP datagram; None for what is none."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        return Flow(shared_address(packet[12:16]), shared_address(packet[16:20]))
    if version == 6 and len(packet) >= 40:
        return Flow(shared_address(packet[8:24]), shared_address(packet[24:40]))
    return None


def lost(number: int, queues: Path = QUEUES) -> int:
    """Datagrams for which the kernel had no room, in a queue or on the way to us; 0 where it does not tell."""
    try:
        lines = [line.split() for line in queues.read_text("ascii").splitlines()]
    except OSError:
        return 0
    return sum(int(line[5]) + int(line[6]) for line in lines if line[0] == str(number))


def read_datagram(message: Message) -> tuple[int, Datagram | None]:
    """A datagram from the queue: its number there, and what it is if it is IP."""
    parts = {kind & NLA_TYPE_MASK: value for kind, value in attributes(message.body[NFGEN.size:])}
    number, _, hook = struct.unpack("!IHB", parts[NFQA_PACKET_HDR])
    mark = struct.unpack("!I", parts.get(NFQA_MARK, bytes(4)))[0]
    payload = parts.get(NFQA_PAYLOAD, b"")
    octets = struct.unpack("!I", parts[NFQA_CAP_LEN])[0] if NFQA_CAP_LEN in parts else len(payload)
    flow = read_flow(payload)
    return number, Datagram(number, flow, hook, mark, octets) if flow else None


class PacketQueue:
    """One queue, bound as long as this object lives. `arrived` is called for each datagram that comes in."""

    def __init__(self, reactor: Any, number: int, length: int, mark: int,
                 arrived: Callable[[Datagram], None]) -> None:
        self._number = number
        self._length = length
        self._mark = mark
        self._arrived = arrived
        self._socket = NetlinkSocket(reactor, NETLINK_NETFILTER, self._received)

    def bind(self) -> "Deferred[list[Message]]":
        """Take the queue. Fails with PlaneError when another process has it: only one gateway per network namespace.

        Datagrams that were merged for speed (GSO) come unsplit, and are one datagram to hold.
        """
        settings = (
            (NFQA_CFG_CMD, struct.pack("!BxH", NFQNL_CFG_CMD_BIND, 0)),
            (NFQA_CFG_PARAMS, struct.pack("!IB", COPIED_OCTETS, NFQNL_COPY_PACKET)),
            (NFQA_CFG_QUEUE_MAXLEN, struct.pack("!I", self._length)),
            (NFQA_CFG_FLAGS, struct.pack("!I", NFQA_CFG_F_GSO)),
            (NFQA_CFG_MASK, struct.pack("!I", NFQA_CFG_F_GSO)),
        )
        command, *others = (attribute(kind, value) for kind, value in settings)
        asks = f"take the packet queue {self._number} (is another oegw running? is there no nfnetlink_queue?)"
        return self._socket.request(*(Request(CONFIG, NFGEN.pack(0, 0, self._number) + body, asks)
                                      for body in (command, b"".join(others))))

    def _received(self, message: Message) -> None:
        if message.kind != PACKET:
            return
        number, datagram = read_datagram(message)
        if datagram is None:
            self._socket.post(self._verdict(number, NF_DROP))
        else:
            self._arrived(datagram)

    def accept(self, *datagrams: Datagram) -> None:
        """Let datagrams go on, in this order.

        One of this host has been routed, and so looked up in the SPD, before it was held; that its mark changes makes
        the kernel route it, and look it up, again.
        """
        if datagrams:
            self._socket.post(b"".join(
                self._verdict(one.number, NF_ACCEPT, one.mark | self._mark if one.hook == NF_INET_LOCAL_OUT else None)
                for one in datagrams))

    def drop(self, *datagrams: Datagram) -> None:
        """Discard datagrams."""
        if datagrams:
            self._socket.post(b"".join(self._verdict(one.number, NF_DROP) for one in datagrams))

    def _verdict(self, number: int, verdict: int, mark: int | None = None) -> bytes:
        body = NFGEN.pack(0, 0, self._number) + attribute(NFQA_VERDICT_HDR, struct.pack("!II", verdict, number))
        if mark is not None:
            body += attribute(NFQA_MARK, struct.pack("!I", mark))
        return Request(VERDICT, body, "").octets(0, acknowledge=False)

    def close(self) -> None:
        """Give the queue up; the kernel drops what is still held in it."""
        self._socket.close()


