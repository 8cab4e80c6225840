"""Policies and SAs as the kernel reads them: octet by octet against linux/xfrm.h, packed by hand."""

import errno
import struct
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oesvc.ipsec.flow import Flow
from oesvc.ipsec.sa import Encryption, EspTransform, Integrity, IpsecSa, Lifetime, UdpPorts
from oesvc.kernel import sad, spd, structs
from oesvc.kernel.constants import XFRM_INF, Direction, Priority, XfrmMessage
from oesvc.kernel.netlink import HEADER, Message
from oesvc.kernel.notifications import Acquire, SaExpired, read_notification

FLOW = Flow(ip_address("192.1.0.65"), ip_address("192.2.0.66"))
FLOW6 = Flow(ip_address("2001:db8:1::65"), ip_address("2001:db8:2::66"))
GATEWAYS = Flow(ip_address("192.1.1.4"), ip_address("192.1.1.5"))
NO_LIMITS = struct.pack("=8Q", *[XFRM_INF] * 4, *[0] * 4)
NO_USE = bytes(32)


def xfrm_address(text: str) -> bytes:
    return ip_address(text).packed.ljust(16, b"\0")


def selector(source: str, destination: str, family: int = 2, prefix: tuple[int, int] = (32, 32), protocol: int = 0,
             ports: bytes = bytes(8)) -> bytes:
    """struct xfrm_selector: destination first."""
    return (xfrm_address(destination) + xfrm_address(source) + ports
            + struct.pack("=HBBB3xiI", family, prefix[1], prefix[0], protocol, 0, 0))


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", len(value) + 4, kind) + value


@pytest.mark.parametrize(("structure", "size"), [
    (structs.PolicyMessage, 168), (structs.SaMessage, 224), (structs.PolicyId, 64), (structs.SaId, 24),
    (structs.AcquireMessage, 280), (structs.ExpireMessage, 232),
    (structs.XfrmAttributes.template, 64)])
def test_structures_have_the_sizes_of_the_kernels_own(structure: type, size: int) -> None:
    assert sum(struct.calcsize(form) for _, form in structure.fields) == size


def test_an_encrypting_policy_names_its_tunnel_and_demands_its_reqid() -> None:
    template = spd.Template(0xE0000001, GATEWAYS)
    request = spd.put_policy(spd.flow_policy(FLOW, 0, template))
    assert request.kind == XfrmMessage.UPDPOLICY == 0x19
    assert request.body == (
        selector("192.1.0.65", "192.2.0.66") + struct.pack("=8Q", *[XFRM_INF] * 4, 0, 0, 0, 0) + NO_USE
        + struct.pack("=IIBBBB4x", Priority.FLOW, 0, 1, 0, 0, 0)
        + tlv(5, xfrm_address("192.1.1.5") + struct.pack("=IB3xH2x", 0, 50, 2) + xfrm_address("192.1.1.4")
              + struct.pack("=IBBBxIII", 0xE0000001, 1, 0, 0, *[0xFFFFFFFF] * 3)))


def test_a_trap_is_a_transport_mode_template_without_addresses() -> None:
    policy = spd.Policy(Direction.OUT, spd.Selector(ip_network("2001:db8:1::/64"), ip_network("::/0")), Priority.TRAP,
                        template=spd.Template(0xE0000000, None))
    assert spd.put_policy(policy).body == (
        selector("2001:db8:1::", "::", 10, (64, 0)) + NO_LIMITS + NO_USE
        + struct.pack("=IIBBBB4x", Priority.TRAP, 0, 1, 0, 0, 0)
        + tlv(5, bytes(16) + struct.pack("=IB3xH2x", 0, 50, 10) + bytes(16)
              + struct.pack("=IBBBxIII", 0xE0000000, 0, 0, 0, *[0xFFFFFFFF] * 3)))


def test_a_block_has_no_template() -> None:
    body = spd.create_policy(spd.flow_policy(FLOW6, 1, None)).body
    assert body == (selector("2001:db8:1::65", "2001:db8:2::66", 10, (128, 128)) + NO_LIMITS + NO_USE
                    + struct.pack("=IIBBBB4x", Priority.FLOW, 0, 1, 1, 0, 0))


