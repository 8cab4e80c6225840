"""`oegw policy`: which destinations are treated how, and what a changed file would change."""

import sys
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable
from typing import Any

from oesvc import config
from oesvc.config import Config
from oesvc.ipsec.flow import Address, Flow
from oesvc.operator import live, policy_report, policy_text
from oesvc.operator.client import DONE, REFUSED, CommandError, NoDaemonError, ask, control
from oesvc.policy_files import read_ports

RELOAD_WITHIN = 120.0
"Seconds: of a hundred thousand flows each is looked at, and those that end are taken from the kernel."


def ports(written: str) -> str:
    try:
        read_ports(written)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None
    return written


def show(options: Namespace) -> int:
    answer = _asked(options, {"command": "policy show"}, lambda read: policy_report.show(read.class_table()))
    live.show(options, answer, policy_text.show)
    return DONE


def test(options: Namespace) -> int:
    def alone(read: Config) -> dict[str, Any]:
        return policy_report.test(read.class_table(), lambda host: _is_ours(read, host),
                                  Flow(options.source, options.destination),
                                  read_ports(options.ports) if options.ports else None)
    question = {"command": "policy test", "source": str(options.source), "destination": str(options.destination),
                "ports": options.ports}
    try:
        Flow(options.source, options.destination)
    except ValueError as error:
        raise CommandError(f"no flow: {error}") from None
    live.show(options, _asked(options, question, alone), policy_text.test)
    return DONE


def _is_ours(read: Config, host: Address) -> bool:
    """As far as the configuration tells; where it names no address, whoever is no client's host may be this one."""
    return any(host in network for network in read.clients) or host in read.addresses


def diff(options: Namespace) -> int:
    answer = ask(control(options), {"command": "policy diff"})
    live.show(options, answer, policy_text.diff)
    return REFUSED if answer["differs"] else DONE


def reload(options: Namespace) -> int:
    live.show(options, ask(control(options), {"command": "policy reload"}, RELOAD_WITHIN), policy_text.reload)
    return DONE


def _asked(options: Namespace, question: dict[str, Any], alone: Callable[[Config], dict[str, Any]]) -> dict[str, Any]:
    """The daemon's answer, or where none runs, what the files say."""
    try:
        return ask(control(options), question)
    except NoDaemonError:
        if not options.json:
            print("(no daemon answers: this is what the files say)", file=sys.stderr)
        return alone(config.load(options.config))
