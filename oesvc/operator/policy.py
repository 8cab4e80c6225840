"""`oegw policy`: which destinations are treated how, and what a changed file would change."""

import argparse
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import Any

from oesvc import config
from oesvc.config import Config
from oesvc.ipsec.flow import Address, Flow
from oesvc.operator import live, policy_report, policy_text
from oesvc.operator.arguments import address
from oesvc.operator.client import DONE, REFUSED, CommandError, NoDaemonError, ask
from oesvc.policy_files import read_ports

RELOAD_WITHIN = 120.0
"Seconds: of a hundred thousand flows each is looked at, and those that end are taken from the kernel."


def add(commands: Any, asking: ArgumentParser) -> None:
    """Give the parser these commands; `asking` brings the options of all that ask the daemon."""
    policy = commands.add_parser("policy", help="which destinations are treated how").add_subparsers(
        required=True, metavar="WHAT")
    for name, carry_out, help_text in (
            ("show", _show, "the classes in force with their prefixes"),
            ("test", _test, "what becomes of a flow, and what the files would make of it"),
            ("diff", _diff, "what a reload would change, for live flows too"),
            ("reload", _reload, "put in force what the files say now")):
        command = policy.add_parser(name, parents=[asking], help=help_text, description=help_text.capitalize() + ".")
        command.set_defaults(carry_out=carry_out)
        if name == "test":
            command.add_argument("source", type=address, metavar="SRC", help="address of the host on this side")
            command.add_argument("destination", type=address, metavar="DST", help="address of the host on the far side")
            command.add_argument("ports", type=_ports, nargs="?", metavar="PROTOCOL[/PORT]",
                                 help="for these datagrams alone, to this port of the far side, such as tcp/80")


def _ports(written: str) -> str:
    try:
        read_ports(written)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return written


def _show(options: Namespace) -> int:
    answer = _asked(options, {"command": "policy show"}, lambda read: policy_report.show(read.class_table()))
    live.show(options, answer, policy_text.show)
    return DONE


def _test(options: Namespace) -> int:
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


def _diff(options: Namespace) -> int:
    answer = ask(live.control(options), {"command": "policy diff"})
    live.show(options, answer, policy_text.diff)
    return REFUSED if answer["differs"] else DONE


def _reload(options: Namespace) -> int:
    live.show(options, ask(live.control(options), {"command": "policy reload"}, RELOAD_WITHIN), policy_text.reload)
    return DONE


def _asked(options: Namespace, question: dict[str, Any], alone: Callable[[Config], dict[str, Any]]) -> dict[str, Any]:
    """The daemon's answer, or where none runs, what the files say."""
    try:
        return ask(live.control(options), question)
    except NoDaemonError:
        if not options.json:
            print("(no daemon answers: this is what the files say)", file=sys.stderr)
        return alone(config.load(options.config))
