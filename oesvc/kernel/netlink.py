"""A netlink socket in the Twisted reactor: requests with their answers, and what the kernel says unasked."""

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from zope.interface import implementer

from oesvc.interfaces import PlaneError
from oesvc.kernel.constants import (
    NETLINK_ADD_MEMBERSHIP,
    NETLINK_CAP_ACK,
    NETLINK_EXT_ACK,
    NLM_F_ACK,
    NLM_F_ACK_TLVS,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    NLMSG_MIN_TYPE,
    NLMSGERR_ATTR_MSG,
    SO_RCVBUFFORCE,
    SOCKET_BUFFER,
    SOL_NETLINK,
)

HEADER = struct.Struct("=IHHII")
"struct nlmsghdr: length, type, flags, sequence number, port."

READS_AT_ONCE = 64
"After so many datagrams other readers of the reactor get their turn."


@dataclass(frozen=True, slots=True)
class Request:
    """One netlink message, what it asks for in words, and the refusals that are as good as success."""

    kind: int
    body: bytes
    deed: str
    flags: int = 0
    tolerates: frozenset[int] = frozenset()
    about: object = None
    "Of the words, what takes long to write; nobody reads them unless it is refused."

    @property
    def asks(self) -> str:
        return self.deed if self.about is None else f"{self.deed} {self.about}"

    def octets(self, sequence: int, acknowledge: bool) -> bytes:
        flags = self.flags | NLM_F_REQUEST | (NLM_F_ACK if acknowledge else 0)
        return HEADER.pack(HEADER.size + len(self.body), self.kind, flags, sequence, 0) + self.body


@dataclass(frozen=True, slots=True)
class Message:
    """One message from the kernel, whole."""

    kind: int
    octets: bytes

    @property
    def body(self) -> bytes:
        return self.octets[HEADER.size:]


def split_messages(data: bytes) -> Iterator[tuple[int, Message]]:
    """The messages of one datagram, each with its sequence number."""
    offset = 0
    while offset + HEADER.size <= len(data):
        length, kind, _, sequence, _ = HEADER.unpack_from(data, offset)
        if not HEADER.size <= length <= len(data) - offset:
            return
        yield sequence, Message(kind, data[offset:offset + length])
        offset += (length + 3) & ~3


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Walk type-length-value attributes; the type comes with its flag bits."""
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if not 4 <= length <= len(data) - offset:
            return
        yield kind, data[offset + 4:offset + length]
        offset += (length + 3) & ~3


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def refusal(message: Message) -> tuple[int, str]:
    """What an NLMSG_ERROR says: the errno (0: an acknowledgement) and the kernel's own words, if it has any."""
    flags = HEADER.unpack_from(message.octets)[2]
    number = -struct.unpack_from("=i", message.body)[0]
    if not flags & NLM_F_ACK_TLVS:
        return number, ""
    # With NETLINK_CAP_ACK only the header of the refused message is repeated before the attributes.
    said = dict(attributes(message.body[4 + HEADER.size:])).get(NLMSGERR_ATTR_MSG, b"")
    return number, said.rstrip(b"\0").decode("ascii", "replace")


def open_socket(protocol: int, groups: Sequence[int]) -> socket.socket:
    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    with ExitStack() as stack:
        sock = stack.enter_context(socket.socket(socket.AF_NETLINK, kind, protocol))
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, SOCKET_BUFFER)
        sock.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        sock.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        sock.bind((0, 0))
        for group in groups:
            sock.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
        stack.pop_all()
    return sock


class ExistsError(PlaneError):
    """What was to be created is already there."""


@dataclass(slots=True)
class _Exchange:
    """Requests that went out together."""

    requests: dict[int, Request]
    last: int
    "The one that is acknowledged: then all is done."
    opening: int
    "Where this one is refused, the kernel does not look at the others."
    done: "Deferred[list[Message]]"
    replies: list[Message] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    exists: bool = False
    "One of them because it is already there."


