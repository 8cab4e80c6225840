"""The daemon's answers as text for people. Knows nothing but the answers, so that the command starts quickly."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from oesvc.operator.colours import BOLD, GREEN, RED, YELLOW, painter

NEAR = 0.8
"Share of a budget that is worth a line once it is used."
NONEXISTENT = "nonexistent"
"Of a flow without a connection; RFC 4322 section 3.2.1."
OUTCOME_COLOURS = {"is encrypted": GREEN, "goes in clear": YELLOW, "is denied": RED}
TRUST_COLOURS = {"proved by DNSSEC": GREEN, "configured": GREEN}
STATE_COLOURS = {"up": GREEN, "rekeying": GREEN, "down": RED}
STEP_MARKS = {True: ("ok", GREEN), False: ("no", RED), None: ("--", "")}
UNITS = ("octets", "kB", "MB", "GB", "TB")


def status(answer: dict[str, Any], colour: bool = False) -> str:
    paint = painter(colour)
    counts = ", ".join(f"{n} {state}" for state, n in answer["flows"].items()) or "none"
    lines = [paint(f"oegw {answer['version']} runs", BOLD), f"flows:   {counts}",
             f"tunnels: {answer['tunnels']}" + (f" with {answer['peers']} peers" if answer["peers"] else "")]
    lines += [f"tunnel {one['name']}: {one['source']} -> {one['destination']} is "
              f"{paint(one['state'], STATE_COLOURS.get(one['state'], YELLOW))}: {one['reason']}"
              for one in answer["configured"]]
    lines += [f"trust:   {n} {paint(level, TRUST_COLOURS.get(level, YELLOW))}" for level, n in answer["trust"].items()]
    lines += _sent(answer["clear"], answer.get("sent"))
    lines += [paint(_budget(name, budget), YELLOW) for name, budget in answer["budgets"].items()
              if budget["refused"] or budget["used"] >= NEAR * budget["limit"]]
    return "\n".join(lines)


def _sent(flows: dict[str, int], sent: dict[str, Any] | None) -> list[str]:
    """What goes in clear, and why: flows that do now, and all that has since the start."""
    if sent is None:
        return [f"clear:   {n} flows because {why}" for why, n in flows.items()]
    total = {fate: amount(sum(one["octets"] for one in sent[fate])) for fate in ("clear", "dropped")}
    octets = {one["because"]: one["octets"] for one in sent["clear"]}
    lines = [f"sent:    {amount(sent['encrypted']['octets'])} encrypted, {total['clear']} in clear, {total['dropped']} "
             f"dropped since {datetime.fromtimestamp(sent['since'], UTC):%Y-%m-%d %H:%M:%S} UTC"]
    lines += [f"clear:   {f'{flows[why]} flows now, ' if why in flows else ''}{amount(octets.get(why, 0))} so far "
              f"because {why}" for why in dict.fromkeys((*octets, *flows))]
    return lines + [f"dropped: {amount(one['octets'])} so far because {one['because']}" for one in sent["dropped"]]


def _budget(name: str, budget: dict[str, int]) -> str:
    refused = f", and that was not enough {budget['refused']} times" if budget["refused"] else ""
    return f"budget:  {budget['used']} of {name} = {budget['limit']} are used{refused}"


def flows(answer: dict[str, Any], colour: bool = False) -> str:
    return table(("SOURCE", "DESTINATION", "STATE", "BECAUSE"),
                 [(f["source"], f["destination"], f["state"], f["reason"]) for f in answer["flows"]])


def sas(answer: dict[str, Any], colour: bool = False) -> str:
    return table(("SPI", "WAY", "SOURCE", "DESTINATION", "FROM", "TO", "CARRIED", "PROTECTION", "TRUST"),
                 [(sa["spi"], sa["way"], sa["source"], sa["destination"], sa["from"], sa["to"], amount(sa["octets"]),
                   sa["protection"], sa["trust"] or "-") for sa in answer["sas"]])


def peers(answer: dict[str, Any], colour: bool = False) -> str:
    return table(("PEER", "PROVED TO BE", "TUNNELS", "NEGOTIATING", "PROTECTION", "TRUST"),
                 [(peer["peer"], ", ".join(peer["identities"]) or "-", str(peer["tunnels"]), str(peer["negotiating"]),
                   ", ".join(peer["protection"]) or "-",
                   ", ".join(f"{n} {level}" for level, n in peer["trust"].items()) or "-") for peer in answer["peers"]])


def amount(octets: int | None) -> str:
    """With three digits or less before the point; a question mark where it is not known."""
    if octets is None:
        return "?"
    number, unit = float(octets), 0
    while number >= 1000 and unit < len(UNITS) - 1:
        number, unit = number / 1000, unit + 1
    return f"{number:.1f} {UNITS[unit]}" if unit else f"{octets} {UNITS[0]}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they must be; the last as it is."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header) - 1)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)).rstrip()
                     for row in (header, *rows))


def why(answer: dict[str, Any], colour: bool = False) -> str:
    """The verdict, the policy line, then what happened in its order."""
    paint = painter(colour)
    flow = f"{answer['source']} -> {answer['destination']}"
    nat = ""
    if inner := answer.get("before_nat"):
        flow = f"{inner} -> {answer['destination']}"
        nat = f" as {answer['source']}, into which this gateway's NAT translates it"
    if answer.get("not_ours"):
        lines = [f"{flow} is not decided here: {answer['not_ours']}"]
    elif answer["state"] == NONEXISTENT:
        lines = [f"{flow} has no state{nat}: no datagram of it was seen, or it was idle and forgotten.",
                 f"  policy   {answer['policy']}"]
    else:
        outcome = paint(answer["outcome"], OUTCOME_COLOURS.get(answer["outcome"], ""))
        lines = [f"{flow} {outcome}{nat}: {answer['reason']}",
                 f"  policy   {answer['policy']}",
                 f"  state    {answer['state']}{_next_look(answer['looked_at_again_in'])}"]
        if answer["gateways"]:
            lines.append(f"  tunnel   {answer['gateways']}")
        lines += [f"  tunnel   {gateways}, only to receive" for gateways in answer.get("accepted_too", ())]
    if answer["history"]:
        start = answer["history"][0]["at"]
        lines.append("  history  seconds since the first entry:")
        lines += [f"    {entry['at'] - start:9.3f}  {entry['text']}" for entry in answer["history"]]
    return "\n".join(lines)


def probe(answer: dict[str, Any], colour: bool = False) -> str:
    """A line for each step; of the one that failed, and of the result, all that is known."""
    paint = painter(colour)
    lines = [f"{answer['source']} -> {answer['destination']}"
             + (": a tunnel stands already" if answer["stood_before"] else "")]
    for step in answer["steps"]:
        mark, code = STEP_MARKS[step["well"]]
        lines.append(f"  {paint(mark, code)}  {step['step']:<10}  {step['text']}")
    return "\n".join(lines)


def drop(answer: dict[str, Any], colour: bool = False) -> str:
    flow = f"{answer['source']} -> {answer['destination']}"
    return f"{flow} is forgotten; its next datagram is decided anew" if answer["dropped"] else \
        f"there is no state of {flow}"


def happened(answer: dict[str, Any], colour: bool = False) -> str:
    """One line of `oegw monitor`."""
    missed = f"({answer['missed']} things happened too fast to be shown)\n" if answer["missed"] else ""
    return f"{missed}{answer['source']} -> {answer['destination']}: {answer['text']}"


def timeline(answer: dict[str, Any], colour: bool = False) -> str:
    return str(answer["text"]) or f"nothing is known of {answer['source']} -> {answer['destination']}"


def _next_look(seconds: float | None) -> str:
    return "" if seconds is None else f", looked at again in {seconds:.0f} s"
