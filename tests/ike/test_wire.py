"""The parser: what is packed is parsed again, and anything else is refused by MalformedError."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oesvc.ike.crypto.cipher import CbcCipher, CbcState
from oesvc.ike.v1.constants import MAX_PAYLOADS, NONCE_LENGTHS, PayloadType, Protocol
from oesvc.ike.v1.errors import MalformedError, PeerError, UnexpectedError
from oesvc.ike.v1.wire.header import LAYOUT, Header
from oesvc.ike.v1.wire.message import open_clear, open_encrypted, seal_clear, seal_encrypted
from oesvc.ike.v1.wire.payloads import Deletion, Identification, Notification, Payload, pack_chain, parse_chain
from oesvc.ike.v1.wire.proposals import Attribute, Proposal, Transform, pack_sa, parse_sa

octet, two_octets = st.integers(0, 255), st.integers(0, 65535)
cookies = st.binary(min_size=8, max_size=8).filter(any)
headers = st.builds(Header, cookies, cookies, st.just(0), octet, st.sampled_from([0, 2, 4, 6]),
                    st.integers(0, 2**32 - 1))
payloads = st.lists(st.builds(Payload, st.integers(1, 255), st.binary(max_size=60)), min_size=1, max_size=8)
attributes = st.one_of(
    st.builds(Attribute, st.integers(0, 32767), st.binary(min_size=2, max_size=2), st.just(True)),
    st.builds(Attribute, st.integers(0, 32767), st.binary(max_size=12), st.just(False)))
transforms = st.builds(Transform, octet, octet, st.lists(attributes, max_size=6).map(tuple))
proposals = st.builds(Proposal, octet, octet, st.binary(max_size=16),
                      st.lists(transforms, min_size=1, max_size=5).map(tuple))


@given(headers, payloads)
def test_clear_message_round_trip(header, payloads):
    data = seal_clear(header, payloads)
    message = open_clear(Header.parse(data), data)
    assert list(message.payloads) == payloads
    assert (message.header.exchange, message.header.message_id) == (header.exchange, header.message_id)


@given(headers, payloads, st.sampled_from(["aes-cbc", "3des-cbc"]))
def test_encrypted_message_round_trip(header, payloads, name):
    cipher = CbcCipher(name, bytes(range(24)))
    state = CbcState(cipher, bytes(cipher.block))
    data, after = seal_encrypted(header, payloads, state)
    parsed = Header.parse(data)
    message, after_too = open_encrypted(parsed, data, state)
    assert parsed.encrypted and list(message.payloads) == payloads and after == after_too
    assert message.chain == pack_chain(payloads)


@given(st.lists(proposals, min_size=1, max_size=4).map(tuple))
def test_sa_payload_round_trip(proposals):
    assert parse_sa(pack_sa(proposals)) == proposals


@given(st.builds(Identification, octet, octet, two_octets, st.binary(max_size=40)))
def test_identification_round_trip(payload):
    assert Identification.parse(payload.pack()) == payload


@given(st.builds(Notification, octet, two_octets, st.binary(max_size=20), st.binary(max_size=40)))
def test_notification_round_trip(payload):
    assert Notification.parse(payload.pack()) == payload


@given(st.lists(st.binary(min_size=4, max_size=4), max_size=20).map(tuple))
def test_delete_round_trip(spis):
    deletion = Deletion(Protocol.ESP, spis)
    assert Deletion.parse(deletion.pack()) == deletion


@given(st.binary(max_size=120))
def test_any_octets_are_parsed_or_refused(data):
    for parse in (Header.parse, Identification.parse, Notification.parse, Deletion.parse, parse_sa,
                  Transform.parse, Proposal.parse, lambda data: parse_chain(1, data)):
        with suppress(PeerError):
            parse(data)


def header_octets(**changes: int) -> bytes:
    fields = {"cookie": b"\1" * 8, "next": 0, "version": 0x10, "exchange": 2, "flags": 0, "id": 0, "length": 28}
    fields |= changes
    return LAYOUT.pack(fields["cookie"], bytes(8), fields["next"], fields["version"], fields["exchange"],
                       fields["flags"], fields["id"], fields["length"])


@pytest.mark.parametrize("data, complaint", [
    (b"", "shorter than an ISAKMP header"),
    (header_octets()[:-1], "shorter than an ISAKMP header"),
    (header_octets(version=0x20), "version 2.0"),
    (header_octets(version=0x11), "version 1.1"),
    (header_octets(flags=0x81), "flags 0x81"),
    (header_octets(length=29), "the header says 29 octets"),
    (header_octets(cookie=bytes(8)), "cookie is zero"),
])
def test_header_is_refused_with_the_reason(data, complaint):
    with pytest.raises(MalformedError, match=complaint):
        Header.parse(data)


@pytest.mark.parametrize("chain, complaint", [
    ("00000003", "shorter than its header"),
    ("00000005", "too early"),
    ("00010004", "reserved octet"),
    ("0d00", "too early"),
    ("0d000004" * (MAX_PAYLOADS + 1), "more than 255 payloads"),
])
def test_chain_is_refused_with_the_reason(chain, complaint):
    with pytest.raises(MalformedError, match=complaint):
        parse_chain(PayloadType.VENDOR_ID, bytes.fromhex(chain))


def test_padding_by_a_whole_block_of_zeros_is_taken_and_anything_else_appended_is_not():
    """strongSwan pads a message that fills its blocks already."""
    header = Header(b"\1" * 8, b"\2" * 8, PayloadType.HASH, 5, 1, 7)
    state = CbcState(CbcCipher("aes-cbc", bytes(16)), bytes(16))
    chain = pack_chain([Payload(PayloadType.HASH, bytes(8))])
    for appended, good in ((b"", True), (b"\1" * 4, True), (bytes(20), True), (b"\1" * 20, False),
                           (bytes(19) + b"\1", False)):
        data = header.pack(state.encrypt(chain + appended)[0])
        if good:
            assert open_encrypted(Header.parse(data), data, state)[0].chain == chain
        else:
            with pytest.raises(MalformedError, match="no padding"):
                open_encrypted(Header.parse(data), data, state)


def test_octets_after_the_last_payload_are_refused_in_clear():
    header = Header(b"\1" * 8, b"\2" * 8, PayloadType.HASH, 5, 0, 7)
    data = header.pack(pack_chain([Payload(PayloadType.HASH, b"1234")]) + bytes(3))
    with pytest.raises(MalformedError, match="3 octets follow"):
        open_clear(Header.parse(data), data)


def message_of(*payloads: Payload):
    data = seal_clear(Header(b"\1" * 8, b"\2" * 8, 0, 2, 0, 0), payloads)
    return open_clear(Header.parse(data), data)


def test_none_or_several_where_one_belongs_are_refused():
    for payloads in ([Payload(PayloadType.VENDOR_ID, b"")], [Payload(PayloadType.NONCE, bytes(16))] * 2):
        with pytest.raises(UnexpectedError):
            message_of(*payloads).nonce()


@pytest.mark.parametrize("length", [0, NONCE_LENGTHS[0] - 1, NONCE_LENGTHS[-1] + 1])
def test_nonces_of_other_lengths_are_refused(length):
    with pytest.raises(MalformedError):
        message_of(Payload(PayloadType.NONCE, bytes(length))).nonce()


@pytest.mark.parametrize("deletion", ["0000000103040002" + "01020304", "0000000103000005", "0000000203040000"])
def test_delete_with_wrong_counts_lengths_or_doi_is_refused(deletion):
    with pytest.raises(MalformedError):
        Deletion.parse(bytes.fromhex(deletion))
