"""The command `oegw doctor`."""

from argparse import Namespace

from oesvc.operator.client import DONE, REFUSED
from oesvc.operator.doctor.checks import answer, as_text
from oesvc.operator.doctor.gather import gather
from oesvc.operator.live import show


def carry_out(options: Namespace) -> int:
    found = answer(gather(options.config, options.control, options.hosts))
    show(options, found, as_text)
    return REFUSED if any(one["severity"] == "problem" for one in found["findings"]) else DONE
