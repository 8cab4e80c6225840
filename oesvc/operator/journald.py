"""The log as journald's native fields: a message id for each kind of outcome, for which `journalctl -x` has a text.

`twistd --logger oesvc.operator.journald.observer` writes there; the texts are in `catalog`. What repeats too
often is counted instead of written.
"""

import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twisted.logger import ILogObserver, LogLevel, formatEvent, textFileLogObserver
from zope.interface import implementer

from oesvc.operator.catalog import SUPPRESSED, message_id

SOCKET = Path("/run/systemd/journal/socket")
PRIORITIES = {LogLevel.debug: 7, LogLevel.info: 6, LogLevel.warn: 4, LogLevel.error: 3, LogLevel.critical: 2}
"syslog(3)'s levels."
BURST, WINDOW = 50, 10.0
"Lines of one kind in so many seconds; beyond, they are counted."
KINDS = 1000
"Kinds of lines that are told apart."


class Limit:
    """How many lines of a kind may be written; seconds are the caller's."""

    def __init__(self, burst: int = BURST, window: float = WINDOW) -> None:
        self._burst, self._window = burst, window
        self._kinds: dict[str, tuple[float, int]] = {}

    def admits(self, kind: str, now: float) -> bool:
        """Whether one more may be written now; it is counted in any case."""
        if kind not in self._kinds and len(self._kinds) >= KINDS:
            return False
        begun, count = self._kinds.get(kind, (now, 0))
        self._kinds[kind] = begun, count + 1
        return count < self._burst

    def over(self, now: float) -> dict[str, int]:
        """The kinds whose window is over, and how many of each were not written; they begin anew."""
        ended = {kind: count for kind, (begun, count) in self._kinds.items() if not 0 <= now - begun < self._window}
        for kind in ended:
            del self._kinds[kind]
        return {kind: count - self._burst for kind, count in ended.items() if count > self._burst}


@implementer(ILogObserver)
class Journald:
    """A log observer that sends each event as one datagram."""

    def __init__(self, send: Callable[[bytes], object], limit: Limit) -> None:
        self._send, self._limit = send, limit

    def __call__(self, event: Mapping[str, Any]) -> None:
        now = float(event.get("log_time", 0.0))
        for kind, count in self._limit.over(now).items():
            self._send(encode({"MESSAGE": f"{count} more lines like this were not written: {kind}", "PRIORITY": "5",
                               "MESSAGE_ID": message_id(SUPPRESSED), "OEGW_SUPPRESSED": str(count)}))
        if self._limit.admits(_kind(event), now):
            self._send(encode(fields(event)))


def fields(event: Mapping[str, Any]) -> dict[str, str]:
    """journald's fields of an event; OEGW_... are ours: the flow, its state, and why."""
    found = {"MESSAGE": _message(event), "PRIORITY": str(PRIORITIES.get(event.get("log_level"), 6)),
             "SYSLOG_IDENTIFIER": "oegw", "OEGW_SOURCE": str(event.get("log_namespace", ""))}
    if "because" in event:
        found |= {"MESSAGE_ID": message_id(str(event["because"])), "OEGW_BECAUSE": str(event["because"])}
    for name in ("flow", "state", "peer"):
        if name in event:
            found[f"OEGW_{name.upper()}"] = str(event[name])
    return found


def encode(values: Mapping[str, str]) -> bytes:
    """journald's native protocol: NAME=VALUE, or its length (8 octets, little-endian) where there are new lines."""
    parts = []
    for name, value in values.items():
        octets = value.encode("utf-8", "replace")
        parts.append(b"%s=%s\n" % (name.encode(), octets) if b"\n" not in octets else
                     b"%s\n%s%s\n" % (name.encode(), len(octets).to_bytes(8, "little"), octets))
    return b"".join(parts)


def _message(event: Mapping[str, Any]) -> str:
    failure = event.get("log_failure")
    text = formatEvent(dict(event))
    return f"{text}\n{failure.getTraceback()}" if failure is not None else text


def _kind(event: Mapping[str, Any]) -> str:
    """What lines have in common that say the same of others: the outcome, or the form."""
    return str(event.get("because") or event.get("log_format") or event.get("log_namespace") or "")


def observer(path: Path = SOCKET) -> Any:
    """Where systemd's journal listens, one that writes there; else one that writes lines to standard output."""
    if not ("JOURNAL_STREAM" in os.environ and path.is_socket()):
        return textFileLogObserver(sys.stdout)
    journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    journal.setblocking(False)

    def send(datagram: bytes) -> None:
        try:
            journal.sendto(datagram, str(path))
        except OSError as error:
            # A full journal must not stop the gateway; a line on standard error is all that there is.
            sys.stderr.write(f"{time.time():.0f} the journal does not take a line: {error}\n")

    return Journald(send, Limit())
