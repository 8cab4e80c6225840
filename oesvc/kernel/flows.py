"""What the kernel holds for each flow: our side's record of it."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred

from oesvc.ipsec.account import Verdict
from oesvc.ipsec.flow import Address, Flow
from oesvc.ipsec.policy import ForwardingPolicy
from oesvc.ipsec.subnets import Subnets
from oesvc.kernel.constants import FLOW_REQIDS, Direction
from oesvc.kernel.spd import INGRESS, Template

SaKey = tuple[int, Address]
"SPI and outer destination: what tells one SA from another."
Job = Callable[..., "Deferred[Any]"]

NO_INGRESS: Mapping[Direction, Template] = MappingProxyType({})


@dataclass(slots=True)
class FlowEntry:
    """One flow (our outbound direction) and what stands in the kernel for it.

    There are hundreds of thousands of them, nearly all without a tunnel: those share the empty values.
    """

    flow: Flow
    allot: Callable[["FlowEntry"], int]
    "Gives it a reqid of its own."
    allotted: int = 0
    policy: ForwardingPolicy | None = None
    "PASS, DENY or ENCRYPT where it is in force and the hooks know it; None while the flow is held."
    because: str = ""
    "Why, where that is counted."
    template: Template | None = None
    "Its tunnel while it is encrypted."
    outbound_policy: bool = False
    "Whether the SPD has our outbound policy of this flow."
    ends: int = 0
    "Seconds that it was given to live when it was last put; 0 for ever."
    ingress: Mapping[Direction, Template] = field(default_factory=lambda: NO_INGRESS)
    "What its ingress policies demand, those that there are."
    ingress_ends: int = 0
    "The same of those."
    inbound: tuple[SaKey, ...] = ()
    outbound: tuple[SaKey, ...] = ()
    "One of each mostly, for which a set would be five times as large."
    jobs: int = 0
    "Under way, and waiting for their turn."

    @property
    def verdict(self) -> Verdict | None:
        """What its datagrams are counted as."""
        return Verdict(self.policy, self.because) if self.policy else None

    @property
    def reqid(self) -> int:
        """What ties its policies to its SAs; who never has any takes none."""
        self.allotted = self.allotted or self.allot(self)
        return self.allotted

    @property
    def configured(self) -> bool:
        """Its policies are replaced, and never deleted: they close what does not stand."""
        return isinstance(self.flow, Subnets)

    @property
    def sas(self) -> tuple[SaKey, ...]:
        return self.inbound + self.outbound

    def lose(self, *keys: SaKey) -> None:
        """These SAs of it are gone."""
        self.inbound, self.outbound = (tuple(key for key in way if key not in keys)
                                       for way in (self.inbound, self.outbound))

    @property
    def empty(self) -> bool:
        return not (self.jobs or self.policy or self.outbound_policy or self.ingress or self.inbound or self.outbound)


class FlowTable:
    """All flows with something in the kernel, and their reqids."""

    def __init__(self, configured: Mapping[Subnets, int] = MappingProxyType({})) -> None:
        """`configured` have reqids of their own, and their policies stand."""
        self._configured = configured
        self._entries: dict[Flow, FlowEntry] = {}
        self._by_reqid: dict[int, FlowEntry] = {}
        self._waiting: dict[Flow, deque[Callable[[], None]]] = {}
        self._next = FLOW_REQIDS.start
        self._allot = self._next_for
        "One for all entries."

    def get(self, flow: Flow) -> FlowEntry | None:
        return self._entries.get(flow)

    def decided(self) -> list[FlowEntry]:
        """Flows that the hooks are to know."""
        return [entry for entry in self._entries.values() if entry.policy is not None]

    def with_tunnels(self) -> list[FlowEntry]:
        """Flows with policies that may end, and those about to have some."""
        return [entry for entry in self._entries.values() if entry.template or entry.ingress or entry.jobs]

    def by_reqid(self, reqid: int) -> FlowEntry | None:
        return self._by_reqid.get(reqid)

    def run(self, flow: Flow, job: Job, *args: Any) -> "Deferred[Any]":
        """Run job(entry, *args) when all former jobs of the same flow are done."""
        entry = self._entries.get(flow) or self._create(flow)
        entry.jobs += 1
        if entry.jobs == 1:
            return maybeDeferred(job, entry, *args).addBoth(self._done, entry)
        turn: Deferred[None] = Deferred()
        turn.addCallback(lambda _: job(entry, *args))
        self._waiting.setdefault(flow, deque()).append(lambda: turn.callback(None))
        return turn.addBoth(self._done, entry)

    def _create(self, flow: Flow) -> FlowEntry:
        if isinstance(flow, Subnets):
            reqid = self._configured[flow]
            entry = FlowEntry(flow, self._allot, reqid, outbound_policy=True,
                              ingress=dict.fromkeys(INGRESS, Template(reqid, None)))
            self._by_reqid[reqid] = entry
        else:
            entry = FlowEntry(flow, self._allot)
        self._entries[flow] = entry
        return entry

    def _next_for(self, entry: FlowEntry) -> int:
        while self._next in self._by_reqid:
            self._advance()
        reqid = self._next
        self._by_reqid[reqid] = entry
        self._advance()
        return reqid

    def _advance(self) -> None:
        """On to the next reqid: one that was given back is not used again before all others were."""
        self._next += 1
        if self._next == FLOW_REQIDS.stop:
            self._next = FLOW_REQIDS.start

    def _done(self, result: Any, entry: FlowEntry) -> Any:
        entry.jobs -= 1
        if waiting := self._waiting.get(entry.flow):
            begin = waiting.popleft()
            if not waiting:
                del self._waiting[entry.flow]
            begin()
        elif entry.empty:
            del self._entries[entry.flow]
            self._by_reqid.pop(entry.allotted, None)
        return result
