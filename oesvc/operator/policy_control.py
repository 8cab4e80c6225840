"""What the daemon answers about its policy: what is in force and what the files would change, for live flows too."""

from typing import Any

from oesvc.config import ConfigError, load
from oesvc.ipsec.flow import Flow
from oesvc.ipsec.ports import Ports
from oesvc.operator.policy_report import port_line, test
from oesvc.operator.schema import SCHEMA
from oesvc.running_policy import Difference, RunningPolicy

MOST_FLOWS = 1000
"That are told one by one."


def test_live(policy: RunningPolicy, flow: Flow, ports: Ports | None) -> dict[str, Any]:
    """The same, with what has become of the flow, and what the files would make of it."""
    now = test(policy.classes, policy.daemon.is_ours, flow, ports)
    connection = policy.daemon.connections.get(flow)
    try:
        then = test(load(policy.config.file).class_table(), policy.daemon.is_ours, flow, ports)
        files = {"policy": then["policy"], "outcome": then["outcome"], "error": None}
    except ConfigError as error:
        files = {"policy": None, "outcome": None, "error": str(error)}
    return now | {"state": connection.settled_state.value if connection else None, "files": files}


def diff(change: Difference) -> dict[str, Any]:
    """What a reload changes, or has changed."""
    return {
        "schema": SCHEMA, "differs": not change.nothing,
        "prefixes": [{"prefix": str(max(one.before.network, one.after.network, key=lambda net: net.prefixlen)),
                      "before": one.before.class_name, "after": one.after.class_name,
                      "before_place": one.before.place, "after_place": one.after.place} for one in change.lines],
        "ports_gone": [port_line(one) for one in change.ports_gone],
        "ports_new": [port_line(one) for one in change.ports_new],
        "flows": [{"source": str(one.flow.source), "destination": str(one.flow.destination), "state": one.state,
                   "policy": str(one.after), "goes_on": one.goes_on} for one in change.flows[:MOST_FLOWS]],
        "more_flows": max(0, len(change.flows) - MOST_FLOWS),
        "options": list(change.options), "restart": list(change.restart)}
