"""NATs between the gateways: found, gone through where identities mean the same at both ends, explained where not."""

from dataclasses import fields, replace
from ipaddress import ip_address

import pytest

from oesvc.ike.datagram import Datagram, Endpoint
from oesvc.ike.events import (
    ChannelFailed,
    ChannelUp,
    DatagramRefused,
    KeysWanted,
    TunnelDeleted,
    TunnelFailed,
    TunnelGone,
    TunnelMoved,
    TunnelProposed,
    TunnelUp,
)
from oesvc.ike.failures import KeyingFailure
from oesvc.ike.identity import AddressIdentity, FqdnIdentity
from oesvc.ike.v1.config import EngineConfig
from oesvc.ike.v1.constants import (
    KEEPALIVE_SPACING,
    NAT_KEEPALIVE,
    Encapsulation,
    ExchangeType,
    NotifyType,
    PayloadType,
    Protocol,
)
from oesvc.ike.v1.identification import pack_identity
from oesvc.ike.v1.main_mode import Ourselves
from oesvc.ike.v1.nat import is_private
from oesvc.ike.v1.vendor import Extension
from oesvc.ike.v1.wire.header import Header
from oesvc.ike.v1.wire.message import open_clear, seal_encrypted
from oesvc.ike.v1.wire.payloads import Notification, Payload, pack_chain
from oesvc.ipsec.flow import Flow
from oesvc.ipsec.sa import UdpPorts
from tests.ike.forge import channel_of, deliver, pack_host
from tests.ike.nat_box import ELSEWHERE, INSIDE, NAME, OUTSIDE, NatBox, behind_nat
from tests.ike.pair import ALICE, ALICE_TO_BOB, BOB, SG_A, SG_B, Pair, private_key, public_key
from tests.ike.test_handshake import NAMES, sa_set
from tests.ike.test_proposals import quick_mode_1, standing_pair

INSIDE6 = ip_address("2001:db8::4")
PRIVATE_HOST = ip_address("10.1.2.3")
WITHOUT = frozenset(Extension) - {Extension.NAT_TRAVERSAL}
@pytest.mark.parametrize("address, private", [
    ("10.1.2.3", True), ("172.31.0.1", True), ("172.32.0.1", False), ("192.168.0.1", True), ("100.64.0.1", True),
    ("192.1.0.65", False), ("203.0.113.1", False), ("fd00::1", True), ("fe80::1", True), ("2001:db8::1", False)])
def test_addresses_that_mean_nothing_beyond_a_nat(address, private):
    assert is_private(ip_address(address)) is private


@pytest.mark.conformance("C-6.2-01", "C-6.1-03")
def test_tunnel_for_a_private_host_of_ours_is_not_even_begun_and_the_reason_is_said():
    pair = Pair()
    pair.initiate(Flow(PRIVATE_HOST, BOB))
    [failed] = pair.a.heard(TunnelFailed)
    assert failed.failure is KeyingFailure.NO_IDENTITY and "nat-id-undefined: our host 10.1.2.3" in failed.detail
    assert not pair.capture and not pair.a.engine.next_deadline()


@pytest.mark.conformance("C-6.2-02", "C-6.1-03")
def test_private_host_of_a_peer_gets_no_tunnel_though_the_channel_stands():
    pair = standing_pair()
    deliver(pair, pair.a, quick_mode_1(pair, ids=[pack_host(PRIVATE_HOST), pack_host(BOB)]))
    assert "nat-id-undefined: its host 10.1.2.3" in pair.b.heard(DatagramRefused)[0].reason
    assert len(pair.b.heard(TunnelProposed)) == 1 and pair.b.messages()[-1] == "notify INVALID-ID-INFORMATION"


@pytest.mark.conformance("C-6.2-01")
def test_peer_that_gives_a_private_address_is_told_no_and_the_dns_is_not_asked():
    pair = Pair()
    local = pair.a.engine._phase1._ourselves
    pair.a.engine._phase1._ourselves = lambda path, expectation: replace(
        local(path, expectation), identity=AddressIdentity(PRIVATE_HOST))
    pair.initiate()
    pair.run()
    assert not pair.b.heard(KeysWanted)
    [failed] = pair.b.heard(ChannelFailed)
    assert failed.failure is KeyingFailure.NO_IDENTITY and "nat-id-undefined: the peer 10.1.2.3" in failed.detail


