"""What fuzzing begins with: the messages of an honest handshake, read with the victim's keys, and some records."""

import struct
from collections.abc import Iterator

from fuzz.forging import COOKIES, HALVES, RIGHT, SPI, keys, signing_key
from fuzz.ladders import ALL, ELSEWHERE, MENDED, Kind, Ladder, bring_to, step, way, without_marker
from oesvc.dns.name import parse_name, to_wire
from oesvc.dns.records import RecordType
from oesvc.ike.v1.constants import IPSEC_DOI, NotifyType, PayloadType, Protocol
from oesvc.ike.v1.fragments import FIELDS, LAST
from oesvc.ike.v1.informational import LIVENESS
from oesvc.ike.v1.wire.header import LAYOUT, Header
from oesvc.ike.v1.wire.message import open_clear, open_encrypted
from oesvc.ike.v1.wire.payloads import Deletion, Notification, Payload, pack_chain
from oesvc.keys.key_pair import public_key
from tests.ike.forge import channel_of, pack_host
from tests.ike.pair import BOB

P = PayloadType
REST = 0xFFFF
"As the length of the last message."
NOTICES = (
    Notification(Protocol.ESP, NotifyType.NO_PROPOSAL_CHOSEN, SPI, b"why"),
    Notification(Protocol.ISAKMP, NotifyType.INITIAL_CONTACT, COOKIES),
    Notification(Protocol.ISAKMP, NotifyType.R_U_THERE, COOKIES, bytes(4)),
    Notification(Protocol.ISAKMP, NotifyType.R_U_THERE_ACK, COOKIES, bytes(4)),
    Notification(Protocol.ESP, NotifyType.CONNECTED, SPI),
    Notification(Protocol.ISAKMP, NotifyType.RESPONDER_LIFETIME, COOKIES, bytes.fromhex("800b0001000c000400000e10")),
)


def framed(how: int, body: bytes, length: int = REST) -> bytes:
    return length.to_bytes(2, "big") + bytes([how]) + body


def whole(how: int, body: bytes) -> bytes:
    """A message that others follow."""
    return framed(how, body, 1 + len(body))


def ladder(target: Ladder) -> list[bytes]:
    return [bytes([index]) + message for index, (number, name) in enumerate(target.steps)
            for message in _for_step(number, name, target.nat)]


def _for_step(number: int, name: str, nat: bool) -> Iterator[bytes]:
    if step(number, nat).awaited:
        payloads = honest(number, name, nat)
        chain = bytes([payloads[0].type]) + pack_chain(payloads)
        kind = Kind.SEALED if way(number, name, nat)[0].encrypted else Kind.CLEAR
        yield framed(kind, chain)
        yield framed(kind | 1 << 3, chain)
        yield framed(kind | MENDED, chain)
        yield framed(kind | MENDED | 1 << 6, chain)
        yield framed(kind | MENDED | ELSEWHERE, chain)
        yield framed(Kind.HONEST, b"\0")
        yield framed(Kind.CHANGED, b"\0\x1c" + bytes(16))
        yield whole(kind, chain) + whole(Kind.LATER, b"\0") + framed(Kind.HONEST, b"\0")
        yield from _in_pieces()
    for payload in [Payload(P.NOTIFICATION, notice.pack()) for notice in NOTICES] + [
            Payload(P.DELETE, Deletion(Protocol.ESP, (SPI, SPI)).pack()),
            Payload(P.DELETE, Deletion(Protocol.ISAKMP, (COOKIES,)).pack())]:
        yield framed(Kind.CLEAR_INFORMATIONAL | MENDED, bytes([payload.type]) + pack_chain([payload]))
        proven = pack_chain([Payload(P.HASH, RIGHT), payload])
        yield framed(Kind.SEALED_INFORMATIONAL | MENDED, bytes([P.HASH]) + proven)
    everything = [Payload(P.HASH, RIGHT), Payload(P.DELETE, Deletion(Protocol.ESP, (SPI,)).pack()),
                  *(Payload(P.NOTIFICATION, notice.pack()) for notice in NOTICES if notice.type not in LIVENESS)]
    yield framed(Kind.SEALED_INFORMATIONAL | MENDED, bytes([P.HASH]) + pack_chain(everything))
    if number == ALL:
        proposal = honest(6, "b", nat)
        for how in (MENDED, MENDED | ELSEWHERE):
            yield framed(Kind.SEALED | how, bytes([P.HASH]) + pack_chain(proposal))
        yield framed(Kind.SEALED | MENDED, bytes([P.HASH]) + pack_chain(
            [payload for payload in proposal if payload.type != P.IDENTIFICATION]
            + [Payload(P.IDENTIFICATION, pack_host(BOB + host)) for host in (0, 1)]))


