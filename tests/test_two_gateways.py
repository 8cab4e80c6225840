"""Strangers' gateways, whole but for kernel and DNS: two daemons, their machines and engines, on a simulated clock."""

import pytest

from oesvc.daemon import GRACE
from oesvc.discovery import KEY as KEY_TYPE
from oesvc.discovery import TXT
from oesvc.dns.answer import SecurityStatus
from oesvc.dns.name import reverse_name
from oesvc.ipsec.flow import Flow
from oesvc.keys.key_pair import public_key
from oesvc.oe.authorization import DnssecPolicy
from oesvc.oe.classes import ConnectionClass
from oesvc.oe.machine import State
from oesvc.oe.reasons import Because
from tests.oe.parts import ALICE, BOB, CLEAR, CONFIGURED, DENY, PARANOID, PASSIVE, PERMISSIVE, SG_A, SG_B
from tests.pair import Gateway, Pair, private_key

THERE, BACK = Flow(ALICE, BOB), Flow(BOB, ALICE)
FALLEN = {DENY: "deny", CLEAR: "pass-through", PASSIVE: "pass-through", PERMISSIVE: "pass-through", PARANOID: "deny",
          CONFIGURED: "deny"}


def state(gateway, flow):
    connection = gateway.daemon.connections.get(flow)
    return connection.state if connection else None


def because(gateway, flow):
    return gateway.daemon.connections.get(flow).reason.because


def keyed_pair(**options):
    pair = Pair(**options)
    pair.a.daemon.acquired(THERE)
    pair.run(1.0)
    assert (state(pair.a, THERE), state(pair.b, BACK)) == (State.KEYED, State.KEYED)
    return pair


@pytest.mark.conformance("C-Abs-01", "C-11.2-03", "C-11.2-04", "C-11.2-06", "C-3.3-02", "C-3.3.1-03", "C-3.3.2-06",
                         "C-4.1-02", "C-2.3.3-02", "C-4.4-02")
def test_strangers_key_in_the_order_of_the_rfc():
    """Section 11.2 at each end; no configuration names the other."""
    pair = keyed_pair()
    steps_a, steps_b = pair.a.asked(), pair.b.asked()
    assert steps_a == ["5", "5B", "5C", "5D", "5E", "5F", "5G", "5H", "5K", "5L", "5O", "5P", "6"]
    assert steps_b == ["5D", "5E", "5F", "5G", "5H", "5I", "5J", "5K", "5L", "5M", "5N", "5O", "5P"]
    assert pair.a.policies() == pair.b.policies() == ["hold", "encrypt"]


@pytest.mark.conformance("C-11.2-09", "C-11.2-10", "C-3.3.2-03")
def test_responder_installs_its_inbound_sa_before_it_answers_and_the_outbound_when_confirmed():
    pair = Pair()
    lost = []
    pair.wire.loses = lambda datagram: len(pair.wire.sent) > 8 and not lost.append(datagram)
    pair.a.daemon.acquired(THERE)
    pair.run(0.2)
    added = [entry for entry in pair.b.diary if entry[0] == "add"]
    assert len(pair.wire.sent) >= 9 and len(added) == 1
    pair.wire.loses = lambda datagram: False
    pair.run(2.0)
    inbound, outbound = (entry[2] for entry in pair.b.diary if entry[0] == "add")
    (both,) = (entry[2] for entry in pair.a.diary if entry[0] == "add")
    assert sorted(both) == sorted(inbound + outbound)


@pytest.mark.conformance("C-11.2-12", "C-11.2-13", "C-3.2.8-06")
def test_answering_traffic_and_the_next_flow_need_no_new_channel():
    pair = keyed_pair()
    sent = len(pair.wire.sent)
    pair.b.daemon.acquired(BACK)
    pair.run(1.0)
    assert len(pair.wire.sent) == sent
    own = Flow(SG_A, BOB)
    pair.a.daemon.acquired(own)
    pair.run(1.0)
    assert state(pair.a, own) is State.KEYED
    assert len(pair.wire.sent) == sent + 3


@pytest.mark.conformance("C-3.4.2-01", "C-3.4.2-02", "C-3.4.2-03", "C-3.4.2-06", "C-3.2.8-03", "C-3.4.1-02",
                         "C-3.4.1-03")