def test_gateways_in_one_private_network_key_as_any_others():
    gateways = ip_address("10.0.0.1"), ip_address("10.0.0.2")
    pair = Pair(addresses=gateways)
    pair.initiate(Flow(*gateways))
    pair.run()
    assert pair.a.heard(TunnelUp) and pair.b.heard(TunnelUp)


def sa_inner(gateway):
    return {(sa.spi, sa.flow, sa.encryption_key, sa.integrity_key) for sa in gateway.tunnel_sas()}


def keyed(seed=0, **changes):
    pair, box = behind_nat(seed=seed, **changes)
    pair.initiate()
    pair.run()
    return pair, box


def ports(datagrams, sender):
    return {(datagram.local.port, datagram.peer.port) for datagram in datagrams
            if datagram.local.address == sender.address}


def outbound(gateway):
    return [sa for sa in gateway.tunnel_sas() if sa.source == gateway.address][-1]


def test_gateway_behind_a_nat_keys_by_its_name_and_changes_to_port_4500_at_message_5():
    pair, _ = keyed()
    assert pair.a.messages() == pair.b.messages() == NAMES and sa_inner(pair.a) == sa_inner(pair.b)
    assert [datagram.local.port for datagram in pair.capture] == [500] * 4 + [4500] * 5
    assert [datagram.data[:4] == bytes(4) for datagram in pair.capture] == [False] * 4 + [True] * 5
    [up] = pair.b.heard(TunnelUp)
    assert (up.peer, str(up.identity)) == (OUTSIDE, "@sg-a.example.net")


def test_each_end_sends_esp_to_where_it_sees_the_other():
    pair, box = keyed()
    mapped = box.mappings[Endpoint(INSIDE, 4500)].port
    inbound, out = pair.a.tunnel_sas()
    assert (out.source, out.destination, out.udp) == (INSIDE, SG_B, UdpPorts(4500, 4500))
    assert (inbound.source, inbound.destination, inbound.udp) == (SG_B, INSIDE, UdpPorts(4500, 4500))
    inbound, out = pair.b.tunnel_sas()
    assert (out.source, out.destination, out.udp) == (SG_B, OUTSIDE, UdpPorts(4500, mapped))
    assert (inbound.source, inbound.destination, inbound.udp) == (OUTSIDE, SG_B, UdpPorts(mapped, 4500))


def test_without_a_nat_all_stays_on_port_500_and_esp_is_not_encapsulated():
    pair = Pair()
    pair.initiate()
    pair.run()
    assert ports(pair.capture, pair.a) == ports(pair.capture, pair.b) == {(500, 500)}
    assert all(sa.udp is None for sa in pair.a.tunnel_sas() + pair.b.tunnel_sas())
    for data in (pair.capture[2].data, pair.capture[3].data):
        assert len(open_clear(Header.parse(data), data).all(PayloadType.NAT_D)) == 2


def disguised(gateway):
    """As strongSwan does with `encap = yes`: it hashes an address that is not its own."""
    honest = gateway.engine._phase1._ourselves

    def ourselves(path, expectation):
        false = replace(path, local=Endpoint(ip_address("0.0.0.0"), 0))
        return replace(honest(path, expectation), path=false)

    gateway.engine._phase1._ourselves = ourselves


@pytest.mark.parametrize("who", ["a", "b"])
def test_peer_forces_encapsulation_by_a_false_nat_d(who):
    pair = Pair()
    disguised(getattr(pair, who))
    pair.initiate()
    pair.run()
    assert pair.a.heard(TunnelUp) and pair.b.heard(TunnelUp) and sa_set(pair.a) == sa_set(pair.b)
    assert {datagram.local.port for datagram in pair.capture[4:]} == {4500}
    assert {sa.udp for sa in pair.a.tunnel_sas()} == {UdpPorts(4500, 4500)}


@pytest.mark.parametrize("which", [{"extensions": WITHOUT}])
def test_who_has_not_announced_nat_traversal_gets_no_nat_d(which):
    pair = Pair(b=EngineConfig(private_key("b"), **which))
    pair.initiate()
    pair.run()
    assert pair.a.heard(TunnelUp) and {sa.udp for sa in pair.a.tunnel_sas()} == {None}
    for data in (pair.capture[2].data, pair.capture[3].data):
        assert not open_clear(Header.parse(data), data).all(PayloadType.NAT_D)


@pytest.mark.parametrize("mode, behind, accepted", [
    (Encapsulation.UDP_ENCAPSULATED_TUNNEL, True, True), (Encapsulation.TUNNEL, True, False),
    (Encapsulation.UDP_ENCAPSULATED_TRANSPORT, True, False), (Encapsulation.UDP_ENCAPSULATED_TUNNEL, False, False)])