def honest(number: int, name: str, nat: bool = False) -> list[Payload]:
    """The payloads of a datagram of the handshake, without what is right for these keys only."""
    then, (header, awaited) = step(number, nat), way(number, name, nat)
    data = without_marker(awaited)
    if header.encrypted:
        message, _ = open_encrypted(header, data, keys(channel_of(getattr(bring_to(then), name)), header)[1])
    else:
        message = open_clear(header, data)
    return [Payload(payload.type, RIGHT) if payload.type in (P.HASH, P.SIGNATURE) else payload
            for payload in message.payloads]


def _in_pieces() -> Iterator[bytes]:
    """The honest datagram in two fragments, and one that never ends."""
    pieces = [bytes([P.FRAGMENT]) + pack_chain([Payload(P.FRAGMENT, FIELDS.pack(1, number, flags) + half)])
              for number, flags, half in ((1, 0, HALVES[0]), (2, LAST, HALVES[1]))]
    yield whole(Kind.CLEAR | MENDED, pieces[0]) + framed(Kind.CLEAR | MENDED, pieces[1])
    yield framed(Kind.CLEAR | MENDED, pieces[0])


def isakmp() -> list[bytes]:
    """By the order of the readers' table."""
    clear = [step(number).awaited.data for number in range(4)]
    bodies = {payload.type: payload.body for number in (0, 4, 6) for payload in honest(number, "b")}
    chain = honest(0, "b")
    header = Header(b"\1" * 8, b"\2" * 8, P.HASH, 5, 1, 5)
    return [*(b"\0" + data for data in clear), b"\1" + header.pack(bytes(32)),
            b"\2" + bytes([P.SA]) + pack_chain(chain) + bytes(7),
            b"\3" + bodies[P.SA], b"\3" + honest(0, "b")[0].body, b"\4" + bodies[P.IDENTIFICATION],
            *(b"\5" + notice.pack() for notice in NOTICES),
            b"\6" + Deletion(Protocol.ESP, (SPI, SPI)).pack(), b"\6" + struct.pack(">LBBH", IPSEC_DOI, 1, 16, 0),
            b"\7" + b"".join(bytes([4 + len(text), 0]) + FIELDS.pack(1, number, flags) + text
                             for number, flags, text in ((2, LAST, b"two"), (1, 0, b"one")))]


def strangers() -> list[bytes]:
    invitation = step(0).awaited.data
    chain = bytes([P.SA]) + invitation[LAYOUT.size:]
    return [bytes([where]) + framed(how, payload) for where in (0, 1) for how, payload in (
        (0, chain), (1, chain), (2, chain), (4, chain), (8, invitation), (9, bytes(4) + invitation), (9, b"\xff"),
        (16, chain),
        (32, chain), (64, bytes(9)), (96, chain))]


NAME = parse_name("66.0.2.192.in-addr.arpa")
QUESTION = to_wire(NAME) + struct.pack("!HH", RecordType.TXT, 1)
POINTER = b"\xc0\x0c"
TARGET = b"\1x" + POINTER