def test_idle_tunnel_is_closed_at_both_ends():
    pair = keyed_pair()
    pair.b.plane.last_used = 1e9
    pair.run(61.0)
    assert (state(pair.a, THERE), state(pair.b, BACK)) == (None, None)
    assert len(pair.a.daemon.tunnels) == len(pair.b.daemon.tunnels) == 0
    for gateway in (pair.a, pair.b):
        added = {spi for entry in gateway.diary if entry[0] == "add" for spi in entry[2]}
        removed = {spi for entry in gateway.diary if entry[0] == "remove" for spi in entry[2]}
        assert added == removed


@pytest.mark.conformance("C-3.4.2-04")
def test_deletes_that_cross_end_quietly():
    pair = keyed_pair()
    pair.run(61.0)
    sent = len(pair.wire.sent)
    pair.run(60.0)
    assert len(pair.a.daemon.tunnels) == len(pair.b.daemon.tunnels) == 0
    assert len(pair.wire.sent) == sent


@pytest.mark.conformance("C-3.4.2-07", "C-3.4.2-08")
def test_delete_without_answer_is_sent_three_times_and_given_up():
    pair = keyed_pair()
    pair.b.plane.last_used = 1e9
    pair.wire.loses = lambda datagram: True
    sent = len(pair.wire.sent)
    pair.run(59.0 + 29.0)
    assert len(pair.a.daemon.tunnels) == 1
    pair.run(4.0)
    assert len(pair.a.daemon.tunnels) == 0
    assert len([datagram for datagram in pair.wire.sent[sent:] if datagram.peer.address == SG_B]) == 3


@pytest.mark.conformance("C-1.3-02", "C-3.2.5-12", "C-Abs-03")
@pytest.mark.parametrize("of_class", [PERMISSIVE, PARANOID])
def test_impostor_without_the_published_key_gets_no_tunnel(of_class):
    pair = Pair(class_a=of_class)
    pair.publish_delegation(BOB, SG_B, public_key(private_key("somebody else")))
    pair.a.daemon.acquired(THERE)
    pair.run(10.0)
    assert pair.a.policies() == ["hold", FALLEN[of_class]]
    assert because(pair.a, THERE) is Because.PEER_NOT_AUTHENTIC


@pytest.mark.conformance("C-3.3.1-04", "C-5.1-07", "C-5.4-09")
def test_initiator_without_a_published_key_is_not_answered():
    pair = Pair()
    pair.publish_key(SG_A, public_key(private_key("somebody else")))
    pair.a.daemon.acquired(THERE)
    pair.run(10.0)
    assert state(pair.b, BACK) is None
    assert [entry for entry in pair.b.diary if entry[0] == "add"] == []
    assert pair.a.policies() == ["hold", "pass-through"]


@pytest.mark.conformance("C-5.4-07", "C-5.4-08", "C-5.1-06", "C-5.4-06")
def test_any_of_several_published_keys_will_do():
    pair = Pair()
    others = [public_key(private_key(name)) for name in ("yesterday", "tomorrow")]
    pair.publish_key(SG_A, others[0], pair.a.key, others[1])
    pair.a.daemon.acquired(THERE)
    pair.run(1.0)
    assert state(pair.a, THERE) is State.KEYED


@pytest.mark.conformance("C-3.3.2-05", "C-3.3.2-09")
@pytest.mark.parametrize("class_b", [DENY, CLEAR])
def test_paranoid_towards_one_that_does_not_encrypt_is_no_communication(class_b):
    pair = Pair(PARANOID, class_b)
    pair.a.daemon.acquired(THERE)
    pair.run(10.0)
    assert pair.a.policies() == ["hold", "deny"]
    assert because(pair.a, THERE) is Because.PEER_REFUSED
    told = [entry.text for entry in pair.b.daemon.journal.entries(BACK)]
    assert any(class_b.value in text for text in told)


@pytest.mark.conformance("C-3.3.3-01", "C-5.2-01", "C-12.1-03")
def test_gateway_that_the_source_does_not_name_is_refused():
    pair = Pair()
    pair.publish_delegation(ALICE, SG_A, public_key(private_key("somebody else")))
    pair.a.daemon.acquired(THERE)
    pair.run(10.0)
    assert because(pair.a, THERE) is Because.PEER_REFUSED
    assert state(pair.b, BACK) is None


