"""The policy in force, and how what the files say now takes its place while flows go on (RFC 4322 section 3.2)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger
from twisted.python.failure import Failure

from oesvc.config import Config, ConfigError, load
from oesvc.daemon import KeyingDaemon
from oesvc.interfaces import PlaneError
from oesvc.ipsec.flow import Flow
from oesvc.oe.classes import ClassTable, ConnectionClass, PolicyLine, PortLine

RELOADED = ("policies", "port_lines", "default_class", "default_options", "dnssec", "lifespans", "icmp_on_deny")
"Fields of the configuration that a reload puts in force; all others wait for a restart."
OPTIONS_RELOADED = {("policy", "default"), ("paths", "policies"), ("dns", "dnssec"), ("gateway", "icmp-on-deny")}
SECTIONS_RELOADED = ("lifespans",)


@dataclass(frozen=True, slots=True)
class LineChange:
    """What is said of a prefix before and after; the one that decides where nothing is said of itself."""

    before: PolicyLine
    after: PolicyLine


@dataclass(frozen=True, slots=True)
class FlowChange:
    """What becomes of a live flow."""

    flow: Flow
    after: PolicyLine
    state: str
    goes_on: bool
    "Else it is held, its tunnel closed, and its next datagram decided anew."


@dataclass(frozen=True, slots=True)
class Difference:
    """Between the policy in force and another."""

    lines: tuple[LineChange, ...]
    ports_gone: tuple[PortLine, ...]
    ports_new: tuple[PortLine, ...]
    flows: tuple[FlowChange, ...]
    options: tuple[str, ...]
    "Of the configuration, as [section] option, that a reload puts in force."
    restart: tuple[str, ...]
    "Those that wait for a restart."

    @property
    def nothing(self) -> bool:
        return not (self.lines or self.ports_gone or self.ports_new or self.options or self.restart)


class RunningPolicy:
    """What the files said when they were last read without an error."""

    log = Logger()

    def __init__(self, config: Config, daemon: KeyingDaemon,
                 reconfigure: Callable[[Config], "Deferred[None]"]) -> None:
        """`reconfigure` tells the forwarding plane; it fails with PlaneError, and then nothing has changed."""
        self.config = config
        self.daemon = daemon
        self._reconfigure = reconfigure
        self._turn = DeferredLock()

    @property
    def classes(self) -> ClassTable:
        return self.daemon.connections.classes

    def difference(self) -> Difference:
        """What a reload would change. Raises ConfigError."""
        return self._difference(self._read())

    def reload(self) -> "Deferred[Difference]":
        """Put in force what the files say now. Fails with ConfigError or PlaneError, and then nothing has changed."""
        return self._turn.run(lambda: Deferred.fromCoroutine(self._reload()))

    def hang_up(self) -> None:
        """SIGHUP: the same, told in the log."""
        self.reload().addErrback(self._not_reloaded)

    async def _reload(self) -> Difference:
        read = self._read()
        change = self._difference(read)
        config = replace(self.config, options={**self.config.options, **_reloaded(read)},
                         **{field: getattr(read, field) for field in RELOADED})
        await self._reconfigure(config)
        self.config = config
        self.daemon.discovery.policy = config.dnssec
        await self.daemon.reclassify(config.class_table(), config.lifespans)
        ended = sum(not one.goes_on for one in change.flows)
        self.log.info("policy reloaded: {lines} prefixes changed, {ended} flows are decided anew{restart}",
                      lines=len(change.lines), ended=ended, restart=_needs(change.restart))
        return change

    def _read(self) -> Config:
        """What the files say; but configured tunnels are those that there are."""
        read = load(self.config.file)
        lines = [line for line in read.policies if line.connection_class is not ConnectionClass.CONFIGURED]
        lines += [line for line in self.config.policies if line.connection_class is ConnectionClass.CONFIGURED]
        return replace(read, policies=tuple(lines))

    def _not_reloaded(self, failure: Failure) -> None:
        if failure.check(ConfigError, PlaneError):
            self.log.error("the policy is left as it was: {why}", why=failure.getErrorMessage())
        else:
            self.log.failure("reloading the policy", failure=failure)

    def _difference(self, read: Config) -> Difference:
        after = read.class_table()
        tunnels = {one.name for one in set(read.tunnels) ^ set(self.config.tunnels)}
        options = {key for key, value in read.options.items() if value != self.config.options.get(key)}
        reloaded = {key for key in options if key in OPTIONS_RELOADED or key[0] in SECTIONS_RELOADED}
        ports_before, ports_after = ({(one.network, one.ports, one.dropped): one for one in table.port_lines}
                                     for table in (self.classes, after))
        return Difference(
            tuple(_lines(self.classes, after)),
            tuple(ports_before[key] for key in ports_before if key not in ports_after),
            tuple(ports_after[key] for key in ports_after if key not in ports_before),
            tuple(self._flows(after)), _named(reloaded),
            (*_named(options - reloaded), *(f"[tunnel {name}]" for name in sorted(tunnels))))

    def _flows(self, after: ClassTable) -> Iterable[FlowChange]:
        for connection in self.daemon.connections:
            line = after.find(connection.flow.destination)
            if _changed(connection.line, line):
                yield FlowChange(connection.flow, line, connection.settled_state.value,
                                 connection.goes_on_under(line))


def _lines(before: ClassTable, after: ClassTable) -> Iterable[LineChange]:
    """By prefix, those whose class changes, and the default's."""
    everywhere = {ip_network("0.0.0.0/0"), ip_network("::/0")}
    networks = {line.network for line in (*before.lines, *after.lines)} | everywhere
    for network in sorted(networks, key=lambda one: (one.version, one)):
        change = LineChange(before.about(network), after.about(network))
        if _changed(change.before, change.after):
            yield change


def _changed(before: PolicyLine, after: PolicyLine) -> bool:
    """Whether people should be told; the other place of the same words is nothing."""
    return not before.treats_alike(after) or before.class_name != after.class_name


def _reloaded(read: Config) -> dict[tuple[str, str], Any]:
    return {key: value for key, value in read.options.items()
            if key in OPTIONS_RELOADED or key[0] in SECTIONS_RELOADED}


def _named(options: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    return tuple(f"[{section}] {option}" for section, option in sorted(options))


def _needs(restart: Iterable[str]) -> str:
    return f"; {', '.join(restart)} wait for a restart" if restart else ""
