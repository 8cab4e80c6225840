"""What is offered, what is accepted, and what a refusal says (RFC 4322 section 4.6)."""

import struct
from dataclasses import replace
from ipaddress import ip_address
from itertools import pairwise

import pytest

from oesvc.ike.crypto.groups import Group, generate
from oesvc.ike.datagram import Datagram
from oesvc.ike.events import DatagramRefused, MessageSeen, TunnelProposed
from oesvc.ike.v1 import phase1_offer, phase2_offer
from oesvc.ike.v1.constants import (
    AuthenticationMethod,
    Encapsulation,
    EspAttribute,
    ExchangeType,
    IdType,
    NotifyType,
    PayloadType,
    Phase1Attribute,
    Protocol,
)
from oesvc.ike.v1.errors import NoProposalChosenError
from oesvc.ike.v1.offers import MODERN, PROFILES, RFC4322, Cipher, Phase1Suite, Profile
from oesvc.ike.v1.wire.header import Header
from oesvc.ike.v1.wire.message import open_clear, seal_clear
from oesvc.ike.v1.wire.payloads import Identification, Notification, Payload
from oesvc.ike.v1.wire.proposals import Attribute, Proposal, Transform, pack_sa, parse_sa
from oesvc.ipsec.flow import Flow
from oesvc.ipsec.sa import Encryption, EspTransform, Integrity, Lifetime
from tests.ike.forge import (
    channel_of,
    deliver,
    drop_attribute,
    endpoint,
    first_message,
    pack_host,
    protected,
    set_attribute,
)
from tests.ike.pair import ALICE, BOB, Pair

P, A, E = PayloadType, Phase1Attribute, EspAttribute
LIFETIME, FLOOR = Lifetime(28800), Lifetime(60)


def clear_notify(pair: Pair) -> str:
    """The name of the notify that SG-B answered in clear with."""
    data = pair.capture[-1].data
    message = open_clear(Header.parse(data), data)
    return Notification.parse(message.one(P.NOTIFICATION)).name


# --- phase 1 ----------------------------------------------------------------------------------------------------

@pytest.mark.conformance("C-4.6.1-07")
@pytest.mark.parametrize("suite", RFC4322.phase1[-4:], ids=str)
def test_mandatory_combination_is_found_among_unknown_ones_wherever_it_stands(suite):
    offer = parse_sa(phase1_offer.offer(replace(RFC4322, phase1=(suite,)), LIFETIME))[0]
    unknown = Transform(1, 1, (Attribute.of(A.ENCRYPTION, 65001), Attribute.of(A.HASH, 3), Attribute.of(17, 1)))
    for position in range(3):
        transforms = [unknown, unknown]
        transforms.insert(position, offer.transforms[0])
        body = pack_sa((replace(offer, transforms=tuple(transforms)),))
        chosen, lifetime, _, answer = phase1_offer.choose(body, RFC4322, LIFETIME, FLOOR)
        assert (chosen, lifetime) == (suite, LIFETIME)
        assert parse_sa(answer) == (replace(offer, transforms=(offer.transforms[0],)),), "returned unmodified"


def test_responder_takes_the_first_acceptable_in_the_initiators_order():
    backwards = replace(MODERN, phase1=MODERN.phase1[::-1])
    assert phase1_offer.choose(phase1_offer.offer(backwards, LIFETIME), MODERN, LIFETIME, FLOOR)[0] == MODERN.phase1[-1]


def test_combination_of_acceptable_parts_is_acceptable_though_we_never_offer_it():
    suite = replace(MODERN.phase1[0], group=Group.MODP_8192)
    assert suite not in MODERN.phase1
    body = phase1_offer.offer(replace(MODERN, phase1=(suite,)), LIFETIME)
    assert phase1_offer.choose(body, MODERN, LIFETIME, FLOOR)[0] == suite
    with pytest.raises(NoProposalChosenError, match="not offered"):
        phase1_offer.accept_choice(body, MODERN, LIFETIME)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda profile: profile.name)
