"""Asking the daemon over its control socket; or, where none runs, the DNS in a process of one's own."""

import json
import socket
import struct
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

DONE, REFUSED, UNUSABLE, INTERRUPTED = 0, 1, 2, 130
"Exit codes: it worked; the answer is no; the command or the configuration is wrong, or no daemon runs."
PEER_CREDENTIALS = struct.Struct("iII")
"Process, user and group: struct ucred of unix(7)."
ANSWER_WITHIN = 10.0
ANSWER_OF_DNS_WITHIN = 40.0
"Seconds. A look-up of the DNS may take eight, and the keys of a gateway are looked up after its records."


class CommandError(Exception):
    """The command cannot be carried out; the text says why and what to do."""


class NoDaemonError(CommandError):
    """There is no daemon to ask."""


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


def look_up_alone(file: Path, questions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """In a process of its own, which asks the resolvers of the configuration. Raises CommandError."""
    command = [sys.executable, "-m", "oesvc.operator.alone", str(file)]
    done = subprocess.run(command, input=json.dumps(questions), stdout=subprocess.PIPE, text=True, check=False)
    try:
        return [answer_in(reply) for reply in json.loads(done.stdout)]
    except ValueError:
        raise CommandError(f"the look-up ended without an answer (status {done.returncode})") from None


def what_is_left() -> str:
    """What the kernel does without a daemon, in one line; nothing where we may not ask it."""
    done = subprocess.run([sys.executable, "-m", "oesvc.operator.left"], stdout=subprocess.PIPE, text=True, check=False,
                          stderr=subprocess.DEVNULL)
    return done.stdout.strip()


def answer_in(reply: dict[str, Any]) -> dict[str, Any]:
    """What a line of the control socket holds. Raises CommandError."""
    if "error" in reply:
        raise CommandError(str(reply["error"]))
    return dict(reply["answer"])