def dns_message() -> list[bytes]:
    rrsig = struct.pack("!HBBIIIH", RecordType.TXT, 8, 4, 300, 2000, 1000, 7) + to_wire(NAME) + bytes(8)
    soa = TARGET + TARGET + struct.pack("!5I", 1, 2, 3, 4, 60)
    opt = b"\0" + struct.pack("!HHIH", RecordType.OPT, 1232, 1 << 24, 4) + bytes(4)
    answers = [_record(RecordType.TXT, b"\4text"), _record(RecordType.TXT, b"\4text"),
               _record(RecordType.RRSIG, rrsig), _record(RecordType.CNAME, TARGET)]
    return [_answer(0x8180, answers, [], []), _answer(0x8183, [], [_record(RecordType.SOA, soa)], [opt]),
            _answer(0x8380, [], [], []), _answer(0x8180, [], [], [opt]),
            *(_answer(0x8180, [_record(rdtype, rdata)], [], []) for rdtype, rdata in _rdatas())]


def _answer(flags: int, *sections: list[bytes]) -> bytes:
    return struct.pack("!6H", 7, flags, 1, *map(len, sections)) + QUESTION + b"".join(map(b"".join, sections))


def _record(rdtype: int, rdata: bytes) -> bytes:
    return POINTER + struct.pack("!HHIH", rdtype, 1, 300, len(rdata)) + rdata


def _rdatas() -> list[tuple[int, bytes]]:
    """Uncompressed."""
    name, bitmap = to_wire(NAME), b"\0\6\x40\0\0\0\0\3\1\1\1"
    return [(RecordType.CNAME, name), (RecordType.DNAME, name), (RecordType.SOA, name * 2 + bytes(20)),
            (RecordType.KEY, _key_rdata()), (RecordType.DS, struct.pack("!HBB", 7, 8, 2) + bytes(32)),
            (RecordType.RRSIG, struct.pack("!HBBIIIH", 16, 8, 4, 300, 2000, 1000, 7) + name + bytes(8)),
            (RecordType.NSEC, name + bitmap), (RecordType.DNSKEY, struct.pack("!HBB", 257, 3, 8) + bytes(16)),
            (RecordType.NSEC3, b"\1\0\0\1\2\xaa\x14" + bytes(20) + bitmap)]


def _key_rdata() -> bytes:
    return struct.pack("!HBB", 0x4200, 4, 1) + public_key(signing_key("a")).to_rfc3110()


def record() -> list[bytes]:
    """By the order of the readers' table."""
    key = public_key(signing_key("a"))
    texts = [text.encode() for gateway in ("192.0.2.1", "2001:db8::1", "@sg.example.org")
             for text in (f"X-IPsec-Server(10)={gateway} {key.to_base64()}", f"X-IPsec-Server(10)={gateway}")]
    texts += [b'"X-IPsec-Server(10)=192.0.2.1"', b"x-ipsec-server(1)=sg.example.org 0sAQNw AQOx", b"v=spf1 -all",
              b"X-IPsec-Server(65536)=192.0.2.1",
              f"X-IPsec-Server(10)=[::1] 0s{key.to_base64()[:40]} {key.to_base64()[40:]}".encode()]
    gateways = {0: b"", 1: bytes([192, 0, 2, 1]), 2: bytes.fromhex("20010db8" + "0" * 23 + "1"),
                3: to_wire(parse_name("sg.example.org"))}
    return [b"\0" + _strings(texts[0]), *(b"\1" + text for text in texts),
            *(b"\2" + bytes([10, kind, algorithm]) + gateway + octets for kind, gateway in gateways.items()
              for algorithm, octets in ((2, key.to_rfc3110()), (0, b""), (4, bytes(32)))),
            b"\3" + _key_rdata(), b"\4" + key.to_rfc3110(), b"\4\0\0\3\1\0\1" + b"\xc1" * 128,
            *(bytes([5 + index]) + rdata for index, (_, rdata) in enumerate(_rdatas()))]


def _strings(text: bytes) -> bytes:
    parts = [text[start:start + 255] for start in range(0, len(text), 255)]
    return b"".join(bytes([len(part)]) + part for part in parts)
