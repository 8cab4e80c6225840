"""Both roles together, all suites, on a faithful wire."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from oesvc.ike.events import ChannelUp, KeysWanted, SasReady, TunnelGone, TunnelProposed, TunnelUp, Way
from oesvc.ike.identity import AddressIdentity, FqdnIdentity
from oesvc.ike.v1.config import EngineConfig
from oesvc.ike.v1.constants import PayloadType, Protocol
from oesvc.ike.v1.offers import MODERN, PROFILES, RFC4322, Phase1Suite
from oesvc.ike.v1.phase2_offer import key_octets
from oesvc.ike.v1.wire.header import Header
from oesvc.ike.v1.wire.message import open_clear
from oesvc.ike.v1.wire.proposals import parse_sa
from oesvc.ipsec.flow import Flow
from oesvc.ipsec.sa import EspTransform, Lifetime
from tests.ike.pair import ALICE, ALICE_TO_BOB, BOB, SG_A, SG_B, Pair, private_key, public_key

NAMES = [f"main mode {n}" for n in range(1, 7)] + [f"quick mode {n}" for n in range(1, 4)]


def config(name: str = "a", **changes: object) -> EngineConfig:
    return replace(EngineConfig(private_key(name)), **changes)


def only(phase1: Phase1Suite | None = None, esp: EspTransform | None = None) -> dict[str, object]:
    profile = replace(RFC4322, phase1=(phase1,) if phase1 else RFC4322.phase1, esp=(esp,) if esp else RFC4322.esp)
    return {"profile": profile}


def sa_set(gateway):
    return {(sa, sa.encryption_key, sa.integrity_key) for sa in gateway.tunnel_sas()}


@pytest.mark.conformance("C-4.1-02")
@pytest.mark.conformance("C-4.6.1-08")
@pytest.mark.conformance("C-11.2-04")
def test_strangers_key_a_tunnel_in_nine_messages():
    pair = Pair()
    pair.initiate()
    pair.run()
    assert pair.a.messages() == pair.b.messages() == NAMES
    assert len(pair.capture) == 9
    for gateway in pair.gateways:
        assert [type(event) for event in gateway.heard(ChannelUp) + gateway.heard(TunnelUp)] == [ChannelUp, TunnelUp]
        assert {event.name for event in gateway.events if getattr(event, "encrypted", False)} == set(NAMES[4:])


@pytest.mark.conformance("C-2.2-07")
def test_both_ends_have_the_same_two_sas_with_the_same_keys():
    pair = Pair()
    pair.initiate()
    pair.run()
    assert sa_set(pair.a) == sa_set(pair.b)
    inbound, outbound = pair.a.tunnel_sas()
    assert (inbound.source, inbound.destination, inbound.flow) == (SG_B, SG_A, Flow(BOB, ALICE))
    assert (outbound.source, outbound.destination, outbound.flow) == (SG_A, SG_B, ALICE_TO_BOB)
    assert inbound.encryption_key != outbound.encryption_key
    assert min(inbound.spi, outbound.spi) > 255


@pytest.mark.parametrize("suite", RFC4322.phase1, ids=str)
def test_every_phase_1_suite(suite):
    settings = only(phase1=suite)
    pair = Pair(config("a", **settings), config("b", **settings))
    pair.initiate()
    pair.run()
    assert pair.a.heard(TunnelUp) and sa_set(pair.a) == sa_set(pair.b)


@pytest.mark.parametrize("esp", RFC4322.esp, ids=str)
def test_every_esp_transform_with_keys_of_its_lengths(esp):
    settings = only(esp=esp)
    pair = Pair(config("a", **settings), config("b", **settings))
    pair.initiate()
    pair.run()
    assert pair.a.heard(TunnelUp) and sa_set(pair.a) == sa_set(pair.b)
    for sa in pair.a.tunnel_sas():
        assert sa.transform == esp
        assert (len(sa.encryption_key), len(sa.integrity_key)) == key_octets(esp)


@pytest.mark.parametrize("a", PROFILES.values(), ids=str)
@pytest.mark.parametrize("b", PROFILES.values(), ids=str)
def test_any_two_profiles_agree_on_the_best_of_modern(a, b):
    pair = Pair(config("a", profile=a), config("b", profile=b))
    pair.initiate()
    pair.run()
    assert {sa.transform for sa in pair.b.tunnel_sas()} == {MODERN.esp[0]}


@pytest.mark.conformance("C-11.2-09")
@pytest.mark.conformance("C-11.2-10")
def test_responder_waits_for_its_inbound_sa_before_quick_mode_2_and_has_the_outbound_after_3():
    pair = Pair()
    pair.b.installs = False
    pair.initiate()
    pair.run(1)
    [first] = pair.b.heard(SasReady)
    assert [sa.destination for sa in first.sas] == [SG_B]
    assert "quick mode 2" not in pair.b.messages()
    pair.do(pair.b, pair.b.engine.sas_installed, first.tunnel)
    assert pair.b.messages(Way.SENT)[-1] == "quick mode 2"
    pair.run(1)
    [_, second] = pair.b.heard(SasReady)
    assert [sa.destination for sa in second.sas] == [SG_A] and not pair.b.heard(TunnelUp)
    pair.do(pair.b, pair.b.engine.sas_installed, second.tunnel)
    assert pair.b.heard(TunnelUp)


def test_initiator_installs_both_sas_before_quick_mode_3():
    pair = Pair()
    pair.a.installs = False
    pair.initiate()
    pair.run(1)
    [ready] = pair.a.heard(SasReady)
    assert [sa.destination for sa in ready.sas] == [SG_A, SG_B]
    assert "quick mode 3" not in pair.a.messages()
    pair.do(pair.a, pair.a.engine.sas_installed, ready.tunnel)
    assert pair.a.messages()[-1] == "quick mode 3" and pair.a.heard(TunnelUp)


@pytest.mark.conformance("C-3.2.8-06")
def test_second_tunnel_to_the_same_gateway_needs_quick_mode_only():
    pair = Pair()
    pair.initiate()
    pair.run()
    pair.initiate(Flow(ip_address("192.1.0.77"), BOB))
    pair.run()
    assert pair.a.messages()[9:] == NAMES[6:]
    assert len(pair.a.heard(TunnelUp)) == len(pair.b.heard(TunnelUp)) == 2


def test_hundred_tunnels_at_once_share_one_main_mode():
    pair = Pair()
    for host in range(100):
        pair.initiate(Flow(ip_address(f"192.1.0.{host + 1}"), BOB))
    pair.run()
    assert pair.a.messages().count("main mode 1") == 1
    assert len(pair.a.heard(TunnelUp)) == len(pair.b.heard(TunnelUp)) == 100
    assert sa_set(pair.a) == sa_set(pair.b)


@pytest.mark.conformance("C-3.3.1-01")
@pytest.mark.conformance("C-4.3-01")
@pytest.mark.conformance("C-4.6.1-09")
def test_responder_asks_for_the_keys_of_the_address_that_the_initiator_gives():
    pair = Pair()
    pair.initiate()
    pair.run()
    [wanted] = pair.b.heard(KeysWanted)
    assert wanted.identity == AddressIdentity(SG_A)
    [proposed] = pair.b.heard(TunnelProposed)
    assert (proposed.flow, proposed.key) == (Flow(BOB, ALICE), public_key("a"))


@pytest.mark.conformance("C-3.3.2-04")
def test_newest_channel_with_a_peer_is_the_one_that_is_used():
    pair = Pair()
    pair.initiate()
    pair.run(1)
    pair.initiate(Flow(BOB, ip_address("192.1.0.77")), by=pair.b, keys=(public_key("a"), public_key("new")))
    pair.run(1)
    assert pair.b.messages().count("main mode 1") == 1, "the standing channel was authenticated by one of the keys"
    pair.a.engine = Pair(seed="reboot").a.engine
    pair.initiate(Flow(ip_address("192.1.0.78"), BOB))
    pair.run(1)
    newest = Header.parse(pair.capture[-1].data).initiator_cookie
    pair.initiate(Flow(BOB, ip_address("192.1.0.79")), by=pair.b)
    pair.run(1)
    assert Header.parse(pair.capture[-1].data).initiator_cookie == newest
    assert len(pair.b.heard(TunnelUp)) == 4


def test_channel_that_was_authenticated_by_another_key_is_not_used():
    pair = Pair()
    pair.initiate()
    pair.run(1)
    pair.initiate(Flow(ip_address("192.1.0.77"), BOB), keys=(public_key("new"),))
    pair.run(1)
    assert pair.a.messages().count("main mode 1") == 2 and len(pair.a.heard(TunnelUp)) == 1


@pytest.mark.conformance("C-4.1-04")
def test_cookies_nonces_spis_and_values_never_repeat():
    values: list[bytes] = []
    for seed in range(20):
        pair = Pair(seed=seed)
        pair.initiate()
        pair.run(1)
        for datagram in pair.capture[2:4]:
            message = open_clear(Header.parse(datagram.data), datagram.data)
            values += [message.nonce(), message.one(PayloadType.KEY_EXCHANGE), message.header.initiator_cookie,
                       message.header.responder_cookie][:3 if datagram is pair.capture[2] else 2]
        values += [sa.encryption_key for sa in pair.a.tunnel_sas()]
    assert len(set(values)) == len(values)


@pytest.mark.conformance("C-5.3-02")
@pytest.mark.conformance("C-3.3.1-02")
def test_initiator_with_a_domain_name_gives_that():
    name = FqdnIdentity("gateway.example.org")
    pair = Pair(config("a", identity=name))
    pair.b.keys[name] = (public_key("a"),)
    pair.initiate()
    pair.run()
    assert pair.b.heard(KeysWanted)[0].identity == name
    assert pair.b.heard(TunnelUp)[0].identity == name
    assert pair.a.heard(TunnelUp)[0].identity == AddressIdentity(SG_B)


@pytest.mark.conformance("C-5.1-06")
@pytest.mark.parametrize("position", [0, 2, 4])
def test_any_of_several_keys_may_verify(position):
    pair = Pair()
    for gateway, signer in ((pair.a, "b"), (pair.b, "a")):
        keys = [public_key(f"stranger {n}") for n in range(4)]
        keys.insert(position, public_key(signer))
        other = SG_B if gateway is pair.a else SG_A
        gateway.keys[AddressIdentity(other)] = tuple(keys)
    pair.initiate()
    pair.run()
    assert pair.a.heard(TunnelUp) and pair.b.heard(TunnelUp)


@pytest.mark.conformance("C-5.4-01")
def test_new_key_signs_from_its_use_on_and_standing_tunnels_go_on():
    pair = Pair()
    pair.b.keys[AddressIdentity(SG_A)] = (public_key("a"), public_key("a tomorrow"))
    pair.initiate()
    pair.run(1)
    pair.a.engine.use_key(private_key("a tomorrow"))
    pair.initiate(Flow(BOB, ip_address("192.1.0.78")), by=pair.b, keys=(public_key("a tomorrow"),))
    pair.run(1)
    assert pair.b.messages().count("main mode 1") == 2, "a channel of its own by the new key"
    assert len(pair.b.heard(TunnelUp)) == 2 and not pair.b.heard(TunnelGone)


def test_ipv6_gateways_and_hosts():
    gateways = ip_address("2001:db8::4"), ip_address("2001:db8::5")
    flow = Flow(ip_address("2001:db8:a::65"), ip_address("2001:db8:b::66"))
    pair = Pair(addresses=gateways)
    pair.initiate(flow)
    pair.run()
    assert pair.b.heard(TunnelUp)[0].flow == flow.reversed() and sa_set(pair.a) == sa_set(pair.b)


def test_the_shorter_lifetimes_hold():
    pair = Pair(config("a", phase2_lifetime=Lifetime(1200, 100_000)), config("b", phase2_lifetime=Lifetime(900)))
    pair.initiate()
    pair.run()
    assert {sa.lifetime for sa in pair.b.tunnel_sas()} == {Lifetime(900, 100_000)}
    assert {sa.lifetime for sa in pair.a.tunnel_sas()} == {Lifetime(900, 100_000)}, "RESPONDER-LIFETIME"


@pytest.mark.conformance("C-4.6.1-06")
@pytest.mark.parametrize("profile", PROFILES.values(), ids=str)
def test_first_message_fits_into_1280_octets(profile):
    pair = Pair(config("a", profile=profile))
    pair.initiate()
    assert len(pair.capture[0].data) + 8 + 40 < 1280


def offered(pair: Pair):
    message = pair.capture[0].data
    [proposal] = parse_sa(open_clear(Header.parse(message), message).one(PayloadType.SA))
    return proposal


@pytest.mark.conformance("C-4.6.1-02")
@pytest.mark.conformance("C-4.6.1-03")
@pytest.mark.conformance("C-4.6.1-04")
def test_rfc_profile_offers_the_mandatory_set_with_group_5_first():
    suites = [str(suite) for suite in RFC4322.phase1[len(MODERN.phase1):]]
    assert suites == ["3des-cbc-192 sha1 modp1536", "3des-cbc-192 md5 modp1536",
                      "3des-cbc-192 sha1 modp1024", "3des-cbc-192 md5 modp1024"]
    pair = Pair(config("a", profile=RFC4322))
    pair.initiate()
    proposal = offered(pair)
    assert proposal.protocol == Protocol.ISAKMP and len(proposal.transforms) == len(RFC4322.phase1)