def test_ports_are_masked_only_where_they_are_given() -> None:
    dns = spd.Selector(ip_network("192.1.0.53/32"), ip_network("0.0.0.0/0"), 17, 0, 53)
    error = spd.Selector(ip_network("192.1.1.4/32"), ip_network("0.0.0.0/0"), 1, 3)
    assert spd.delete_policy(Direction.OUT, dns).body == (
        selector("192.1.0.53", "0.0.0.0", prefix=(32, 0), protocol=17, ports=struct.pack("!4H", 53, 0xFFFF, 0, 0))
        + struct.pack("=IB3x", 0, 1))
    assert spd.get_policy(Direction.FWD, error).body == (
        selector("192.1.1.4", "0.0.0.0", prefix=(32, 0), protocol=1, ports=struct.pack("!4H", 0, 0, 3, 0xFFFF))
        + struct.pack("=IB3x", 0, 2))


def test_what_answers_a_flow_must_come_out_of_its_own_tunnel() -> None:
    template = spd.Template(0xE0000001, GATEWAYS.reversed())
    assert [(policy.direction, policy.selector.flow, policy.template, policy.priority)
            for policy in spd.ingress_policies(FLOW, template)] == [
        (direction, FLOW.reversed(), template, Priority.FLOW) for direction in (Direction.FWD, Direction.IN)]


AN_HOUR = Lifetime(3600, 100)


def make_sa(transform: EspTransform, flow: Flow = FLOW, lifetime: Lifetime = AN_HOUR) -> IpsecSa:
    return IpsecSa(0xC0FFEE01, GATEWAYS.source, GATEWAYS.destination, flow, transform, bytes(range(20)), bytes(32),
                   lifetime)


def sa_body(flow_selector: bytes, limits: bytes, use: bytes = NO_USE) -> bytes:
    return (flow_selector + xfrm_address("192.1.1.5") + struct.pack("!I", 0xC0FFEE01) + struct.pack("=B3x", 50)
            + xfrm_address("192.1.1.4") + limits + use + bytes(12)
            + struct.pack("=IIHBBB7x", 0, 0xE0000007, 2, 1, 0, 0))


def test_an_inbound_sa_accepts_its_own_pair_alone_and_watches_for_replays() -> None:
    request = sad.add_sa(make_sa(EspTransform(Encryption.AES_GCM_16, 128, None), FLOW6, Lifetime(3600)), 0xE0000007,
                         inbound=True)
    assert request.kind == 0x10
    assert request.body == (
        sa_body(selector("2001:db8:1::65", "2001:db8:2::66", 10, (128, 128)),
                struct.pack("=8Q", XFRM_INF, XFRM_INF, int(0xFFFFFFFF * (sad.soft_share(0xC0FFEE01) - 0.05)),
                            0xFFFFFFFF, 0, 3600, 0, 0))
        + tlv(18, b"rfc4106(gcm(aes))".ljust(64, b"\0") + struct.pack("=II", 160, 128) + bytes(range(20)))
        + tlv(23, struct.pack("=6I", 4, 0, 0, 0, 0, 128) + bytes(16)))


@pytest.mark.conformance("C-12.1-01")
@pytest.mark.parametrize("inbound", [True, False])
def test_what_a_configured_tunnel_carries_is_marked_and_nothing_else(inbound: bool) -> None:
    """linux/xfrm.h: XFRMA_SET_MARK is 29, its mask 30; only that bit changes."""
    mark = tlv(29, struct.pack("=I", 0x0800_0000)) + tlv(30, struct.pack("=I", 0x0800_0000))
    sa = make_sa(EspTransform(Encryption.AES_GCM_16, 128, None))
    assert mark in sad.add_sa(sa, 0xF0000010, inbound).body
    assert mark not in sad.add_sa(sa, 0xEFFFFFFF, inbound).body


def test_an_outbound_sa_is_renewed_before_its_end_and_before_its_sequence_numbers_repeat() -> None:
    request = sad.add_sa(make_sa(EspTransform(Encryption.AES_CBC, 160, Integrity.HMAC_SHA2_256_128)), 0xE0000007,
                         inbound=False)
    share = sad.soft_share(0xC0FFEE01)
    of_volume = share - 0.1
    assert 0.85 <= share < 0.95
    assert request.body == (
        sa_body(selector("192.1.0.65", "192.2.0.66"), struct.pack(
            "=8Q", int(102400 * of_volume), 102400, int(0xFFFFFFFF * of_volume), 0xFFFFFFFF, int(3600 * share), 3600,
            0, 0))
        + tlv(2, b"cbc(aes)".ljust(64, b"\0") + struct.pack("=I", 160) + bytes(range(20)))
        + tlv(20, b"hmac(sha256)".ljust(64, b"\0") + struct.pack("=II", 256, 128) + bytes(32)))


