"""`oegw status` without a daemon: what the kernel goes on doing, in one line. Prints nothing where that cannot be read.

A program of its own, because it loads what the other commands need not wait for.
"""

from collections.abc import Generator
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import react

from oesvc.interfaces import PlaneError
from oesvc.kernel.constants import NETLINK_XFRM
from oesvc.kernel.leftover import leftover
from oesvc.kernel.netlink import NetlinkSocket
from oesvc.kernel.spd import list_policies, read_policies


@inlineCallbacks
def tell(reactor: Any) -> Generator[Deferred[Any], Any, None]:
    try:
        xfrm = NetlinkSocket(reactor, NETLINK_XFRM)
        asked: Deferred[Any] = xfrm.request(list_policies())
        print(f"the kernel goes on without it, with {leftover(read_policies((yield asked)))}")
    except PlaneError:
        return


if __name__ == "__main__":
    react(tell)