@pytest.mark.conformance("C-3.3.3-02", "C-2.3.2-04", "C-1.3-03")
def test_forged_record_of_the_source_is_refused():
    pair = Pair()
    pair.publish_delegation(ALICE, SG_A, pair.a.key, status=SecurityStatus.BOGUS)
    pair.a.daemon.acquired(THERE)
    pair.run(10.0)
    assert state(pair.a, THERE) is State.CLEAR_TEXT
    assert state(pair.b, BACK) is None


@pytest.mark.conformance("C-3.2.5-05", "C-9.2-01")
@pytest.mark.parametrize("of_class", [PERMISSIVE, PARANOID])
def test_silent_gateway_is_given_up_after_the_keying_time(of_class):
    pair = Pair(class_a=of_class)
    pair.wire.loses = lambda datagram: True
    pair.a.daemon.acquired(THERE)
    pair.run(7.5)
    assert state(pair.a, THERE) is State.PENDING_OE
    pair.run(1.0)
    assert pair.a.policies() == ["hold", FALLEN[of_class]]
    assert because(pair.a, THERE) is Because.PEER_SILENT


@pytest.mark.conformance("C-9.3-01")
@pytest.mark.parametrize("number", range(9))
def test_each_message_may_be_lost_once(number):
    pair = Pair()
    pair.wire.loses = lambda datagram: len(pair.wire.sent) == number + 1
    pair.a.daemon.acquired(THERE)
    pair.run(4.0)
    assert (state(pair.a, THERE), state(pair.b, BACK)) == (State.KEYED, State.KEYED)


def test_both_begin_at_once_and_end_with_one_tunnel():
    """decisions.md 1C.7: of two that cross, the one begun by the lower gateway stays."""
    pair = Pair()
    pair.a.daemon.acquired(THERE)
    pair.b.daemon.acquired(BACK)
    pair.run(GRACE + 5)
    assert (state(pair.a, THERE), state(pair.b, BACK)) == (State.KEYED, State.KEYED)
    assert len(pair.a.daemon.tunnels) == len(pair.b.daemon.tunnels) == 1
    (ours,) = (pair.a.daemon.tunnels.get(pair.a.daemon.connections.get(THERE).tunnel),)
    (theirs,) = (pair.b.daemon.tunnels.get(pair.b.daemon.connections.get(BACK).tunnel),)
    assert {sa.spi for sa in ours.sas} == {sa.spi for sa in theirs.sas}
    assert ours.begun_here and not theirs.begun_here


@pytest.mark.conformance("C-3.2.6-04", "C-3.4.2-09", "C-3.4.2-10", "C-2.2-06")
def test_rekeying_moves_both_ends_to_the_new_sas_and_deletes_the_old():
    pair = keyed_pair()
    connection = pair.a.daemon.connections.get(THERE)
    old = pair.a.daemon.tunnels.get(connection.tunnel)
    pair.a.daemon.sa_expired(THERE, old.outbound[0].spi, hard=False)
    pair.run(GRACE + 1)
    new = pair.a.daemon.tunnels.get(connection.tunnel)
    assert new is not old
    assert len(pair.a.daemon.tunnels) == len(pair.b.daemon.tunnels) == 1
    assert pair.a.policies() == pair.b.policies() == ["hold", "encrypt", "encrypt"]


def test_last_message_of_a_rekey_may_be_lost_and_repeated_while_the_old_keys_serve():
    """The peer sends by the old SA until it hears that the new one stands: for so long that one receives."""
    pair = keyed_pair()
    before = {gateway: gateway.daemon.connections.get(flow).tunnel
              for gateway, flow in ((pair.a, THERE), (pair.b, BACK))}
    old = pair.a.daemon.tunnels.get(before[pair.a])
    pair.wire.sent.clear()
    # Quick mode 1 and 2 arrive; of what SG-A says then, three tries are lost.
    pair.wire.loses = lambda datagram: datagram.peer.address == SG_B and 2 <= sum(
        sent.peer.address == SG_B for sent in pair.wire.sent) <= 4
    pair.a.daemon.sa_expired(THERE, old.outbound[0].spi, hard=False)
    pair.run(3.0)
    assert pair.b.daemon.connections.get(BACK).tunnel == before[pair.b], "SG-B does not know of it yet"
    assert ("remove", str(THERE), [sa.spi for sa in old.sas]) not in pair.a.diary
    pair.run(30.0)
    assert (state(pair.a, THERE), state(pair.b, BACK)) == (State.KEYED, State.KEYED)
    assert pair.b.daemon.connections.get(BACK).tunnel != before[pair.b]
    assert len(pair.a.daemon.tunnels) == len(pair.b.daemon.tunnels) == 1


