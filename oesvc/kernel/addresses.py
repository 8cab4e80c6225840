"""This host's own addresses, as the kernel lists them, and the news about them."""

import socket
import struct
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from oesvc.ipsec.flow import Address
from oesvc.kernel.constants import (
    IFA_ADDRESS,
    IFA_F_DADFAILED,
    IFA_F_DEPRECATED,
    IFA_F_TEMPORARY,
    IFA_F_TENTATIVE,
    IFA_FLAGS,
    IFA_LOCAL,
    NETLINK_ROUTE,
    NLM_F_DUMP,
    NLMSG_DONE,
    RT_SCOPE_UNIVERSE,
    RTM_GETADDR,
    RTM_NEWADDR,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV6_IFADDR,
)
from oesvc.kernel.netlink import Message, NetlinkSocket, Request, attributes, split_messages
from oesvc.kernel.spd import Network

IFADDRMSG = struct.Struct("=BBBBI")
"struct ifaddrmsg: family, length of the prefix, flags, scope, interface."

WAITS = (0.25,) * 16
"Seconds. Whether another host has an address is known after one or two (RFC 4862 section 5.4), without a link never."
SETTLING = 0.05
"Seconds after the first news, for what comes together: an interface has several addresses, DHCP takes and gives."


@dataclass(frozen=True, slots=True)
class OwnAddress:
    """A global address of this host, as it stands."""

    address: Address
    interface: str
    flags: int = 0

    @property
    def tentative(self) -> bool:
        return bool(self.flags & IFA_F_TENTATIVE) and not self.flags & IFA_F_DADFAILED

    @property
    def lasting(self) -> bool:
        """Whether a peer may call it, now and as long as it is there."""
        return not self.flags & (IFA_F_TEMPORARY | IFA_F_DEPRECATED | IFA_F_TENTATIVE | IFA_F_DADFAILED)


def list_addresses() -> list[OwnAddress]:
    """All global ones, in the kernel's order."""
    asking = Request(RTM_GETADDR, IFADDRMSG.pack(0, 0, 0, 0, 0), "list the addresses", NLM_F_DUMP)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE) as kernel:
        kernel.send(asking.octets(1, acknowledge=False))
        return list(_read(kernel))


def _read(kernel: socket.socket) -> Iterator[OwnAddress]:
    while True:
        for _, message in split_messages(kernel.recv(1 << 16)):
            if message.kind == NLMSG_DONE:
                return
            if message.kind == RTM_NEWADDR and (own := read_address(message)):
                yield own


def read_address(message: Message) -> OwnAddress | None:
    """None for one that is good on its link alone, or whose interface has just gone."""
    _, _, flags, scope, index = IFADDRMSG.unpack_from(message.body)
    if scope != RT_SCOPE_UNIVERSE:
        return None
    known = dict(attributes(message.body[IFADDRMSG.size:]))
    if IFA_FLAGS in known:
        flags, = struct.unpack("=I", known[IFA_FLAGS])
    try:
        return OwnAddress(ip_address(known.get(IFA_LOCAL) or known[IFA_ADDRESS]), socket.if_indextoname(index), flags)
    except OSError:
        return None


def outside(listed: Collection[OwnAddress], clients: Collection[Network],
            inside: Collection[str]) -> list[OwnAddress]:
    """Those that do not lead to clients."""
    return [one for one in listed
            if one.interface not in inside and not any(one.address in network for network in clients)]


def outside_addresses(clients: Collection[Network], inside: Collection[str],
                      list_all: Callable[[], list[OwnAddress]] = list_addresses,
                      wait: Callable[[float], None] = time.sleep) -> list[OwnAddress]:
    """The global addresses that do not lead to clients. Waits, up to 4 s, until it is known whether one is ours."""
    for seconds in (*WAITS, None):
        found = outside(list_all(), clients, inside)
        if seconds is None or not any(one.tentative for one in found):
            break
        wait(seconds)
    return found


class AddressWatch:
    """Tells that addresses have come, gone, or become of another kind; not which."""

    def __init__(self, reactor: Any, changed: Callable[[], object]) -> None:
        """`changed` must not raise. Raises PlaneError."""
        self._reactor, self._changed = reactor, changed
        self._call: Any = None
        self._socket = NetlinkSocket(reactor, NETLINK_ROUTE, self._news, (RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR))

    def _news(self, message: Message) -> None:
        if self._call is None:
            self._call = self._reactor.callLater(SETTLING, self._settled)

    def _settled(self) -> None:
        self._call = None
        self._changed()

    def close(self) -> None:
        self._socket.close()
        if self._call is not None:
            self._call.cancel()
