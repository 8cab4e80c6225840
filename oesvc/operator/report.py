"""What the daemon knows of itself and its flows, as plain values for JSON."""

from collections import Counter
from typing import Any

from oesvc.daemon import KeyingDaemon
from oesvc.interfaces import Bounds
from oesvc.ipsec.flow import Flow
from oesvc.ipsec.policy import ForwardingPolicy
from oesvc.journal import Party
from oesvc.oe.connections import Instance
from oesvc.oe.machine import State
from oesvc.operator.schema import SCHEMA as SCHEMA
from oesvc.operator.trust import trust_levels
from oesvc.timeline import render

STRANGER = "neither this gateway nor among its clients, nor translated by [gateway] translated"
COLUMN_NAMES = {Party.HERE: "source", Party.GATEWAY: "gateway", Party.DNS: "DNS", Party.PEER: "peer",
                Party.THERE: "destination"}

OUTCOMES = {
    ForwardingPolicy.ENCRYPT: "is encrypted",
    ForwardingPolicy.PASS: "goes in clear",
    ForwardingPolicy.DENY: "is denied",
    ForwardingPolicy.HOLD: "is held until a decision is made",
    None: "is held until a decision is made",
}

FLOWS = {ForwardingPolicy.ENCRYPT: "flows encrypted", ForwardingPolicy.PASS: "in clear",
         ForwardingPolicy.DENY: "denied", ForwardingPolicy.HOLD: "held"}


def status(daemon: KeyingDaemon, version: str, now: float) -> dict[str, Any]:
    """How many flows there are in each state, how many tunnels, and how much of each budget is used."""
    states = {state.value: 0 for state in State}
    clear: Counter[str] = Counter()
    for connection in daemon.connections:
        states[connection.state.value] += 1
        if connection.forwarding is ForwardingPolicy.PASS:
            clear[connection.reason.because.value] += 1
    return {"schema": SCHEMA, "version": version, "flows": {name: n for name, n in states.items() if n},
            "tunnels": len(daemon.tunnels), "peers": len({tunnel.peer for tunnel in daemon.tunnels}),
            "configured": [{"name": tunnel.name} | _connection(tunnel, now)
                           for tunnel in daemon.connections.configured.values()],
            "trust": trust_levels(daemon), "clear": dict(clear), "ike": daemon.engine.counters(),
            "budgets": {name: {"used": used, "limit": limit, "refused": refused}
                        for name, (used, limit, refused) in bounds(daemon, now).items()}}


def status_line(daemon: KeyingDaemon) -> str:
    """The same in one line, for `systemctl status`."""
    outcomes = Counter(connection.forwarding or ForwardingPolicy.HOLD for connection in daemon.connections)
    flows = ", ".join(f"{outcomes[policy]} {word}" for policy, word in FLOWS.items())
    return f"{flows}; {len(daemon.tunnels)} tunnels"


def bounds(daemon: KeyingDaemon, now: float) -> Bounds:
    """Those of all parts."""
    return {**daemon.engine.bounds(now), **daemon.discovery.bounds(), **daemon.plane.bounds(),
            **daemon.connections.bounds()}


def flows(daemon: KeyingDaemon, now: float) -> dict[str, Any]:
    """Every flow with its state."""
    return {"schema": SCHEMA, "flows": [_connection(connection, now) for connection in daemon.connections]}


def why(daemon: KeyingDaemon, flow: Flow, now: float) -> dict[str, Any]:
    """Why a flow is treated as it is, and how it came about."""
    connection = daemon.connections.get(flow) or daemon.connections.configured_for(flow)
    line = daemon.connections.classes.find(flow.destination)
    answer = {"schema": SCHEMA, "source": str(flow.source), "destination": str(flow.destination),
              "policy": str(connection.line if connection else line), "state": State.NONEXISTENT.value,
              "not_ours": None if connection else _not_ours(daemon, flow)}
    if connection is not None:
        answer |= _connection(connection, now)
    history = [{"at": entry.at, "step": entry.arrow.label if entry.arrow else "", "text": entry.text}
               for entry in daemon.journal.entries(connection.flow if connection else flow)]
    return answer | {"history": history}


def _not_ours(daemon: KeyingDaemon, flow: Flow) -> str | None:
    """Why nothing is ever decided about a flow here; None where it may be."""
    if daemon.is_ours(flow.source):
        return None
    if daemon.is_ours(flow.destination):
        return f"the host on this side comes first: oegw why {flow.destination} {flow.source}"
    return f"{flow.source} is {STRANGER}; if the firewall translates it all the same, ask for what it becomes"


def timeline(daemon: KeyingDaemon, flow: Flow) -> dict[str, Any]:
    """The time line of a flow's negotiation, or of the configured tunnel's it belongs to, as in section 11.2."""
    if configured := daemon.connections.configured_for(flow):
        flow = configured.flow
    entries = daemon.journal.entries(flow)
    source, destination = flow.ends
    return {"schema": SCHEMA, "source": source, "destination": destination,
            "entries": [{"at": entry.at, "step": entry.arrow.label if entry.arrow else "",
                         "ink": entry.arrow.ink.value if entry.arrow else "",
                         "from": COLUMN_NAMES[entry.arrow.origin] if entry.arrow else None,
                         "to": COLUMN_NAMES[entry.arrow.end] if entry.arrow else None, "text": entry.text}
                        for entry in entries],
            "text": f"{flow}\n{render(entries, COLUMN_NAMES)}" if entries else ""}


def _connection(connection: Instance, now: float) -> dict[str, Any]:
    looked_at_again = None if connection.deadline is None else max(0.0, connection.deadline - now)
    source, destination = connection.flow.ends
    return {"source": source, "destination": destination, "state": connection.state.value,
            "outcome": OUTCOMES[connection.forwarding],
            "reason": str(connection.reason), "because": connection.reason.because.name,
            "class": connection.connection_class.value, "policy": str(connection.line),
            "gateways": str(connection.gateways) if connection.gateways else None,
            "accepted_too": [str(path.gateways) for path in connection.paths[1:]],
            "looked_at_again_in": looked_at_again}
