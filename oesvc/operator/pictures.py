"""`oegw machine`: the state machine as it is in this program, with the flows that are in it now."""

import subprocess
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import Any

from oesvc import config
from oesvc.operator.client import DONE, CommandError, ask
from oesvc.operator.live import control
from oesvc.operator.state_graph import dot


def add(commands: Any, asking: ArgumentParser) -> None:
    machine = commands.add_parser(
        "machine", parents=[asking], help="the state machine as a graph, with the flows in each state",
        description="Print the state machine of RFC 4322 section 3.2 for Graphviz, as this program has it; where the "
                    "daemon runs, with the number of flows in each state.")
    machine.add_argument("--svg", action="store_true", help="as a picture (takes Graphviz)")
    machine.set_defaults(carry_out=_machine)


def _machine(options: Namespace) -> int:
    graph = dot(_flows(options))
    print(_drawn(graph) if options.svg else graph, end="")
    return DONE


def _flows(options: Namespace) -> Mapping[str, int] | None:
    try:
        flows: Mapping[str, int] = ask(control(options), {"command": "status"})["flows"]
        return flows
    except (CommandError, config.ConfigError):
        return None


def _drawn(graph: str) -> str:
    """Raises CommandError."""
    try:
        done = subprocess.run(["dot", "-Tsvg"], input=graph, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise CommandError("there is no `dot`; apt install graphviz") from None
    if done.returncode:
        raise CommandError(f"dot: {done.stderr.strip()}")
    return done.stdout