def test_encapsulation_within_udp_is_accepted_exactly_where_a_nat_was_found(mode, behind, accepted):
    pair = keyed()[0] if behind else standing_pair()
    original_address = Payload(PayloadType.NAT_OA, b"\1\0\0\0" + INSIDE.packed)  # of no use for tunnel mode
    data = quick_mode_1(pair, ENCAPSULATION=mode, more=[original_address])
    path = channel_of(pair.b).path
    pair.inject(Datagram((bytes(4) if behind else b"") + data, path.local, path.peer))
    assert len(pair.b.heard(TunnelProposed)) == 1 + accepted
    if not accepted:
        right = "UDP-ENCAPSULATED-TUNNEL" if behind else "TUNNEL"
        name = mode.name.replace("_", "-")
        assert f"encapsulation {name} instead of {right}" in pair.b.heard(DatagramRefused)[-1].reason


@pytest.mark.conformance("C-6.2-01", "C-6.2-02")
@pytest.mark.parametrize("flow", [Flow(PRIVATE_HOST, ip_address("10.9.9.9")), Flow(ALICE, ip_address("10.9.9.9"))])
def test_behind_a_found_nat_private_hosts_get_no_tunnel_even_where_both_gateways_seem_private(flow):
    box = NatBox(outside=ip_address("10.7.7.7"))
    pair, _ = behind_nat(box)
    pair.initiate(flow, )
    pair.run()
    [failed] = pair.a.heard(TunnelFailed)
    assert failed.failure is KeyingFailure.NO_IDENTITY and "nat-id-undefined" in failed.detail
    assert not pair.a.tunnel_sas() and not pair.b.tunnel_sas()


def test_gateway_behind_a_nat_of_its_own_is_known_by_the_address_that_delegations_name():
    """In both roles: what comes to that address is translated to its own."""
    box = NatBox(mappings={Endpoint(INSIDE, port): Endpoint(OUTSIDE, port) for port in (500, 4500)})
    pair, _ = behind_nat(box, identity=AddressIdentity(OUTSIDE))
    pair.b.keys[AddressIdentity(OUTSIDE)] = (public_key("a"),)
    pair.do(pair.b, pair.b.engine.initiate, ALICE_TO_BOB.reversed(), SG_B, OUTSIDE, AddressIdentity(OUTSIDE),
            pair.b.keys[AddressIdentity(OUTSIDE)])
    pair.run()
    assert pair.b.heard(TunnelUp) and pair.a.heard(TunnelUp)
    assert outbound(pair.b).destination == OUTSIDE and outbound(pair.b).udp == UdpPorts(4500, 4500)
    channel_of(pair.a).doubtful = True
    pair.initiate()
    pair.run()
    assert [up.identity for up in pair.b.heard(ChannelUp)] == [AddressIdentity(OUTSIDE)] * 2


@pytest.mark.parametrize("given, local, initiator, plain, translated", [
    (None, INSIDE, True, INSIDE, INSIDE),
    ("gw.example.net", INSIDE, True, "gw.example.net", "gw.example.net"),
    ("gw.example.net", INSIDE, False, INSIDE, "gw.example.net"),
    (OUTSIDE, INSIDE, True, OUTSIDE, OUTSIDE), (OUTSIDE, INSIDE, False, OUTSIDE, OUTSIDE),
    (OUTSIDE, INSIDE6, True, INSIDE6, INSIDE6)])
def test_who_we_say_we_are_without_a_nat_and_behind_one(given, local, initiator, plain, translated):
    def identity(who):
        return who and (FqdnIdentity(who) if isinstance(who, str) else AddressIdentity(who))
    config = EngineConfig(private_key("a"), identity=identity(given))
    assert config.identities(local, initiator) == (identity(plain), identity(translated))


@pytest.mark.conformance("C-6.2-01")
@pytest.mark.parametrize("identity", [None, AddressIdentity(ip_address("2001:db8:1:1::4"))],
                         ids=["no identity", "an address of the other family"])
def test_gateway_that_finds_itself_behind_a_nat_without_a_name_says_so_and_does_not_give_its_private_address(identity):
    pair, _ = behind_nat(identity=identity)
    pair.initiate()
    pair.run()
    [failed] = pair.a.heard(TunnelFailed)
    assert failed.failure is KeyingFailure.NO_IDENTITY
    assert "nat-id-undefined: our own address 10.0.0.4" in failed.detail
    assert "as our identity a name would do, or the IPv4 address that the NAT gives us" in failed.detail
    assert "main mode 5" not in pair.a.messages()


