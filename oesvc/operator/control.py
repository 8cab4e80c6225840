"""The control socket: one JSON question a line, one JSON answer a line, in the order of the questions."""

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver

from oesvc import __version__
from oesvc.config import ConfigError
from oesvc.daemon import KeyingDaemon
from oesvc.interfaces import PlaneError
from oesvc.ipsec.flow import Flow
from oesvc.ipsec.ports import Ports
from oesvc.ipsec.translation import Translation, translate
from oesvc.keys.key_pair import KeyPairError
from oesvc.operator import deeds, policy_control, policy_report, report, tunnel_report
from oesvc.operator.dns_report import Inspector
from oesvc.operator.inquiry import Inquiry
from oesvc.operator.monitor import Monitor
from oesvc.operator.sent import sent
from oesvc.policy_files import read_ports
from oesvc.running_policy import RunningPolicy

LONGEST_QUESTION = 4096
MONITOR = "monitor"

Question = dict[str, Any]
Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sources:
    """Whom the commands ask."""

    daemon: KeyingDaemon
    inspector: Inspector
    seconds: Callable[[], float]
    use_key: Callable[[], str]
    "Reads our own key anew, and says which it is. Raises KeyPairError."
    policy: RunningPolicy
    translations: Sequence[Translation]
    "What the firewall translates (RFC 4322 section 6.1)."

    def as_it_leaves(self, flow: Flow) -> Flow:
        """As what a flow is known; the same where nothing is translated."""
        connections = self.daemon.connections
        if connections.get(flow) or connections.configured_for(flow):
            return flow
        try:
            return translate(flow, self.translations, self.daemon.local_address) or flow
        except OSError as error:
            raise BadQuestionError(f"nothing leads to {flow.destination}: {error}") from None


Command = Callable[[Sources, Question], Answer | Awaitable[Answer]]

COMMANDS: dict[str, Command] = {
    "status": lambda sources, question: _status(sources),
    "flows": lambda sources, question: report.flows(sources.daemon, sources.seconds()),
    "why": lambda sources, question: _why(sources, _flow(question)),
    "timeline": lambda sources, question: report.timeline(sources.daemon,
                                                          sources.as_it_leaves(_flow(question))),
    "sas": lambda sources, question: tunnel_report.sas(sources.daemon),
    "peers": lambda sources, question: tunnel_report.peers(sources.daemon),
    "drop": lambda sources, question: deeds.drop(sources.daemon, sources.as_it_leaves(_flow(question))),
    "probe": lambda sources, question: deeds.probe(sources.daemon, sources.inspector, _probed(sources, question),
                                                   sources.seconds()),
    "dns": lambda sources, question: sources.inspector.inspect(_inquiry(question)),
    "use-key": lambda sources, question: _use_key(sources),
    "policy show": lambda sources, question: policy_report.show(sources.policy.classes),
    "policy test": lambda sources, question: policy_control.test_live(sources.policy, _flow(question),
                                                                      _ports(question)),
    "policy diff": lambda sources, question: _difference(sources.policy),
    "policy reload": lambda sources, question: _reload(sources.policy),
    "keylog": lambda sources, question: _key_log(sources.daemon, question),
}


class BadQuestionError(ValueError):
    """A question that has no answer; the text says what would be right."""


class ControlProtocol(LineOnlyReceiver):
    """One client of the control socket."""

    _log = Logger()
    delimiter = b"\n"
    MAX_LENGTH = LONGEST_QUESTION

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._turn = DeferredLock()

    def lineReceived(self, line: bytes) -> None:
        self._turn.run(lambda: Deferred.fromCoroutine(self._reply(line)))

    async def _reply(self, line: bytes) -> None:
        try:
            reply: dict[str, Any] = {"answer": await self._answer(line)}
        except BadQuestionError as error:
            reply = {"error": str(error)}
        except Exception as error:
            self._log.failure("answering {line}", line=line)
            reply = {"error": f"an error in oegw itself: {error}"}
        self.sendLine(json.dumps(reply).encode())

    async def _answer(self, line: bytes) -> Answer:
        try:
            question = json.loads(line)
        except ValueError as error:
            raise BadQuestionError(f"not JSON: {error}") from None
        name = str(question.get("command")) if isinstance(question, dict) else ""
        if name == MONITOR:
            return await self._monitor()
        command = COMMANDS.get(name)
        if command is None:
            raise BadQuestionError(f"a question is an object with a command, one of {', '.join(COMMANDS)}, {MONITOR}")
        answer = command(self._sources, question)
        return await answer if isinstance(answer, Awaitable) else answer

    async def _monitor(self) -> Answer:
        """From now on this client is told what happens, and is not answered any more."""
        Monitor(self._sources.daemon, self.transport,
                lambda happened: self.sendLine(json.dumps({"answer": happened}).encode()))
        return await Deferred()


