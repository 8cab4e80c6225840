"""ICMP unreachables about IKE, from the wire to the keying engine (RFC 4322 sections 3.2.5 and 9.2)."""

import select
import socket
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oesvc.ike.datagram import Endpoint
from oesvc.ipsec.flow import Flow
from oesvc.oe.machine import State
from oesvc.unreachable import UnreachablePort, about_ipv4, about_ipv6
from tests.oe.parts import ALICE, BOB, SG_A, SG_B
from tests.pair import LATENCY, Pair

UDP = b"\x01\xf4\x11\x94" + bytes(4)
"From port 500 to port 4500."
IPV4 = bytes.fromhex("45000030 00000000 40110000 c0010104 c0010105")
IPV6 = bytes.fromhex("60000000 0008 11 40") + ip_address("2001:db8::4").packed + ip_address("2001:db8::5").packed
ABOUT_IPV4 = (Endpoint(ip_address("192.1.1.4"), 500), ip_address("192.1.1.5"))
ABOUT_IPV6 = (Endpoint(ip_address("2001:db8::4"), 500), ip_address("2001:db8::5"))


def icmp(kind, code, quote):
    return bytes([kind, code, *bytes(6)]) + quote


@pytest.mark.parametrize("packet, about", [
    (IPV4 + icmp(3, 3, IPV4 + UDP), ABOUT_IPV4),
    (IPV4 + icmp(3, 1, IPV4 + UDP), ABOUT_IPV4),
    (IPV4 + icmp(3, 0, IPV4 + UDP), ABOUT_IPV4),
    (b"\x46" + IPV4[1:] + bytes(4) + icmp(3, 3, b"\x47" + IPV4[1:] + bytes(8) + UDP), ABOUT_IPV4),
    (IPV4 + icmp(3, 4, IPV4 + UDP), None),
    (IPV4 + icmp(11, 0, IPV4 + UDP), None),
    (IPV4 + icmp(3, 3, IPV4[:9] + b"\6" + IPV4[10:] + UDP), None),
    (IPV4 + icmp(3, 3, IPV4[:6] + b"\0\1" + IPV4[8:] + UDP), None),
    (IPV4 + icmp(3, 3, IPV4), None),
])
def test_an_unreachable_of_ipv4_names_the_datagram_that_it_quotes(packet, about):
    assert about_ipv4(packet) == about


@pytest.mark.parametrize("message, about", [
    (icmp(1, 4, IPV6 + UDP), ABOUT_IPV6),
    (icmp(1, 0, IPV6 + UDP), ABOUT_IPV6),
    (icmp(2, 0, IPV6 + UDP), None),
    (icmp(1, 4, IPV6[:6] + b"\x3a" + IPV6[7:] + UDP), None),
    (icmp(1, 4, IPV6), None),
])
def test_an_unreachable_of_ipv6_names_the_datagram_that_it_quotes(message, about):
    assert about_ipv6(message) == about


@given(st.binary(max_size=120), st.sampled_from([b"", IPV4, IPV4 + icmp(3, 3, IPV4[:12]), icmp(1, 4, IPV6[:30])]))
def test_no_octets_upset_the_readers(data, start):
    for read in about_ipv4, about_ipv6:
        for packet in start + data, (start + data)[:len(start) // 2]:
            found = read(packet)
            assert found is None or 0 <= found[0].port < 65536


class IdleReactor:
    def addReader(self, reader):
        pass

    removeReader = addReader


@pytest.mark.conformance("C-9.2-03")
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_the_kernels_own_error_about_a_closed_port_is_heard_and_costs_the_sender_nothing(address):
    heard = []

    def hear(*about):
        heard.append(about)
        raise KeyError("something in the daemon")

    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    port = UnreachablePort(IdleReactor(), ip_address(address).version, hear, lambda prepared: None)
    with socket.socket(family, socket.SOCK_DGRAM) as sender, socket.socket(family, socket.SOCK_DGRAM) as closed:
        sender.bind((address, 0))
        closed.bind((address, 0))
        nobody = closed.getsockname()
        closed.close()
        ours = (Endpoint(ip_address(address), sender.getsockname()[1]), ip_address(address))
        for count in 1, 2:
            sender.sendto(b"IKE", nobody)
            while heard.count(ours) < count:
                assert select.select([port], [], [], 10)[0], "nothing is heard"
                port.doRead()
    port.close()


def silent_pair(errors):
    """SG-A calls SG-B, which says nothing; so many ICMP errors come meanwhile."""
    pair = Pair()
    pair.wire.loses = lambda datagram: True
    pair.a.daemon.acquired(Flow(ALICE, BOB))
    for _ in range(errors):
        pair.run(1)
        pair.a.daemon.peer_unreachable(SG_B)
    return pair


@pytest.mark.conformance("C-3.2.5-06", "C-9.2-03")
@pytest.mark.parametrize("errors, why", [(1, f"nothing came from {SG_B}"),
                                         (4, f"4 ICMP errors and nothing else came from {SG_B}")])
def test_errors_alone_are_told_as_the_reason_when_the_time_for_keying_is_over(errors, why):
    pair = silent_pair(errors)
    connection = pair.a.daemon.connections.get(Flow(ALICE, BOB))
    assert connection.state is State.PENDING_OE
    pair.run(9 - errors)
    assert connection.state is State.CLEAR_TEXT
    assert why in str(connection.reason)


@pytest.mark.conformance("C-3.2.5-07")
def test_errors_about_every_datagram_do_not_stop_an_answer_that_comes_after_all():
    pair = silent_pair(4)
    pair.wire.loses = lambda datagram: pair.a.daemon.peer_unreachable(SG_B) if datagram.local.address == SG_A else False
    pair.run(4 + 100 * LATENCY)
    assert pair.a.daemon.connections.get(Flow(ALICE, BOB)).state is State.KEYED
