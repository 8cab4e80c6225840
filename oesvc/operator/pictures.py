"""`oegw machine`: the state machine as it is in this program, with the flows that are in it now."""

import json
import subprocess
from argparse import Namespace
from collections.abc import Mapping

from oesvc.operator.client import DONE, CommandError, ask, control
from oesvc.operator.schema import SCHEMA
from oesvc.operator.state_graph import dot
from oesvc.set_up import SetUpError


def machine(options: Namespace) -> int:
    flows = _flows(options)
    graph = dot(flows)
    if options.json:
        print(json.dumps({"schema": SCHEMA, "flows": flows, "graph": graph}, indent=2))
    else:
        print(_drawn(graph) if options.svg else graph, end="")
    return DONE


def _flows(options: Namespace) -> Mapping[str, int] | None:
    try:
        flows: Mapping[str, int] = ask(control(options), {"command": "status"})["flows"]
        return flows
    except SetUpError:
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
