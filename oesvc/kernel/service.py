"""The forwarding plane of RFC 4322 section 3.1 on Linux: SPD and SAD by XFRM, holding by NFQUEUE and nftables.

A flow is held where it is not in the set `known` of the table `inet oegw`. Behind the hooks the SPD decides: a
policy of the flow, or the trap, which lets nothing out. So a flow's policy is put into the SPD before the flow
becomes known, and taken out after it has ceased to be.
"""

import socket
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock, inlineCallbacks, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from oesvc.interfaces import Bounds, PlaneError, PlaneListener, Traffic
from oesvc.ipsec.account import Account, Aside, Verdict
from oesvc.ipsec.flow import Address, Flow
from oesvc.ipsec.policy import ForwardingPolicy
from oesvc.ipsec.sa import IpsecSa
from oesvc.ipsec.translation import translate
from oesvc.kernel.constants import (
    CONFIGURED_PRIORITIES,
    NETLINK_NETFILTER,
    NETLINK_XFRM,
    NFNLGRP_NFTABLES,
    TRAP_REQID,
    XFRMNLGRP_ACQUIRE,
    XFRMNLGRP_EXPIRE,
    Direction,
    Priority,
)
from oesvc.kernel.counters import Tally
from oesvc.kernel.exemptions import remaining_policies, standing_policies, traps
from oesvc.kernel.flows import FlowEntry, FlowTable
from oesvc.kernel.hold import Datagram, HoldTable
from oesvc.kernel.netlink import Message, NetlinkSocket, Request
from oesvc.kernel.notifications import Acquire, Notification, SaExpired, read_notification
from oesvc.kernel.own_socket import exempt_socket, receive_esp
from oesvc.kernel.plane_config import PlaneConfig
from oesvc.kernel.policy_jobs import PolicyJobs
from oesvc.kernel.queue import PacketQueue, lost
from oesvc.kernel.ruleset import closed_ruleset, revised_ruleset, ruleset
from oesvc.kernel.sa_jobs import Job, SaJobs
from oesvc.kernel.sad import get_sa
from oesvc.kernel.sets import FlowSets, table_deleted
from oesvc.kernel.spd import INGRESS, Selector, Template, get_policy, read_policies
from oesvc.kernel.standing import CORE, SETTINGS, Traps, replace_policies, revise_policies, set_kernel, warm_up
from oesvc.kernel.tcp import TcpConnections

TRAP = Template(TRAP_REQID, None)
UNDECIDED = Verdict(ForwardingPolicy.DENY, Aside.UNDECIDED.name)


