"""The `oegw` command: what an administrator asks of the running daemon, and of the keys on disk."""

import os
import sys
from collections.abc import Sequence

from oesvc.operator.client import DONE, INTERRUPTED, UNUSABLE
from oesvc.operator.command_line import parser
from oesvc.set_up import SetUpError


def run() -> None:
    """Entry point of the console script."""
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def main(arguments: Sequence[str]) -> int:
    """Carry out one command; returns the exit code."""
    options = parser().parse_args(arguments)
    try:
        status = int(options.carry_out(options))
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # Whoever reads has read enough; what is still to be written goes nowhere, also when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except (SetUpError, OSError) as error:
        print(f"oegw: {error}", file=sys.stderr)
        return UNUSABLE


if __name__ == "__main__":
    run()
