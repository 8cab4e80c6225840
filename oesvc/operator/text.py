"""The daemon's answers as text for people. Knows nothing but the answers, so that the command starts quickly."""

from typing import Any

NEAR = 0.8
"Share of a budget that is worth a line once it is used."
NONEXISTENT = "nonexistent"
"Of a flow without a connection; RFC 4322 section 3.2.1."


def status(answer: dict[str, Any]) -> str:
    counts = ", ".join(f"{n} {state}" for state, n in answer["flows"].items()) or "none"
    lines = [f"oegw {answer['version']} runs", f"flows:   {counts}", f"tunnels: {answer['tunnels']}",
             *(_budget(name, budget) for name, budget in answer["budgets"].items()
               if budget["refused"] or budget["used"] >= NEAR * budget["limit"])]
    return "\n".join(lines)


def _budget(name: str, budget: dict[str, int]) -> str:
    refused = f", and that was not enough {budget['refused']} times" if budget["refused"] else ""
    return f"budget:  {budget['used']} of {name} = {budget['limit']} are used{refused}"


def flows(answer: dict[str, Any]) -> str:
    rows = [("SOURCE", "DESTINATION", "STATE", "BECAUSE")]
    rows += [(f["source"], f["destination"], f["state"], f["reason"]) for f in answer["flows"]]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True))
                     for row in rows)


def why(answer: dict[str, Any]) -> str:
    """The verdict, the policy line, then what happened in its order."""
    flow = f"{answer['source']} -> {answer['destination']}"
    if answer["state"] == NONEXISTENT:
        lines = [f"{flow} has no state: no datagram of it was seen, or it was idle and forgotten.",
                 f"  policy   {answer['policy']}"]
    else:
        lines = [f"{flow} {answer['outcome']}: {answer['reason']}",
                 f"  policy   {answer['policy']}",
                 f"  state    {answer['state']}{_next_look(answer['looked_at_again_in'])}"]
        if answer["gateways"]:
            lines.append(f"  tunnel   {answer['gateways']}")
    if answer["history"]:
        start = answer["history"][0]["at"]
        lines.append("  history  seconds since the first entry:")
        lines += [f"    {entry['at'] - start:9.3f}  {entry['text']}" for entry in answer["history"]]
    return "\n".join(lines)


def timeline(answer: dict[str, Any]) -> str:
    return str(answer["text"]) or f"nothing is known of {answer['source']} -> {answer['destination']}"


def _next_look(seconds: float | None) -> str:
    return "" if seconds is None else f", looked at again in {seconds:.0f} s"