@pytest.mark.conformance("C-2.2-04")
@given(st.integers(256, 0xFFFFFFFF))
def test_what_the_peer_sends_is_renewed_by_its_volume_a_little_later_than_the_peer_would(spi: int) -> None:
    sa = replace(make_sa(EspTransform(Encryption.DES3_CBC, 192, Integrity.HMAC_SHA1_96)), spi=spi)
    sends, receives = (sad.lifetime(sa, inbound) for inbound in (False, True))
    assert receives["soft_add_expires_seconds"] == 0 < sends["soft_add_expires_seconds"]
    for counted in "byte", "packet":
        soft, hard = f"soft_{counted}_limit", f"hard_{counted}_limit"
        assert 0.75 * sends[hard] - 1 <= sends[soft] < receives[soft] < 0.9 * receives[hard]


@given(st.integers(256, 0xFFFFFFFF), st.integers(1000, 0xFFFFFFFF), st.booleans())
def test_a_number_of_datagrams_of_our_own_ends_no_keys_but_asks_for_new_ones(
        spi: int, packets: int, inbound: bool) -> None:
    sa = replace(make_sa(EspTransform(Encryption.AES_GCM_16, 128, None)), spi=spi)
    limits, usual = sad.lifetime(sa, inbound, packets), sad.lifetime(sa, inbound)
    assert 0.75 * packets - 1 <= limits["soft_packet_limit"] < 0.9 * packets
    assert limits["hard_packet_limit"] == 0xFFFFFFFF
    assert {name for name in limits if limits[name] != usual[name]} <= {"soft_packet_limit"}


def test_selectors_of_other_programs_are_read_though_they_have_bits_beyond_their_prefix() -> None:
    body = selector("10.1.2.3", "0.0.0.0", prefix=(8, 0)).ljust(168, b"\0")
    header = HEADER.pack(HEADER.size + len(body), XfrmMessage.NEWPOLICY, 0, 0, 0)
    policy, = spd.read_policies([Message(XfrmMessage.NEWPOLICY, header + body)])
    assert str(spd.Selector.read(policy)) == "10.0.0.0/8 -> 0.0.0.0/0"


def test_an_sa_gets_another_lifetime_in_its_place() -> None:
    sa = make_sa(EspTransform(Encryption.AES_GCM_16, 128, None))
    for inbound in False, True:
        changed = sad.change_sa(sa, 0xE0000007, inbound)
        assert changed.kind == 0x1A and changed.body == sad.add_sa(sa, 0xE0000007, inbound).body
        assert changed.tolerates == {errno.ESRCH}


PORTS = UdpPorts(4500, 32002)
ENCAP = tlv(4, struct.pack("=H", 2) + struct.pack("!HH2x", 4500, 32002) + bytes(16))
"struct xfrm_encap_tmpl: UDP_ENCAP_ESPINUDP, ports in network order, no original address."


def gcm_sa(udp: UdpPorts | None = PORTS) -> IpsecSa:
    return replace(make_sa(EspTransform(Encryption.AES_GCM_16, 128, None)), udp=udp)


def test_an_sa_within_udp_has_its_ports_between_keys_and_window() -> None:
    plain, within = (sad.add_sa(gcm_sa(udp), 0xE0000007, inbound=False).body for udp in (None, PORTS))
    assert within == plain + ENCAP
    plain, within = (sad.add_sa(gcm_sa(udp), 0xE0000007, inbound=True).body for udp in (None, PORTS))
    assert len(ENCAP) == 28 and within == plain[:-44] + ENCAP + plain[-44:]
    assert "UDP 4500 to 32002" in sad.change_sa(gcm_sa(), 0xE0000007, inbound=False).asks


def test_an_sa_that_moves_takes_its_age_its_octets_and_more_than_its_sequence_number_along() -> None:
    use = struct.pack("=4Q", 1000, 10, 1234, 5678)
    former = structs.SaMessage(message(0x10, sa_body(selector("192.1.0.65", "192.2.0.66"), bytes(64), use)
                                       + tlv(10, struct.pack("=III", 777, 0, 0))).octets)
    former.decode()
    moved = sad.succeed_sa(gcm_sa(), 0xE0000007, former)
    assert moved.kind == 0x10
    assert moved.body == (sad.add_sa(gcm_sa(), 0xE0000007, inbound=False).body
                          + tlv(10, struct.pack("=III", 777 + 65536, 0, 0)) + tlv(9, use))


