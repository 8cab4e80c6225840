"""ESP by SPIs that the kernel does not have: logged by nftables, looked for in the SAD (RFC 4322 section 3.2.6)."""

import struct
from ipaddress import ip_address

import pytest
from twisted.internet.defer import fail, succeed

from oesvc.interfaces import PlaneError
from oesvc.ipsec.flow import Flow
from oesvc.kernel.netlink import HEADER, Message, attribute
from oesvc.kernel.queue import NFGEN
from oesvc.kernel.unknown_spis import GROUP, NFULA_PAYLOAD, PACKET, Esp, UnknownSpis, read_esp

ENDS = Flow(ip_address("192.1.1.5"), ip_address("192.1.1.4"))
ENDS6 = Flow(ip_address("2001:db8:1:1::5"), ip_address("2001:db8:1:1::4"))
SPI = 0xDEADBEEF
UDP = struct.pack("!HHHH", 61234, 4500, 56, 0)
ESP = struct.pack("!II", SPI, 1) + bytes(40)


def ipv4(payload, protocol=50, options=b""):
    length = 20 + len(options) + len(payload)
    return struct.pack("!BBHIBBH4s4s", 0x40 | (5 + len(options) // 4), 0, length, 0, 64, protocol, 0,
                       ENDS.source.packed, ENDS.destination.packed) + options + payload


def ipv6(payload, protocol=50):
    return struct.pack("!IHBB16s16s", 6 << 28, len(payload), protocol, 64, ENDS6.source.packed,
                       ENDS6.destination.packed) + payload


@pytest.mark.parametrize(("packet", "expected"), [
    (ipv4(ESP), Esp(ENDS, SPI)), (ipv4(ESP, options=bytes(8)), Esp(ENDS, SPI)), (ipv6(ESP), Esp(ENDS6, SPI)),
    (ipv4(UDP + ESP, protocol=17), Esp(ENDS, SPI, 61234)), (ipv6(UDP + ESP, protocol=17), Esp(ENDS6, SPI, 61234)),
    (ipv4(UDP + b"\xff", protocol=17), None), (ipv4(UDP[:7], protocol=17), None), (ipv4(ESP, protocol=6), None),
    (ipv6(ESP, protocol=0), None), (ipv4(ESP[:3]), None), (ipv6(b""), None),
    (b"", None), (b"\x45", None), (bytes(60), None), (ipv4(b"")[:20], None),
])
def test_an_spi_is_read_where_it_is_and_nonsense_is_nothing(packet, expected):
    assert read_esp(packet) == expected


class Kernel:
    """Has the SAs that it is told of."""

    def __init__(self, *spis):
        self.spis, self.refuses = spis, False

    def request(self, asked):
        if self.refuses:
            return fail(PlaneError("the answer was lost"))
        return succeed(["an SA"] if any(spi.to_bytes(4, "big") in asked.body for spi in self.spis) else [])


def listening(kernel):
    heard = []
    listener = UnknownSpis(None, lambda *told: heard.append(told))
    listener._xfrm = kernel
    return listener, heard


def logged(packet):
    body = NFGEN.pack(2, 0, GROUP) + attribute(NFULA_PAYLOAD, packet)
    return Message(PACKET, HEADER.pack(HEADER.size + len(body), PACKET, 0, 0, 0) + body)


def test_only_an_spi_that_the_kernel_does_not_have_is_told():
    listener, heard = listening(Kernel(SPI))
    listener._told(logged(ipv4(ESP)))
    assert heard == []
    listener._told(logged(ipv4(struct.pack("!II", 0x1234, 1))))
    listener._told(logged(ipv6(struct.pack("!II", 0x5678, 1))))
    listener._told(logged(b"nonsense"))
    listener._told(logged(ipv4(UDP + struct.pack("!II", 0x9ABC, 1), protocol=17)))
    assert heard == [(ENDS, 0x1234, None), (ENDS6, 0x5678, None), (ENDS, 0x9ABC, 61234)]


def test_where_the_kernel_does_not_answer_nothing_is_told():
    """Nobody is told that we do not have an SPI which we may have."""
    kernel = Kernel()
    kernel.refuses = True
    listener, heard = listening(kernel)
    listener._told(logged(ipv4(ESP)))
    assert heard == []