@pytest.mark.parametrize("cipher, key_length", [(1, None), (2, None), (3, 128), (4, 40), (6, 128), (7, 40), (0, None)])
@pytest.mark.conformance("C-4.6.1-05")
def test_nothing_weaker_than_triple_des_is_accepted(profile, cipher, key_length):
    length = (Attribute.of(A.KEY_LENGTH, key_length),) if key_length else ()
    transform = Transform(1, 1, (Attribute.of(A.ENCRYPTION, cipher), Attribute.of(A.HASH, 2), *length,
                                 Attribute.of(A.AUTHENTICATION, 3), Attribute.of(A.GROUP, 14)))
    with pytest.raises(NoProposalChosenError, match="cipher"):
        phase1_offer.choose(pack_sa((Proposal(1, 1, b"", (transform,)),)), profile, LIFETIME, FLOOR)


@pytest.mark.conformance("C-4.6.1-05")
def test_nothing_weaker_than_triple_des_can_even_be_configured():
    assert {cipher.value for cipher in Cipher} == {("3des-cbc", 192), ("aes-cbc", 128), ("aes-cbc", 256)}
    assert {encryption.value for encryption in Encryption} == {"3des-cbc", "aes-cbc", "aes-gcm"}
    assert not MODERN.accepts_esp(EspTransform(Encryption.AES_CBC, 128, None)), "no encryption without integrity"
    assert not RFC4322.accepts_esp(EspTransform(Encryption.DES3_CBC, 192, None))


@pytest.mark.conformance("C-4.6.1-10", "C-1.3-01")
@pytest.mark.parametrize("method", [AuthenticationMethod.PRE_SHARED_KEY, AuthenticationMethod.RSA_ENCRYPTION,
                                    0, 64221, 65001, 65005], ids=str)
def test_pre_shared_keys_hybrid_xauth_and_nothing_at_all_are_refused_with_the_reason(method):
    pair = Pair()
    forged = first_message(pair, set_attribute(A.AUTHENTICATION, method))
    deliver(pair, pair.a, forged)
    [refused] = pair.b.heard(DatagramRefused)
    assert "instead of RSA-SIGNATURES" in refused.reason
    assert clear_notify(pair) == "NO-PROPOSAL-CHOSEN"
    assert len(pair.b.engine._core.channels) == 0


def test_refusal_says_of_each_transform_what_did_not_match_and_what_would():
    pair = Pair()
    forged = first_message(pair, lambda transform: set_attribute(A.HASH, 1)(set_attribute(A.GROUP, 1)(transform)))
    deliver(pair, pair.a, forged)
    reason = pair.b.heard(DatagramRefused)[0].reason
    for number in range(1, len(MODERN.phase1) + 1):
        assert f"proposal 1 transform {number}: group 1" in reason
    assert "aes-cbc-128 sha256 ecp256" in reason, "what would have matched"
    deliver(pair, pair.a, first_message(Pair(), drop_attribute(A.GROUP)))
    assert "group None" in pair.b.heard(DatagramRefused)[1].reason


def test_refusal_of_very_many_transforms_is_still_readable():
    transforms = tuple(Transform(number, 1, (Attribute.of(A.ENCRYPTION, 1),)) for number in range(200))
    with pytest.raises(NoProposalChosenError) as caught:
        phase1_offer.choose(pack_sa((Proposal(1, 1, b"", transforms),)), MODERN, LIFETIME, FLOOR)
    assert "and 184 more" in str(caught.value) and len(str(caught.value)) < 3000


@pytest.mark.conformance("C-4.6.1-01")
def test_aggressive_mode_is_refused_and_told_so():
    pair = Pair()
    pair.initiate()
    data = bytearray(pair.capture[0].data)
    data[18] = ExchangeType.AGGRESSIVE_MODE
    deliver(pair, pair.a, bytes(data))
    assert clear_notify(pair) == "INVALID-EXCHANGE-TYPE"
    assert "only main mode may begin" in pair.b.heard(DatagramRefused)[0].reason
    assert not pair.b.heard(MessageSeen)