class Careless(Ourselves):
    def id_body(self, nat):
        return pack_identity(AddressIdentity(PRIVATE_HOST))


@pytest.mark.conformance("C-6.2-01")
def test_peer_behind_a_nat_that_gives_its_private_address_is_told_no_where_its_message_came_from():
    pair, _ = behind_nat()
    honest = pair.a.engine._phase1._ourselves
    pair.a.engine._phase1._ourselves = lambda path, expectation: Careless(**{
        field.name: getattr(honest(path, expectation), field.name) for field in fields(Ourselves)})
    pair.initiate()
    pair.run()
    assert not pair.b.heard(KeysWanted)
    [failed] = pair.b.heard(ChannelFailed)
    assert failed.failure is KeyingFailure.NO_IDENTITY and "nat-id-undefined: the peer 10.1.2.3" in failed.detail
    [failed] = pair.a.heard(TunnelFailed)
    assert failed.failure is KeyingFailure.PHASE1_REFUSED and "INVALID-ID-INFORMATION" in failed.detail


@pytest.mark.conformance("C-6.2-01")
def test_peer_behind_a_nat_that_cannot_traverse_it_gets_no_tunnel_into_which_datagrams_would_vanish():
    pair, _ = behind_nat(extensions=WITHOUT)
    pair.initiate()
    pair.run()
    [failed] = pair.b.heard(ChannelFailed)
    assert failed.failure is KeyingFailure.NO_IDENTITY and "has not announced NAT traversal" in failed.detail
    assert not pair.b.heard(KeysWanted) and not pair.a.tunnel_sas()


def test_message_5_that_stays_on_port_500_behind_a_nat_is_not_taken():
    pair, box = behind_nat()
    pair.initiate()
    pair.fault = lambda number, datagram: [] if number >= 4 else box(number, datagram)
    pair.run(2.0)
    data = pair.capture[4].data[4:]
    pair.inject(Datagram(data, Endpoint(SG_B, 500), box.mappings[Endpoint(INSIDE, 500)]))
    assert "did not come to port 4500" in pair.b.heard(DatagramRefused)[-1].reason
    assert not pair.b.heard(KeysWanted)


def test_keepalives_are_sent_by_who_is_behind_the_nat_while_there_are_tunnels_and_by_nobody_else():
    pair, _ = keyed(dpd_idle=0.0)
    channel_of(pair.a).doubtful = True
    pair.initiate()
    pair.run(3 * KEEPALIVE_SPACING / 4)  # a second channel stands: one of them speaks for both
    sent = len(pair.capture)
    pair.run(3 * KEEPALIVE_SPACING)
    assert [datagram.data for datagram in pair.capture[sent:]] == [NAT_KEEPALIVE] * 3
    assert ports(pair.capture[sent:], pair.a) == {(4500, 4500)} and not ports(pair.capture[sent:], pair.b)
    assert pair.b.engine.counters()["refused"] == 0
    for up in pair.a.heard(TunnelUp):
        pair.do(pair.a, pair.a.engine.delete_tunnel, up.tunnel)
    pair.run(5.0)
    sent = len(pair.capture)
    pair.run(3 * KEEPALIVE_SPACING)
    assert len(pair.capture) == sent


@pytest.mark.parametrize("where", [OUTSIDE, ELSEWHERE])
def test_new_mapping_is_followed_when_an_authentic_message_comes_from_it(where):
    pair, box = keyed()
    tunnel = pair.b.heard(TunnelUp)[0].tunnel
    box.forget(where)
    pair.run(70.0)  # until SG-A asks whether SG-B is there
    mapped = box.mappings[Endpoint(INSIDE, 4500)]
    [moved] = pair.b.heard(TunnelMoved)
    assert (moved.tunnel, moved.gateways, moved.udp) == (tunnel, Flow(SG_B, where), UdpPorts(4500, mapped.port))
    assert channel_of(pair.b).peer == mapped and not pair.a.heard(TunnelMoved)
    standing = channel_of(pair.b).standing
    pair.do(pair.b, pair.b.engine.initiate, ALICE_TO_BOB.reversed(), SG_B, where, standing.identity, [standing.key])
    pair.run()
    assert len(pair.a.heard(TunnelUp)) == 2 and outbound(pair.b).udp == UdpPorts(4500, mapped.port)


