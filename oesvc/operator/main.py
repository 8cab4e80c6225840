"""The `oegw` command: what an administrator asks of the running daemon, and of the keys on disk."""

import sys
from collections.abc import Sequence

from oesvc.operator.client import INTERRUPTED, UNUSABLE
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
        return int(options.carry_out(options))
    except (SetUpError, OSError) as error:
        print(f"oegw: {error}", file=sys.stderr)
        return UNUSABLE


if __name__ == "__main__":
    run()
