"""A flow's own policy, in the SPD and in the hooks: jobs that `FlowTable.run` does one after the other."""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.logger import Logger

from oesvc.interfaces import PlaneError
from oesvc.ipsec.account import Verdict
from oesvc.ipsec.flow import Flow
from oesvc.ipsec.policy import ForwardingPolicy
from oesvc.kernel.configured import lift
from oesvc.kernel.constants import Direction
from oesvc.kernel.flows import FlowEntry
from oesvc.kernel.sa_jobs import Ask, Job, SaJobs
from oesvc.kernel.spd import ACTIONS, Template, flow_policy

LOG = Logger()


class PolicyJobs:
    """What is done to the policy of a flow, in an order that leaves no moment without one (RFC 4322 section 3.1)."""

    def __init__(self, request: Ask, change: Ask, sas: SaJobs, ends: Callable[[Flow], int],
                 release: Callable[[Flow, Verdict], None], running: Callable[[], bool]) -> None:
        """`change`: of FlowSets; `ends`: see PlaneConfig; `release` is told that what was held can go on."""
        self._request, self._change, self._sas = request, change, sas
        self._ends, self._release, self._running = ends, release, running

    def enforce(self, entry: FlowEntry, verdict: Verdict, gateways: Flow | None) -> "Deferred[None]":
        """Where nothing but the reason is another, the SPD is left alone."""
        policy, template, ends = verdict.policy, None, 0
        if policy is ForwardingPolicy.ENCRYPT:
            if gateways is None:
                raise PlaneError(f"encrypt {entry.flow}: the gateways are missing")
            template, ends = Template(entry.reqid, gateways), self._ends(entry.flow)
        stands = not ends and not entry.ends and (entry.policy, entry.template) == (policy, template)
        if stands and entry.because == verdict.because:
            self._release(entry.flow, verdict)
            return succeed(None)

        def is_in_force(_: Any) -> None:
            entry.policy, entry.because, entry.template = policy, verdict.because, template
            self._release(entry.flow, verdict)

        # Callbacks, not a generator: what Twisted makes for one that waits, each new flow would leave as garbage.
        put: Deferred[Any] = succeed(None) if stands else self._sas.put_outbound(
            entry, flow_policy(entry.flow, ACTIONS[policy], template, ends))
        put.addCallback(lambda _: self._change(entry.flow, entry.verdict, verdict))
        return put.addCallback(is_in_force)

    @inlineCallbacks
    def withdraw(self, entry: FlowEntry) -> Job:
        """Back to where datagrams are held; should the hooks not follow, they meet the trap."""
        before, entry.policy, entry.template = entry.verdict, None, None
        try:
            yield self._change(entry.flow, before, None)
        except PlaneError as error:
            LOG.warn("{flow} may stay known to the hooks: {error}", flow=entry.flow, error=error)
        # Whoever stops us has deleted it, and perhaps put a block of the same selector there.
        if entry.outbound_policy and self._running():
            yield self._request(lift(Direction.OUT, entry.flow, entry.reqid))
            entry.outbound_policy = entry.configured
