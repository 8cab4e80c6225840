"""Asking the daemon over its control socket. Imports little, for most commands start with it."""

import configparser
import json
import socket
import struct
from argparse import Namespace
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

from oesvc.operator.later import later
from oesvc.set_up import CONTROL_SOCKET, FORM, SetUpError

DONE, REFUSED, UNUSABLE, INTERRUPTED = 0, 1, 2, 130
"Exit codes: it worked; the answer is no; the command or the configuration is wrong, or no daemon runs."
PEER_CREDENTIALS = struct.Struct("iII")
"Process, user and group: struct ucred of unix(7)."
ANSWER_WITHIN = 10.0
ANSWER_OF_DNS_WITHIN = 40.0
"Seconds. A look-up of the DNS may take eight, and the keys of a gateway are looked up after its records."


class CommandError(SetUpError):
    """The command cannot be carried out; the text says why and what to do."""


class NoDaemonError(CommandError):
    """There is no daemon to ask."""


def control(options: Namespace) -> Path:
    """The daemon's control socket. Of the configuration nothing else is looked at, unless it has an error. Raises
    SetUpError."""
    if options.control:
        return Path(options.control)
    parser = configparser.ConfigParser(**FORM)
    try:
        parser.read_string(options.config.read_text("utf-8"))
        written = parser.get("paths", "control-socket", fallback=CONTROL_SOCKET)
    except (OSError, ValueError, configparser.Error):
        written = ""
    return Path(written if written.startswith("/") else later("config:load")(options.config).control_socket)


def ask(control: Path, question: dict[str, Any], within: float = ANSWER_WITHIN) -> dict[str, Any]:
    """Put one question to the daemon. Raises CommandError; NoDaemonError where none answers."""
    with closing(follow(control, question, within)) as answers:
        return next(answers)


def follow(control: Path, question: dict[str, Any],
           within: float | None = None) -> Generator[dict[str, Any], None, None]:
    """All answers to one question, as they come, until the daemon ends; `within` seconds each. Raises like `ask`."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(within)
            client.connect(str(control))
            client.sendall(json.dumps(question).encode() + b"\n")
            with client.makefile("rb") as replies:
                while True:
                    yield answer_in(json.loads(replies.readline()))
    except (FileNotFoundError, ConnectionRefusedError):
        raise NoDaemonError(f"no daemon answers at {control}; is `twistd oegw` running?") from None
    except PermissionError:
        raise CommandError(f"you may not talk to the daemon at {control}; try as root") from None
    except (OSError, ValueError) as error:
        raise CommandError(f"the daemon at {control} gave no answer: {error}") from None


def pid_of_daemon(control: Path) -> int | None:
    """The process that listens there; None where there is none."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(str(control))
            pid: int = PEER_CREDENTIALS.unpack(client.getsockopt(
                socket.SOL_SOCKET, socket.SO_PEERCRED, PEER_CREDENTIALS.size))[0]
            return pid
    except OSError:
        return None


def answer_in(reply: dict[str, Any]) -> dict[str, Any]:
    """What a line of the control socket holds. Raises CommandError."""
    if "error" in reply:
        raise CommandError(str(reply["error"]))
    return dict(reply["answer"])
