"""What must never go in clear is blocked before any daemon runs: at boot, before there is a network (section 12).

    python3 -m oesvc.closed FILE

By source for the clients and the addresses that the configuration names; by destination for whatever else this host
sends. It is what a stopped daemon leaves, and a daemon that starts takes its place without a gap.
"""

import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import react

from oesvc.config import ConfigError, load
from oesvc.interfaces import PlaneError
from oesvc.kept import FILE_NAME, Closing, closing_of, read_kept, state_directory
from oesvc.kernel import ruleset
from oesvc.kernel.constants import NETLINK_XFRM
from oesvc.kernel.exemptions import remaining_policies
from oesvc.kernel.netlink import NetlinkSocket
from oesvc.kernel.standing import replace_policies
from oesvc.operator.client import pid_of_daemon


@inlineCallbacks
def close(reactor: Any, file: Path) -> Generator[Deferred[Any], Any, None]:
    """Nothing is done where a daemon runs, or where nothing is to be blocked. Exits with a text where it cannot be.

    And where the files have an error, for they are to be mended; but then what the last daemon kept is blocked.
    """
    kept = state_directory(file) / FILE_NAME
    try:
        closing, wrong = wanted(file, kept)
        plane = closing.plane
        if (plane.never_clear or plane.configured) and pid_of_daemon(closing.control_socket) is None:
            yield replace_policies(NetlinkSocket(reactor, NETLINK_XFRM), remaining_policies(plane))
            ruleset.load(ruleset.closed_ruleset(plane))
    except (ConfigError, PlaneError) as error:
        raise SystemExit(f"oegw: what must never go in clear is not blocked: {error}") from None
    if wrong:
        raise SystemExit(f"oegw: {wrong}; until this is mended, what must never go in clear is blocked by the policy "
                         f"that was last in force ({kept})")


def wanted(file: Path, kept: Path) -> tuple[Closing, ConfigError | None]:
    """What the files say, or what is kept and their error. Raises ConfigError."""
    try:
        return closing_of(load(file)), None
    except ConfigError as wrong:
        try:
            return read_kept(kept), wrong
        except ConfigError as error:
            raise ConfigError(f"{wrong}; nor can the policy that was last in force be used: {error}") from None


if __name__ == "__main__":
    react(close, (Path(sys.argv[1]),))
