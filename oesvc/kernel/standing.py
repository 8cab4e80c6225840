"""What stands in the kernel whatever flows there are, and what a former run has left there."""

import os
from collections.abc import Callable, Generator, Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock, inlineCallbacks
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from oesvc.interfaces import PlaneError
from oesvc.ipsec.flow import Flow
from oesvc.ipsec.sa import IpsecSa, Lifetime
from oesvc.kernel.constants import (
    ACQUIRE_EXPIRES,
    CONFIGURED_PRIORITIES,
    OUR_PRIORITIES,
    OUR_REQIDS,
    TRAP_REQID,
    Direction,
    Priority,
)
from oesvc.kernel.leftover import leftover
from oesvc.kernel.netlink import NetlinkSocket, Request
from oesvc.kernel.sad import WARM_UP, add_sa, delete_sa, list_sas
from oesvc.kernel.spd import Policy, Selector, address, delete_policy, list_policies, put_policy, read_policies
from oesvc.kernel.structs import SaMessage

CORE = Path("/proc/sys/net/core")
SETTINGS = {"xfrm_larval_drop": 1, "xfrm_acq_expires": ACQUIRE_EXPIRES}
"Of our network namespace: drop what meets a trap, and ask again soon."

AT_ONCE = 64
"Requests in one datagram to the kernel."

ARMINGS = 3
"Times that the traps are put within their life."

PolicyKey = tuple[int, Selector]
"What tells one policy from another: not its priority."

Job = Generator[Deferred[Any], Any, Any]

log = Logger()


def set_kernel(settings: dict[str, int], root: Path = CORE) -> dict[str, int]:
    """Write settings; returns what they were. Raises PlaneError."""
    former = {}
    for name, value in settings.items():
        try:
            former[name] = int((root / name).read_text())
            if former[name] != value:
                (root / name).write_text(f"{value}\n")
        except OSError as error:
            raise PlaneError(f"set net.core.{name} to {value}: {os.strerror(error.errno or 0)}"
                             " (needed: a kernel with XFRM, and a writable /proc/sys)") from None
    return former


@inlineCallbacks
def warm_up(xfrm: NetlinkSocket) -> Job:
    """Load the kernel's algorithms: the first SA of each costs up to a second, which no flow shall wait for.

    Fails with PlaneError if there is no ESP at all; a single algorithm that is missing is only logged.
    """
    refused = []
    for version, (transform, key, integrity_key) in enumerate([*WARM_UP, WARM_UP[0]]):
        ours, theirs = ("127.0.0.1", "127.0.0.2") if version < len(WARM_UP) else ("::1", "::2")
        flow = Flow(ip_address(ours), ip_address(theirs))
        # Keys from the system: a cipher may refuse weak ones (3DES with equal thirds).
        sa = IpsecSa(0x100 + version, flow.source, flow.destination, flow, transform, os.urandom(key),
                     os.urandom(integrity_key), Lifetime(1))
        try:
            yield xfrm.request(add_sa(sa, TRAP_REQID, inbound=False))
        except PlaneError as error:
            refused.append(str(error))
        yield xfrm.request(delete_sa(sa.spi, sa.destination))
    if len(refused) > len(WARM_UP):
        raise PlaneError(f"this kernel has no ESP (needed: modules esp4, esp6 and xfrm_user): {refused[0]}")
    for what in refused:
        log.warn("the kernel lacks an algorithm: {what}", what=what)


@inlineCallbacks
def replace_policies(xfrm: NetlinkSocket, wanted: Iterable[Policy]) -> Job:
    """Make `wanted` our only policies, first putting and then deleting; then delete all our SAs. Fires with a Leftover.

    Policies of others stay: where one has the selector of a wanted one, it is that one which counts. Only a trap
    and a configured tunnel cannot give way, for then datagrams would pass them: PlaneError.
    """
    before = yield from read_spd(xfrm)
    ours, others = known_policies(before)
    put = beside(others, wanted)
    yield from in_parts(xfrm, [put_policy(policy) for policy in put.values()])
    yield from delete_policies(xfrm, ours - put.keys())
    yield from delete_our_sas(xfrm)
    return leftover(before)


