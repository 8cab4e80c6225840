"""Eight hours of a simulated clock: signatures expire and are renewed, keys roll over, a zone becomes unsigned.

BIND's tools sign at simulated dates, nsd serves; one resolver with its caches looks up every five minutes. All TTLs are
ten minutes, each stage of a roll-over lasts fifteen, as RFC 6781 section 4.1 wants.
"""

import signal
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from twisted.internet import reactor

from oesvc.dns.anchors import group_anchors, parse_anchors
from oesvc.dns.answer import AnswerKind, SecurityStatus
from oesvc.dns.name import name_text, parse_name
from oesvc.dns.records import RecordType, parse_soa, parse_txt
from oesvc.dns.resolver import DnsConfig, ValidatingResolver
from oesvc.dns.wire import parse_message
from tests.dns.conftest import AUTHORITY, await_result, start, unused, wait_until_answering
from tests.dns.raw import ask
from tests.zones import ZoneTree, nsd_conf, run

SECURE, INSECURE, BOGUS, INDETERMINATE = SecurityStatus
BEGIN = 1_900_000_000
MINUTE, HOUR = 60, 3600
STAGE, LOOK, TTL = 15 * MINUTE, 5 * MINUTE, 10 * MINUTE
VALIDITY, RENEWAL = 50 * MINUTE, 30 * MINUTE
P256, P384, ED25519 = "ECDSAP256SHA256", "ECDSAP384SHA384", "ED25519"
QUESTIONS = (("host", AnswerKind.DATA), ("x.wild", AnswerKind.DATA), ("none", AnswerKind.NXDOMAIN))


@dataclass
class Keys:
    """What one stage of a zone's life publishes, signs with and delegates to: labels of keys."""

    published: tuple[str, ...]
    signing: tuple[str, ...] = ()
    delegated: tuple[str, ...] = ()
    allowed: tuple[SecurityStatus, ...] = (SECURE,)


def plain(*labels):
    """One key that is everything, or several."""
    return Keys(labels, labels, labels)


@dataclass
class Zone:
    name: str
    stages: dict[int, Keys]
    "From which stage on."
    sleeps: range = range(0)
    "Stages in which nobody renews its signatures."
    made: dict[str, str] = field(default_factory=dict)
    expires: int = 0
    serial: int = 0
    was: Keys | None = None

    def keys(self, stage):
        return self.stages[max(begin for begin in self.stages if begin <= stage)]


ZONES = (
    Zone(".", {0: plain(f"k {P256}")}),
    Zone("arpa.", {0: plain(f"a {P256}")}),
    # pre-publish of the key that signs data (RFC 6781 section 4.1.1.1): published, signing, the old one gone
    Zone("in-addr.arpa.", {0: Keys((f"k {P256}", f"z {P256}"), (f"k {P256}", f"z {P256}"), (f"k {P256}",)),
                           3: Keys((f"k {P256}", f"z {P256}", f"y {P256}"), (f"k {P256}", f"z {P256}"), (f"k {P256}",)),
                           4: Keys((f"k {P256}", f"z {P256}", f"y {P256}"), (f"k {P256}", f"y {P256}"), (f"k {P256}",)),
                           6: Keys((f"k {P256}", f"y {P256}"), (f"k {P256}", f"y {P256}"), (f"k {P256}",))}),
    # double signature (4.1.2): both keys, then the DS exchanged, then the old key gone; twice
    Zone("1.in-addr.arpa.", {0: plain(f"a {P256}"),
                             5: Keys((f"a {P256}", f"b {P256}"), (f"a {P256}", f"b {P256}"), (f"a {P256}",)),
                             7: Keys((f"a {P256}", f"b {P256}"), (f"a {P256}", f"b {P256}"), (f"b {P256}",)),
                             9: plain(f"b {P256}"),
                             20: plain(f"b {P256}", f"c {P256}"),
                             22: plain(f"c {P256}")}),
    # algorithm roll-over (4.1.4), twice
    Zone("2.in-addr.arpa.", {0: plain(f"a {P256}"),
                             8: Keys((f"a {P256}", f"b {ED25519}"), (f"a {P256}", f"b {ED25519}"), (f"a {P256}",)),
                             10: Keys((f"a {P256}", f"b {ED25519}"), (f"a {P256}", f"b {ED25519}"), (f"b {ED25519}",)),
                             12: plain(f"b {ED25519}"),
                             18: plain(f"b {ED25519}", f"c {P384}"),
                             21: plain(f"c {P384}")}),
    # nobody renews its signatures for two hours
    Zone("3.in-addr.arpa.", {0: plain(f"a {P256}")}, sleeps=range(11, 19)),
    # becomes unsigned (the DS first), and signed again (the DS last)
    Zone("4.in-addr.arpa.", {0: plain(f"a {P256}"),
                             6: Keys((f"a {P256}",), (f"a {P256}",), (), (SECURE, INSECURE)),
                             8: Keys((), (), (), (INSECURE,)),
                             16: Keys((f"b {P256}",), (f"b {P256}",), (), (INSECURE,)),
                             18: Keys((f"b {P256}",), (f"b {P256}",), (f"b {P256}",), (SECURE, INSECURE)),
                             20: plain(f"b {P256}")}),
)


