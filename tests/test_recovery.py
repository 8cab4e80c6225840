"""After a crash: former partners are told, lost SPIs noticed; and forged signs of it change nothing (3.2.6, 9.3)."""

from ipaddress import ip_address
from itertools import pairwise

import pytest
from twisted.internet.task import Clock

from oesvc.ike.datagram import Datagram, Endpoint
from oesvc.ike.v1.constants import ExchangeType, NotifyType, PayloadType, Protocol
from oesvc.ike.v1.wire.header import Header
from oesvc.ike.v1.wire.message import seal_clear
from oesvc.ike.v1.wire.payloads import Notification, Payload
from oesvc.ipsec.flow import Flow
from oesvc.oe.machine import State
from oesvc.partners import Partner, PartnerFile, Partners
from oesvc.recovery import MOST_STRANGERS, PACE, SPACING, Recovery
from tests.oe.parts import ALICE, FLOW, SG_A, SG_B
from tests.pair import Pair
from tests.test_two_gateways import BACK, THERE, keyed_pair, state

ENDS = Flow(SG_B, SG_A)
"Of ESP that comes from SG-B."


class World:
    """What Recovery asks for, in a diary."""

    def __init__(self, partners=None):
        self.clock, self.diary, self.partners = Clock(), [], partners or Partners()
        self.recovery = Recovery(self.partners, self.clock,
                                 key=lambda flow, why: self.diary.append(("key", self.clock.seconds(), flow)),
                                 disown=lambda *told: self.diary.append(("disown", self.clock.seconds(), *told)))

    def keyed(self):
        return [entry[2] for entry in self.diary if entry[0] == "key"]

    def disowned(self):
        return [entry[2:] for entry in self.diary if entry[0] == "disown"]

    def run(self, seconds):
        self.clock.pump([PACE / 2] * round(2 * seconds / PACE))


def partner(number):
    return Partner(ip_address(0xC6336400 + number), Flow(ALICE, ip_address(0xCB007100 + number)))


def test_former_partners_are_keyed_with_one_after_the_other():
    world = World()
    former = [partner(number) for number in range(50)]
    world.recovery.greet(former)
    assert world.diary == []
    world.run(10)
    assert world.keyed() == [each.flow for each in former]
    times = [when for _, when, _ in world.diary]
    assert all(after - before >= PACE * 0.99 for before, after in pairwise(times))


def test_a_former_partner_that_is_back_already_is_left_alone_and_one_that_sends_comes_first():
    world = World()
    former = [partner(number) for number in range(10)]
    world.recovery.greet(former)
    world.run(PACE)
    world.partners.connected(1, former[5].gateway, former[5].flow)
    world.recovery.unknown_spi(Flow(former[8].gateway, SG_A), 0x1234)
    world.run(10)
    rest = [each.flow for number, each in enumerate(former) if number not in (5, 8)]
    before = len(world.keyed()) - len(rest) and world.keyed().index(former[8].flow)
    assert world.keyed() == [*rest[:before], former[8].flow, *rest[before:]]
    assert before <= 3
    assert world.disowned() == []


@pytest.mark.conformance("C-3.2.6-07")
def test_an_unknown_spi_of_a_known_gateway_makes_one_attempt_and_is_told_to_it():
    world = World()
    world.partners.connected(1, SG_B, FLOW)
    world.recovery.unknown_spi(ENDS, 0x1234)
    world.run(5)
    assert (world.keyed(), world.disowned()) == ([FLOW], [(SG_A, SG_B, 0x1234, None)])


@pytest.mark.conformance("C-3.2.6-09")
def test_a_thousand_signs_in_a_minute_make_one_attempt_with_a_gateway_and_the_next_minute_another():
    world = World()
    world.partners.connected(1, SG_B, FLOW)
    for _ in range(2):
        for number in range(500):
            world.recovery.unknown_spi(ENDS, 0x1000 + number)
            world.recovery.spi_refused(SG_B, FLOW, "the peer says so")
            world.clock.advance(SPACING / 1100)
        world.run(1)
    assert (len(world.keyed()), len(world.disowned())) == (1, 1)
    world.run(SPACING)
    world.recovery.spi_refused(SG_B, FLOW, "the peer says so")
    world.run(1)
    assert len(world.keyed()) == 2


@pytest.mark.conformance("C-3.2.6-09")
def test_strangers_are_told_of_an_unknown_spi_once_a_minute_and_only_so_many():
    world = World()
    for number in range(1000):
        for _ in range(2):
            world.recovery.unknown_spi(Flow(ip_address(0xC6336400 + number), SG_A), 0x1000)
    assert len(world.disowned()) == len(set(world.disowned())) == MOST_STRANGERS
    world.run(SPACING + 1)
    world.recovery.unknown_spi(ENDS, 0x1000)
    assert len(world.disowned()) == MOST_STRANGERS + 1
    assert world.keyed() == []


def test_those_behind_one_nat_are_told_each_for_itself_and_never_called():
    world = World()
    world.partners.connected(1, SG_B, FLOW)
    for _ in range(5):
        for port in (4500, 61234):
            world.recovery.unknown_spi(ENDS, 0x1000, port)
    world.run(5)
    assert world.disowned() == [(SG_A, SG_B, 0x1000, 4500), (SG_A, SG_B, 0x1000, 61234)]
    assert world.keyed() == []


def test_signs_about_many_gateways_at_once_are_worked_off_at_the_same_pace():
    world = World()
    for number in range(100):
        world.partners.connected(number, partner(number).gateway, partner(number).flow)
        world.recovery.unknown_spi(Flow(partner(number).gateway, SG_A), 0x1000)
    world.run(1.0)
    assert len(world.keyed()) <= 1 + 1.0 / PACE
    world.run(100 * PACE)
    assert len(world.keyed()) == 100