def test_what_has_moved_is_found_and_counted_where_it_is_now():
    pair, box = keyed()
    box.forget(ELSEWHERE)
    pair.run(70.0)
    pair.do(pair.a, pair.a.engine.delete_tunnel, pair.a.heard(TunnelUp)[0].tunnel)
    pair.run()
    assert pair.b.heard(TunnelDeleted) and pair.a.heard(TunnelGone)[0].confirmed
    channels, tunnels = pair.b.engine._core.channels, pair.b.engine._core.tunnels
    assert (channels.near(OUTSIDE), channels.near(ELSEWHERE)) == (0, 1) and channels.with_peer(OUTSIDE) == []
    pair.do(pair.a, pair.a.engine.close)
    pair.run()
    assert len(channels) == channels.near(ELSEWHERE) == tunnels.near(ELSEWHERE) == tunnels.near(OUTSIDE) == 0


def test_delete_from_a_new_mapping_is_confirmed_to_it():
    pair, box = keyed()
    box.forget()
    pair.do(pair.a, pair.a.engine.delete_tunnel, pair.a.heard(TunnelUp)[0].tunnel)
    pair.run(1.0)
    assert pair.a.heard(TunnelGone)[0].confirmed and channel_of(pair.b).peer == box.mappings[Endpoint(INSIDE, 4500)]


def test_rekey_from_a_new_mapping_moves_the_old_tunnel_too():
    pair, box = keyed()
    box.forget()
    pair.initiate()
    pair.run()
    mapped = box.mappings[Endpoint(INSIDE, 4500)].port
    assert [moved.udp for moved in pair.b.heard(TunnelMoved)] == [UdpPorts(4500, mapped)]
    assert outbound(pair.b).udp == UdpPorts(4500, mapped) and len(pair.b.heard(TunnelUp)) == 2


def test_new_keying_channel_from_a_new_mapping_moves_the_tunnels_of_the_old_one():
    pair, box = keyed()
    box.forget()
    channel_of(pair.a).doubtful = True
    pair.initiate()
    pair.run()
    mapped = box.mappings[Endpoint(INSIDE, 4500)].port
    assert len(pair.b.heard(ChannelUp)) == 2
    assert {moved.udp for moved in pair.b.heard(TunnelMoved)} == {UdpPorts(4500, mapped)}
    assert {channel.peer.port for channel in pair.b.engine._core.channels} == {mapped}


def test_nat_that_changes_its_mind_during_quick_mode_is_followed_within_it():
    pair, box = behind_nat()
    pair.initiate()
    pair.fault = lambda number, datagram: (box.forget(ELSEWHERE) if number == 8 else None) or box(number, datagram)
    pair.run()
    mapped = box.mappings[Endpoint(INSIDE, 4500)]
    assert pair.b.messages()[-1] == "quick mode 3"
    assert (outbound(pair.b).destination, outbound(pair.b).udp) == (ELSEWHERE, UdpPorts(4500, mapped.port))
    assert pair.b.heard(TunnelUp)[0].peer == ELSEWHERE


def forgeries(pair, box):
    """What somebody elsewhere can make of what he saw: copies, and copies that he changed."""
    for sent in list(pair.capture):
        if sent.local.address == INSIDE:
            yield sent.data
            yield sent.data[:-1] + bytes([sent.data[-1] ^ 1])
    yield NAT_KEEPALIVE
    channel = channel_of(pair.b)
    yield bytes(4) + channel.header(ExchangeType.INFORMATIONAL, 77).pack(bytes(32))
    yield bytes(4) + channel.header(ExchangeType.QUICK_MODE, 78).pack(bytes(64))


@pytest.mark.parametrize("port", [500, 4500])
def test_forged_and_repeated_datagrams_from_elsewhere_move_nothing(port):
    pair, box = keyed()
    pair.run(130.0)  # with questions whether SG-B is there
    before = channel_of(pair.b).path
    for data in forgeries(pair, box):
        pair.inject(Datagram(data, Endpoint(SG_B, port), Endpoint(ELSEWHERE, 4500)))
        assert channel_of(pair.b).path == before
    assert not pair.b.heard(TunnelMoved)
    pair.initiate()
    pair.run()
    assert len(pair.b.heard(TunnelUp)) == 2