@pytest.mark.parametrize("exchange", [0, 1, 5, 6, 32, 33, 255])
def test_other_exchanges_of_strangers_are_dropped_in_silence(exchange):
    pair = Pair()
    pair.initiate()
    data = bytearray(pair.capture[0].data)
    data[18] = exchange
    deliver(pair, pair.a, bytes(data))
    assert len(pair.capture) == 1 and pair.b.heard(DatagramRefused)


@pytest.mark.parametrize("change", [
    lambda transform: set_attribute(A.GROUP, 5)(transform),
    lambda transform: set_attribute(A.AUTHENTICATION, 1)(transform),
    lambda transform: replace(transform, id=9),
], ids=["group", "authentication", "transform"])
def test_initiator_does_not_take_what_it_has_not_offered(change):
    pair = Pair()
    pair.initiate()
    first = open_clear(Header.parse(pair.capture[0].data), pair.capture[0].data)
    [proposal] = parse_sa(first.one(P.SA))
    chosen = replace(proposal, transforms=(change(proposal.transforms[0]),))
    forged = seal_clear(replace(first.header, responder_cookie=b"\7" * 8), [Payload(P.SA, pack_sa((chosen,)))])
    deliver(pair, pair.b, forged)
    assert "not offered" in pair.a.heard(DatagramRefused)[0].reason
    pair.run()
    assert pair.a.messages()[-1] == "quick mode 3", "the right answer is still welcome"


def test_choice_with_attributes_in_another_order_and_form_is_understood():
    [proposal] = parse_sa(phase1_offer.offer(MODERN, LIFETIME))
    attributes = tuple(Attribute(attribute.type, attribute.number.to_bytes(4, "big"), basic=False)
                       for attribute in reversed(proposal.transforms[3].attributes[:-2]))
    chosen = Transform(9, 1, (*attributes, *proposal.transforms[3].attributes[-2:]))
    body = pack_sa((replace(proposal, transforms=(chosen,)),))
    assert phase1_offer.accept_choice(body, MODERN, LIFETIME) == (MODERN.phase1[3], LIFETIME)


def test_vendor_ids_and_unknown_payloads_are_tolerated():
    pair = Pair()
    seal = first_message(pair, lambda transform: transform)
    message = open_clear(Header.parse(seal), seal)
    extended = seal_clear(message.header, [*message.payloads, Payload(P.VENDOR_ID, b"somebody"), Payload(20, b"NAT-D"),
                                           Payload(200, b"private")])
    deliver(pair, pair.a, extended)
    answer = open_clear(Header.parse(pair.capture[-1].data), pair.capture[-1].data)
    assert pair.capture[-1].local.address == pair.b.address and answer.has(P.SA)


# --- phase 2 ----------------------------------------------------------------------------------------------------

def quick_mode_1(pair: Pair, **changes: object) -> bytes:
    """Quick mode 1 of SG-A with one ESP transform, as it should be but for the changes."""
    what: dict = {"protocol": Protocol.ESP, "transform": 12, "spi": b"\1\2\3\4", "proposals": None,
                  "ids": [pack_host(ALICE), pack_host(BOB)], "ke": generate(Group.ECP_256).public, "more": [],
                  E.ENCAPSULATION: Encapsulation.TUNNEL, E.GROUP: 19, E.INTEGRITY: 5, E.KEY_LENGTH: 128}
    what.update({getattr(E, name, name): value for name, value in changes.items()})
    attributes = tuple(Attribute.of(kind, number) for kind, number in what.items()
                       if isinstance(kind, E) and number is not None)
    proposals = what["proposals"] or (
        Proposal(1, what["protocol"], what["spi"], (Transform(1, what["transform"], attributes),)),)
    payloads = [Payload(P.SA, pack_sa(proposals)), Payload(P.NONCE, bytes(16)),
                *([Payload(P.KEY_EXCHANGE, what["ke"])] if what["ke"] else []),
                *(Payload(P.IDENTIFICATION, body) for body in what["ids"]), *what["more"]]
    return protected(channel_of(pair.a), ExchangeType.QUICK_MODE, 4711, payloads)