@implementer(IReadDescriptor)
class NetlinkSocket:
    """One non-blocking netlink socket. Needs CAP_NET_ADMIN for what it is used for here.

    `notify` takes messages that answer no request. The kernel works on requests while they are being sent, so that
    requests take effect in the order of `request` calls, whichever socket they go through.
    """

    def __init__(self, reactor: Any, protocol: int, notify: Callable[[Message], None] | None = None,
                 groups: Sequence[int] = ()) -> None:
        self._log = Logger()
        self._reactor = reactor
        self._notify = notify
        self._sequence = 0
        self._exchanges: dict[int, _Exchange] = {}
        try:
            self._socket = open_socket(protocol, groups)
        except OSError as error:
            raise PlaneError(f"open a netlink socket (protocol {protocol}): {os.strerror(error.errno or 0)}"
                             " (needed: root, or CAP_NET_ADMIN)") from None
        reactor.addReader(self)

    def request(self, *requests: Request, opening: Request | None = None,
                closing: Request | None = None) -> "Deferred[list[Message]]":
        """Send requests as one datagram; fires with the kernel's replies when it has answered the last one.

        `opening` and `closing` frame a batch of nf_tables, and are not acknowledged. The kernel goes on after a
        request that it refuses; PlaneError then names every refusal that was not to be tolerated.
        """
        numbered: dict[int, Request] = {}
        octets = []
        for request in (opening, *requests, closing):
            if request is not None:
                self._sequence = self._sequence % 0xFFFFFFFF + 1
                numbered[self._sequence] = request
                octets.append(request.octets(self._sequence, acknowledge=request is requests[-1]))
        last = next(number for number, request in numbered.items() if request is requests[-1])
        first = next(iter(numbered)) if opening else 0
        exchange = _Exchange(numbered, last, first, Deferred())
        self._exchanges.update(dict.fromkeys(numbered, exchange))
        try:
            self._socket.send(b"".join(octets))
        except OSError as error:
            self._finish(exchange, f"{requests[-1].asks}: {os.strerror(error.errno or 0)}")
        return exchange.done

    def post(self, octets: bytes) -> None:
        """Send messages that nobody waits for (sequence number 0); refusals are logged."""
        try:
            self._socket.send(octets)
        except OSError as error:
            self._log.error("netlink: a message was not sent: {error}", error=error)

    def _finish(self, exchange: _Exchange, refused: str = "") -> None:
        for number in exchange.requests:
            self._exchanges.pop(number, None)
        if refused:
            exchange.refusals.append(refused)
        if exchange.refusals:
            kind = ExistsError if exchange.exists else PlaneError
            exchange.done.errback(kind("; ".join(exchange.refusals)))
        else:
            exchange.done.callback(exchange.replies)

    def doRead(self) -> None:
        for _ in range(READS_AT_ONCE):
            if self._socket.fileno() < 0:
                return  # Closed by somebody who heard of the last message.
            try:
                data, (port, _) = self._socket.recvfrom(1 << 16)
            except BlockingIOError:
                return
            except OSError as error:
                self._read_failed(error)
                continue
            if port == 0:  # From the kernel, not from another process.
                for sequence, message in split_messages(data):
                    self._take(sequence, message)

    def _take(self, sequence: int, message: Message) -> None:
        """Whatever one message leads to, the next ones are read: the reactor drops a reader that raises for good."""
        try:
            self._received(sequence, message)
        except Exception:
            self._log.failure("netlink: a message of type {kind} was not dealt with", kind=message.kind)

    def _read_failed(self, error: OSError) -> None:
        """ENOBUFS: the kernel had more to say than the buffer holds.

        Lost answers fail; lost datagrams come again, and tell of SAs whose end was lost.
        """
        self._log.warn("netlink: messages of the kernel were lost: {error}", error=os.strerror(error.errno or 0))
        for exchange in {id(one): one for one in self._exchanges.values()}.values():
            self._finish(exchange, f"{exchange.requests[exchange.last].asks}: the kernel's answer was lost")

    def _received(self, sequence: int, message: Message) -> None:
        exchange = self._exchanges.get(sequence)
        if exchange is None:
            self._unasked(message)
        elif message.kind == NLMSG_ERROR:
            self._answered(exchange, sequence, message)
        elif message.kind == NLMSG_DONE:
            self._finish(exchange)
        else:
            exchange.replies.append(message)

    def _answered(self, exchange: _Exchange, sequence: int, message: Message) -> None:
        request = exchange.requests[sequence]
        number, said = refusal(message)
        if number and number not in request.tolerates:
            exchange.refusals.append(f"{request.asks}: {os.strerror(number)}" + (f" ({said})" if said else ""))
            exchange.exists |= number == errno.EEXIST
        if sequence in (exchange.last, exchange.opening):
            self._finish(exchange)

    def _unasked(self, message: Message) -> None:
        if message.kind == NLMSG_ERROR:
            number, said = refusal(message)
            # ENOENT: a verdict on a datagram that the kernel has dropped meanwhile.
            if number not in (0, errno.ENOENT):
                self._log.warn("netlink: a message was refused: {why} {said}", why=os.strerror(number), said=said)
        elif message.kind >= NLMSG_MIN_TYPE and self._notify is not None:
            self._notify(message)

    def close(self) -> None:
        """Close the socket; what is still unanswered fails."""
        self._reactor.removeReader(self)
        for exchange in {id(one): one for one in self._exchanges.values()}.values():
            self._finish(exchange, f"{exchange.requests[exchange.last].asks}: the netlink socket was closed")
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def connectionLost(self, reason: Any) -> None:
        self._log.error("netlink: the reactor gave the socket up: {reason}", reason=reason.value)

    def logPrefix(self) -> str:
        return "netlink"