def test_notify_of_who_has_not_proved_himself_yet_moves_nothing():
    """He has the keys of main mode, as anybody may who was asked or asks for it."""
    pair, _ = behind_nat()
    pair.b.dns_delay = None
    pair.initiate()
    pair.run(1.0)
    channel = channel_of(pair.b)
    before, stage, iv = channel.path, channel.main_mode.stage, channel.main_mode.state.iv
    secrets, notify = stage.agreement.secrets, Payload(PayloadType.NOTIFICATION, Notification(
        Protocol.ISAKMP, NotifyType.INVALID_ID_INFORMATION).pack())
    digest = Payload(PayloadType.HASH, secrets.prf_a((9).to_bytes(4, "big") + pack_chain([notify])))
    data, _ = seal_encrypted(channel.header(ExchangeType.INFORMATIONAL, 9), [digest, notify],
                             secrets.phase2_state(iv, 9))
    pair.inject(Datagram(bytes(4) + data, Endpoint(SG_B, 4500), Endpoint(ELSEWHERE, 4500)))
    assert pair.b.messages()[-1] == "notify INVALID-ID-INFORMATION" and channel.path == before


def test_who_is_behind_a_nat_follows_nobody():
    """What changes for it may be forged (RFC 3947 section 6): only the mappings of others are followed."""
    pair, box = keyed()
    before = channel_of(pair.a).path
    pair.fault = lambda number, datagram: box(number, replace(datagram, peer=Endpoint(ELSEWHERE, 4500))
                                              if datagram.peer.address == SG_B else datagram)
    pair.run(61.0)
    assert pair.a.heard(DatagramRefused)
    assert channel_of(pair.a).path == before and not pair.a.heard(TunnelMoved)


def test_without_a_nat_messages_from_elsewhere_are_a_strangers():
    pair = standing_pair()
    deletion = pair.capture[-1]
    pair.inject(replace(deletion, local=Endpoint(SG_B, 500), peer=Endpoint(ELSEWHERE, 500)))
    assert "cookies of no keying channel" in pair.b.heard(DatagramRefused)[-1].reason


@pytest.mark.parametrize("by", ["a", "b"])
def test_keying_channel_is_renewed_on_the_mapped_ports_by_either_end(by):
    pair, box = keyed()
    mapped = box.mappings[Endpoint(INSIDE, 4500)]
    sent = len(pair.capture)
    gateway = getattr(pair, by)
    channel = channel_of(gateway)
    channel.wants_keys = True
    pair.do(gateway, gateway.engine.keys_found, channel.id, channel.standing.identity,
            gateway.keys[channel.standing.identity])
    pair.run()
    assert len(gateway.heard(ChannelUp)) == 2 and gateway.heard(ChannelUp)[1].initiator
    assert ports(pair.capture[sent:], pair.a) == {(4500, 4500)}
    assert ports(pair.capture[sent:], pair.b) == {(4500, mapped.port)}


def test_gateways_behind_one_nat_do_not_use_up_each_others_channels():
    pair, _ = keyed()
    core, first = pair.b.engine._core, channel_of(pair.b)
    core.config = replace(core.config, max_channels_per_peer=1)
    first.standing = replace(first.standing, identity=AddressIdentity(ELSEWHERE))
    channel_of(pair.a).doubtful = True
    pair.initiate()
    pair.run()
    assert len(core.channels) == 2
    channel_of(pair.a).doubtful = True
    pair.initiate()
    pair.run()
    assert len(core.channels) == 2 and first in core.channels


def test_several_gateways_behind_one_nat_are_told_apart_by_who_they_are():
    """They share an address; what moves one leaves the other where it is."""
    pair, box = keyed()
    other = replace(channel_of(pair.b).path, peer=Endpoint(OUTSIDE, 4600))
    tunnel = next(iter(pair.b.engine._core.tunnels))
    tunnel.identity = AddressIdentity(ELSEWHERE)
    pair.b.engine._core.tunnels.move(tunnel, other)
    box.forget()
    pair.run(70.0)
    assert tunnel.path == other and not pair.b.heard(TunnelMoved)


def test_peer_calls_from_the_host_that_it_speaks_for_only_where_no_nat_may_hide_others_behind_that_address():
    pair = Pair(EngineConfig(private_key("a"), identity=NAME))
    pair.b.keys[NAME] = (public_key("a"),)
    for source in (SG_A, ALICE):
        pair.initiate(Flow(source, BOB))
        pair.run()
    translated, _ = behind_nat()
    translated.initiate(Flow(OUTSIDE, BOB))
    translated.run()
    assert [(proposed.flow.destination, proposed.calls_from_there)
            for each in (pair, translated) for proposed in each.b.heard(TunnelProposed)] == [
        (SG_A, True), (ALICE, False), (OUTSIDE, False)]