def subnet(address: str, mask: str) -> bytes:
    packed = ip_address(address).packed + ip_address(mask).packed
    return Identification(IdType.IPV4_ADDR_SUBNET if len(packed) == 8 else IdType.IPV6_ADDR_SUBNET, 0, 0, packed).pack()


def standing_pair() -> Pair:
    pair = Pair()
    pair.initiate()
    return pair.run(1)


def test_the_proposal_that_the_refusals_below_vary_is_accepted():
    pair = standing_pair()
    deliver(pair, pair.a, quick_mode_1(pair))
    assert len(pair.b.heard(TunnelProposed)) == 2
    assert pair.b.messages()[-1] == "quick mode 2"


@pytest.mark.parametrize("changes, reason, notify", [
    pytest.param({"ENCAPSULATION": Encapsulation.TRANSPORT}, "encapsulation TRANSPORT instead of TUNNEL",
                 NotifyType.NO_PROPOSAL_CHOSEN, marks=pytest.mark.conformance("C-4.6.2-03")),
    pytest.param({"ENCAPSULATION": None}, "instead of TUNNEL", NotifyType.NO_PROPOSAL_CHOSEN),
    pytest.param({"GROUP": None, "ke": None}, "no perfect forward secrecy", NotifyType.NO_PROPOSAL_CHOSEN,
                 marks=pytest.mark.conformance("C-4.6.2-02")),
    pytest.param({"ke": None}, "ecp256 needs a KE payload of 64 octets, not none", NotifyType.NO_PROPOSAL_CHOSEN,
                 marks=pytest.mark.conformance("C-4.6.2-02")),
    pytest.param({"GROUP": 14}, "modp2048 needs a KE payload of 256 octets, not one of 64",
                 NotifyType.NO_PROPOSAL_CHOSEN),
    pytest.param({"GROUP": 2}, "modp1024 is not in the profile modern", NotifyType.NO_PROPOSAL_CHOSEN),
    pytest.param({"protocol": Protocol.AH}, "protocol AH instead of ESP", NotifyType.NO_PROPOSAL_CHOSEN),
    pytest.param({"protocol": Protocol.IPCOMP}, "protocol IPCOMP instead of ESP", NotifyType.NO_PROPOSAL_CHOSEN),
    pytest.param({"transform": 2}, "ESP transform 2", NotifyType.NO_PROPOSAL_CHOSEN,
                 marks=pytest.mark.conformance("C-4.6.1-05")),
    pytest.param({"transform": 11}, "ESP transform 11", NotifyType.NO_PROPOSAL_CHOSEN),
    pytest.param({"KEY_LENGTH": None}, "aes-cbc-0 hmac-sha2-256 is not in the profile",
                 NotifyType.NO_PROPOSAL_CHOSEN),
    pytest.param({"INTEGRITY": None}, "aes-cbc-128 is not in the profile", NotifyType.NO_PROPOSAL_CHOSEN),
    pytest.param({"INTEGRITY": 1}, "hmac-md5 is not in the profile", NotifyType.NO_PROPOSAL_CHOSEN),
    pytest.param({"INTEGRITY": 77}, "integrity 77", NotifyType.NO_PROPOSAL_CHOSEN),
    pytest.param({"transform": 20}, "aes-gcm-128 hmac-sha2-256 is not in the profile", NotifyType.NO_PROPOSAL_CHOSEN),
    pytest.param({"spi": b"\0\0\0\xff"}, "the SPI 000000ff is none", NotifyType.INVALID_SPI),
    pytest.param({"spi": b"\1\2"}, "the SPI 0102 is none", NotifyType.INVALID_SPI),
    pytest.param({"ids": [subnet("192.1.0.0", "255.255.255.0"), pack_host(BOB)]}, "for the subnet 192.1.0.0",
                 NotifyType.INVALID_ID_INFORMATION, marks=pytest.mark.conformance("C-4.6.2-05")),
    pytest.param({"ids": [pack_host(ALICE), subnet("0.0.0.0", "0.0.0.0")]}, "for the subnet 0.0.0.0",
                 NotifyType.INVALID_ID_INFORMATION, marks=pytest.mark.conformance("C-4.6.2-05")),
    pytest.param({"ids": [subnet("2001:db8::", "ffff:ffff::"), subnet("2001:db8::1", "ffff:" * 7 + "ffff")]},
                 "for the subnet 2001:db8::", NotifyType.INVALID_ID_INFORMATION),
    pytest.param({"ids": []}, "0 identities instead of the two", NotifyType.INVALID_ID_INFORMATION),
    pytest.param({"ids": [pack_host(ALICE), pack_host(ip_address("2001:db8::1"))]}, "different address families",
                 NotifyType.INVALID_ID_INFORMATION),
    pytest.param({"ids": [Identification(IdType.IPV4_ADDR, 6, 80, ALICE.packed).pack(), pack_host(BOB)]},
                 "only for protocol 6 port 80", NotifyType.INVALID_ID_INFORMATION),
    pytest.param({"ids": [Identification(IdType.FQDN, 0, 0, b"alice").pack(), pack_host(BOB)]}, "no single host",
                 NotifyType.INVALID_ID_INFORMATION),
    pytest.param({"ids": [Identification(IdType.IPV4_ADDR, 0, 0, b"\1\2").pack(), pack_host(BOB)]}, "no single host",
                 NotifyType.INVALID_ID_INFORMATION),
])
def test_quick_mode_is_refused_with_the_reason_and_the_right_authenticated_notify(changes, reason, notify):
    pair = standing_pair()
    deliver(pair, pair.a, quick_mode_1(pair, **changes))
    assert reason in pair.b.heard(DatagramRefused)[-1].reason
    assert len(pair.b.heard(TunnelProposed)) == 1
    pair.run(0.1)
    assert pair.b.messages()[-2:] == ["quick mode 1", f"notify {notify.name.replace('_', '-')}"]
    assert pair.a.messages()[-1] == pair.b.messages()[-1], "the initiator takes it as authentic"


