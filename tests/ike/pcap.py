"""Writes datagrams as a capture file that any dissector reads (link type raw IP, microseconds)."""

import struct
from collections.abc import Iterable
from pathlib import Path

from oesvc.ike.datagram import Datagram
from oesvc.ipsec.flow import Address

RAW_IP = 101
UDP = 17


def write_pcap(path: Path, datagrams: Iterable[Datagram]) -> None:
    write_packets(path, map(udp_packet, datagrams))


def write_packets(path: Path, packets: Iterable[bytes]) -> None:
    records = [struct.pack("<LHHlLLL", 0xa1b2c3d4, 2, 4, 0, 0, 65535, RAW_IP)]
    for number, packet in enumerate(packets):
        records.append(struct.pack("<LLLL", 1_000_000_000 + number, 0, len(packet), len(packet)) + packet)
    path.write_bytes(b"".join(records))


def udp_packet(datagram: Datagram) -> bytes:
    """A datagram that its `local` endpoint sent."""
    local, peer = datagram.local, datagram.peer
    udp = struct.pack(">HHHH", local.port, peer.port, 8 + len(datagram.data), 0) + datagram.data
    return ip_packet(local.address, peer.address, UDP, udp)


def ip_packet(source: Address, destination: Address, protocol: int, payload: bytes) -> bytes:
    addresses = source.packed + destination.packed
    if source.version == 6:
        return struct.pack(">LHBB", 6 << 28, len(payload), protocol, 64) + addresses + payload
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0)
    return head[:10] + struct.pack(">H", _checksum(head + addresses)) + addresses + payload


def _checksum(header: bytes) -> int:
    total = sum(struct.unpack(f">{len(header) // 2}H", header))
    total = (total >> 16) + (total & 0xffff)
    return ~(total + (total >> 16)) & 0xffff
