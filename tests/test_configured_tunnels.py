"""Configured tunnels between two whole gateways (kernel, DNS and clock are fakes), and beside opportunistic ones."""

from ipaddress import ip_network
from itertools import pairwise

import pytest

from oesvc.config_tunnels import ConfiguredPeer
from oesvc.daemon import GRACE
from oesvc.dns.answer import SecurityStatus
from oesvc.ike.identity import AddressIdentity, FqdnIdentity
from oesvc.ipsec.flow import Flow
from oesvc.ipsec.subnets import Subnets
from oesvc.keys.key_pair import public_key
from oesvc.oe.configured import ConfiguredTunnel, Start, TunnelState
from oesvc.oe.connection import Connection
from oesvc.oe.machine import State
from oesvc.oe.reasons import Because
from oesvc.operator import report
from oesvc.operator.trust import CONFIGURED, LEVELS, trust
from oesvc.partners import PartnerFile
from tests.oe.parts import ALICE, BOB, PERMISSIVE, SG_A, SG_B
from tests.pair import Pair, private_key

NET_A, NET_B = ip_network("10.1.0.0/16"), ip_network("10.2.0.0/16")
THERE = Subnets.between(NET_A, NET_B)
KEYS = {name: (public_key(private_key(name)),) for name in "abx"}


def peer(of, start=Start.ON_DEMAND, subnets=(THERE,), **changes):
    """The section of gateway `of`, "a" or "b", about the other one; `subnets` are as SG-A sees them."""
    other, address = ("b", SG_B) if of == "a" else ("a", SG_A)
    values = {"name": "london", "place": "oegw.conf:9", "number": 1, "address": address,
              "identity": AddressIdentity(address), "keys": KEYS[other], "start": start,
              "subnets": tuple(subnets if of == "a" else (each.reversed() for each in subnets))}
    return ConfiguredPeer(**values | changes)


def pair_of(a=None, b=None, run=0.0, **options):
    pair = Pair(tunnels_a=(a or peer("a"),), tunnels_b=(b or peer("b"),), **options)
    for gateway in (pair.a, pair.b):
        gateway.daemon.begin_configured()
    pair.run(run)
    return pair


def begin(pair, seconds=1.0):
    """A datagram for the tunnel has met the block."""
    pair.a.daemon.acquired(THERE)
    pair.run(seconds)


def tunnel(gateway):
    (one,) = gateway.daemon.connections.configured.values()
    return one


def states(pair):
    return tunnel(pair.a).state, tunnel(pair.b).state


def installed(gateway):
    """SAs by the selectors that they have: those added and not removed."""
    spis = [spi for entry in gateway.diary if entry[0] == "add" for spi in entry[2]]
    gone = [spi for entry in gateway.diary if entry[0] == "remove" for spi in entry[2]]
    return set(spis) - set(gone)


UP, DOWN = TunnelState.UP, TunnelState.DOWN


@pytest.mark.conformance("C-4.2-01")
def test_a_datagram_begins_the_tunnel_and_its_networks_are_what_the_sas_are_for():
    pair = pair_of()
    assert states(pair) == (DOWN, DOWN) and not pair.wire.sent
    begin(pair)
    assert states(pair) == (UP, UP)
    (record,) = pair.a.daemon.tunnels
    assert {str(sa.flow) for sa in record.sas} == {"10.1.0.0/16 -> 10.2.0.0/16", "10.2.0.0/16 -> 10.1.0.0/16"}
    assert pair.a.policies() == pair.b.policies() == ["encrypt"]
    assert pair.resolver.diary == []
    assert len(pair.a.daemon.connections) == len(pair.b.daemon.connections) == 0


@pytest.mark.parametrize("here, there", [
    ("2001:db8:1::/64", "2001:db8:2::/48"), ("::/0", "2001:db8:2::66/128"), ("10.1.0.65/32", "0.0.0.0/0"),
    ("192.1.0.65/32", "192.2.0.66/32")])
def test_networks_of_every_size_and_both_families_between_the_same_gateways(here, there):
    """Two hosts too are what somebody configured, and not an opportunistic flow."""
    subnets = Subnets.between(ip_network(here), ip_network(there))
    pair = pair_of(peer("a", subnets=(subnets,)), peer("b", subnets=(subnets,)))
    pair.a.daemon.acquired(subnets)
    pair.run(1.0)
    assert states(pair) == (UP, UP)
    (record,) = pair.b.daemon.tunnels
    assert {sa.flow for sa in record.sas} == {subnets, subnets.reversed()}
    assert pair.resolver.diary == [] and len(pair.b.daemon.connections) == 0