class World:
    """The zones' files on a simulated clock, and the nsd that serves them."""

    def __init__(self, directory):
        self.directory, self.endpoint = directory, unused(AUTHORITY)
        self.tree = ZoneTree("", {zone.name: directory / f"{i}.signed" for i, zone in enumerate(ZONES)})
        self.advance(0)
        self.nsd = start(directory, "nsd", nsd_conf(directory, self.tree, [self.endpoint]))
        wait_until_answering(self.nsd, self.endpoint)

    def advance(self, stage):
        """Sign what is due, the children first; a new DS makes the parent due."""
        now, due = BEGIN + stage * STAGE, set()
        for zone in reversed(ZONES):
            keys = zone.keys(stage)
            asleep = stage in zone.sleeps
            if (zone.name in due or keys != zone.was or now + VALIDITY - RENEWAL >= zone.expires) and not asleep:
                if zone.was is None or keys.delegated != zone.was.delegated:
                    due.add(parent(zone.name))
                self.sign(zone, keys, now)

    def serve(self):
        """Have nsd read the files again, and wait until it has."""
        self.nsd.send_signal(signal.SIGHUP)
        for zone in ZONES:
            for _ in range(500):
                soa = parse_message(ask(self.endpoint, parse_name(zone.name), RecordType.SOA))
                if parse_soa(soa.find(parse_name(zone.name), RecordType.SOA).rdatas[0]).serial == zone.serial:
                    break
                time.sleep(0.01)
            else:
                raise AssertionError(f"nsd does not serve the new {zone.name}")

    def sign(self, zone, keys, now):
        zone.serial, zone.was, zone.expires = zone.serial + 1, keys, now + VALIDITY
        lines = [f"$ORIGIN {zone.name}", f"$TTL {TTL}", f"@ SOA ns.test. host.test. {zone.serial} 60 60 86400 {TTL}",
                 "@ NS ns.test.", f'host TXT "{zone.serial}"', f'*.wild TXT "{zone.serial}"',
                 *(self.delegation(child) for child in ZONES if child.name != "." and parent(child.name) == zone.name),
                 *((self.directory / f"{self.key(zone, label)}.key").read_text() for label in keys.published)]
        plain_file, signed = self.directory / "plain", self.tree.files[zone.name]
        plain_file.write_text("\n".join(lines) + "\n")
        if not keys.signing:
            signed.write_text(plain_file.read_text())
            return
        ksks = [word for label in keys.signing if not label.startswith(("z", "y"))
                for word in ("-k", self.key(zone, label))]
        zsks = [self.key(zone, label) for label in keys.signing if label.startswith(("z", "y"))]
        run(self.directory, "dnssec-signzone", "-q", "-P", "-z", "-O", "full", "-K", ".", "-o", zone.name,
            "-s", date(now - 5 * MINUTE), "-e", date(zone.expires), "-f", str(signed), *ksks, "plain", *zsks)

    def delegation(self, child):
        labels = child.was.delegated if child.was else ()
        signers = [run(self.directory, "dnssec-dsfromkey", "-2", self.key(child, label)).strip() for label in labels]
        return "\n".join([f"{child.name} NS ns.test.", *signers])

    def key(self, zone, label):
        if label not in zone.made:
            algorithm = label.split()[1]
            entry = [] if label.startswith(("z", "y")) else ["-f", "KSK"]
            zone.made[label] = run(self.directory, "dnssec-keygen", "-q", "-K", ".", "-a", algorithm, *entry,
                                   zone.name).strip()
        return zone.made[label]

    def anchors(self):
        root = ZONES[0]
        ds = run(self.directory, "dnssec-dsfromkey", "-2", self.key(root, root.was.delegated[0]))
        return group_anchors(parse_anchors(ds, "root"))


def parent(name):
    """The nearest zone of ours above a name."""
    above = name.partition(".")[2] or "."
    return above if any(zone.name == above for zone in ZONES) else parent(above)


def date(moment):
    return datetime.fromtimestamp(moment, UTC).strftime("%Y%m%d%H%M%S")


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.nsd.terminate()
    made.nsd.wait(10)


@pytest.mark.conformance("C-3.2.7-04", "C-2.3.3-05")
def test_eight_hours_of_expiry_renewal_and_roll_over_without_a_wrong_verdict(world):
    now = float(BEGIN)
    resolver = ValidatingResolver(DnsConfig((world.endpoint,), world.anchors()), reactor, clock=lambda: now)
    seen, looked_up = {zone.name: [] for zone in ZONES}, 0
    for stage in range(8 * HOUR // STAGE):
        changed = BEGIN + stage * STAGE
        world.advance(stage)
        if stage:
            world.serve()
        for now in range(BEGIN + stage * STAGE + 1, BEGIN + (stage + 1) * STAGE, LOOK):
            for zone in ZONES:
                for label, kind in QUESTIONS:
                    name = parse_name(f"{label}.{zone.name}".rstrip("."))
                    answer = await_result(resolver.look_up(name, RecordType.TXT))
                    looked_up += 1
                    where = f"{name_text(name)} at {(now - BEGIN) / HOUR:.2f} h: {answer}"
                    assert answer.status in expected_of(zone, stage, now), where
                    if answer.status is not BOGUS:
                        seen[zone.name].append(answer.status)
                        assert answer.kind is kind and now < answer.expires <= now + TTL, where
                        assert answer.status is INSECURE or answer.expires <= zone.expires, where
                        serials = [int(parse_txt(rdata)) for rdata in answer.rdatas]
                        assert serials in ([], [zone.serial]) or now < changed + TTL, where
    await_result(resolver.close())
    assert looked_up == 8 * 12 * len(ZONES) * 3
    assert {name for name, statuses in seen.items() if INSECURE in statuses} == {"4.in-addr.arpa."}
    assert [len(statuses) for name, statuses in seen.items() if name != "3.in-addr.arpa."] == [8 * 12 * 3] * 6
    assert 200 < len(seen["3.in-addr.arpa."]) < 280, "without signatures it was bogus for some of the time"


def expected_of(zone, stage, now):
    """Nothing outlives its signature; where a DS has come or gone, both are true until its TTL is over."""
    if now > zone.expires:
        return (BOGUS,)
    return zone.keys(stage).allowed
