"""The command `oegw doctor`."""

from argparse import ArgumentParser, Namespace
from typing import Any

from oesvc.operator.arguments import address
from oesvc.operator.client import DONE, REFUSED
from oesvc.operator.doctor.checks import answer, as_text
from oesvc.operator.doctor.gather import gather
from oesvc.operator.live import show


def add(commands: Any, asking: ArgumentParser) -> None:
    doctor = commands.add_parser(
        "doctor", parents=[asking], help="what is wrong on this gateway and in its records, and what mends it",
        description="Look at this gateway, its files, kernel, firewall, clock, resolvers and records, with or without "
                    "a running daemon, and say what is wrong, the worst first, and what mends it.",
        epilog="Exit codes: 0 no problem (there may be warnings), 1 problems, 2 it could not be done.")
    doctor.add_argument("hosts", type=address, nargs="*", metavar="HOST",
                        help="a host behind this gateway whose records are to be looked at too")
    doctor.set_defaults(carry_out=_doctor)


def _doctor(options: Namespace) -> int:
    found = answer(gather(options.config, options.control, options.hosts))
    show(options, found, as_text)
    return REFUSED if any(one["severity"] == "problem" for one in found["findings"]) else DONE
