"""RFC 5011: what a zone's keys do to its trust point, over months of a clock that the test holds."""

import dataclasses
import time

import pytest
from twisted.internet import reactor
from twisted.internet.defer import fail, succeed
from twisted.internet.task import Clock

from oesvc.dns.anchor_file import read_points
from oesvc.dns.anchor_keeper import AnchorKeeper
from oesvc.dns.anchors import AnchorError, TrustAnchor, read_anchors
from oesvc.dns.answer import SecurityStatus
from oesvc.dns.failures import Bogus, Indeterminate
from oesvc.dns.name import parse_name
from oesvc.dns.records import RecordType
from oesvc.dns.resolver import DnsConfig, ValidatingResolver
from oesvc.dns.rollover import (
    DAY,
    HOLD_DOWN,
    HOUR,
    KeyState,
    TrustPoint,
    follow,
    note_revocations,
    refresh_interval,
    resume,
    retry_interval,
)
from oesvc.dns.wire import Message
from tests.dns.conftest import await_result
from tests.dns.raw import judge
from tests.dns.signing import NOW, ZoneKey, dnskeys
from tests.dns.test_signatures import ds_of

PENDING, VALID, MISSING, REVOKED = KeyState
ROOT = ()
KSK = 0x0101


class Zone:
    """A trust point, and the zone whose keys it follows."""

    def __init__(self, *configured):
        self.configured = TrustAnchor(ROOT, keys=tuple(key.dnskey for key in configured))
        self.point = resume(None, self.configured)

    def publishes(self, published, signers, now=NOW):
        rrset = dnskeys(ROOT, published, signers, now)
        self.point = note_revocations(self.point, self.configured, rrset, now, 0)
        self.point = follow(self.point, self.configured, rrset, now, 0)

    def state(self, key):
        return next((one.state for one in self.point.keys if one.key == key.dnskey), None)

    def trusts(self, key):
        return self.point.anchor(self.configured).trusts(key.dnskey)


@pytest.fixture
def old():
    return ZoneKey(KSK)


@pytest.fixture
def new():
    return ZoneKey(KSK)


@pytest.fixture
def zone(old):
    return Zone(old)


def test_a_new_key_is_trusted_only_after_thirty_days(zone, old, new):
    zone.publishes([old, new], [old])
    assert zone.state(new) is PENDING and not zone.trusts(new)
    for days in (1, 15, 29):
        zone.publishes([old, new], [old], NOW + days * DAY)
        assert zone.state(new) is PENDING and not zone.trusts(new)
    zone.publishes([old, new], [old], NOW + HOLD_DOWN - 1)
    assert not zone.trusts(new)
    zone.publishes([old, new], [old], NOW + HOLD_DOWN)
    assert zone.state(new) is VALID and zone.trusts(new) and zone.trusts(old)


def test_a_ttl_longer_than_thirty_days_makes_the_wait_longer(zone, old, new):
    long_lived = dnskeys(ROOT, [old, new], [old], ttl=40 * DAY)
    assert follow(zone.point, zone.configured, long_lived, NOW, 0).keys[-1].trusted_from == NOW + 40 * DAY


def test_a_new_key_that_was_gone_once_waits_anew(zone, old, new):
    zone.publishes([old, new], [old])
    zone.publishes([old], [old], NOW + 20 * DAY)
    assert zone.state(new) is None
    zone.publishes([old, new], [old], NOW + 21 * DAY)
    zone.publishes([old, new], [old], NOW + HOLD_DOWN + DAY)
    assert zone.state(new) is PENDING


def test_a_key_that_is_missing_stays_trusted(zone, old, new):
    zone.publishes([old, new], [old])
    zone.publishes([old, new], [old], NOW + HOLD_DOWN)
    zone.publishes([new], [new], NOW + HOLD_DOWN + DAY)
    assert zone.state(old) is MISSING and zone.trusts(old)
    zone.publishes([old, new], [new], NOW + HOLD_DOWN + 2 * DAY)
    assert zone.state(old) is VALID


def test_a_revoked_key_is_never_trusted_again(zone, old, new):
    zone.publishes([old, new], [old])
    zone.publishes([old, new], [old], NOW + HOLD_DOWN)
    zone.publishes([old.revoked(), new], [old.revoked(), new], NOW + HOLD_DOWN + DAY)
    assert zone.state(old) is REVOKED and not zone.trusts(old) and not zone.trusts(old.revoked())
    for days in (2, 40, 400, 4000):
        zone.publishes([old, new], [old, new], NOW + HOLD_DOWN + days * DAY)
        assert zone.state(old) is REVOKED and not zone.trusts(old), "though it is published and configured again"
    resumed = resume(zone.point, zone.configured)
    assert not resumed.anchor(zone.configured).trusts(old.dnskey)
    by_digest = TrustAnchor(ROOT, delegation=(ds_of(old.dnskey, 2, ROOT),))
    assert by_digest.trusts(old.dnskey) and not zone.point.anchor(by_digest).trusts(old.dnskey)


