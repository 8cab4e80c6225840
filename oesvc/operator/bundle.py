"""`oegw report`: all that a bug report needs in one document; the page for people is in `page`."""

import json
import platform
import socket
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from oesvc import __version__
from oesvc.operator.client import DONE, CommandError, NoDaemonError, ask, control
from oesvc.operator.doctor import checks
from oesvc.operator.doctor.gather import gather
from oesvc.operator.page import page
from oesvc.operator.redaction import Redactor
from oesvc.operator.report import SCHEMA

TIME_LINES = 20
"Of the newest flows; the journal has more."
FLOWS = 1000
"Flows that are listed."
RELEASE = Path("/etc/os-release")


def collect(options: Namespace) -> dict[str, Any]:
    """What can be learned, with or without a daemon."""
    bundle: dict[str, Any] = {
        "schema": SCHEMA, "made": time.time(), "version": __version__, "host": socket.gethostname(),
        "system": {"kernel": platform.release(), "machine": platform.machine(), "python": platform.python_version(),
                   "distribution": _distribution()},
        "doctor": checks.answer(gather(options.config, options.control)),
        "daemon": "the daemon runs", "status": None, "flows": [], "sas": [], "peers": [], "timelines": []}
    try:
        bundle |= _of_daemon(control(options))
    except NoDaemonError:
        bundle["daemon"] = "no daemon runs"
    except CommandError as error:
        bundle["daemon"] = str(error)
    return bundle


def _of_daemon(socket: Path) -> dict[str, Any]:
    answers = {name: ask(socket, {"command": name}) for name in ("status", "flows", "sas", "peers")}
    flows = answers["flows"]["flows"][-FLOWS:]
    return {"status": answers["status"], "flows": flows, "sas": answers["sas"]["sas"],
            "peers": answers["peers"]["peers"],
            "timelines": [ask(socket, {"command": "timeline", "source": flow["source"],
                                       "destination": flow["destination"]}) for flow in _newest(flows)]}


def _newest(flows: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    return flows[:-TIME_LINES - 1:-1]


def _distribution() -> str:
    try:
        lines = dict(line.partition("=")[::2] for line in RELEASE.read_text().splitlines())
    except OSError:
        return "unknown"
    return lines.get("PRETTY_NAME", "unknown").strip('"')


def report(options: Namespace) -> int:
    bundle = collect(options)
    if options.redact or (options.redact is None and not options.html):
        host = bundle["host"]
        bundle = Redactor().redact(json.loads(json.dumps(bundle).replace(json.dumps(host), json.dumps("this host"))))
    text = page(bundle) if options.html else json.dumps(bundle, indent=2) + "\n"
    if options.output is None:
        sys.stdout.write(text)
        return DONE
    try:
        options.output.write_text(text, "utf-8")
    except OSError as error:
        raise CommandError(f"{options.output}: {error.strerror}") from None
    print(f"wrote {options.output}", file=sys.stderr)
    return DONE
