"""The list of connected gateways, in memory and in non-volatile storage (RFC 4322 section 9.3).

After a crash it tells who has to hear that all connections of before are lost. It is written in a thread, one
transaction at a time with all that has changed meanwhile, so that no disk makes the daemon wait.
"""

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock, maybeDeferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from oesvc.ipsec.flow import Address, Flow
from oesvc.ipsec.subnets import Subnets

FILE_NAME = "partners.sqlite"
VERSION = 1
MOST = 20_000
"Partners that are read, and changes that wait for a disk which takes none: as many as there may be tunnels."

CREATE = f"""
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
CREATE TABLE IF NOT EXISTS partners (gateway TEXT PRIMARY KEY, source TEXT NOT NULL, destination TEXT NOT NULL,
                                     number INTEGER NOT NULL) WITHOUT ROWID;
PRAGMA user_version = {VERSION};
"""

LOG = Logger()


@dataclass(frozen=True, slots=True)
class Partner:
    """A gateway that there was a tunnel with."""

    gateway: Address
    flow: Flow
    "Of the newest one, our outbound direction: by its destination's record the gateway can be found again."


class PartnerFile:
    """The list in a file of SQLite. Every method may block, and only one thread at a time calls them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._database: sqlite3.Connection | None = None

    def open(self) -> list[Partner]:
        """What a former run has left, the newest first. What is no such list is set aside, with a line in the log.

        Raises OSError or sqlite3.Error where there can be no file; then nothing is kept.
        """
        try:
            return self._open()
        except (sqlite3.DatabaseError, ValueError) as error:
            self._forget()
            broken = self._path.with_suffix(".broken")
            self._path.replace(broken)
            for ending in ("-wal", "-shm"):
                Path(f"{self._path}{ending}").unlink(missing_ok=True)
            LOG.error("the list of connected gateways cannot be read ({error}): it is now {broken}, and a new one is "
                      "begun; former partners will not be told that we have lost their tunnels", error=error,
                      broken=broken)
        return self._open()

    def _open(self) -> list[Partner]:
        self._database = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        version = self._database.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, VERSION):
            raise ValueError(f"its version is {version}, not {VERSION}")
        self._database.executescript(CREATE)
        rows = self._database.execute("SELECT gateway, source, destination FROM partners ORDER BY number DESC LIMIT ?",
                                      (MOST,))
        return [Partner(ip_address(gateway), _flow(source, destination))
                for gateway, source, destination in rows]

    def write(self, changes: Mapping[Address, Flow | None]) -> None:
        """All or nothing: who is connected now, and (None) who is no longer. Raises sqlite3.Error."""
        if self._database is None:
            return
        with self._database, closing(self._database.cursor()) as cursor:
            cursor.execute("BEGIN IMMEDIATE")
            for gateway, flow in changes.items():
                if flow is None:
                    cursor.execute("DELETE FROM partners WHERE gateway = ?", (str(gateway),))
                else:
                    cursor.execute("REPLACE INTO partners SELECT ?, ?, ?, 1 + ifnull(max(number), 0) FROM partners",
                                   (str(gateway), *flow.ends))

    def forget_all(self) -> None:
        """Everybody was told that we go. Raises sqlite3.Error."""
        if self._database is not None:
            self._database.execute("DELETE FROM partners")
            self._forget()

    def _forget(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None


def _flow(source: str, destination: str) -> Flow:
    """Of hosts, or of a configured tunnel's networks. Raises ValueError."""
    if "/" in source:
        return Subnets.between(ip_network(source), ip_network(destination))
    return Flow(ip_address(source), ip_address(destination))


class Partners:
    """Who is connected now, by the tunnels that stand."""

    def __init__(self, file: PartnerFile | None = None,
                 in_thread: Callable[..., "Deferred[Any]"] = maybeDeferred) -> None:
        """Without a file nothing outlives the daemon. `in_thread` calls a function where it may block."""
        self._file, self._in_thread = file, in_thread
        self._gateways: dict[int, Address] = {}
        self._flows: dict[Address, dict[int, Flow]] = {}
        self._unwritten: dict[Address, Flow | None] = {}
        self._turn = DeferredLock()
        self._due = self._failing = self._closed = False

    def restore(self) -> "Deferred[list[Partner]]":
        """The partners of a run that was not ended in order. Fails where there can be no file; we go on without."""
        return self._turn.run(self._in_thread, self._file.open) if self._file else succeed([])

    def flow_with(self, gateway: Address) -> Flow | None:
        """That of the newest tunnel which stands with a gateway."""
        flows = self._flows.get(gateway)
        return flows[next(reversed(flows))] if flows else None

    def connected(self, tunnel: int, gateway: Address, flow: Flow) -> None:
        """A tunnel stands."""
        self._gateways[tunnel] = gateway
        self._flows.setdefault(gateway, {})[tunnel] = flow
        self._changed(gateway)

    def parted(self, tunnel: int) -> None:
        """A tunnel has ended, if it stood."""
        gateway = self._gateways.pop(tunnel, None)
        if gateway is None:
            return
        del self._flows[gateway][tunnel]
        if not self._flows[gateway]:
            del self._flows[gateway]
        self._changed(gateway)

    def told(self, gateway: Address) -> None:
        """One of a former run has been called: it counts no longer, unless there is a tunnel with it again."""
        self._changed(gateway)

    def close(self) -> "Deferred[Any]":
        """All partners were told that we go: the next run has nobody to tell."""
        self._closed = True
        return self._turn.run(self._in_thread, self._file.forget_all) if self._file else succeed(None)

    def _changed(self, gateway: Address) -> None:
        if self._file is None or self._closed:
            return
        flow = self.flow_with(gateway)
        self._unwritten[gateway] = None if isinstance(flow, Subnets) else flow  # what is configured begins by itself
        if not self._due:
            self._due = True
            self._turn.run(self._write, self._file)

    def _write(self, file: PartnerFile) -> "Deferred[None]":
        """All that has changed until now; what the disk does not take, again with the next change."""
        changes, self._unwritten, self._due = self._unwritten, {}, False

        def written(_: object) -> None:
            self._failing = False

        def not_written(failure: Failure) -> None:
            if not self._failing:
                LOG.error("the list of connected gateways cannot be written: {why}; after a crash former partners may "
                          "not be told that we have lost their tunnels", why=failure.getErrorMessage())
            self._failing = True
            if len(changes) + len(self._unwritten) <= MOST:
                self._unwritten = changes | self._unwritten

        return self._in_thread(file.write, changes).addCallbacks(written, not_written)
