"""The commands that ask the running daemon: how things stand, why, and what happens now."""

import argparse
import json
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from oesvc import config
from oesvc.operator import colours, svg, text
from oesvc.operator.arguments import address
from oesvc.operator.client import ANSWER_WITHIN, DONE, REFUSED, NoDaemonError, ask, follow, what_is_left

CLEAR_SCREEN = "\x1b[H\x1b[2J"
PROBE_WITHIN = 90.0
"Seconds: the DNS, then several gateways that are silent, one after the other."

AsText = Callable[[dict[str, Any], bool], str]


def add(commands: Any, asking: ArgumentParser) -> None:
    """Give the parser these commands; `asking` brings the options of all that ask the daemon."""
    of_flow = ArgumentParser(add_help=False, parents=[asking])
    of_flow.add_argument("source", type=address, metavar="SRC", help="address of the host on this side")
    of_flow.add_argument("destination", type=address, metavar="DST", help="address of the host on the far side")
    for name, parent, as_text, help_text in (
            ("status", asking, text.status, "whether the daemon runs, and what it holds"),
            ("flows", asking, text.flows, "every flow with its state and the reason"),
            ("sas", asking, text.sas, "every IPsec SA, and how much it has carried"),
            ("peers", asking, text.peers, "the gateways there are tunnels with, and how well they are proved"),
            ("why", of_flow, text.why, "why a flow is encrypted, in clear or denied"),
            ("timeline", of_flow, text.timeline, "the negotiation of a flow, step by step"),
            ("drop", of_flow, text.drop, "forget what was decided about a flow, and close its tunnel")):
        command = commands.add_parser(name, parents=[parent], help=help_text, description=help_text.capitalize() + ".")
        command.set_defaults(carry_out=_answered(name, as_text))
        if name == "timeline":
            command.add_argument("--svg", action="store_true", help="as a picture")
        if name == "status":
            command.add_argument("--watch", type=_seconds, nargs="?", const=2.0, metavar="SECONDS",
                                 help="again and again, until interrupted (default: each 2 seconds)")
    probe = commands.add_parser("probe", parents=[asking], help="try opportunistic encryption now, step by step",
                                description="Try opportunistic encryption with a host now, and tell each step.")
    probe.add_argument("destination", type=address, metavar="ADDRESS", help="a host on the far side")
    probe.add_argument("--from", type=address, dest="source", metavar="SRC",
                       help="for this host on our side (default: this gateway itself)")
    probe.set_defaults(carry_out=_probe)
    monitor = commands.add_parser("monitor", parents=[asking], help="follow what happens, line by line",
                                  description="Write what happens to any flow, as it happens, until interrupted.")
    monitor.set_defaults(carry_out=_monitor)


def control(options: Namespace) -> Path:
    """The daemon's control socket. Raises ConfigError."""
    return Path(options.control or config.load(options.config).control_socket)


def show(options: Namespace, answer: dict[str, Any], as_text: AsText) -> None:
    print(json.dumps(answer, indent=2) if options.json else as_text(answer, colours.wanted()), flush=True)


def _answered(command: str, as_text: AsText) -> Callable[[Namespace], int]:
    def carry_out(options: Namespace) -> int:
        question = {"command": command}
        if "source" in options:
            question |= {"source": str(options.source), "destination": str(options.destination)}
        while True:
            try:
                answer = ask(control(options), question)
            except NoDaemonError as error:
                left = what_is_left() if command == "status" else ""
                raise NoDaemonError(f"{error}\n{left}".rstrip()) from None
            if getattr(options, "watch", None) and sys.stdout.isatty():
                print(CLEAR_SCREEN, end="")
            if getattr(options, "svg", False):
                print(svg.timeline(answer))
            else:
                show(options, answer, as_text)
            if not getattr(options, "watch", None):
                return DONE if answer.get("dropped", True) else REFUSED
            time.sleep(options.watch)
    return carry_out


def _probe(options: Namespace) -> int:
    question = {"command": "probe", "destination": str(options.destination),
                "source": str(options.source) if options.source else None}
    answer = ask(control(options), question, PROBE_WITHIN)
    show(options, answer, text.probe)
    return DONE if answer["steps"][-1]["well"] else REFUSED


def _monitor(options: Namespace) -> int:
    for happened in follow(control(options), {"command": "monitor"}):
        if options.json:
            print(json.dumps(happened), flush=True)
        else:
            at = datetime.fromtimestamp(happened["at"]).strftime("%H:%M:%S.%f")[:-3]
            print(f"{at}  {text.happened(happened)}", flush=True)
    return DONE


def _seconds(written: str) -> float:
    try:
        seconds = float(written)
    except ValueError:
        seconds = 0.0
    if not ANSWER_WITHIN / 100 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{written!r} is no number of seconds from 0.1 to 3600")
    return seconds