def test_tunnels_that_begin_at_once_cross_and_end_as_one():
    pair = pair_of(peer("a", Start.AT_ONCE), peer("b", Start.AT_ONCE), run=GRACE + 5)
    assert states(pair) == (UP, UP)
    assert len(pair.a.daemon.tunnels) == len(pair.b.daemon.tunnels) == 1
    assert len(installed(pair.a)) == 2 and installed(pair.a) == installed(pair.b)


@pytest.mark.conformance("C-2.2-03")
def test_the_fixed_side_of_a_road_warrior_refuses_to_begin_and_answers():
    warrior = peer("b", Start.WAIT, address=None, identity=AddressIdentity(SG_A))
    pair = pair_of(b=warrior)
    pair.b.daemon.acquired(THERE.reversed())
    pair.run(60.0)
    assert not pair.wire.sent and tunnel(pair.b).state is DOWN
    assert "only its peer may begin it" in str(tunnel(pair.b).reason)
    begin(pair)
    assert states(pair) == (UP, UP)
    pair.b.daemon.sa_expired(THERE.reversed(), min(installed(pair.b)), hard=False)
    sent = len(pair.wire.sent)
    pair.run(5.0)
    assert len(pair.wire.sent) == sent, "nor does it renew the keys"


@pytest.mark.conformance("C-1.2-08")
@pytest.mark.parametrize("wrong", ["our peer has another key", "its peer has another key"])
def test_a_peer_that_cannot_prove_itself_gets_no_sa_and_nothing_is_let_through(wrong):
    sections = {"a": peer("a"), "b": peer("b")}
    cheated = "a" if wrong.startswith("our") else "b"
    sections[cheated] = peer(cheated, keys=KEYS["x"])
    pair = pair_of(**sections)
    begin(pair, 10.0)
    assert states(pair) == (DOWN, DOWN)
    assert installed(pair.a) == installed(pair.b) == set()
    assert "encrypt" not in pair.a.policies() + pair.b.policies()
    assert tunnel(pair.a).forwarding.value == "deny"


@pytest.mark.conformance("C-1.2-09")
def test_key_from_the_dns_is_a_raw_public_key_that_dnssec_proves():
    pair = pair_of(a=peer("a", keys=()), b=peer("b", keys=()))
    begin(pair)
    assert states(pair) == (UP, UP)
    assert any("ask" in entry for entry in pair.resolver.diary)


@pytest.mark.parametrize("status", [SecurityStatus.INSECURE, SecurityStatus.BOGUS])
def test_key_from_the_dns_that_nobody_has_signed_proves_no_configured_peer(status):
    pair = pair_of(a=peer("a", keys=()))
    for name, rdtype in list(pair.resolver.answers):
        answer = pair.resolver.answers.pop((name, rdtype))
        pair.resolver.answers[name, rdtype] = type(answer)(name, rdtype, answer.kind, status, "because",
                                                           answer.rdatas, name, expires=36000.0)
    begin(pair, 10.0)
    assert states(pair) == (DOWN, DOWN) and not pair.wire.sent
    assert tunnel(pair.a).reason.because is Because.DNS_FAILED


@pytest.mark.conformance("C-4.4-01")
def test_a_caller_is_looked_for_in_the_configuration_first_and_the_dns_is_not_asked():
    """Its key in the DNS is another one, as if somebody had forged the zone."""
    pair = pair_of()
    pair.publish_key(SG_A, *KEYS["x"])
    begin(pair)
    assert states(pair) == (UP, UP)
    assert pair.resolver.diary == []


def test_another_peer_cannot_have_the_tunnel_of_a_configured_one():
    """SG-A proves who it is, by its key in the DNS; but the tunnel is for somebody else."""
    pair = pair_of(b=peer("b", identity=FqdnIdentity("warrior.example.com"), keys=KEYS["x"], start=Start.WAIT))
    begin(pair, 10.0)
    assert states(pair) == (DOWN, DOWN) and installed(pair.b) == set()
    told = [entry.text for entry in pair.b.daemon.journal.entries(THERE.reversed())]
    assert any("tunnel london is for @warrior.example.com, not for 192.1.1.4" in text for text in told), told
    assert tunnel(pair.a).reason.because is Because.PEER_REFUSED