@inlineCallbacks
def revise_policies(xfrm: NetlinkSocket, before: Iterable[Policy], wanted: Iterable[Policy],
                    revise_hooks: Callable[[], Deferred[Any]]) -> Job:
    """Make those of `before` the `wanted` ones; policies of flows stay, and their SAs.

    New traps and blocks come before the hooks hear of them, old ones go after them; and what passes comes after them,
    so that hooks that are refused leave nothing open. What new ones had replaced is put again then.
    """
    ours, others = known_policies((yield from read_spd(xfrm)))
    put = beside(others, wanted)
    former: dict[PolicyKey, Policy] = {(policy.direction, policy.selector): policy for policy in before}
    changed = [policy for key, policy in put.items() if former.get(key) != policy]
    closing = [policy for policy in changed if policy.closes]
    try:
        yield from in_parts(xfrm, [put_policy(policy) for policy in closing])
        yield revise_hooks()
    except PlaneError:
        # A trap ends by itself: it must not be all that is left in the place of a block.
        keys = former.keys() & {(policy.direction, policy.selector) for policy in closing}
        yield from in_parts(xfrm, [put_policy(former[key]) for key in keys])
        raise
    yield from in_parts(xfrm, [put_policy(policy) for policy in changed if not policy.closes])
    yield from delete_policies(xfrm, ours & former.keys() - put.keys())


def read_spd(xfrm: NetlinkSocket) -> Generator[Deferred[Any], Any, list[Any]]:
    return list(read_policies((yield xfrm.request(list_policies()))))


def known_policies(spd: Iterable[Any]) -> tuple[set[PolicyKey], set[PolicyKey]]:
    """What is in the SPD: ours, and others'."""
    ours: set[PolicyKey] = set()
    others: set[PolicyKey] = set()
    for message in spd:
        known = ours if message["priority"] in OUR_PRIORITIES else others
        known.add((message["dir"], Selector.read(message)))
    return ours, others


def beside(others: set[PolicyKey], wanted: Iterable[Policy]) -> dict[PolicyKey, Policy]:
    """Those that others leave room for. Raises PlaneError where a trap finds none."""
    put: dict[PolicyKey, Policy] = {(policy.direction, policy.selector): policy for policy in wanted}
    for key in put.keys() & others:
        if put[key].priority == Priority.TRAP or put[key].priority in CONFIGURED_PRIORITIES:
            raise PlaneError(f"the policy for {key[1]} is already there, of another program; remove that one")
        del put[key]
    return put


def delete_policies(xfrm: NetlinkSocket, keys: Iterable[PolicyKey]) -> Job:
    yield from in_parts(xfrm, [delete_policy(Direction(direction), selector) for direction, selector in keys])


class Traps:
    """Puts the traps again before the kernel removes them, as it does when we are dead and nobody can decide."""

    def __init__(self, reactor: Any, turn: DeferredLock, seconds: int) -> None:
        """Each lives for so many seconds. `turn` is of all who change what stands."""
        self._turn, self._spacing = turn, seconds / ARMINGS
        self._keeping = LoopingCall(self._put)
        self._keeping.clock = reactor

    def keep(self, traps: Callable[[], list[Policy]], xfrm: NetlinkSocket) -> None:
        self._traps, self._xfrm = traps, xfrm
        self._keeping.start(self._spacing, now=False)

    def let_go(self) -> None:
        if self._keeping.running:
            self._keeping.stop()

    def _put(self) -> "Deferred[None]":
        return self._turn.run(self._put_all).addErrback(lambda failure: log.error(
            "what passes the hooks undecided may go in clear: {why}", why=failure.getErrorMessage()))

    @inlineCallbacks
    def _put_all(self) -> Job:
        if self._keeping.running:
            yield from in_parts(self._xfrm, [put_policy(policy) for policy in self._traps()])


def delete_our_sas(xfrm: NetlinkSocket) -> Job:
    """SAs are known by their reqid; keys of a former run are of no use."""
    found = []
    for message in (yield xfrm.request(list_sas())):
        sa = SaMessage(message.octets)
        sa.decode()
        if sa["reqid"] in OUR_REQIDS:
            found.append(delete_sa(sa["id_spi"], address(sa["family"], sa["id_daddr"])))
    yield from in_parts(xfrm, found)


def in_parts(xfrm: NetlinkSocket, requests: list[Request]) -> Job:
    for start in range(0, len(requests), AT_ONCE):
        yield xfrm.request(*requests[start:start + AT_ONCE])
