"""The SPD where a configured tunnel does not stand: nothing of it goes out, or comes in, by any other way."""

from collections.abc import Iterable, Iterator, Mapping

from oesvc.ipsec.flow import Flow
from oesvc.ipsec.subnets import Subnets
from oesvc.kernel.constants import XFRM_POLICY_ALLOW, XFRM_POLICY_BLOCK, Direction
from oesvc.kernel.netlink import Request
from oesvc.kernel.spd import (
    INGRESS,
    Policy,
    Selector,
    Template,
    delete_policy,
    flow_policy,
    flow_priority,
    put_policy,
)


def trap(subnets: Subnets, reqid: int) -> Policy:
    """Blocks, and tells of each datagram that it does so: the tunnel may be wanted."""
    return flow_policy(subnets, XFRM_POLICY_ALLOW, Template(reqid, None))


def block(direction: Direction, flow: Flow) -> Policy:
    """`flow` is our outbound direction, whichever way the policy looks."""
    selector = Selector.of_flow(flow if direction is Direction.OUT else flow.reversed())
    return Policy(direction, selector, flow_priority(flow), XFRM_POLICY_BLOCK)


def trapped(configured: Mapping[Subnets, int]) -> Iterator[Policy]:
    """Those of all configured tunnels while the daemon runs and none stands."""
    for subnets, reqid in configured.items():
        yield trap(subnets, reqid)
        yield from (block(direction, subnets) for direction in INGRESS)


def closed(configured: Iterable[Subnets]) -> Iterator[Policy]:
    """While no daemon runs."""
    for subnets in configured:
        yield from (block(direction, subnets) for direction in (Direction.OUT, *INGRESS))


def lift(direction: Direction, flow: Flow, reqid: int) -> Request:
    """Take the policy of a flow out of the SPD; of a configured tunnel, put that back which closes it."""
    if not isinstance(flow, Subnets):
        return delete_policy(direction, Selector.of_flow(flow if direction is Direction.OUT else flow.reversed()))
    return put_policy(trap(flow, reqid) if direction is Direction.OUT else block(direction, flow))
