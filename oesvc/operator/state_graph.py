"""The state machine of RFC 4322 section 3.2 as a graph for Graphviz, drawn from the machine's own table."""

import re
from collections.abc import Iterator, Mapping
from itertools import product
from types import SimpleNamespace
from typing import Any

from oesvc.oe.classes import ClassOptions, ConnectionClass
from oesvc.oe.machine import TRANSITIONS, State, To, stay

COLOURS = {State.CLEAR_TEXT: "#fff3d6", State.DENY: "#fbd9d9", State.KEYED: "#d9f2df"}
POSSIBLE: Mapping[str, tuple[Any, ...]] = {
    "connection_class": tuple(ConnectionClass), "tunnel": (None, 1),
    "state_under_review": (State.CLEAR_TEXT, State.DENY, State.KEYED),
    "line": tuple(SimpleNamespace(options=ClassOptions(bad_record_is_absence=one, dns_failure_denies=other))
                  for one, other in product((False, True), repeat=2)),
}
"What conditional arrows look at that is more than there or not there, and what it can be."


class _UnknownError(Exception):
    """An arrow looks at something that was not chosen yet."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class _Guess:
    """A connection of which only that much is known."""

    def __init__(self, known: Mapping[str, Any]) -> None:
        self._known = known

    def __getattr__(self, name: str) -> Any:
        if name not in self._known:
            raise _UnknownError(name)
        return self._known[name]


def targets(state: State, arrow: Any) -> list[State]:
    """Where an arrow can lead; more than one state where that depends on the connection: each answer is tried."""
    if isinstance(arrow, To):
        return [arrow.state]
    found: set[State] = set()
    untried: list[dict[str, Any]] = [{"state": state}]
    while untried:
        known = untried.pop()
        try:
            found.add(arrow(_Guess(known)).state)
        except _UnknownError as asked:
            untried += [{**known, asked.name: value} for value in POSSIBLE.get(asked.name, (False, True))]
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
