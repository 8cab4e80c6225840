"""The doctor's table of checks, causes before what they lead to."""

from collections.abc import Callable, Iterable
from typing import Any

from oesvc.operator.colours import RED, YELLOW, painter
from oesvc.operator.doctor import host_checks, records_checks
from oesvc.operator.doctor.facts import Facts, Finding, Severity
from oesvc.operator.doctor.firewall import firewall
from oesvc.operator.doctor.nat import translations
from oesvc.operator.report import SCHEMA

Check = Callable[[Facts], Iterable[Finding]]

CHECKS: dict[str, Check] = {
    "configuration": host_checks.configuration,
    "private key": host_checks.key_file,
    "state directory": host_checks.state_directory,
    "kernel": host_checks.kernel_parts,
    "other IKE daemons": host_checks.other_daemons,
    "interfaces and addresses": host_checks.interfaces_there,
    "private clients": host_checks.private_clients,
    "clients' networks": host_checks.client_masks,
    "trust anchors": host_checks.anchors_fresh,
    "daemon": host_checks.daemon_runs,
    "firewall": firewall,
    "NAT": translations,
    "ESP": host_checks.esp_answered,
    "sysctls": host_checks.sysctls,
    "MTU": host_checks.mtus,
    "resolvers": records_checks.resolvers,
    "clock and anchor": records_checks.trust,
    "records": records_checks.records,
    "time synchronization": host_checks.clock_steered,
    "privileges": host_checks.seen_as_root,
}

COLOURS = {Severity.PROBLEM.value: RED, Severity.WARNING.value: YELLOW}


def examine(facts: Facts) -> list[tuple[str, Finding]]:
    """Everything that is wrong, with the name of its check: problems first, each group in the table's order."""
    found = [(name, finding) for name, check in CHECKS.items() for finding in check(facts)]
    return sorted(found, key=lambda one: one[1].severity is not Severity.PROBLEM)


def answer(facts: Facts) -> dict[str, Any]:
    """The examination as plain values for JSON."""
    return {"schema": SCHEMA, "checks": list(CHECKS), "daemon": facts.daemon.value,
            "subjects": [str(subject) for subject in facts.dns],
            "anchors_seen": facts.anchors_refreshed or None,
            "records": [{"subject": str(subject), "type": look_up["type"], "dnssec": look_up["status"],
                         "found": len(look_up["records"])}
                        for subject, said in facts.dns.items() for look_up in said["lookups"]],
            "findings": [{"check": name, "severity": finding.severity.value, "cause": finding.cause,
                          "remedy": finding.remedy} for name, finding in examine(facts)]}


def as_text(answer: dict[str, Any], colour: bool = False) -> str:
    """The worst first; then what was looked at, and how far the records are believed."""
    paint = painter(colour)
    lines = []
    for finding in answer["findings"]:
        severity = finding["severity"]
        lines += [f"{paint(severity, COLOURS[severity])}: {finding['cause']}", f"    mend it: {finding['remedy']}"]
    of = f" of {', '.join(answer['subjects'])}" if answer["subjects"] else ""
    counted = [f"{n} {kind}{'s' if n > 1 else ''}" for kind in ("problem", "warning")
               if (n := sum(one["severity"] == kind for one in answer["findings"]))]
    told = " and ".join(counted) or "all is well"
    lines.append(f"{told}: {len(answer['checks'])} checks, records{of or ' of nobody'}, the daemon {answer['daemon']}")
    for subject in answer["subjects"]:
        seen = (f"{'no ' if not one['found'] else ''}{one['type']} {one['dnssec']}" for one in answer["records"]
                if one["subject"] == subject)
        lines.append(f"  {subject}: {', '.join(seen)}")
    if answer["anchors_seen"]:
        lines.append(f"  the trust anchors, last seen in the DNS on {host_checks.date(answer['anchors_seen'])}")
    return "\n".join(lines)
