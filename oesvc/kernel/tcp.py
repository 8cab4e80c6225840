"""Which TCP connections this host has open: sock_diag (linux/inet_diag.h), for RFC 4322 section 3.4.1."""

import errno
import socket
import struct
from collections.abc import Generator
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock, inlineCallbacks

from oesvc.ipsec.flow import Address, Flow
from oesvc.kernel.constants import NLM_F_DUMP
from oesvc.kernel.netlink import NetlinkSocket, Request, attribute

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
INET_DIAG_REQ_BYTECODE = 1

ESTABLISHED, SYN_SENT, CLOSE_WAIT = 1, 2, 8
OPEN = 1 << ESTABLISHED | 1 << SYN_SENT | 1 << CLOSE_WAIT
"States in which this host may still have something to say (linux/tcp_states.h)."

QUESTION = struct.Struct("=BBBxI48x")
"struct inet_diag_req_v2: family, protocol, extensions, states; any socket."
OPERATION = struct.Struct("=BBH")
"struct inet_diag_bc_op: its code, and how far to go on if it is so, and if it is not."
HOST = struct.Struct("=BB2xi")
"struct inet_diag_hostcond: family, length of the prefix, port; the address follows."
SOURCE_IS, DESTINATION_IS = 7, 8
ANY_PORT = -1


class TcpConnections:
    """Asks the kernel. Needs no privilege."""

    def __init__(self, reactor: Any) -> None:
        """Raises PlaneError."""
        self._socket = NetlinkSocket(reactor, NETLINK_SOCK_DIAG)
        self._turn = DeferredLock()

    @inlineCallbacks
    def is_open(self, flow: Flow) -> Generator[Deferred[Any], Any, bool]:
        """Whether there is one from the flow's source to its destination. Fails with PlaneError."""
        for family in _families(flow):
            if (yield self._turn.run(self._socket.request, list_connections(family, flow))):
                return True
        return False

    def close(self) -> None:
        self._socket.close()


def list_connections(family: int, flow: Flow) -> Request:
    """The kernel answers one socket's request for a list at a time. Without the module there is none to be kept for."""
    last = _condition(DESTINATION_IS, flow.destination, 0)
    body = (QUESTION.pack(family, socket.IPPROTO_TCP, 0, OPEN)
            + attribute(INET_DIAG_REQ_BYTECODE, _condition(SOURCE_IS, flow.source, len(last)) + last))
    return Request(SOCK_DIAG_BY_FAMILY, body, f"list the TCP connections of {flow}", flags=NLM_F_DUMP,
                   tolerates=frozenset({errno.ENOENT}))


def _condition(code: int, address: Address, rest: int) -> bytes:
    """Go on if it is this host's address; else leave by the end, `rest` octets on, and 4 more say that it is none."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    host = HOST.pack(family, address.max_prefixlen, ANY_PORT) + address.packed
    size = OPERATION.size + len(host)
    return OPERATION.pack(code, size, size + rest + 4) + host


def _families(flow: Flow) -> tuple[int, ...]:
    """Of the sockets: those for IPv6 may have IPv4's connections too."""
    return (socket.AF_INET, socket.AF_INET6) if flow.source.version == 4 else (socket.AF_INET6,)