class ControlFactory(Factory):
    noisy = False

    def __init__(self, daemon: KeyingDaemon, inspector: Inspector, seconds: Callable[[], float],
                 use_key: Callable[[], str], policy: RunningPolicy, translations: Sequence[Translation]) -> None:
        self._sources = Sources(daemon, inspector, seconds, use_key, policy, translations)

    def buildProtocol(self, addr: "IAddress | None") -> ControlProtocol:
        return ControlProtocol(self._sources)


async def _status(sources: Sources) -> Answer:
    return report.status(sources.daemon, __version__, sources.seconds()) | {"sent": await sent(sources.daemon)}


def _flow(question: Question) -> Flow:
    try:
        return Flow(ip_address(str(question.get("source"))), ip_address(str(question.get("destination"))))
    except ValueError as error:
        raise BadQuestionError(f"no flow: {error}") from None


def _ports(question: Question) -> Ports | None:
    written = question.get("ports")
    try:
        return read_ports(str(written)) if written else None
    except ValueError as error:
        raise BadQuestionError(str(error)) from None


def _why(sources: Sources, flow: Flow) -> Answer:
    leaves = sources.as_it_leaves(flow)
    answer = report.why(sources.daemon, leaves, sources.seconds())
    return answer | {"before_nat": str(flow.source) if leaves != flow else None}


def _difference(policy: RunningPolicy) -> Answer:
    try:
        return policy_control.diff(policy.difference())
    except ConfigError as error:
        raise BadQuestionError(str(error)) from None


async def _reload(policy: RunningPolicy) -> Answer:
    try:
        return policy_control.diff(await policy.reload())
    except (ConfigError, PlaneError) as error:
        raise BadQuestionError(f"the policy is left as it was: {error}") from None


def _probed(sources: Sources, question: Question) -> Flow:
    """From the host named, or from this gateway's own address towards the destination."""
    try:
        destination = ip_address(str(question.get("destination")))
        source = question.get("source") or sources.daemon.local_address(destination)
        flow = sources.as_it_leaves(Flow(ip_address(str(source)), destination))
    except (OSError, ValueError) as error:
        raise BadQuestionError(f"nothing to try: {error}") from None
    if not sources.daemon.is_ours(flow.source):
        raise BadQuestionError(f"{flow.source} is {report.STRANGER}; nothing is encrypted for it here")
    if sources.daemon.is_ours(flow.destination):
        raise BadQuestionError(f"{flow.destination} is on this side of the gateway; name a host on the far side")
    return flow


def _use_key(sources: Sources) -> Answer:
    try:
        return {"schema": report.SCHEMA, "key": sources.use_key()}
    except KeyPairError as error:
        raise BadQuestionError(str(error)) from None


def _key_log(daemon: KeyingDaemon, question: Question) -> Answer:
    try:
        if seconds := float(question.get("seconds", 0)):
            daemon.key_log.start(seconds)
        else:
            daemon.key_log.stop()
    except (OSError, TypeError, ValueError) as error:
        raise BadQuestionError(f"keys cannot be written: {error}") from None
    return {"schema": report.SCHEMA, "on": daemon.key_log.on, "directory": str(daemon.key_log.directory)}


def _inquiry(question: Question) -> Inquiry:
    types = question.get("types", [])
    try:
        return Inquiry.parse(str(question.get("subject")), [str(rdtype) for rdtype in types] if
                             isinstance(types, list) else [str(types)], bool(question.get("fresh")))
    except ValueError as error:
        raise BadQuestionError(f"nothing to look up: {error}") from None
