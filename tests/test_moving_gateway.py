"""Gateways whose address changes between and during runs: RFC 4322 section 5.3, and what DHCP does to everybody."""

from ipaddress import ip_address

import pytest

from oesvc.dns.name import reverse_name
from oesvc.ike.identity import FqdnIdentity
from oesvc.ipsec.flow import Flow
from oesvc.oe.machine import State
from tests.oe.parts import ALICE, BOB, PARANOID, PERMISSIVE, SG_A
from tests.pair import Gateway, Pair
from tests.test_two_gateways import keyed_pair, state

THERE, BACK = Flow(ALICE, BOB), Flow(BOB, ALICE)
ELSEWHERE = ip_address("192.1.1.44")
NAME = "gw.example.org"


def named_pair(**options) -> Pair:
    """SG-A has no reverse name of its own: Alice names it by its name, where its key is."""
    pair = Pair(identity_a=FqdnIdentity(NAME), **options)
    pair.resolver.answers = {key: answer for key, answer in pair.resolver.answers.items()
                             if key[0] not in names_of(SG_A, ALICE)}
    pair.publish_delegation(ALICE, f"@{NAME}", pair.a.key)
    pair.publish_name(NAME, pair.a.key)
    return pair


def names_of(*addresses):
    return [reverse_name(address) for address in addresses]


@pytest.mark.parametrize("of_class", [PERMISSIVE, PARANOID])
def test_what_was_keyed_from_an_address_that_is_gone_is_keyed_anew_from_the_next_without_a_datagram_in_clear(of_class):
    pair = keyed_pair(class_a=of_class)
    sas = {spi for entry in pair.a.diary if entry[0] == "add" for spi in entry[2]}
    sent = len(pair.wire.sent)
    pair.publish_key(ELSEWHERE, pair.a.key)
    pair.publish_delegation(ALICE, ELSEWHERE, pair.a.key)
    pair.a.move(ELSEWHERE)
    pair.run(2.0)
    assert (state(pair.a, THERE), state(pair.b, BACK)) == (State.KEYED, State.KEYED)
    assert pair.a.daemon.connections.get(THERE).gateways.source == ELSEWHERE
    assert pair.b.daemon.connections.get(BACK).gateways.destination == ELSEWHERE
    assert pair.a.policies() == ["hold", "encrypt", "hold", "encrypt"] and "pass-through" not in pair.b.policies()
    assert sas <= {spi for entry in pair.a.diary if entry[0] == "remove" for spi in entry[2]}
    assert all(one.local.address != SG_A for one in pair.wire.sent[sent:])
    assert len(pair.a.daemon.tunnels) == 1


@pytest.mark.parametrize("after", [0.0, 0.02, 0.05, 0.09])
@pytest.mark.parametrize("of_class", [PERMISSIVE, PARANOID])
def test_address_that_changes_while_keys_are_agreed_on_costs_another_attempt_and_no_more(of_class, after):
    pair = Pair(class_a=of_class)
    pair.publish_key(ELSEWHERE, pair.a.key)
    pair.a.daemon.acquired(THERE)
    pair.run(after)
    pair.publish_delegation(ALICE, ELSEWHERE, pair.a.key)
    pair.a.move(ELSEWHERE)
    pair.run(2.0)
    assert state(pair.a, THERE) is State.KEYED
    assert pair.a.daemon.connections.get(THERE).gateways.source == ELSEWHERE
    assert len(pair.a.daemon.tunnels) == 1


def test_what_the_host_itself_sent_from_an_address_that_is_gone_is_forgotten():
    pair = Pair()
    own = Flow(SG_A, BOB)
    pair.a.daemon.acquired(own)
    pair.run(1.0)
    assert state(pair.a, own) is State.KEYED
    pair.a.move(ELSEWHERE)
    pair.run(1.0)
    assert state(pair.a, own) is None and len(pair.a.daemon.tunnels) == 0


def test_tunnels_from_other_addresses_stay():
    pair = keyed_pair()
    tunnel = pair.a.daemon.connections.get(THERE).tunnel
    pair.a.daemon.address_gone(ELSEWHERE)
    pair.run(1.0)
    assert pair.a.daemon.connections.get(THERE).tunnel == tunnel and pair.a.policies() == ["hold", "encrypt"]


@pytest.mark.conformance("C-5.3-04", "C-4.3-02")
def test_gateway_known_by_name_keys_from_whatever_address_it_has():
    """Nothing in the DNS says where it is: not before, not after its address changed, not in the next run."""
    pair = named_pair()
    pair.a.daemon.acquired(THERE)
    pair.run(1.0)
    assert (state(pair.a, THERE), state(pair.b, BACK)) == (State.KEYED, State.KEYED)
    pair.a.move(ELSEWHERE)
    pair.run(2.0)
    assert pair.b.daemon.connections.get(BACK).gateways.destination == ELSEWHERE
    del pair.wire.gateways[ELSEWHERE]
    third = ip_address("192.1.1.45")
    again = Gateway("a", third, ALICE, pair.wire, pair.resolver, PERMISSIVE, identity=FqdnIdentity(NAME))
    again.entropy.seed("after the reboot")
    again.daemon.acquired(THERE)
    pair.run(2.0)
    assert state(again, THERE) is State.KEYED
    assert pair.b.daemon.connections.get(BACK).gateways.destination == third


@pytest.mark.conformance("C-5.3-03")
def test_name_whose_key_in_the_forward_map_is_another_is_refused():
    pair = named_pair()
    pair.publish_name(NAME, pair.b.key)
    pair.a.daemon.acquired(THERE)
    pair.run(10.0)
    assert (state(pair.a, THERE), state(pair.b, BACK)) == (State.CLEAR_TEXT, None)


@pytest.mark.conformance("C-5.3-07", "C-4.3-03")
@pytest.mark.parametrize("of_class, policy", [(PERMISSIVE, "pass-through"), (PARANOID, "deny")])
def test_nobody_can_call_a_gateway_known_by_name_alone(of_class, policy):
    """They find no delegation that says where to call, and do as their class says."""
    pair = named_pair(class_b=of_class)
    pair.b.daemon.acquired(BACK)
    pair.run(10.0)
    assert pair.b.policies() == ["hold", policy] and pair.wire.sent == []


@pytest.mark.conformance("C-5.3-04", "C-7-03", "C-5.3-06", "C-10.1-01")
@pytest.mark.parametrize("of_class", [PERMISSIVE, PARANOID])
def test_laptop_without_any_say_in_reverse_zones_keys_from_whatever_address_it_has(of_class):
    """A host that protects itself: all that the DNS has of it is the key at its name."""
    pair = named_pair(class_a=of_class, class_b=of_class)
    for address in SG_A, ELSEWHERE:
        if address != SG_A:
            pair.a.move(address)
        own = Flow(address, BOB)
        pair.a.daemon.acquired(own)
        pair.run(2.0)
        assert (state(pair.a, own), state(pair.b, own.reversed())) == (State.KEYED, State.KEYED)
    assert "pass-through" not in pair.a.policies() + pair.b.policies()
