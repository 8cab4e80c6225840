"""Keeps the trust anchors up to date while the daemon runs: RFC 5011's active refresh, and its file."""

from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks
from twisted.logger import Logger
from twisted.python.failure import Failure

from oesvc.dns.anchor_file import read_points, write_points
from oesvc.dns.anchors import TrustAnchor
from oesvc.dns.answer import Name
from oesvc.dns.failures import Bogus, Indeterminate, MalformedData
from oesvc.dns.name import name_text
from oesvc.dns.records import RecordType
from oesvc.dns.rollover import (
    HOUR,
    KnownKey,
    TrustPoint,
    follow,
    note_revocations,
    refresh_interval,
    resume,
    retry_interval,
)
from oesvc.dns.wire import Message, RRset

FILE_NAME = "trust-anchors"
"In the state directory."


class AnchorKeeper:
    """The trust anchors in force: the configured ones, and what has become of them since."""

    log = Logger()

    def __init__(self, file: Path, configured: Sequence[TrustAnchor], clock_skew: int = 0) -> None:
        """Raises AnchorError when the file cannot be read."""
        self._file, self._clock_skew = file, clock_skew
        self._configured = {anchor.zone: anchor for anchor in configured}
        # Of a zone that is not configured now the revoked keys are not forgotten either.
        self._points = read_points(file) if configured else {}
        self._points |= {zone: resume(self._points.get(zone), anchor) for zone, anchor in self._configured.items()}
        self._timers: dict[Name, Any] = {}
        self._closed = False

    @property
    def anchors(self) -> tuple[TrustAnchor, ...]:
        """What is trusted now, for DnsConfig and `ValidatingResolver.trust`."""
        return tuple(self._points[zone].anchor(configured) for zone, configured in self._configured.items())

    @property
    def points(self) -> tuple[TrustPoint, ...]:
        """The state of every key, for people."""
        return tuple(self._points[zone] for zone in self._configured)

    def start(self, fetch_keys: Callable[[Name], "Deferred[Message]"],
              trust: Callable[[Sequence[TrustAnchor]], None], reactor: Any,
              clock: Callable[[], float]) -> "Deferred[Any]":
        """Ask for the keys now, and again when RFC 5011 section 2.3 says; fires when all were asked for once.

        `fetch_keys` and `trust` are the resolver's: past all caches of ours, and told when the anchors have changed.
        """
        self._fetch_keys, self._trust, self._reactor, self._clock = fetch_keys, trust, reactor, clock
        return gatherResults([self._refresh(zone) for zone in self._configured])

    def close(self) -> None:
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _refresh(self, zone: Name) -> "Deferred[None]":
        self._timers.pop(zone, None)
        asked: Deferred[int] = self._ask(zone)
        return asked.addErrback(self._our_error).addCallback(self._wait, zone)

    @inlineCallbacks
    def _ask(self, zone: Name) -> Generator[Any, Any, int]:
        """Ask for the keys and follow them; returns in how many seconds to ask again."""
        try:
            message: Message = yield self._fetch_keys(zone)
        except Indeterminate as failure:
            return self._refused(zone, str(failure), None)
        rrset = message.find(zone, RecordType.DNSKEY)
        if rrset is None:
            return self._refused(zone, "there are no keys in the answer", None)
        if self._closed:
            return HOUR
        now, before = int(self._clock()), self._points[zone]
        refusal = self._take_in(zone, rrset, now)
        if self._points[zone] != before:
            self._changed(before, self._points[zone])
        return self._refused(zone, refusal, rrset) if refusal else refresh_interval(rrset, now)

    def _refused(self, zone: Name, why: str, rrset: RRset | None) -> int:
        self.log.warn("the trust anchor of {zone} is not refreshed: {why}", zone=name_text(zone), why=why)
        return retry_interval(rrset, int(self._clock()))

    def _our_error(self, failure: Failure) -> int:
        self.log.failure("refreshing trust anchors", failure)
        return HOUR

    def _wait(self, seconds: int, zone: Name) -> None:
        if not self._closed:
            self._timers[zone] = self._reactor.callLater(seconds, self._refresh, zone)

    def _take_in(self, zone: Name, rrset: RRset, now: int) -> str:
        """What the zone's keys change; returns why they cannot be believed."""
        configured = self._configured[zone]
        try:
            self._points[zone] = note_revocations(self._points[zone], configured, rrset, now, self._clock_skew)
            self._points[zone] = follow(self._points[zone], configured, rrset, now, self._clock_skew)
        except (Bogus, Indeterminate, MalformedData) as failure:
            return str(failure)
        return ""

    def _changed(self, before: TrustPoint, after: TrustPoint) -> None:
        """First onto the disk, then into use. A disk that fails keeps nobody from forgetting a revoked key."""
        try:
            write_points(self._file, self._points.values())
        except OSError as error:
            self.log.error("the trust anchors cannot be kept in {file}: {error}", file=self._file, error=error)
        self._tell(before, after)
        configured = self._configured[after.zone]
        if before.anchor(configured) != after.anchor(configured):
            self._trust(self.anchors)

    def _tell(self, before: TrustPoint, after: TrustPoint) -> None:
        states: dict[Any, KnownKey] = {one.key: one for one in before.keys}
        for one in after.keys:
            if one.key not in states or states[one.key].state is not one.state:
                self.log.info("trust anchor of {zone}: key {tag} is {state} now", zone=name_text(after.zone),
                              tag=one.key.tag, state=one.state.value)