@pytest.mark.conformance("C-12.1-01", "C-4.4-01")
def test_an_opportunistic_peer_cannot_claim_what_belongs_to_a_configured_one():
    """Alice's own record lets SG-A act for her; at SG-B her address belongs to somebody's tunnel."""
    claimed = Subnets.between(ip_network(f"{ALICE}/24", strict=False), ip_network(f"{BOB}/32"))
    pair = Pair(tunnels_b=(peer("b", Start.WAIT, subnets=(claimed,), keys=KEYS["x"], address=None,
                                identity=FqdnIdentity("warrior.example.com")),))
    pair.a.daemon.acquired(Flow(ALICE, BOB))
    pair.run(2.0)
    assert pair.b.daemon.connections.get(Flow(BOB, ALICE)) is None and installed(pair.b) == set()
    told = [entry.text for entry in pair.b.daemon.journal.entries(Flow(BOB, ALICE))]
    assert any("is configured tunnel (oegw.conf:9, tunnel london)" in text for text in told), told


def test_what_is_not_for_the_tunnel_but_goes_where_it_leads_is_denied_and_never_keyed():
    pair = Pair(tunnels_a=(peer("a", subnets=(Subnets.between(NET_A, ip_network(f"{BOB}/32")),)),))
    pair.a.daemon.acquired(Flow(ALICE, BOB))
    pair.run(5.0)
    assert pair.a.policies() == ["deny"] and not pair.wire.sent and pair.resolver.diary == []
    assert pair.a.daemon.connections.get(Flow(ALICE, BOB)).reason.because is Because.CLASS_IS_CONFIGURED


@pytest.mark.conformance("C-2.2-02", "C-4.2-01")
def test_configured_and_opportunistic_tunnels_are_of_different_kinds_and_trust():
    pair = pair_of()
    begin(pair)
    pair.a.daemon.acquired(Flow(ALICE, BOB))
    pair.run(1.0)
    connections = pair.a.daemon.connections
    kinds = {type(connections.get(record.flow)): trust(pair.a.daemon, record) for record in pair.a.daemon.tunnels}
    asked = {name for ask, _, name in pair.resolver.diary}
    assert asked == {"66.0.2.192.in-addr.arpa", "65.0.1.192.in-addr.arpa"}, "of the opportunistic tunnel's ends alone"
    assert kinds == {ConfiguredTunnel: CONFIGURED, Connection: "proved by DNSSEC"} and CONFIGURED not in LEVELS.values()
    assert connections.get(Flow(ALICE, BOB)).state is State.KEYED
    told = report.status(pair.a.daemon, "0", pair.clock.seconds())
    assert [(one["name"], one["destination"], one["state"]) for one in told["configured"]] == [
        ("london", str(NET_B), "up")]
    assert told["flows"] == {"keyed": 1}
    inside = Flow(NET_A[65], NET_B[66])
    told = report.why(pair.a.daemon, inside, pair.clock.seconds())
    assert (told["state"], told["outcome"], told["destination"]) == ("up", "is encrypted", str(NET_B))
    assert told["policy"].endswith("is configured tunnel (oegw.conf:9, tunnel london)")
    assert "quick mode" in report.timeline(pair.a.daemon, inside)["text"]


def test_new_keys_take_the_place_of_old_ones_which_receive_a_little_longer():
    pair = pair_of()
    begin(pair)
    old = installed(pair.a)
    (record,) = pair.a.daemon.tunnels
    pair.a.daemon.sa_expired(THERE, record.outbound[0].spi, hard=False)
    pair.run(1.0)
    assert tunnel(pair.a).state is UP and tunnel(pair.a).tunnel != record.id
    assert len(installed(pair.a)) == 3 and old & installed(pair.a) == {sa.spi for sa in record.sas} - {
        sa.spi for sa in record.outbound}
    pair.run(GRACE + 1)
    assert len(installed(pair.a)) == len(installed(pair.b)) == 2 and not old & installed(pair.a)
    assert "hold" not in pair.a.policies() and states(pair) == (UP, UP)


def test_failed_renewal_leaves_the_old_keys_and_is_tried_again_until_it_succeeds():
    pair = pair_of()
    begin(pair)
    pair.wire.loses = lambda datagram: True
    (record,) = pair.a.daemon.tunnels
    pair.a.daemon.sa_expired(THERE, record.outbound[0].spi, hard=False)
    pair.run(10.0)
    assert tunnel(pair.a).state is UP and tunnel(pair.a).tunnel == record.id
    pair.wire.loses = lambda datagram: False
    pair.run(10.0)
    assert tunnel(pair.a).tunnel != record.id and "hold" not in pair.a.policies()


