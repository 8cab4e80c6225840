"""The control socket: one JSON question a line, one JSON answer a line."""

import json
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineOnlyReceiver

from oesvc import __version__
from oesvc.daemon import KeyingDaemon
from oesvc.ipsec.flow import Flow
from oesvc.operator import report

LONGEST_QUESTION = 4096

Question = dict[str, Any]
Command = Callable[[KeyingDaemon, Question, float], dict[str, Any]]

COMMANDS: dict[str, Command] = {
    "status": lambda daemon, question, now: report.status(daemon, __version__),
    "flows": lambda daemon, question, now: report.flows(daemon, now),
    "why": lambda daemon, question, now: report.why(daemon, _flow(question), now),
    "timeline": lambda daemon, question, now: report.timeline(daemon, _flow(question)),
}


class BadQuestionError(ValueError):
    """A question that has no answer; the text says what would be right."""


class ControlProtocol(LineOnlyReceiver):
    """One client of the control socket."""

    delimiter = b"\n"
    MAX_LENGTH = LONGEST_QUESTION

    def __init__(self, daemon: KeyingDaemon, seconds: Callable[[], float]) -> None:
        self._daemon = daemon
        self._seconds = seconds

    def lineReceived(self, line: bytes) -> None:
        try:
            reply: dict[str, Any] = {"answer": self._answer(line)}
        except BadQuestionError as error:
            reply = {"error": str(error)}
        self.sendLine(json.dumps(reply).encode())

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            question = json.loads(line)
        except ValueError as error:
            raise BadQuestionError(f"not JSON: {error}") from None
        command = COMMANDS.get(str(question.get("command"))) if isinstance(question, dict) else None
        if command is None:
            raise BadQuestionError(f"a question is an object with a command, one of {', '.join(COMMANDS)}")
        return command(self._daemon, question, self._seconds())


class ControlFactory(Factory):
    noisy = False

    def __init__(self, daemon: KeyingDaemon, seconds: Callable[[], float]) -> None:
        self._daemon = daemon
        self._seconds = seconds

    def buildProtocol(self, addr: "IAddress | None") -> ControlProtocol:
        return ControlProtocol(self._daemon, self._seconds)


def _flow(question: Question) -> Flow:
    try:
        return Flow(ip_address(str(question.get("source"))), ip_address(str(question.get("destination"))))
    except ValueError as error:
        raise BadQuestionError(f"no flow: {error}") from None