def test_its_own_signature_alone_revokes_a_key(zone, old):
    rrset = dnskeys(ROOT, [old.revoked()], [old.revoked()])
    zone.point = note_revocations(zone.point, zone.configured, rrset, NOW, 0)
    assert zone.state(old) is REVOKED
    with pytest.raises(Bogus):
        follow(zone.point, zone.configured, rrset, NOW, 0)


@pytest.mark.parametrize("signers", [[], [1], [0, 1]], ids=["none", "another key", "not as revoked"])
def test_nobody_else_revokes_a_key(zone, old, new, signers):
    rrset = dnskeys(ROOT, [old.revoked(), new], [[old, new][one] for one in signers])
    assert note_revocations(zone.point, zone.configured, rrset, NOW, 0) == zone.point
    assert zone.trusts(old)


def test_a_stranger_cannot_fill_the_file_with_keys_that_revoke_themselves(zone, new):
    rrset = dnskeys(ROOT, [new.revoked()], [new.revoked()])
    assert note_revocations(zone.point, zone.configured, rrset, NOW, 0) == zone.point


@pytest.mark.parametrize("signed_by", ["nobody", "the new key", "a pending key"])
def test_what_no_trusted_key_signed_changes_nothing(zone, old, new, signed_by):
    if signed_by == "a pending key":
        zone.publishes([old, new], [old])
    before = zone.point
    with pytest.raises(Bogus):
        zone.publishes([old, new, ZoneKey(KSK)], [] if signed_by == "nobody" else [new], NOW + HOLD_DOWN + DAY)
    assert zone.point == before


def test_only_keys_that_are_entry_points_are_taken_up(zone, old):
    zone.publishes([old, ZoneKey(0x0100), ZoneKey(0x0001), ZoneKey(KSK, protocol=4)], [old])
    assert [one.key for one in zone.point.keys] == [old.dnskey]


def test_a_key_that_the_administrator_vouches_for_need_not_wait(old, new):
    zone = Zone(old)
    zone.publishes([old, new], [old])
    zone.configured = TrustAnchor(ROOT, keys=(old.dnskey,), delegation=(ds_of(new.dnskey, 2, ROOT),))
    zone.publishes([old, new], [new], NOW + DAY)
    assert zone.state(new) is VALID


def test_another_anchor_in_the_configuration_begins_anew_but_forgives_nothing(zone, old, new):
    third = ZoneKey(KSK)
    zone.publishes([old, new], [old])
    revoking = dnskeys(ROOT, [old.revoked()], [old.revoked()])
    zone.point = note_revocations(zone.point, zone.configured, revoking, NOW, 0)
    resumed = resume(zone.point, TrustAnchor(ROOT, keys=(third.dnskey,)))
    assert [(one.key, one.state) for one in resumed.keys] == [(old.dnskey, REVOKED)]


def test_intervals_are_those_of_the_rfc(old):
    def intervals(ttl):
        rrset = dnskeys(ROOT, [old], [old], ttl=ttl)
        return refresh_interval(rrset, NOW), retry_interval(rrset, NOW)

    assert intervals(2 * DAY) == (DAY, 17280)
    assert intervals(60) == (HOUR, HOUR)
    assert intervals(60 * DAY) == (5 * DAY, DAY), "half and a tenth of what the signature has left"
    assert retry_interval(None, NOW) == HOUR


class Daemon:
    """A keeper on a clock of its own, and what it asks and tells; a restart begins with the file."""

    def __init__(self, file, *configured):
        self.file, self.configured = file, [TrustAnchor(ROOT, keys=tuple(key.dnskey for key in configured))]
        self.clock, self.answer, self.diary = Clock(), None, []
        self.clock.advance(NOW)
        self.restart()

    def restart(self):
        self.keeper = AnchorKeeper(self.file, self.configured)
        self.trusted = self.keeper.anchors

    def start(self):
        return self.keeper.start(self.fetch_keys, self.trust, self.clock, self.clock.seconds)

    def fetch_keys(self, zone):
        self.diary.append(int(self.clock.seconds()) - NOW)
        if self.answer is None:
            return fail(Indeterminate("silence"))
        rrset = dnskeys(zone, *self.answer, now=int(self.clock.seconds()), ttl=DAY)
        return succeed(Message(7, 0, 0, (rrset,), ()))

    def trust(self, anchors):
        self.trusted = anchors

    def wait(self, days):
        for _ in range(days * 24):
            self.clock.advance(HOUR)

    def verdict_under(self, key):
        now = int(self.clock.seconds())
        name = (b"x",)
        signed = key.sign(name, RecordType.TXT, (b"\1x",), ROOT, inception=now - 60, expiration=now + 60)
        messages = {RecordType.TXT: signed, RecordType.DNSKEY: dnskeys(ROOT, *self.answer, now=now)}
        return judge(lambda _, rdtype: succeed(Message(7, 0, 0, (messages[rdtype],), ())), self.trusted, name,
                     now).status


