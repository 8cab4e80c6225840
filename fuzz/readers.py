"""The parsers alone: an ISAKMP message and what stands in it, a DNS message, the records that delegate."""

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from fuzz.finding import fit_for_a_log, hold
from oesvc.dns.failures import MalformedData
from oesvc.dns.name import MAX_NAME, name_text, parse_name, to_wire
from oesvc.dns.records import (
    RecordType,
    parse_dnskey,
    parse_ds,
    parse_key,
    parse_nsec,
    parse_nsec3,
    parse_rrsig,
    parse_soa,
    parse_target,
    parse_txt,
)
from oesvc.dns.wire import (
    MAX_RECORDS,
    Flag,
    answers_in_other_case,
    answers_query,
    basic_rcode,
    is_truncated,
    parse_message,
    rcode_text,
    write_query,
)
from oesvc.ike.crypto.cipher import CbcCipher, CbcState
from oesvc.ike.v1.constants import PayloadType
from oesvc.ike.v1.errors import PeerError
from oesvc.ike.v1.fragments import Fragments, split
from oesvc.ike.v1.identification import parse_host, parse_identity
from oesvc.ike.v1.vendor import announced
from oesvc.ike.v1.wire.header import Header
from oesvc.ike.v1.wire.message import open_clear, open_encrypted
from oesvc.ike.v1.wire.payloads import Deletion, Identification, Notification, Payload, pack_chain, parse_chain
from oesvc.ike.v1.wire.proposals import pack_sa, parse_sa
from oesvc.ipsec.rsa_key import KeyFormatError, RsaPublicKey
from oesvc.oe.authorization import read_txt
from oesvc.oe.delegation import ForeignRecordError, MalformedRecordError, parse_delegation, parse_key_record
from oesvc.oe.ipseckey import parse_ipseckey

KEYS = CbcState(CbcCipher("aes-cbc", bytes(16)), bytes(16))
HOST = ip_address("192.2.0.66")
NAME = parse_name("66.0.2.192.in-addr.arpa")
QUERY = write_query(7, NAME, RecordType.TXT, Flag.RD | Flag.CD, dnssec_ok=True, payload=1232)
SMALLEST_HEADER = 12
FRAGMENTS = 1000
"Octets."


def isakmp(data: bytes) -> None:
    """A datagram, or the body of one payload: the first octet says which, and what is read is written again."""
    _refusing(PeerError, _ISAKMP[data[0] % len(_ISAKMP)], data[1:]) if data else None


def _message(data: bytes) -> None:
    header = Header.parse(data)
    message = open_clear(header, data)
    hold(header.pack(message.chain) == data and pack_chain(message.payloads) == message.chain, "a message changed")
    announced(message)
    for payload in message.payloads:
        if payload.type in _BODIES:
            _refusing(PeerError, _BODIES[payload.type], payload.body)
    for piece in split(data, 1):
        Header.parse(piece)


def _encrypted(data: bytes) -> None:
    header = Header.parse(data)
    message, _ = open_encrypted(header, data, KEYS)
    hold(pack_chain(message.payloads) == message.chain, "a message changed")
    message.notifications()
    message.after_hash()


def _padded(data: bytes) -> None:
    """The inside of an encrypted message: a chain with padding behind it."""
    payloads, used = parse_chain(data[0], data[1:]) if data else ((), 0)
    hold(used <= len(data), "more was read than there is")
    hold(not payloads or pack_chain(payloads) == data[1:1 + used], "a chain changed")


def _security_association(body: bytes) -> None:
    hold(pack_sa(parse_sa(body)) == body, "a security association changed")


def _identification(body: bytes) -> None:
    hold(Identification.parse(body).pack() == body, "an identification changed")
    for read in (parse_identity, parse_host):
        _refusing(PeerError, lambda: fit_for_a_log(str(read(body))))  # noqa: B023 - called at once


def _notification(body: bytes) -> None:
    notification = Notification.parse(body)
    fit_for_a_log(notification.name)
    hold(notification.pack()[4:] == body[4:], "a notification changed")


def _deletion(body: bytes) -> None:
    deletion = Deletion.parse(body)
    hold(len(deletion.spis) * 4 <= len(body), "more was read than there is")


def _fragments(data: bytes) -> None:
    """Pieces; before each, one octet of length, and one that says of which channel and message it is, and how late."""
    fragments, now = Fragments(FRAGMENTS), 0.0
    while len(data) > 1:
        (length, which), data = data[:2], data[2:]
        piece, data = data[:length], data[length:]
        now += which >> 4
        header = Header(bytes([1 + (which & 3)]) * 8, b"\2" * 8, PayloadType.FRAGMENT, 2, 0, which >> 2 & 3)
        packed = header.pack(pack_chain([Payload(0, piece)]))
        _refusing(PeerError, fragments.take, Header.parse(packed), packed, now)
        hold(0 <= fragments.memory <= FRAGMENTS, f"{fragments.memory} octets of fragments")


