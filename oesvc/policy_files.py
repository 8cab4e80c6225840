"""The policy files: which prefixes are of which class. Policy groups of FreeS/WAN and libreswan are read too."""

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from oesvc import config_values as read
from oesvc.config_values import ConfigError
from oesvc.ipsec.ports import PROTOCOLS, WITH_PORTS, Ports
from oesvc.oe.authorization import DnssecPolicy
from oesvc.oe.classes import ClassOptions, ConnectionClass, Network, PolicyLine, PortLine

GROUPS = {
    "block": ConnectionClass.DENY,
    "clear": ConnectionClass.ALWAYS_CLEAR_TEXT,
    "clear-or-private": ConnectionClass.PASSIVE,
    "private-or-clear": ConnectionClass.OE_PERMISSIVE,
    "private": ConnectionClass.OE_PARANOID,
}
"The files of FreeS/WAN's names, and the class that each is for."

PORT_GROUPS = {ConnectionClass.DENY: True, ConnectionClass.ALWAYS_CLEAR_TEXT: False}
"Classes whose lines may name ports, and whether what they name is dropped."

LEFT_BY_OTHERS = (".*", "*~", "#*#", "*.dpkg-*", "*.ucf-*", "*.rpmnew", "*.rpmsave")
"Files that editors and packages leave beside the one that they are about."
EXCLUDES = "portexcludes.conf"
"Of libreswan's own; it comes without a rule in it."


@dataclass(frozen=True, slots=True)
class PolicyClass:
    """What a policy file's prefixes are: a class of the RFC's, and what is special to it."""

    connection_class: ConnectionClass
    options: ClassOptions


@dataclass(frozen=True, slots=True)
class Policies:
    """What all the files say."""

    lines: tuple[PolicyLine, ...]
    port_lines: tuple[PortLine, ...]


def known_classes(own: Mapping[str, PolicyClass], dnssec: DnssecPolicy) -> dict[str, PolicyClass]:
    """The classes that there can be files of: the RFC's, and the administrator's `own`."""
    groups = {name: PolicyClass(base, ClassOptions(dnssec=dnssec)) for name, base in GROUPS.items()}
    return groups | {name: replace(one, options=replace(one.options, dnssec=one.options.dnssec or dnssec))
                     for name, one in own.items()}


def read_policies(directories: Sequence[Path], classes: Mapping[str, PolicyClass]) -> Policies:
    """All lines of the files. A prefix in two classes is an error (RFC 4322 section 1.2). Raises ConfigError."""
    lines: dict[Network, PolicyLine] = {}
    port_lines: dict[tuple[Network, Ports], PortLine] = {}
    for file, policy_class in _files(directories, classes):
        for line in _read_file(file, policy_class):
            if isinstance(line, PortLine):
                earlier = port_lines.setdefault((line.network, line.ports), line)
                if earlier.dropped is not line.dropped:
                    raise ConfigError(f"{line.place}: {line}, but {earlier}; remove one of the two")
            else:
                before = lines.setdefault(line.network, line)
                if (before.connection_class, before.options.name) != (line.connection_class, line.options.name):
                    raise ConfigError(f"{line.place}: {line.network} is {line.class_name} here and "
                                      f"{before.class_name} at {before.place}; remove one of the two")
    return Policies(tuple(lines.values()), tuple(port_lines.values()))


def _files(directories: Sequence[Path], classes: Mapping[str, PolicyClass]) -> Iterator[tuple[Path, PolicyClass]]:
    for directory in directories:
        if not directory.is_dir():
            raise ConfigError(f"{directory}: there is no such directory; it holds the files {', '.join(classes)}")
        for file in directory.iterdir():
            if file.name == EXCLUDES:
                _refuse_excludes(file)
            elif file.name not in classes and not any(fnmatchcase(file.name, left) for left in LEFT_BY_OTHERS):
                raise ConfigError(f"{file}: no class has a file of this name; {meant(file.stem.lower(), classes)}")
    for name, policy_class in classes.items():
        yield from ((directory / name, policy_class) for directory in directories if (directory / name).exists())


def _refuse_excludes(file: Path) -> None:
    for number, _ in _written(file):
        raise ConfigError(f"{file}:{number}: ports are excepted by lines of the file clear, such as "
                          "192.0.2.0/24 tcp 0 22 (PREFIX PROTOCOL SOURCE-PORT DESTINATION-PORT, 0 for any)")


def _read_file(file: Path, policy_class: PolicyClass) -> Iterator[PolicyLine | PortLine]:
    for number, words in _written(file):
        try:
            yield from _read_line(words, policy_class, f"{file}:{number}")
        except ValueError as error:
            raise ConfigError(f"{file}:{number}: {error}; one prefix a line, such as 192.0.2.0/24") from None


def _written(file: Path) -> Iterator[tuple[int, list[str]]]:
    """The words of each line that has some."""
    for number, line in enumerate(read.file_text(file).splitlines(), 1):
        if words := line.partition("#")[0].replace(",", " ").split():
            yield number, words


def _read_line(words: Sequence[str], policy_class: PolicyClass, place: str) -> Iterator[PolicyLine | PortLine]:
    """PREFIX, PREFIX except PROTOCOL[/PORT]..., or PREFIX PROTOCOL SOURCE-PORT DESTINATION-PORT."""
    base, options = policy_class.connection_class, policy_class.options
    first = read.network(words[0])
    if len(words) == 4 and words[1] != "except":
        if base not in PORT_GROUPS:
            raise ValueError("what is encrypted is decided for pairs of addresses (RFC 4322 section 3.1), not for "
                             "ports; say in clear or block which are excepted")
        yield PortLine(first, _ports(words[1], words[2], words[3]), PORT_GROUPS[base], place)
    elif len(words) > 2 and words[1] == "except":
        if base.never_clear:
            raise ValueError(f"{options.name or group_of(base)} is never in clear; what is to be all the same belongs "
                             f"into the file clear, as in {first} tcp 0 22")
        yield PolicyLine(first, base, place, options)
        yield from (PortLine(first, read_ports(excepted), False, place) for excepted in words[2:])
    elif len(words) == 1:
        yield PolicyLine(first, base, place, options)
    else:
        raise ValueError(f"{' '.join(words[1:])!r} is neither `except PROTOCOL/PORT` nor `PROTOCOL PORT PORT`")


def group_of(connection_class: ConnectionClass) -> str:
    """The name of its file; that of configured tunnels, which have none, is the class's own."""
    return next((name for name, base in GROUPS.items() if base is connection_class), connection_class.value)


def read_ports(written: str) -> Ports:
    """PROTOCOL[/PORT] of the other side. Raises ValueError."""
    protocol, _, port = written.partition("/")
    return _ports(protocol, "0", port or "0")


def _ports(protocol: str, source: str, destination: str) -> Ports:
    number = PROTOCOLS.get(protocol.lower(), int(protocol) if protocol.isdecimal() else 0)
    if not 0 < number < 256:
        raise ValueError(f"{protocol!r} is no protocol: there are {', '.join(PROTOCOLS)}, or their numbers")
    for port in (source, destination):
        if not (port.isdecimal() and int(port) < 65536):
            raise ValueError(f"{port!r} is no port: that is a number up to 65535, or 0 for any")
    if number not in WITH_PORTS and (int(source) or int(destination)):
        raise ValueError(f"{protocol} has no ports; write it without")
    return Ports(number, int(source), int(destination))


def meant(written: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(written, known, 1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(known) or 'none'}"