def test_a_roll_over_of_the_root_is_lived_through_with_restarts_in_every_stage(tmp_path, old, new):
    secure, bogus = SecurityStatus.SECURE, SecurityStatus.BOGUS
    daemon = Daemon(tmp_path / "state" / "trust-anchors", old)
    stages = [  # published, signed by, days, what a chain under the old and the new key comes to
        ([old], [old], 3, secure), ([old, new], [old], 29, secure), ([old, new], [old, new], 2, secure),
        ([old, new], [new], 5, secure), ([old.revoked(), new], [old.revoked(), new], 30, secure),
        ([new], [new], 30, secure),
        ([old], [old], 3, bogus)]
    for published, signers, days, verdict in stages:
        daemon.answer = published, signers
        daemon.start()
        daemon.wait(days)
        assert daemon.verdict_under(signers[-1]) is verdict
        daemon.keeper.close()
        daemon.restart()
        assert daemon.verdict_under(signers[-1]) is verdict
    told = [line.split() for line in daemon.file.read_text().splitlines() if line.startswith("key")]
    assert [(words[2], words[4][:10], int(words[-1])) for words in told] == [
        ("valid", "2027-02-17", new.dnskey.tag), ("revoked", "2027-02-23", old.dnskey.tag)]


def test_the_keys_are_asked_for_again_at_the_rfcs_intervals_and_sooner_after_silence(tmp_path, old):
    daemon = Daemon(tmp_path / "trust-anchors", old)
    daemon.start()
    daemon.wait(1)
    assert daemon.diary == [hours * HOUR for hours in range(25)]
    daemon.answer = [old], [old]
    daemon.keeper.close()
    daemon.wait(1)
    assert len(daemon.diary) == 25, "closed"


def test_a_full_disk_keeps_nobody_from_forgetting_a_revoked_key(tmp_path, old, new):
    daemon = Daemon(tmp_path / "trust-anchors", old, new)
    (tmp_path / "trust-anchors").mkdir()
    daemon.answer = [old.revoked(), new], [old.revoked(), new]
    daemon.start()
    anchor, = daemon.trusted
    assert not anchor.trusts(old.dnskey) and anchor.trusts(new.dnskey)


def test_when_every_anchor_is_revoked_nothing_can_be_said(tmp_path, old):
    daemon = Daemon(tmp_path / "trust-anchors", old)
    daemon.answer = [old.revoked()], [old.revoked()]
    daemon.start()
    assert daemon.verdict_under(old) is SecurityStatus.INDETERMINATE


def test_keys_with_the_tag_of_an_anchor_are_not_the_anchor(zone, old):
    rdata = old.dnskey.rdata
    impostor = dataclasses.replace(old.dnskey, rdata=rdata[:4] + rdata[6:] + rdata[4:6])
    assert impostor.tag == old.dnskey.tag and not zone.point.anchor(zone.configured).trusts(impostor)


def test_a_file_that_cannot_be_read_stops_the_start_with_a_reason(tmp_path, old):
    file = tmp_path / "trust-anchors"
    file.write_bytes(b"\xff")
    with pytest.raises(AnchorError, match="remove it to begin anew"):
        AnchorKeeper(file, [TrustAnchor(ROOT, keys=(old.dnskey,))])


def test_without_a_file_the_configured_anchors_are_what_is_trusted(tmp_path, old):
    keeper = AnchorKeeper(tmp_path / "trust-anchors", [TrustAnchor(ROOT, keys=(old.dnskey,))])
    assert keeper.anchors == (TrustAnchor(ROOT, keys=(old.dnskey,)),) and keeper.points == (TrustPoint(ROOT),)


def test_the_keeper_asks_the_resolver_and_the_resolver_follows_it(servers, tmp_path, old):
    configured, made = read_anchors([servers.anchor]), []
    keeper = AnchorKeeper(tmp_path / "trust-anchors", configured)
    resolver = ValidatingResolver(DnsConfig((servers.plain,), keeper.anchors), reactor)
    await_result(keeper.start(resolver.fetch_keys, lambda anchors: made.append(resolver.trust(anchors)), reactor,
                              time.time))
    (root,) = keeper.points
    assert [one.state for one in root.keys] == [VALID] and configured[0].trusts(root.keys[0].key)
    assert read_points(tmp_path / "trust-anchors") == {ROOT: root}
    name = parse_name("1.2.192.in-addr.arpa")
    assert len(made) == 1 and await_result(resolver.look_up(name, RecordType.TXT)).status is SecurityStatus.SECURE
    under_way = resolver.look_up(name, RecordType.KEY)
    resolver.trust((TrustAnchor(ROOT, keys=(old.dnskey,)),))
    await_result(under_way)
    for rdtype in (RecordType.TXT, RecordType.KEY):
        assert await_result(resolver.look_up(name, rdtype)).status is SecurityStatus.BOGUS, "nothing is remembered"
    keeper.close()
    await_result(resolver.close())