def test_a_former_partner_that_does_not_answer_is_not_called_again_after_the_next_crash(tmp_path):
    found = []
    for run in range(3):
        partners = Partners(PartnerFile(tmp_path / "partners"))
        world = World(partners)
        partners.restore().addCallback(found.append)
        if run == 0:
            partners.connected(1, SG_B, FLOW)
        world.recovery.greet(found[run])
        world.run(1)
    assert found == [[], [Partner(SG_B, FLOW)], []]


def test_for_a_host_that_is_ours_no_longer_nobody_is_called():
    pair = Pair()
    pair.a.daemon.recovery.greet([Partner(SG_B, Flow(SG_B, SG_A))])
    pair.run(1.0)
    assert pair.wire.sent == []


# Whole gateways


def outbound_spis(gateway):
    """By which a gateway has sent to the other so far, the oldest first."""
    tunnels = gateway.daemon.tunnels
    return [sa.spi for number in range(1, 50) if (tunnel := tunnels.get(number)) for sa in tunnel.outbound]


@pytest.mark.conformance("C-9.3-08", "C-9.3-02")
def test_after_a_crash_the_former_partner_hears_of_it_and_keys_are_new_at_once(tmp_path):
    """SG-B had only responded; now it begins, with nothing of Bob's to send."""
    pair = Pair()
    file = tmp_path / "partners"
    pair.reboot_b(Partners(PartnerFile(file))).daemon.partners.restore()
    pair.a.daemon.acquired(THERE)
    pair.run(1.0)
    before = outbound_spis(pair.a)
    partners = Partners(PartnerFile(file))
    again = pair.reboot_b(partners)
    partners.restore().addCallback(again.daemon.recovery.greet)
    pair.run(2.0)
    assert (state(pair.a, THERE), state(pair.b, BACK)) == (State.KEYED, State.KEYED)
    assert len(pair.a.daemon.tunnels) == 1, "INITIAL-CONTACT ends the former one at once, not after its grace"
    assert pair.a.policies()[-2:] == ["hold", "encrypt"]
    assert outbound_spis(pair.a) and not set(before) & set(outbound_spis(pair.a))
    assert "pass-through" not in pair.a.policies() + pair.b.policies()


@pytest.mark.conformance("C-3.2.6-08", "C-9.3-02")
@pytest.mark.parametrize("surviving_began", [True, False])
def test_a_partner_that_has_forgotten_us_and_gets_our_esp_makes_us_key_anew(surviving_began):
    """Without any list. What SG-B says is in clear, and no more than a hint; a mere responder asks the DNS then."""
    pair = Pair()
    beginner, flow = (pair.a, THERE) if surviving_began else (pair.b, BACK)
    beginner.daemon.acquired(flow)
    pair.run(1.0)
    lost = outbound_spis(pair.a)
    again = pair.reboot_b()
    pair.run(1.0)
    again.daemon.recovery.unknown_spi(Flow(SG_A, SG_B), lost[-1])
    pair.run(9.0)
    assert (state(pair.a, THERE), state(pair.b, BACK)) == (State.KEYED, State.KEYED)
    pair.run(15.0)
    assert outbound_spis(pair.a) and not set(lost) & set(outbound_spis(pair.a))
    assert pair.a.policies() in (["hold", "encrypt"], ["hold", "encrypt", "hold", "encrypt"],
                                 ["hold", "encrypt", "encrypt"])


def invalid_spi(spi, cookies=(b"any cook", bytes(8)), source=SG_B):
    """What anybody can send."""
    header = Header(*cookies, 0, ExchangeType.INFORMATIONAL, 0, 0x1234)
    hint = Notification(Protocol.ESP, NotifyType.INVALID_SPI, spi.to_bytes(4, "big"))
    data = seal_clear(header, [Payload(PayloadType.NOTIFICATION, hint.pack())])
    return Datagram(data, Endpoint(SG_A, 500), Endpoint(source, 500))


@pytest.mark.conformance("C-3.2.6-08", "C-3.2.6-09")
def test_a_thousand_forged_notifies_in_a_minute_make_one_rekey_and_tear_nothing_down():
    pair = keyed_pair()
    before = len(pair.wire.sent)
    (spi,) = outbound_spis(pair.a)
    for _ in range(1000):
        pair.a.daemon.receive_datagram(invalid_spi(spi))
        pair.run(0.05)
    messages = len(pair.wire.sent) - before
    assert 3 <= messages <= 3 + 2 * 3, "one quick mode, and the delete of the former tunnel"
    assert (state(pair.a, THERE), state(pair.b, BACK)) == (State.KEYED, State.KEYED)
    assert set(pair.a.policies()) == {"hold", "encrypt"} and pair.a.policies().count("hold") == 1


@pytest.mark.conformance("C-3.2.6-09")
@pytest.mark.parametrize("wrong", [
    lambda spi: invalid_spi(spi ^ 1), lambda spi: invalid_spi(spi, source=ip_address("192.0.2.9")),
    lambda spi: invalid_spi(spi, (b"any cook", b"another!"), ip_address("192.0.2.9"))])
def test_a_notify_about_no_spi_of_ours_is_nothing(wrong):
    pair = keyed_pair()
    before = len(pair.wire.sent)
    pair.a.daemon.receive_datagram(wrong(outbound_spis(pair.a)[0]))
    pair.run(5.0)
    assert len(pair.wire.sent) == before


def test_nobody_disowns_an_spi_that_it_has():
    pair = keyed_pair()
    before = len(pair.wire.sent)
    pair.b.daemon.keying.disown(SG_B, SG_A, outbound_spis(pair.a)[0], None)
    pair.run(1.0)
    assert len(pair.wire.sent) == before