def test_refusal_of_quick_mode_names_the_tunnel_and_part_by_part_what_would_match():
    pair = standing_pair()
    deliver(pair, pair.a, quick_mode_1(pair, GROUP=2, ke=bytes(128)))
    refused = pair.b.heard(DatagramRefused)[-1]
    assert refused.flow == Flow(BOB, ALICE) and "group modp1024 instead of ecp256 or ecp384" in refused.reason
    weak = Phase1Suite(Cipher.DES3_CBC, MODERN.phase1[0].hash, Group.MODP_1536)
    with pytest.raises(NoProposalChosenError, match="cipher 3des-cbc-192 instead of aes-cbc-128 or aes-cbc-256 "
                                                    "and group modp1536 instead of ecp256"):
        phase1_offer.choose(phase1_offer.offer(replace(MODERN, phase1=(weak,)), LIFETIME), MODERN, LIFETIME, FLOOR)


@pytest.mark.conformance("C-4.6.2-07", "C-4.6.2-08")
def test_esp_with_compression_is_not_half_accepted_but_the_same_without_it_is():
    def proposal(number: int, protocol: int, transform: int) -> Proposal:
        return Proposal(number, protocol, b"\1\2\3\4" if protocol == Protocol.ESP else b"\1\2", (Transform(
            1, transform, tuple(Attribute.of(kind, value) for kind, value in
                                ((E.ENCAPSULATION, 1), (E.GROUP, 19), (E.INTEGRITY, 5), (E.KEY_LENGTH, 128)))),))

    both = proposal(1, Protocol.ESP, 12), proposal(1, Protocol.IPCOMP, 2)
    suite, spi, chosen = phase2_offer.choose(pack_sa((*both, proposal(2, Protocol.ESP, 12))), MODERN, LIFETIME, 64)
    assert (chosen.number, spi, suite.group) == (2, 0x01020304, Group.ECP_256)
    with pytest.raises(NoProposalChosenError, match="combined with another protocol"):
        phase2_offer.choose(pack_sa(both), MODERN, LIFETIME, 64)


