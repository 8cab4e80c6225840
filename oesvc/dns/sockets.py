"""Sockets that are prepared before they speak, handed to the reactor: the daemon's own traffic must not fall under its
own policy, so a hook sees every socket before its first datagram.

Only public interfaces of Twisted: IReactorFDSet and IReactorSocket.
"""

import errno
import socket
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IUDPTransport
from twisted.internet.protocol import DatagramProtocol, Factory

PrepareSocket = Callable[[socket.socket], None]
"May raise OSError."
Endpoint = tuple[str, int]
"Address (not a name) and port."

_MAX_DATAGRAM = 65535
_BURST = 64
"Datagrams read in one turn of the reactor: a flood must not keep it from its other work."


def leave_as_is(sock: socket.socket) -> None:
    """For processes whose traffic needs no bypass."""


def connect_tcp(reactor: Any, server: Endpoint, factory: "Factory[Any]", prepare: PrepareSocket) -> "Deferred[None]":
    """Connect and give the connection to a protocol of `factory`; fails with OSError. May be cancelled."""
    sock, target = _new_socket(server, socket.SOCK_STREAM, prepare)

    def adopt(_: None) -> None:
        reactor.adoptStreamConnection(sock.fileno(), sock.family, factory)

    def close(result: Any) -> Any:
        # The reactor has its own descriptor by now, or nobody wants this one.
        sock.close()
        return result

    return _Attempt(reactor, sock).begin(target).addCallback(adopt).addBoth(close)


def _new_socket(server: Endpoint, kind: int, prepare: PrepareSocket) -> tuple[socket.socket, Any]:
    """A socket, and the server's address as connect(2) wants it: with the scope of fe80::1%eth0."""
    numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    family, _, _, _, target = socket.getaddrinfo(*server, type=kind, flags=numeric)[0]
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    try:
        prepare(sock)
    except OSError as error:
        sock.close()
        raise OSError(f"its socket cannot be prepared: {error}") from error
    return sock, target


class ConnectedDatagrams(FileDescriptor):
    """A protocol's transport to one peer, on a port of the kernel's choice; the kernel drops what others send.

    Twisted's own UDP port would write two lines to the log for each query, bind before it connects, and close only
    in a later turn of the reactor.
    """

    reactor: Any

    def __init__(self, reactor: Any, server: Endpoint, protocol: DatagramProtocol, prepare: PrepareSocket) -> None:
        """OSError when there is no way to the server."""
        super().__init__(reactor)
        self._server, self._protocol = server, protocol
        self._socket, target = _new_socket(server, socket.SOCK_DGRAM, prepare)
        try:
            self._socket.connect(target)
        except OSError:
            self._socket.close()
            raise
        protocol.makeConnection(cast(IUDPTransport, self))
        self.startReading()

    def write(self, data: bytes) -> None:
        self._socket.send(data)

    def stopListening(self) -> None:  # noqa: N802 - IListeningPort's name
        """Close, once."""
        if self.fileno() >= 0:
            self.stopReading()
            self._socket.close()
            self._protocol.doStop()

    def fileno(self) -> int:
        return self._socket.fileno()

    def doRead(self) -> None:
        """The reactor: datagrams are there, or the kernel has an ICMP error to report."""
        for _ in range(_BURST):
            try:
                data = self._socket.recv(_MAX_DATAGRAM)
            except BlockingIOError:
                return
            except OSError:
                self._protocol.connectionRefused()
                return
            self._protocol.datagramReceived(data, self._server)
            if self.fileno() < 0:
                return

    def connectionLost(self, reason: Any) -> None:
        """The reactor: epoll reports an ICMP error without anything to read."""
        self.stopListening()


class _Attempt(FileDescriptor):
    """Waits until the kernel has an answer to connect(2)."""

    reactor: Any

    def __init__(self, reactor: Any, sock: socket.socket) -> None:
        super().__init__(reactor)
        self._socket = sock
        self._done: Deferred[None] = Deferred(self._give_up)

    def begin(self, target: Any) -> "Deferred[None]":
        code = self._socket.connect_ex(target)
        if code in (0, errno.EINPROGRESS):
            self.reactor.addWriter(self)
        else:
            self._done.errback(OSError(code, errno.errorcode.get(code, "connect")))
        return self._done

    def fileno(self) -> int:
        return self._socket.fileno()

    def doWrite(self) -> None:
        """The reactor: the connection stands or has failed."""
        self._settle()

    def connectionLost(self, reason: Any) -> None:
        """The reactor: an error came with the event."""
        self._settle()

    def _settle(self) -> None:
        self.reactor.removeWriter(self)
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if self._done.called:
            return
        if code:
            self._done.errback(OSError(code, errno.errorcode.get(code, "connect")))
        else:
            self._done.callback(None)

    def _give_up(self, _deferred: "Deferred[None]") -> None:
        self.reactor.removeWriter(self)
