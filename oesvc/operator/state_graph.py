"""The state machine of RFC 4322 section 3.2 as a graph for Graphviz, drawn from the machine's own table."""

import re
from collections.abc import Iterator, Mapping
from itertools import product
from types import SimpleNamespace
from typing import Any

from oesvc.oe.classes import ConnectionClass
from oesvc.oe.machine import TRANSITIONS, State, To, stay

COLOURS = {State.CLEAR_TEXT: "#fff3d6", State.DENY: "#fbd9d9", State.KEYED: "#d9f2df"}
POSSIBLE: Mapping[str, tuple[Any, ...]] = {
    "connection_class": tuple(ConnectionClass), "tunnel": (None, 1), "untried": ((), (1,)), "delegations": ((), (1,)),
    "delegations_changed": (False, True), "rekeyed": (False, True), "rekey_failed": (False, True),
    "answer_is_stale": (False, True), "looking_up": (False, True),
    "state_under_review": (State.CLEAR_TEXT, State.DENY, State.KEYED),
}
"What conditional arrows look at, and what that can be."


def targets(state: State, arrow: Any) -> list[State]:
    """Where an arrow can lead; more than one state where that depends on the connection."""
    if isinstance(arrow, To):
        return [arrow.state]
    found = {arrow(SimpleNamespace(state=state, **dict(zip(POSSIBLE, values, strict=True)))).state
             for values in product(*POSSIBLE.values())}
    return [one for one in State if one in found]


def edges() -> Iterator[tuple[State, State, str, bool]]:
    """From, to, the event, and whether it may lead elsewhere too. What changes no state is left out."""
    for (state, event), arrow in TRANSITIONS.items():
        if arrow is stay:
            continue
        ends = targets(state, arrow)
        for end in ends:
            if end is not state:
                yield state, end, _words(event.__name__), len(ends) > 1


def dot(flows: Mapping[str, int] | None = None) -> str:
    """The graph; with `flows` (by the states' names) it shows how many are in each."""
    joined: dict[tuple[State, State], dict[str, bool]] = {}
    for begin, end, event, conditional in edges():
        joined.setdefault((begin, end), {})[event] = conditional
    lines = ["digraph machine {", '  node [shape=box, style="rounded,filled", fillcolor=white, fontname="sans-serif"];',
             '  edge [fontname="sans-serif", fontsize=9];']
    for state in State:
        n = (flows or {}).get(state.value, 0)
        label = f"{state.value}\\n{n} flows" if flows is not None else state.value
        pen = ", penwidth=3" if n else ""
        colour = COLOURS.get(state, "white")
        lines.append(f'  "{state.value}" [label="{label}", fillcolor="{colour}"{pen}];')
    for (begin, end), events in joined.items():
        style, label = "dashed" if all(events.values()) else "solid", "\\n".join(events)
        lines.append(f'  "{begin.value}" -> "{end.value}" [label="{label}", style={style}];')
    return "\n".join([*lines, "}", ""])


def _words(name: str) -> str:
    """Of a class's name."""
    return re.sub(r"(?<!^)(?=[A-Z])", " ", name).lower()