@pytest.mark.conformance("C-4.6.2-04")
@pytest.mark.parametrize("address", [ALICE, ip_address("2001:db8::65")], ids=str)
def test_hosts_are_named_as_subnets_of_one_address(address):
    id = Identification.parse(pack_host(address))
    assert id.type == (IdType.IPV4_ADDR_SUBNET if address.version == 4 else IdType.IPV6_ADDR_SUBNET)
    assert id.data == address.packed + b"\xff" * len(address.packed)


def test_plain_address_identities_are_accepted_too():
    pair = standing_pair()
    ids = [Identification(IdType.IPV4_ADDR, 0, 0, address.packed).pack() for address in (ALICE, BOB)]
    deliver(pair, pair.a, quick_mode_1(pair, ids=ids))
    assert pair.b.heard(TunnelProposed)[-1].flow.destination == ALICE


@pytest.mark.conformance("C-4.6.2-01")
def test_rfc_profile_proposes_triple_des_with_sha1_and_md5():
    offered = RFC4322.esp[len(MODERN.esp):]
    assert offered == (EspTransform(Encryption.DES3_CBC, 192, Integrity.HMAC_SHA1_96),
                       EspTransform(Encryption.DES3_CBC, 192, Integrity.HMAC_MD5_96))


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda profile: profile.name)
def test_quick_mode_offers_one_proposal_with_one_group_for_all(profile: Profile):
    [proposal] = parse_sa(phase2_offer.offer(profile, Group.MODP_3072, Lifetime(3600, 100_000), 0x01020304))
    groups = {attribute.number for transform in proposal.transforms for attribute in transform.attributes
              if attribute.type == E.GROUP}
    assert groups == {15} and len(proposal.transforms) == len(profile.esp) and proposal.spi == b"\1\2\3\4"


@pytest.mark.parametrize("kind", [A.GROUP, A.HASH, A.ENCRYPTION, A.LIFE_DURATION, A.KEY_LENGTH, 99])
def test_numbers_of_absurd_length_are_refused_in_few_words(kind):
    [proposal] = parse_sa(phase1_offer.offer(replace(MODERN, phase1=MODERN.phase1[:1]), LIFETIME))
    huge = replace(proposal.transforms[0], attributes=(
        *(attribute for attribute in proposal.transforms[0].attributes if attribute.type != kind),
        Attribute(kind, b"\xff" * 20_000, basic=False)))
    with pytest.raises(NoProposalChosenError, match="has 20000 octets") as caught:
        phase1_offer.choose(pack_sa((replace(proposal, transforms=(huge,)),)), MODERN, LIFETIME, FLOOR)
    assert len(str(caught.value)) < 1000


TRIPLE_DES = replace(RFC4322, esp=RFC4322.esp[len(MODERN.esp):])
FOUR_GIB = 1 << 22
"In kilobytes."


def volumes(offer: bytes) -> list[list[int]]:
    """The kilobytes of each transform: what stands behind the life type 2."""
    [proposal] = parse_sa(offer)
    return [[after.number for before, after in pairwise(transform.attributes)
             if (before.type, before.number) == (E.LIFE_TYPE, 2)] for transform in proposal.transforms]


