"""The reader of captures: what it says of frames that are built here by hand."""

import struct
from ipaddress import ip_address

from tests.lab.capture import ESP, ICMP, TCP, UDP, Packet, read_pcap

ALICE, BOB, SG_A, SG_B = "192.1.0.65", "192.2.0.66", "192.1.1.4", "192.1.1.5"


def frame(source: str, destination: str, protocol: int, payload: bytes) -> bytes:
    ours, theirs = ip_address(source).packed, ip_address(destination).packed
    if len(ours) == 4:
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0) + ours + theirs
        return bytes(12) + b"\x08\x00" + header + payload
    return bytes(12) + b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64) + ours + theirs + payload


def udp(source_port: int, destination_port: int, payload: bytes) -> bytes:
    return struct.pack("!HHHH", source_port, destination_port, 8 + len(payload), 0) + payload


def capture(*frames: bytes) -> bytes:
    records = [struct.pack("<IIII", 10 + n, 250000, len(each), len(each)) + each for n, each in enumerate(frames)]
    return struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1) + b"".join(records)


def only(data: bytes) -> Packet:
    packets = list(read_pcap(data))
    assert len(packets) == 1
    return packets[0]


def test_esp_is_told_by_protocol_spi_and_sequence() -> None:
    packet = only(capture(frame(SG_A, SG_B, ESP, bytes.fromhex("deadbeef00000007") + bytes(24))))
    assert packet.is_esp and packet.spi == 0xDEADBEEF
    assert packet.flow == (SG_A, SG_B)
    assert packet.time == 10.25
    assert packet.describe() == "ESP spi 0xdeadbeef sequence 7"


def test_padding_of_short_frames_is_not_payload() -> None:
    assert only(capture(frame(ALICE, BOB, ICMP, b"12345678") + bytes(18))).payload == b"12345678"


def test_isakmp_names_its_exchange_and_whether_it_is_encrypted() -> None:
    main = bytes(16) + bytes([1, 0x10, 2, 0]) + bytes(8)
    quick = bytes(16) + bytes([8, 0x10, 32, 1]) + bytes(8)
    packets = list(read_pcap(capture(frame(SG_A, SG_B, UDP, udp(500, 500, main)),
                                     frame(SG_A, SG_B, UDP, udp(4500, 4500, bytes(4) + quick)),
                                     frame(SG_A, SG_B, UDP, udp(500, 500, b"short")))))
    assert [packet.describe() for packet in packets] == [
        "ISAKMP main mode", "ISAKMP quick mode encrypted", "ISAKMP cut short"]
    assert all(packet.is_isakmp and not packet.is_esp for packet in packets)


def test_esp_in_udp_is_esp() -> None:
    assert only(capture(frame(SG_A, SG_B, UDP, udp(4500, 4500, b"\x12\x34\x56\x78" + bytes(20))))).is_esp


def test_dns_names_its_question() -> None:
    question = b"\x0242\x07in-addr\x04arpa\x00" + struct.pack("!HH", 16, 1)
    ask = struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0) + question
    reply = struct.pack("!HHHHHH", 7, 0x8180, 1, 0, 0, 0) + question
    packets = list(read_pcap(capture(frame(SG_A, SG_B, UDP, udp(40000, 53, ask)),
                                     frame(SG_B, SG_A, UDP, udp(53, 40000, reply)))))
    assert [packet.describe() for packet in packets] == [
        "DNS query TXT 42.in-addr.arpa", "DNS answer TXT 42.in-addr.arpa"]


def test_what_is_none_of_these_is_said_to_be_in_clear() -> None:
    segment = struct.pack("!HHIIBBHHH", 40000, 80, 1, 0, 0x50, 2, 1024, 0, 0)
    packets = list(read_pcap(capture(frame(ALICE, BOB, TCP, segment),
                                     frame("2001:db8:1::65", "2001:db8:2::66", 58, b"x"))))
    assert [packet.describe() for packet in packets] == ["TCP in clear", "ICMPv6 in clear"]
    assert packets[0].payload == segment


def test_a_record_still_being_written_is_left_out() -> None:
    whole = capture(frame(SG_A, SG_B, ESP, bytes(16)), frame(SG_B, SG_A, ESP, bytes(16)))
    cuts = (0, 24, 90, len(whole) - 1, len(whole))
    assert [len(list(read_pcap(whole[:length]))) for length in cuts] == [0, 0, 1, 1, 2]


def test_other_frames_are_left_out() -> None:
    arp = bytes(12) + b"\x08\x06" + bytes(28)
    assert list(read_pcap(capture(arp, bytes(5)))) == []
