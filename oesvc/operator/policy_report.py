"""A policy as plain values for JSON: what it says, and what it means for a flow. Known without a daemon too."""

from collections.abc import Callable
from typing import Any

from oesvc.ipsec.flow import Address, Flow
from oesvc.ipsec.ports import Ports
from oesvc.oe.classes import EVERYTHING, ClassTable, ConnectionClass, PolicyLine, PortLine
from oesvc.operator.schema import SCHEMA
from oesvc.policy_files import group_of

MEANING = {
    ConnectionClass.DENY: "is denied",
    ConnectionClass.ALWAYS_CLEAR_TEXT: "goes in clear; nothing is looked up",
    ConnectionClass.PASSIVE: "goes in clear, unless the gateway of the other side asks for encryption",
    ConnectionClass.OE_PERMISSIVE: "is encrypted where the other side's gateway can be found and keyed with, else goes "
                                   "in clear",
    ConnectionClass.OE_PARANOID: "is encrypted, or denied",
    ConnectionClass.CONFIGURED: "goes through the configured tunnel, or not at all",
}
"Of each class, for a flow of it."


def show(table: ClassTable) -> dict[str, Any]:
    """All that is said, class by class."""
    classes: dict[str, dict[str, Any]] = {}
    for line in table.lines:
        one = classes.setdefault(_name(line), {**_class(line), "prefixes": []})
        one["prefixes"].append({"prefix": str(line.network), "place": line.place})
    default = PolicyLine(EVERYTHING[4], table.default, "", table.default_options)
    return {"schema": SCHEMA, "default": _class(default), "classes": list(classes.values()),
            "ports": [port_line(one) for one in table.port_lines]}


def test(table: ClassTable, is_ours: Callable[[Address], bool], flow: Flow, ports: Ports | None) -> dict[str, Any]:
    """What the policy means for a flow, or for its datagrams of a protocol and port, before there is one."""
    line = table.find(flow.destination)
    answer = {"schema": SCHEMA, "source": str(flow.source), "destination": str(flow.destination),
              "policy": str(line), **_class(line), "outcome": MEANING[line.connection_class]}
    rule = _port_rule(table, flow.destination, ports) if ports else None
    if is_ours(flow.destination):
        return answer | {"outcome": f"is left alone: {flow.destination} is on this side of the gateway"}
    if not is_ours(flow.source):
        return answer | {"outcome": f"is left alone: {flow.source} is neither this gateway nor among its clients"}
    return answer | ({"policy": str(rule), "outcome": "is dropped" if rule.dropped else "goes in clear, whatever "
                      "becomes of the rest of its flow"} if rule else {})


def _name(line: PolicyLine) -> str:
    return line.options.name or group_of(line.connection_class)


def _class(line: PolicyLine) -> dict[str, Any]:
    options = line.options
    special = {"dnssec": options.dnssec.value if options.dnssec and line.connection_class.opportunistic else None,
               "on-bad-record": "absent" if options.bad_record_is_absence else None,
               "on-dns-failure": "deny" if options.dns_failure_denies else None, "keying-time": options.keying_time,
               "icmp-on-deny": options.icmp_on_deny}
    return {"class": _name(line), "base": line.connection_class.value,
            "options": {name: value for name, value in special.items() if value is not None}}


def port_line(line: PortLine) -> dict[str, Any]:
    return {"prefix": str(line.network), "ports": str(line.ports), "dropped": line.dropped, "place": line.place}


def _port_rule(table: ClassTable, destination: Address, ports: Ports) -> PortLine | None:
    """The port line that decides: of those that fit, the one that says most."""
    fitting = [line for line in table.port_rules()
               if destination in line.network and line.ports.protocol == ports.protocol and not line.ports.source
               and line.ports.destination in (0, ports.destination)]
    return max(fitting, key=lambda line: (bool(line.ports.destination), line.network.prefixlen), default=None)