def test_at_once_tries_for_ever_ever_less_often_and_nothing_is_let_through():
    pair = pair_of(a=peer("a", Start.AT_ONCE))
    pair.wire.loses = lambda datagram: True
    pair.run(3600.0)
    begun = [entry for entry in pair.a.daemon.journal.entries(THERE) if entry.text.startswith("keying")]
    waits = [round(after.at - before.at) for before, after in pairwise(begun)]
    assert waits == sorted(waits) and waits[-1] == 308, waits
    assert pair.a.policies() == []
    pair.wire.loses = lambda datagram: False
    pair.run(310.0)
    assert states(pair) == (UP, UP)


@pytest.mark.parametrize("start", [Start.AT_ONCE, Start.ON_DEMAND])
def test_a_dead_peer_is_noticed_its_traffic_blocked_and_the_tunnel_begun_again(start):
    pair = pair_of(a=peer("a", start), run=0.5)
    if start is Start.ON_DEMAND:
        begin(pair)
    assert states(pair) == (UP, UP)
    pair.wire.loses = lambda datagram: True
    pair.run(300.0)
    assert pair.a.policies()[1] == "hold" and installed(pair.a) == set()
    assert tunnel(pair.a).state is not UP
    pair.wire.loses = lambda datagram: False
    pair.run(310.0)
    if start is Start.ON_DEMAND:
        assert tunnel(pair.a).state is DOWN
        begin(pair)
    assert tunnel(pair.a).state is UP


def test_keys_that_ran_out_block_the_traffic_until_there_are_new_ones():
    pair = pair_of(a=peer("a", Start.AT_ONCE), run=1.0)
    (record,) = pair.a.daemon.tunnels
    pair.a.daemon.sa_expired(THERE, record.outbound[0].spi, hard=True)
    assert pair.a.policies() == ["encrypt", "hold"]
    pair.run(1.0)
    assert pair.a.policies() == ["encrypt", "hold", "encrypt"] and tunnel(pair.a).state is UP


def test_peer_that_closes_the_tunnel_is_called_again_after_a_while():
    pair = pair_of(a=peer("a", Start.AT_ONCE), run=1.0)
    pair.b.daemon.close()
    pair.run(1.0)
    assert tunnel(pair.a).state is DOWN and pair.a.policies() == ["encrypt", "hold"]
    assert tunnel(pair.a).reason.because is Because.PEER_DELETED
    sent = len(pair.wire.sent)
    pair.run(5.0)
    assert len(pair.wire.sent) > sent


def test_peer_that_is_known_by_its_name_is_called_at_the_address_that_the_dns_has():
    pair = pair_of(a=peer("a", address="gw.example.com", identity=AddressIdentity(SG_B)))
    begin(pair, 10.0)
    assert tunnel(pair.a).state is DOWN and "no address for gw.example.com" in str(tunnel(pair.a).reason)
    pair.publish_address("gw.example.com", SG_B)
    begin(pair)
    assert states(pair) == (UP, UP)


def test_after_a_crash_the_peer_of_an_on_demand_tunnel_is_called_without_waiting_for_a_datagram(tmp_path):
    """As the list of connected gateways says; of a tunnel that is no longer configured nothing comes."""
    list_of_partners = PartnerFile(tmp_path / "partners.sqlite")
    list_of_partners.open()
    gone = Subnets.between(NET_B, NET_A)
    list_of_partners.write({SG_B: THERE, SG_A: gone})
    former = PartnerFile(tmp_path / "partners.sqlite").open()
    assert {partner.flow for partner in former} == {THERE, gone}
    pair = pair_of()
    pair.a.daemon.recovery.greet(former)
    pair.run(2.0)
    assert states(pair) == (UP, UP)


def test_peer_that_has_forgotten_the_keys_is_keyed_with_anew_while_the_old_ones_serve():
    pair = pair_of()
    begin(pair)
    before = tunnel(pair.a).tunnel
    pair.a.daemon.recovery.unknown_spi(Flow(SG_B, SG_A), 0x4711)
    pair.run(2.0)
    assert states(pair) == (UP, UP) and tunnel(pair.a).tunnel != before
    assert "hold" not in pair.a.policies()


def test_opportunistic_flows_of_single_hosts_go_on_beside_it():
    pair = pair_of(class_a=PERMISSIVE)
    pair.a.daemon.acquired(Flow(ALICE, BOB))
    pair.run(1.0)
    assert pair.a.policies() == ["hold", "encrypt"]
    assert pair.a.daemon.connections.get(Flow(ALICE, BOB)).state is State.KEYED