class LinuxForwardingPlane:
    """The ForwardingPlane of `oesvc.interfaces`. `reactor` reads sockets and knows the time."""

    _core = CORE
    _xfrm: NetlinkSocket
    _queue: PacketQueue
    _sets: FlowSets
    _tcp: TcpConnections

    def __init__(self, reactor: Any, config: PlaneConfig,
                 released: Callable[[ForwardingPolicy, float], object] = lambda policy, seconds: None,
                 local_address: Callable[[Address], Address] = lambda peer: peer) -> None:
        """`released` is told of each hold that ends: by which policy, and how long its first datagram was held.

        `local_address` is ours towards another, for what is translated into it.
        """
        self._local_address = local_address
        self._released = released
        self._log = Logger()
        self._reactor = reactor
        self._config = config
        self._listener: PlaneListener | None = None
        self._flows = FlowTable(config.configured)
        self._holds = HoldTable()
        self._tally = Tally(config.reasons)
        self._open: list[NetlinkSocket | PacketQueue | FlowSets | TcpConnections] = []
        self._settings: dict[str, int] = {}
        self._turn = DeferredLock()
        self._stopping = False
        "Somebody wants it stopped, and waits for his turn."
        self._traps = Traps(reactor, self._turn, config.trap_seconds)
        self._sas = SaJobs(self._request, self._put, lambda: self._config)
        self._jobs = PolicyJobs(self._request, lambda *change: self._sets.change(*change), self._sas, self._ends,
                                self._release, lambda: self._listener is not None)

    # Starting and stopping

    def start(self, listener: PlaneListener) -> "Deferred[None]":
        """Take the place of a former run, closed at every moment, and begin to hold new flows.

        Fails with PlaneError, and leaves nothing behind, where the kernel lacks a part or we lack a privilege.
        """
        return self._turn.run(self._start, listener)

    @inlineCallbacks
    def _start(self, listener: PlaneListener) -> Job:
        try:
            self._open_sockets()
            yield self._queue.bind()
            yield warm_up(self._xfrm)
        except PlaneError:
            self._close_sockets()
            raise
        try:
            self._settings = set_kernel(SETTINGS, self._core)
            left = yield replace_policies(self._xfrm, standing_policies(self._config, TRAP))
            yield self._sets.load(ruleset(self._config))
        except PlaneError:
            yield self._stop()
            raise
        if self._stopping:
            return
        self._open.append(NetlinkSocket(self._reactor, NETLINK_NETFILTER, self._ruleset_changed, (NFNLGRP_NFTABLES,)))
        self._listener = listener
        if left.of_a_crash:
            self._log.warn("the run before was not ended in order; it left {left}", left=left)
        self._traps.keep(lambda: traps(self._config, TRAP), self._xfrm)
        for flow in self._holds.flows():
            listener.acquired(flow)

    def _open_sockets(self) -> None:
        self._xfrm = NetlinkSocket(self._reactor, NETLINK_XFRM)
        self._open.append(self._xfrm)
        self._open.append(NetlinkSocket(self._reactor, NETLINK_XFRM, self._notified,
                                        (XFRMNLGRP_ACQUIRE, XFRMNLGRP_EXPIRE)))
        self._tcp = TcpConnections(self._reactor)
        self._open.append(self._tcp)
        self._sets = FlowSets(self._reactor)
        self._open.append(self._sets)
        self._queue = PacketQueue(self._reactor, self._config.queue_number, self._config.queue_length,
                                  self._config.mark, self._datagram_arrived)
        self._open.append(self._queue)

    def _close_sockets(self) -> None:
        while self._open:
            self._open.pop().close()

    def stop(self) -> "Deferred[None]":
        """Take everything out again but blocks for prefixes that must never go in clear, and what they spare.

        The blocks replace the traps or come before they go: at no moment does anything pass to those prefixes.
        What is still being started is stopped when it stands; without a start, or after one that failed, there is
        nothing to do.
        """
        self._listener, self._stopping = None, True
        return self._turn.run(self._stop)

    @inlineCallbacks
    def _stop(self) -> Job:
        self._listener, self._stopping = None, False
        if not self._open:
            return
        self._traps.let_go()
        try:
            yield replace_policies(self._xfrm, remaining_policies(self._config))
            set_kernel(self._settings, self._core)
            if self._config.never_clear:
                yield self._sets.load(closed_ruleset(self._config))
            else:
                yield self._sets.delete_table()
        finally:
            self._close_sockets()

    def reconfigure(self, config: PlaneConfig) -> "Deferred[None]":
        """Whose datagrams are protected, and what is left alone, changes; at no moment does anything pass by.

        What is decided stays so. Fails with PlaneError where the kernel refuses: then nothing is protected less.
        """
        return self._turn.run(self._reconfigure, config)

    @inlineCallbacks
    def _reconfigure(self, config: PlaneConfig) -> Job:
        if self._listener is not None:
            before, after = standing_policies(self._config, TRAP), standing_policies(config, TRAP)
            yield revise_policies(self._xfrm, before, after, lambda: self._sets.load(revised_ruleset(config)))
            self._config = config
            for entry in self._flows.with_tunnels():
                if self._listener is not None:
                    yield self._flows.run(entry.flow, self._sas.renew).addErrback(self._not_held, entry.flow)

    def _ruleset_changed(self, message: Message) -> None:
        if table_deleted(message):
            self._turn.run(self._restore_table).addErrback(lambda failure: self._log.failure(
                "the nftables rules are gone; what is not decided meets the traps", failure=failure))

    @inlineCallbacks
    def _restore_table(self) -> Job:
        """Somebody has flushed the ruleset (a firewall that is loaded anew does): put our table back."""
        if self._listener is None or (yield self._sets.table_exists()):
            return
        self._log.warn("the nftables rules were flushed by another program; restoring them")
        self._tally.begin_anew()
        yield self._sets.load(ruleset(self._config))
        for entry in self._flows.decided():
            yield self._sets.change(entry.flow, None, entry.verdict)

    def own_socket(self, sock: socket.socket) -> None:
        """Exempt a socket of the daemon (IKE, DNS) from the SPD and from being held. Raises PlaneError."""
        exempt_socket(sock, self._config.mark)

    def own_socket_for_esp(self, sock: socket.socket) -> None:
        """The same for one that SAs within UDP go by (port 4500). Raises PlaneError."""
        self.own_socket(sock)
        receive_esp(sock)

    # What the kernel says

    def _datagram_arrived(self, datagram: Datagram) -> None:
        """A datagram of a flow that is not known to the hooks, or was not when it came."""
        try:
            flow = translate(datagram.flow, self._config.translated, self._local_address)
        except OSError:
            self._queue.drop(datagram)  # nothing leads there
            return
        if flow is not None:
            datagram = replace(datagram, flow=flow, inner=datagram.flow)
        entry = self._flows.get(datagram.flow)
        if entry is not None and entry.verdict is not None:
            self._judge(entry.verdict, [datagram])
            return
        asking = self._holds.ask(datagram.flow, self._reactor.seconds())
        if (displaced := self._holds.keep(datagram)) is not None:
            self._drop_undecided(displaced)
        if asking and self._listener is not None:
            self._listener.acquired(datagram.flow)

    def _judge(self, verdict: Verdict, datagrams: Sequence[Datagram]) -> None:
        for one in datagrams:
            if one.inner is not None:
                self._sets.include(one.inner, one.flow, verdict).addErrback(self._not_held, one.inner)
        self._tally.judged(verdict, datagrams)
        (self._queue.drop if verdict.policy is ForwardingPolicy.DENY else self._queue.accept)(*datagrams)

    def _drop_undecided(self, *datagrams: Datagram) -> None:
        self._tally.judged(UNDECIDED, datagrams)
        self._queue.drop(*datagrams)

    def _notified(self, message: Message) -> None:
        event = read_notification(message)
        if event is not None:
            self._event(event)

    def _event(self, event: Notification) -> None:
        if self._listener is None:
            return
        if isinstance(event, Acquire):
            self._acquire(event, self._listener)
        else:
            self._sa_expired(event, self._listener)

    def _acquire(self, event: Acquire, listener: PlaneListener) -> None:
        """The trap caught a datagram past the hooks, or the outbound SA of an encrypted flow is gone."""
        entry = self._flows.get(event.flow)
        policy = entry.policy if entry else None
        configured = event.priority in CONFIGURED_PRIORITIES
        missed = policy is None and (configured or event.priority == Priority.TRAP)
        bereft = policy is ForwardingPolicy.ENCRYPT and (configured or event.priority == Priority.FLOW)
        if policy is ForwardingPolicy.ENCRYPT and event.priority == Priority.TRAP and entry and entry.ends:
            self._flows.run(event.flow, self._look_for_policy, listener).addErrback(self._not_held, event.flow)
        elif entry is not None and bereft and entry.outbound:
            self._flows.run(event.flow, self._look_for_sas, listener).addErrback(self._not_held, event.flow)
        elif (missed or bereft) and self._holds.ask(event.flow, self._reactor.seconds()):
            if bereft:
                self._back_to_hold(event.flow)
            listener.acquired(event.flow)

    def _sa_expired(self, event: SaExpired, listener: PlaneListener) -> None:
        """At the end of its last outbound SA a flow returns to hold (RFC 4322 section 3.1.5)."""
        entry = self._flows.by_reqid(event.reqid)
        key = (event.spi, event.destination)
        if entry is None or key not in entry.sas:
            return
        if event.hard:
            entry.lose(key)
            if not entry.outbound and entry.policy is ForwardingPolicy.ENCRYPT:
                self._back_to_hold(entry.flow)
        listener.sa_expired(entry.flow, event.spi, event.hard)

    @inlineCallbacks
    def _look_for_policy(self, entry: FlowEntry, listener: PlaneListener) -> Job:
        """Its life is over, against all expectation, and ours is not; or a trap was met before there was one."""
        if not (yield self._xfrm.request(get_policy(Direction.OUT, Selector.of_flow(entry.flow)))):
            yield self._jobs.withdraw(entry)
            listener.acquired(entry.flow)

    @inlineCallbacks
    def _look_for_sas(self, entry: FlowEntry, listener: PlaneListener) -> Job:
        """Some are gone without a word where that was lost, or somebody flushed the SAD; but new ones may be there."""
        for key in entry.outbound:
            if not (yield self._xfrm.request(get_sa(*key))):
                self._sa_expired(SaExpired(*key, entry.reqid, hard=True), listener)

    def _back_to_hold(self, flow: Flow) -> None:
        self.install_policy(flow, ForwardingPolicy.HOLD).addErrback(self._not_held, flow)

    def _not_held(self, failure: Failure, flow: Flow) -> None:
        self._log.failure("the hooks and {flow}", failure=failure, flow=flow)

    # Policies

    def install_policy(self, flow: Flow, policy: ForwardingPolicy, gateways: Flow | None = None,
                       because: str = "") -> "Deferred[None]":
        """See ForwardingPlane."""
        if policy is ForwardingPolicy.HOLD:
            return self._flows.run(flow, self._jobs.withdraw) if self._flows.get(flow) else succeed(None)
        return self._flows.run(flow, self._jobs.enforce, Verdict(policy, because), gateways)

    def _ends(self, flow: Flow) -> int:
        return self._config.ends(flow)

    def _request(self, *requests: Request) -> "Deferred[list[Message]]":
        return self._xfrm.request(*requests)

    def _put(self, request: Request) -> "Deferred[list[Message]]":
        """What came late would stay in the kernel after a stop."""
        if self._listener is None:
            raise PlaneError("the forwarding plane is not running")
        return self._xfrm.request(request)

    def _release(self, flow: Flow, verdict: Verdict) -> None:
        """Its policy is in force: what was held goes on, or is dropped."""
        if (since := self._holds.since(flow)) is not None:
            self._released(verdict.policy, self._reactor.seconds() - since)
        self._judge(verdict, self._holds.take(flow))

    def forget(self, flow: Flow) -> "Deferred[None]":
        """See ForwardingPlane."""
        self._drop_undecided(*self._holds.take(flow))
        return self._flows.run(flow, self._jobs.withdraw)

    @inlineCallbacks
    def last_use(self, flow: Flow) -> Generator[Deferred[Any], Any, float]:
        """See ForwardingPlane. The kernel counts in seconds.

        A socket of this host that only sends, and is connected, counts with its first datagram alone: the kernel
        does not look the policy up again.
        """
        back = Selector.of_flow(flow.reversed())
        replies = yield self._xfrm.request(
            get_policy(Direction.OUT, Selector.of_flow(flow)), *(get_policy(way, back) for way in INGRESS))
        return float(max((policy["use_time"] for policy in read_policies(replies)), default=0))

    def is_connected(self, flow: Flow) -> "Deferred[bool]":
        """See ForwardingPlane."""
        return self._tcp.is_open(flow) if flow.source in self._config.own else succeed(False)

    def account(self) -> "Deferred[Account]":
        """See ForwardingPlane."""
        if self._listener is None:
            return succeed(self._tally.account())
        return self._sets.counters().addCallbacks(self._tally.heard, self._not_read)

    def _not_read(self, failure: Failure) -> Account:
        self._log.error("what is counted is not up to date: {why}", why=failure.getErrorMessage())
        return self._tally.account()

    def bounds(self) -> Bounds:
        """See ForwardingPlane."""
        return {"max-held": (self._holds.datagrams(), self._config.queue_length, lost(self._config.queue_number))}

    # SAs

    def add_sas(self, flow: Flow, sas: Sequence[IpsecSa]) -> "Deferred[None]":
        """See ForwardingPlane."""
        return self._flows.run(flow, self._sas.add, sas)

    def change_sas(self, flow: Flow, sas: Sequence[IpsecSa]) -> "Deferred[None]":
        """See ForwardingPlane."""
        return self._flows.run(flow, self._sas.change, sas)

    def remove_sas(self, flow: Flow, sas: Sequence[IpsecSa]) -> "Deferred[None]":
        """See ForwardingPlane."""
        return self._flows.run(flow, self._sas.remove, sas)

    def traffic(self, sas: Sequence[IpsecSa]) -> "Deferred[Traffic]":
        """See ForwardingPlane."""
        return self._sas.traffic(sas)
