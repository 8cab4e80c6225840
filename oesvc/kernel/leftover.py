"""What stands in the SPD without a daemon: told by the next one when it starts, and by `oegw status` meanwhile."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from oesvc.ipsec.policy import ForwardingPolicy
from oesvc.kernel.constants import OUR_PRIORITIES, XFRM_POLICY_BLOCK, Direction, Priority

HOW = {ForwardingPolicy.ENCRYPT: "encrypted as long as their keys last", ForwardingPolicy.PASS: "in clear",
       ForwardingPolicy.DENY: "denied"}


@dataclass(frozen=True, slots=True)
class Leftover:
    """Of a daemon that was stopped, or (where there is any flow or trap) not ended in order."""

    flows: Counter[ForwardingPolicy] = field(default_factory=Counter)
    "Policies of single flows."
    trapped: bool = False
    "Whether other flows are still stopped; that ends soon."
    blocked: bool = False
    "Whether there is anything that must never go in clear."

    @property
    def of_a_crash(self) -> bool:
        return self.trapped or bool(self.flows)

    def __str__(self) -> str:
        flows = ", ".join(f"{self.flows[policy]} {how}" for policy, how in HOW.items())
        others = "stopped, for half a minute at most" if self.trapped else "in clear"
        but = ", but destinations of the deny and OE-paranoid classes blocked" if self.blocked else ""
        return f"{f'flows: {flows}; all others' if self.flows else 'all flows'} {others}{but}"


def leftover(policies: Iterable[Any]) -> Leftover:
    """Of the decoded policies of the SPD."""
    flows: Counter[ForwardingPolicy] = Counter()
    trapped = blocked = False
    for policy in policies:
        if policy["dir"] != Direction.OUT or policy["priority"] not in OUR_PRIORITIES:
            continue
        trapped |= policy["priority"] == Priority.TRAP
        blocked |= policy["priority"] >= Priority.REMAINS and policy["action"] == XFRM_POLICY_BLOCK
        if policy["priority"] == Priority.FLOW:
            flows[_forwarding(policy)] += 1
    return Leftover(flows, trapped, blocked)


def _forwarding(policy: Any) -> ForwardingPolicy:
    if policy["action"] == XFRM_POLICY_BLOCK:
        return ForwardingPolicy.DENY
    return ForwardingPolicy.ENCRYPT if policy.get_attr("XFRMA_TMPL") else ForwardingPolicy.PASS
