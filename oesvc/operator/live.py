"""The commands that ask the running daemon: how things stand, why, and what happens now."""

import json
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from datetime import datetime
from typing import Any

from oesvc.operator import colours, text
from oesvc.operator.client import DONE, REFUSED, NoDaemonError, ask, control, follow
from oesvc.operator.later import later

CLEAR_SCREEN = "\x1b[H\x1b[2J"
PROBE_WITHIN = 90.0
"Seconds: the DNS, then several gateways that are silent, one after the other."

AsText = Callable[[dict[str, Any], bool], str]
AS_TEXT: dict[str, AsText] = {
    "status": text.status, "flows": text.flows, "sas": text.sas, "peers": text.peers, "why": text.why,
    "timeline": text.timeline, "drop": text.drop}


def show(options: Namespace, answer: dict[str, Any], as_text: AsText) -> None:
    print(json.dumps(answer, indent=2) if options.json else as_text(answer, colours.wanted()), flush=True)


def answered(options: Namespace) -> int:
    """The commands of one question; `status` again and again, if that is wanted."""
    question = {"command": options.question}
    if "source" in options:
        question |= {"source": str(options.source), "destination": str(options.destination)}
    watch = getattr(options, "watch", None)
    while True:
        try:
            answer = ask(control(options), question)
        except NoDaemonError as error:
            left = later("operator.apart:what_is_left")() if options.question == "status" else ""
            raise NoDaemonError(f"{error}\n{left}".rstrip()) from None
        if watch and sys.stdout.isatty():
            print(CLEAR_SCREEN, end="")
        if getattr(options, "svg", False):
            print(later("operator.svg:timeline")(answer))
        else:
            show(options, answer, AS_TEXT[options.question])
        if not watch:
            return DONE if answer.get("dropped", True) else REFUSED
        time.sleep(watch)


def probe(options: Namespace) -> int:
    question = {"command": "probe", "destination": str(options.destination),
                "source": str(options.source) if options.source else None}
    answer = ask(control(options), question, PROBE_WITHIN)
    show(options, answer, text.probe)
    return DONE if answer["steps"][-1]["well"] else REFUSED


def monitor(options: Namespace) -> int:
    for happened in follow(control(options), {"command": "monitor"}):
        if options.json:
            print(json.dumps(happened), flush=True)
        else:
            at = datetime.fromtimestamp(happened["at"]).strftime("%H:%M:%S.%f")[:-3]
            print(f"{at}  {text.happened(happened)}", flush=True)
    return DONE


def key_log(options: Namespace) -> int:
    answer = ask(control(options), {"command": "keylog", "seconds": options.seconds})
    print(json.dumps(answer, indent=2) if options.json else
          f"keys are {'' if answer['on'] else 'not '}written to {answer['directory']}")
    return DONE
