"""What an administrator can have done to a flow: dropped, or tried now and explained step by step."""

from typing import Any

from twisted.internet.defer import Deferred

from oesvc.daemon import KeyingDaemon
from oesvc.ipsec.flow import Flow
from oesvc.ipsec.policy import ForwardingPolicy
from oesvc.journal import Entry
from oesvc.oe import events as ev
from oesvc.oe.machine import State
from oesvc.operator.dns_report import Inspector
from oesvc.operator.inquiry import Inquiry
from oesvc.operator.report import SCHEMA, why

MAIN_MODE = ("5D", "5E", "5F", "5G", "5H", "5K")
QUICK_MODE = ("5L", "5O", "5P")
"Their messages, by the letters of RFC 4322 section 11.2."
BY_ADMINISTRATOR = "by `oegw drop`"


def drop(daemon: KeyingDaemon, flow: Flow) -> dict[str, Any]:
    """Forget what was decided about a flow and close its tunnel; its next datagram is held and decided anew."""
    connection = daemon.connections.get(flow)
    if connection is not None:
        daemon.tell(connection, ev.Dropped(BY_ADMINISTRATOR))
    return {"schema": SCHEMA, "source": str(flow.source), "destination": str(flow.destination),
            "dropped": connection is not None}


async def probe(daemon: KeyingDaemon, inspector: Inspector, flow: Flow, now: float) -> dict[str, Any]:
    """Try opportunistic encryption for a flow as if its first datagram had come, and tell each step.

    A tunnel that stands is left alone; what was decided otherwise is decided anew.
    """
    inspected = await inspector.inspect(Inquiry.parse(str(flow.destination), (), fresh=False))
    connection = daemon.connections.get(flow)
    stood = connection is not None and connection.settled_state is State.KEYED
    begun = len(daemon.journal.entries(flow))
    if not stood:
        if connection is not None and _settled(daemon, flow):
            drop(daemon, flow)
        begun = len(daemon.journal.entries(flow))
        daemon.acquired(flow)
        await _until_settled(daemon, flow)
    answer = why(daemon, flow, now)
    answer["history"] = answer["history"][0 if stood else begun:]
    return answer | {"stood_before": stood, "steps": _steps(inspected, answer, stood)}


def _settled(daemon: KeyingDaemon, flow: Flow) -> bool:
    connection = daemon.connections.get(flow)
    return connection is None or connection.forwarding not in (None, ForwardingPolicy.HOLD)


def _until_settled(daemon: KeyingDaemon, flow: Flow) -> "Deferred[None]":
    """Every negotiation ends by itself."""
    settled: Deferred[None] = Deferred()

    def look(about: Flow, entry: Entry | None) -> None:
        if about == flow and _settled(daemon, flow) and not settled.called:
            daemon.journal.listeners.remove(look)
            settled.callback(None)

    daemon.journal.listeners.append(look)
    look(flow, None)
    return settled


def _steps(inspected: dict[str, Any], answer: dict[str, Any], stood: bool) -> list[dict[str, Any]]:
    """The way of the first datagram: each step with whether it went well (None: it was not come to)."""
    decision, keyed = inspected["decision"], answer["state"] == State.KEYED.value
    tried = decision["class"].startswith("OE-")
    statuses = sorted({f"{one['type']} {one['status']}" for one in inspected["lookups"]})
    seen = {entry["step"] for entry in answer["history"]}
    answered = not any(one["kind"] == "no answer" for one in inspected["lookups"])
    signed = not any(one["status"] in ("bogus", "indeterminate") for one in inspected["lookups"])
    named = ", ".join(f"{g['gateway']} (precedence {g['precedence']})" for g in decision["gateways"])
    channel = stood or bool(seen & set(QUICK_MODE))
    stood_channel = channel and not stood and not seen & set(MAIN_MODE)
    rows = (
        ("policy", tried, decision["policy"]),
        ("DNS", answered, "; ".join(f"{one['type']}: {one['kind']}" for one in inspected["lookups"])),
        ("DNSSEC", signed, "; ".join(statuses) + _first_trouble(inspected)),
        ("delegation", bool(named), f"to {named}" if named else decision["reason"]),
        ("phase 1", channel if named else None, "the keying channel with it stood before" if stood_channel else
         _phase(stood, seen, "main mode", MAIN_MODE)),
        ("phase 2", keyed if channel else None, _phase(stood, seen, "quick mode", QUICK_MODE)),
        ("result", keyed, f"{answer.get('outcome', 'has no state')}: {answer.get('reason', '')}"))
    return [{"step": step, "well": well, "text": text} for step, well, text in rows]


def _first_trouble(inspected: dict[str, Any]) -> str:
    return next((f": {one['reason']}" for one in inspected["lookups"] if one["status"] in ("bogus", "indeterminate")),
                "")


def _phase(stood: bool, seen: set[str], name: str, labels: tuple[str, ...]) -> str:
    went = [place for place, label in enumerate(labels, 1) if label in seen]
    if went:
        return f"{name}, messages {', '.join(map(str, went))} of {len(labels)}"
    return "a tunnel stood before" if stood else f"no message of {name}"