_BODIES: dict[int, Callable[[bytes], None]] = {
    PayloadType.SA: _security_association, PayloadType.IDENTIFICATION: _identification,
    PayloadType.NOTIFICATION: _notification, PayloadType.DELETE: _deletion,
}
_ISAKMP = (_message, _encrypted, _padded, _security_association, _identification, _notification, _deletion, _fragments)


def dns_message(data: bytes) -> None:
    """An answer to our question, as the resolver's sockets take it, and each record in it."""
    answers_query(data, QUERY)
    answers_in_other_case(data, QUERY)
    if len(data) >= SMALLEST_HEADER:
        is_truncated(data)
        fit_for_a_log(rcode_text(basic_rcode(data)))
    try:
        message = parse_message(data)
    except MalformedData as error:
        fit_for_a_log(str(error))
        return
    hold(message.size == len(data), "a message's size changed")
    rrsets = message.answer + message.authority
    hold(sum(len(rrset.rdatas) + len(rrset.signatures) for rrset in rrsets) <= MAX_RECORDS, "too many records")
    message.find(NAME, RecordType.TXT)
    message.find_soa()
    for rrset in rrsets:
        hold(len(to_wire(rrset.owner)) <= MAX_NAME, "a name that is too long")
        hold(parse_name(name_text(rrset.owner)) == rrset.owner, "a name changed when it was written")
        hold(0 <= rrset.ttl < 1 << 31 or rrset.rdtype == RecordType.OPT, "a TTL out of bounds")
        for rdata in rrset.rdatas:
            _refusing(MalformedData, _RDATA.get(rrset.rdtype, parse_txt), rdata)
        for rdata in rrset.signatures:
            _refusing(MalformedData, parse_rrsig, rdata)


def record(data: bytes) -> None:
    """The RDATA of one record; the first octet says of which type."""
    if data:
        _refusing((MalformedData, MalformedRecordError, ForeignRecordError, KeyFormatError),
                  _RECORDS[data[0] % len(_RECORDS)], data[1:])


def _txt(rdata: bytes) -> None:
    text = read_txt(rdata)
    delegation = parse_delegation(text)
    if delegation:
        fit_for_a_log(str(delegation))
        hold(0 <= delegation.precedence <= 0xFFFF, "a precedence out of bounds")
        hold(parse_delegation(f"X-IPsec-Server({delegation.precedence})={_written(delegation.gateway)}"),
             "what was read cannot be written")
        for remark in delegation.remarks:
            fit_for_a_log(remark)


def _bare_text(data: bytes) -> None:
    """A TXT record's text without the lengths of its strings, which stand in the way of mutations."""
    parts = [data[start:start + 255] for start in range(0, len(data), 255)]
    _txt(b"".join(bytes([len(part)]) + part for part in parts))


def _ipseckey(rdata: bytes) -> None:
    delegation = parse_ipseckey(rdata, HOST)
    fit_for_a_log(str(delegation))
    hold(0 <= delegation.precedence <= 0xFF and len(delegation.keys) <= 1, "an IPSECKEY record out of bounds")


def _key(data: bytes) -> None:
    key = RsaPublicKey.from_rfc3110(data)
    hold(RsaPublicKey.from_rfc3110(key.to_rfc3110()) == key == RsaPublicKey.from_base64(key.to_base64()),
         "a key changed when it was written")


def _written(gateway: object) -> str:
    return f"@{gateway}" if isinstance(gateway, str) else str(gateway)


_RDATA: dict[int, Callable[[bytes], Any]] = {
    RecordType.CNAME: parse_target, RecordType.DNAME: parse_target, RecordType.SOA: parse_soa,
    RecordType.KEY: parse_key, RecordType.DS: parse_ds, RecordType.RRSIG: parse_rrsig, RecordType.NSEC: parse_nsec,
    RecordType.DNSKEY: lambda rdata: (parse_dnskey(rdata).tag, parse_dnskey(rdata).revoked),
    RecordType.NSEC3: parse_nsec3,
}
_RECORDS = (_txt, _bare_text, _ipseckey, parse_key_record, _key, *_RDATA.values())


def _refusing(errors: type[Exception] | tuple[type[Exception], ...], call: Callable[..., Any],
              *arguments: Any) -> None:
    """Call it; what it declares it may raise, if it is fit for people."""
    try:
        call(*arguments)
    except errors as error:
        fit_for_a_log(str(error))