@pytest.mark.conformance("C-3.2.6-05")
def test_rekey_that_fails_is_tried_again_while_the_old_keys_last():
    pair = keyed_pair()
    connection, used = pair.a.daemon.connections.get(THERE), 1e9
    pair.a.plane.last_used = pair.b.plane.last_used = used
    old = pair.a.daemon.tunnels.get(connection.tunnel)
    pair.wire.loses = lambda datagram: True
    pair.a.daemon.sa_expired(THERE, old.outbound[0].spi, hard=False)
    pair.run(40.0)
    assert connection.rekeys_failed >= 2 and connection.tunnel == old.id
    assert pair.a.policies() == ["hold", *["encrypt"] * (len(pair.a.policies()) - 1)]
    pair.wire.loses = lambda datagram: False
    pair.run(20.0)
    assert connection.tunnel != old.id and connection.rekeys_failed == 0
    assert state(pair.a, THERE) is State.KEYED


@pytest.mark.conformance("C-3.3.2-03", "C-9.3-02", "C-3.3.2-04")
def test_peer_that_was_reborn_is_keyed_with_anew():
    """Its new tunnel replaces the old one of the identical connection, of which it has no memory."""
    pair = keyed_pair()
    fresh = Gateway("a", SG_A, ALICE, pair.wire, pair.resolver, PERMISSIVE)
    fresh.entropy.seed("after the reboot")
    fresh.daemon.acquired(THERE)
    pair.run(5.0)
    assert (state(fresh, THERE), state(pair.b, BACK)) == (State.KEYED, State.KEYED)
    pair.run(32.0)
    assert len(pair.b.daemon.tunnels) == 1


@pytest.mark.conformance("C-9.3-04", "C-9.3-05", "C-9.3-06")
def test_orderly_shutdown_takes_leave_and_ignores_what_comes_after():
    pair = keyed_pair()
    pair.a.daemon.close()
    pair.run(1.0)
    assert state(pair.b, BACK) is None
    sent = len(pair.wire.sent)
    pair.b.daemon.acquired(BACK)
    pair.run(9.0)
    assert all(datagram.local.address == SG_B for datagram in pair.wire.sent[sent:])
    assert because(pair.b, BACK) is Because.PEER_SILENT


@pytest.mark.conformance("C-12.1-09", "C-3.2.4.1-02", "C-3.2.4.1-05")
def test_unsigned_records_may_not_redirect():
    pair = Pair()
    for host, gateway, key in ((BOB, SG_B, pair.b.key), (ALICE, SG_A, pair.a.key)):
        pair.publish_delegation(host, gateway, key, status=SecurityStatus.INSECURE)
    pair.a.daemon.acquired(THERE)
    pair.run(1.0)
    assert pair.a.policies() == ["hold", "pass-through"]
    assert pair.wire.sent == []


def test_without_dnssec_required_they_do_by_the_administrators_word():
    pair = Pair(dnssec=DnssecPolicy.OFF)
    for host, gateway, key in ((BOB, SG_B, pair.b.key), (ALICE, SG_A, pair.a.key)):
        pair.publish_delegation(host, gateway, key, status=SecurityStatus.INSECURE)
    pair.a.daemon.acquired(THERE)
    pair.run(1.0)
    assert state(pair.a, THERE) is State.KEYED


@pytest.mark.conformance("C-7-01", "C-7-03", "C-7-04", "C-5.3-06", "C-3.3.2-07")
def test_host_keys_for_itself_without_a_delegation():
    pair = Pair()
    own = Flow(SG_A, BOB)
    pair.a.daemon.acquired(own)
    pair.run(1.0)
    assert state(pair.a, own) is State.KEYED
    assert ("ask", TXT, b".".join(reverse_name(SG_A)).decode()) not in pair.resolver.diary
    assert ("ask", KEY_TYPE, b".".join(reverse_name(SG_A)).decode()) in pair.resolver.diary


@pytest.mark.conformance("C-1.2-01")
def test_every_pair_of_classes_comes_to_a_decision():
    for class_a in ConnectionClass:
        for class_b in ConnectionClass:
            pair = Pair(class_a, class_b)
            pair.a.daemon.acquired(THERE)
            pair.run(10.0)
            last = pair.a.policies()[-1]
            if class_a.initiates and class_b.opportunistic:
                assert last == "encrypt"
            else:
                assert last == FALLEN[class_a]