@pytest.mark.parametrize("ours, of_aes, of_triple_des", [
    (0, [], [FOUR_GIB]), (1000, [1000], [1000]), (FOUR_GIB + 1, [FOUR_GIB + 1], [FOUR_GIB])])
def test_cipher_of_small_blocks_is_offered_for_no_more_than_it_is_good_for(ours, of_aes, of_triple_des):
    offered = volumes(phase2_offer.offer(RFC4322, Group.MODP_1024, Lifetime(3600, ours), 0x01020304))
    assert offered == [of_aes] * len(MODERN.esp) + [of_triple_des] * 2


def test_cipher_of_small_blocks_ends_in_time_though_the_peer_knows_no_volume():
    unlimited = phase2_offer.offer(TRIPLE_DES, Group.MODP_1024, Lifetime(3600), 0x01020304)
    [proposal] = parse_sa(unlimited)
    silent = replace(proposal, transforms=tuple(
        replace(each, attributes=each.attributes[:-2]) for each in proposal.transforms))
    assert volumes(pack_sa((silent,))) == [[], []]
    suite, _, chosen = phase2_offer.choose(pack_sa((silent,)), TRIPLE_DES, Lifetime(3600), 128)
    assert suite.lifetime == Lifetime(3600, FOUR_GIB) and suite.shortened, "and the initiator is told"
    suite, _ = phase2_offer.accept_choice(phase2_offer.answer(chosen, 0x05060708), TRIPLE_DES, Group.MODP_1024,
                                          Lifetime(3600))
    assert suite.lifetime == Lifetime(3600, FOUR_GIB)


@pytest.mark.parametrize("ours, agreed, told", [(3600, 3600, True), (28800, 28800, False), (86400, 28800, False)])
def test_who_says_nothing_of_time_means_eight_hours(ours, agreed, told):
    [proposal] = parse_sa(phase2_offer.offer(MODERN, Group.ECP_256, Lifetime(3600), 0x01020304))
    silent = replace(proposal, transforms=tuple(
        replace(each, attributes=each.attributes[:-2]) for each in proposal.transforms))
    suite, _, _ = phase2_offer.choose(pack_sa((silent,)), MODERN, Lifetime(ours), 64)
    assert (suite.lifetime, suite.shortened) == (Lifetime(agreed), told)


def test_volume_that_no_counter_holds_is_no_limit():
    body = phase2_offer.offer(MODERN, Group.ECP_256, Lifetime(3600), 0x01020304)
    [proposal] = parse_sa(body)
    volume = Attribute.of(E.LIFE_TYPE, 2), Attribute(E.LIFE_DURATION, b"\xff" * 8, basic=False)
    endless = replace(proposal.transforms[0], attributes=(*proposal.transforms[0].attributes, *volume))
    suite, _, _ = phase2_offer.choose(pack_sa((replace(proposal, transforms=(endless,)),)), MODERN, Lifetime(3600), 64)
    assert suite.lifetime == Lifetime(3600, 0)


def test_lifetimes_in_both_units_and_long_form_are_read():
    body = phase2_offer.offer(MODERN, Group.ECP_256, Lifetime(100_000, 200_000), 0x01020304)
    assert struct.pack(">HHL", 2, 4, 100_000) in body
    suite, _, _ = phase2_offer.choose(body, MODERN, Lifetime(200_000, 150_000), 64)
    assert suite.lifetime == Lifetime(100_000, 150_000)


def test_datagram_of_another_address_with_our_cookies_is_a_strangers():
    pair = standing_pair()
    data = pair.capture[2].data
    elsewhere = replace(endpoint(pair.a), address=ip_address("192.1.1.77"))
    pair.b.engine.receive_datagram(Datagram(data, endpoint(pair.b), elsewhere), pair.now)
    assert "cookies of no keying channel" in pair.b.engine.events()[0].reason
