"""What the daemon knows of itself and its flows, as plain values for JSON, and as text for people."""

from typing import Any

from oesvc.daemon import KeyingDaemon
from oesvc.ipsec.flow import Flow
from oesvc.ipsec.policy import ForwardingPolicy
from oesvc.journal import Party
from oesvc.oe.connection import Connection
from oesvc.oe.machine import State
from oesvc.timeline import render

SCHEMA = 1
"Version of every JSON answer; it grows when a field is renamed or goes."

COLUMN_NAMES = {Party.HERE: "source", Party.GATEWAY: "gateway", Party.DNS: "DNS", Party.PEER: "peer",
                Party.THERE: "destination"}

OUTCOMES = {
    ForwardingPolicy.ENCRYPT: "is encrypted",
    ForwardingPolicy.PASS: "goes in clear",
    ForwardingPolicy.DENY: "is denied",
    ForwardingPolicy.HOLD: "is held until a decision is made",
    None: "is held until a decision is made",
}


def status(daemon: KeyingDaemon, version: str) -> dict[str, Any]:
    """How many flows there are in each state, and how many tunnels."""
    states = {state.value: 0 for state in State}
    for connection in daemon.connections:
        states[connection.state.value] += 1
    return {"schema": SCHEMA, "version": version, "flows": {name: n for name, n in states.items() if n},
            "tunnels": len(daemon.tunnels)}


def status_text(answer: dict[str, Any]) -> str:
    flows = ", ".join(f"{n} {state}" for state, n in answer["flows"].items()) or "none"
    return f"oegw {answer['version']} runs\nflows:   {flows}\ntunnels: {answer['tunnels']}"


def flows(daemon: KeyingDaemon, now: float) -> dict[str, Any]:
    """Every flow with its state."""
    return {"schema": SCHEMA, "flows": [_connection(connection, now) for connection in daemon.connections]}


def flows_text(answer: dict[str, Any]) -> str:
    rows = [("SOURCE", "DESTINATION", "STATE", "BECAUSE")]
    rows += [(f["source"], f["destination"], f["state"], f["reason"]) for f in answer["flows"]]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True))
                     for row in rows)


def why(daemon: KeyingDaemon, flow: Flow, now: float) -> dict[str, Any]:
    """Why a flow is treated as it is, and how it came about."""
    connection = daemon.connections.get(flow)
    line = daemon.connections.classes.find(flow.destination)
    answer = {"schema": SCHEMA, "source": str(flow.source), "destination": str(flow.destination),
              "policy": str(connection.line if connection else line), "state": State.NONEXISTENT.value}
    if connection is not None:
        answer |= _connection(connection, now)
    history = [{"at": entry.at, "step": entry.arrow.label if entry.arrow else "", "text": entry.text}
               for entry in daemon.journal.entries(flow)]
    return answer | {"history": history}


def why_text(answer: dict[str, Any]) -> str:
    """The verdict, the policy line, then what happened in its order."""
    flow = f"{answer['source']} -> {answer['destination']}"
    if answer["state"] == State.NONEXISTENT.value:
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


def timeline(daemon: KeyingDaemon, flow: Flow) -> dict[str, Any]:
    """The time line of a flow's negotiation, drawn as in section 11.2."""
    entries = daemon.journal.entries(flow)
    return {"schema": SCHEMA, "source": str(flow.source), "destination": str(flow.destination),
            "entries": [{"at": entry.at, "step": entry.arrow.label if entry.arrow else "",
                         "ink": entry.arrow.ink.value if entry.arrow else "", "text": entry.text}
                        for entry in entries],
            "text": f"{flow}\n{render(entries, COLUMN_NAMES)}" if entries else ""}


def timeline_text(answer: dict[str, Any]) -> str:
    return str(answer["text"]) or f"nothing is known of {answer['source']} -> {answer['destination']}"


def _connection(connection: Connection, now: float) -> dict[str, Any]:
    looked_at_again = None if connection.deadline is None else max(0.0, connection.deadline - now)
    return {"source": str(connection.flow.source), "destination": str(connection.flow.destination),
            "state": connection.state.value, "outcome": OUTCOMES[connection.forwarding],
            "reason": str(connection.reason), "because": connection.reason.because.name,
            "class": connection.connection_class.value, "policy": str(connection.line),
            "gateways": str(connection.gateways) if connection.gateways else None,
            "looked_at_again_in": looked_at_again}


def _next_look(seconds: float | None) -> str:
    return "" if seconds is None else f", looked at again in {seconds:.0f} s"