def test_an_sa_is_asked_for_by_spi_and_outer_destination() -> None:
    asked = sad.get_sa(0xC0FFEE01, GATEWAYS.destination)
    assert (asked.kind, asked.body) == (0x12, sad.delete_sa(0xC0FFEE01, GATEWAYS.destination).body)


@pytest.mark.parametrize(("integrity", "name", "bits"), [
    (Integrity.HMAC_MD5_96, b"hmac(md5)", 96), (Integrity.HMAC_SHA1_96, b"hmac(sha1)", 96),
    (Integrity.HMAC_SHA2_256_128, b"hmac(sha256)", 128), (Integrity.HMAC_SHA2_384_192, b"hmac(sha384)", 192),
    (Integrity.HMAC_SHA2_512_256, b"hmac(sha512)", 256)])
def test_integrity_is_cut_to_the_bits_of_its_name(integrity: Integrity, name: bytes, bits: int) -> None:
    cipher, authentication = sad.algorithms(make_sa(EspTransform(Encryption.DES3_CBC, 192, integrity)))
    assert cipher[1]["alg_name"] == b"cbc(des3_ede)"
    assert (authentication[1]["alg_name"], authentication[1]["alg_icv_len"]) == (name, bits)


def test_an_sa_is_deleted_by_spi_and_outer_destination() -> None:
    assert sad.delete_sa(0xC0FFEE01, GATEWAYS.destination).body == (
        xfrm_address("192.1.1.5") + struct.pack("!I", 0xC0FFEE01) + struct.pack("=HBx", 2, 50))


def policy_info(priority: int, source: str = "192.1.0.65", destination: str = "192.2.0.66",
                direction: int = 1) -> bytes:
    return (selector(source, destination) + NO_LIMITS + struct.pack("=4Q", 0, 0, 100, 200)
            + struct.pack("=IIBBBB4x", priority, 9, direction, 0, 0, 0))


def message(kind: int, body: bytes) -> Message:
    return Message(kind, HEADER.pack(HEADER.size + len(body), kind, 0, 0, 0) + body)


def test_an_acquire_is_about_the_datagram_and_says_which_policy_it_met() -> None:
    body = (xfrm_address("192.2.0.66") + struct.pack("=IB3x", 0, 50) + xfrm_address("192.1.0.65")
            + selector("192.1.0.65", "192.2.0.66", protocol=17, ports=struct.pack("!4H", 9, 0xFFFF, 8, 0xFFFF))
            + policy_info(Priority.TRAP, "192.1.0.0", "0.0.0.0") + struct.pack("=4I", *[0xFFFFFFFF] * 3, 77))
    assert read_notification(message(0x17, body)) == Acquire(FLOW, Priority.TRAP)


@pytest.mark.parametrize("hard", [False, True])
def test_an_expiry_names_the_sa(hard: bool) -> None:
    body = (sa_body(selector("192.1.0.65", "192.2.0.66"), NO_LIMITS) + struct.pack("=B7x", hard))
    assert read_notification(message(0x18, body)) == SaExpired(0xC0FFEE01, GATEWAYS.destination, 0xE0000007, hard)


def test_other_messages_are_none_of_our_business() -> None:
    assert read_notification(message(0x1A, bytes(224))) is None


def test_a_listed_policy_tells_its_last_use_and_those_of_sockets_are_left_out() -> None:
    listed = [message(0x13, policy_info(Priority.FLOW, direction=direction)) for direction in (1, 4, 2)]
    policies = list(spd.read_policies(listed))
    assert [(policy["dir"], policy["use_time"], spd.Selector.read(policy).flow) for policy in policies] == [
        (1, 200, FLOW), (2, 200, FLOW)]


networks = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.integers(0, 32)), st.tuples(st.ip_addresses(v=6), st.integers(0, 128)))


@given(networks, st.integers(0, 255), st.integers(0, 65535), st.integers(0, 65535))
def test_a_selector_is_read_as_it_was_written(
        network: tuple[object, int], protocol: int, source_port: int, destination_port: int) -> None:
    source = ip_network(f"{network[0]}/{network[1]}", strict=False)
    written = spd.Selector(source, spd.EVERYWHERE[source.version], protocol, source_port, destination_port)
    decoded = structs.PolicyId(message(0x15, spd.delete_policy(Direction.OUT, written).body).octets)
    decoded.decode()
    assert spd.Selector.read(decoded) == written
