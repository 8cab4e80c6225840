"""Netlink's framing, and the packet queue's messages: nothing that comes in may raise."""

import socket
import struct
from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import LogEvent, globalLogPublisher

from oesvc.ipsec.flow import Flow
from oesvc.kernel import netlink, queue
from oesvc.kernel.constants import NFQA_CAP_LEN
from oesvc.kernel.hold import Datagram
from oesvc.kernel.netlink import HEADER, Message, NetlinkSocket, Request

FLOW = Flow(ip_address("192.1.0.65"), ip_address("192.2.0.66"))
RTM_NEWLINK, RTM_GETLINK, NLM_F_DUMP = 16, 18, 0x300
IPV4 = bytes([0x45, *[0] * 11]) + FLOW.source.packed + FLOW.destination.packed


def error(number: int, said: bytes = b"", refused: bytes = bytes(16)) -> Message:
    attribute = struct.pack("=HH", len(said) + 5, 1) + said + b"\0" if said else b""
    body = struct.pack("=i", -number) + refused + attribute
    return Message(2, HEADER.pack(HEADER.size + len(body), 2, 0x300 if said else 0x100, 7, 0) + body)


def test_a_request_is_a_message_that_asks_to_be_acknowledged_when_it_is_the_last() -> None:
    request = Request(0x15, b"body", "ask", flags=0x300)
    assert request.octets(9, acknowledge=True) == struct.pack("=IHHII", 20, 0x15, 0x305, 9, 0) + b"body"
    assert request.octets(8, acknowledge=False) == struct.pack("=IHHII", 20, 0x15, 0x301, 8, 0) + b"body"


def test_a_refusal_carries_the_kernels_own_words() -> None:
    assert netlink.refusal(error(17)) == (17, "")
    assert netlink.refusal(error(95, b"Requested type not found")) == (95, "Requested type not found")
    assert netlink.refusal(error(0)) == (0, "")


def test_messages_of_one_datagram_are_told_apart() -> None:
    data = Request(1, b"abc", "").octets(5, False) + b"\0" + Request(2, b"", "").octets(6, False)
    assert [(sequence, message.kind, message.body) for sequence, message in netlink.split_messages(data)] == [
        (5, 1, b"abc"), (6, 2, b"")]


@given(st.binary(max_size=100))
def test_no_octets_upset_the_reader(data: bytes) -> None:
    assert all(len(message.octets) <= len(data) for _, message in netlink.split_messages(data))
    assert all(len(value) <= len(data) for _, value in netlink.attributes(data))
    flow = queue.read_flow(data)
    assert flow is None or data[0] >> 4 == flow.source.version


def packet(hook: int, payload: bytes = IPV4, mark: bytes = b"") -> Message:
    body = (struct.pack("!BBH", 2, 0, 4322) + netlink.attribute(1, struct.pack("!IHB", 77, 0x0800, hook))
            + (netlink.attribute(3, mark) if mark else b"") + netlink.attribute(10, payload))
    return Message(queue.PACKET, HEADER.pack(HEADER.size + len(body), queue.PACKET, 0, 0, 0) + body)


def test_a_datagram_in_the_queue_is_known_by_its_source_and_destination() -> None:
    assert queue.read_datagram(packet(0)) == (77, Datagram(77, FLOW, 0, 0, len(IPV4)))
    assert queue.read_datagram(packet(3, mark=b"\0\0\1\2")) == (77, Datagram(77, FLOW, 3, 0x102, len(IPV4)))
    six = Flow(ip_address("2001:db8::1"), ip_address("2001:db8::2"))
    assert queue.read_flow(bytes([0x60, *[0] * 7]) + six.source.packed + six.destination.packed) == six


def test_a_datagram_that_is_not_copied_whole_is_known_by_its_length() -> None:
    whole = netlink.attribute(NFQA_CAP_LEN, struct.pack("!I", 1500))
    body = packet(0).body + whole
    _, datagram = queue.read_datagram(Message(queue.PACKET, bytes(HEADER.size) + body))
    assert datagram == Datagram(77, FLOW, 0, 0, 1500)


def test_what_is_no_ip_datagram_has_no_flow() -> None:
    assert queue.read_datagram(packet(0, b"\x45short")) == (77, None)
    assert queue.read_datagram(packet(0, b"")) == (77, None)


def test_what_the_kernel_lost_of_a_queue_is_read_where_it_tells(tmp_path):
    told = tmp_path / "nfnetlink_queue"
    assert queue.lost(4322, told) == 0
    told.write_text("   22   9001     0 2    40     7     7       12  1\n"
                    " 4322   4711   200 2    40    30     4     1234  1\n")
    assert queue.lost(4322, told) == 34


class IdleReactor:
    """Takes a reader and lets it wait."""

    def addReader(self, reader: object) -> None:
        pass

    def removeReader(self, reader: object) -> None:
        pass


def test_what_one_message_leads_to_never_keeps_the_next_from_being_read() -> None:
    heard: list[int] = []

    def notify(message: Message) -> None:
        heard.append(message.kind)
        raise KeyError("something in the daemon")

    asking = NetlinkSocket(IdleReactor(), socket.NETLINK_ROUTE, notify)
    seen: list[LogEvent] = []
    globalLogPublisher.addObserver(seen.append)
    try:
        for count in 1, 2:
            asking.post(Request(RTM_GETLINK, bytes(4) + struct.pack("=i", 1) + bytes(8), "").octets(0, False))
            asking.doRead()
            assert heard == [RTM_NEWLINK] * count
    finally:
        globalLogPublisher.removeObserver(seen.append)
        asking.close()
    assert [str(event["log_failure"].value) for event in seen] == ["'something in the daemon'"] * 2


def test_a_socket_closed_by_what_it_received_reads_no_more() -> None:
    """As when a daemon that cannot start takes everything down."""
    asked = NetlinkSocket(IdleReactor(), socket.NETLINK_ROUTE)
    seen: list[LogEvent] = []
    globalLogPublisher.addObserver(seen.append)
    try:
        replies = asked.request(Request(RTM_GETLINK, bytes(16), "list the interfaces", flags=NLM_F_DUMP))
        replies.addCallback(lambda _: asked.close())
        for _ in range(100):
            if replies.called:
                break
            asked.doRead()
    finally:
        globalLogPublisher.removeObserver(seen.append)
    assert replies.called and seen == []
