"""The sockets of IKE."""

import socket
from ipaddress import ip_address
from pathlib import Path

import pytest
from twisted.internet.task import Clock
from twisted.logger import Logger

from oesvc.ike.datagram import Datagram, Endpoint
from oesvc.ike.v1.constants import NAT_KEEPALIVE, NON_ESP_MARKER
from oesvc.kernel.own_socket import receive_esp
from oesvc.udp import WARNING_SPACING, IkePort, open_socket


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_kernel_takes_esp_and_keepalives_from_port_4500_and_leaves_what_has_the_marker(address):
    opened = open_socket(Endpoint(ip_address(address), 0), receive_esp)
    with opened, socket.socket(opened.family, socket.SOCK_DGRAM) as sender:
        for datagram in NAT_KEEPALIVE, b"\0\0\1\0" + bytes(60), NON_ESP_MARKER + b"IKE":
            sender.sendto(datagram, opened.getsockname())
        opened.settimeout(10)
        assert opened.recv(100) == NON_ESP_MARKER + b"IKE"


class Unroutable:
    """A transport that can send to nobody."""

    def write(self, data, addr):
        raise OSError("Network is unreachable")


def test_datagram_from_port_0_is_nobodys():
    received = []
    port = IkePort(Endpoint(ip_address("127.0.0.1"), 500), received.append)
    port.datagramReceived(b"spoofed", ("192.0.2.1", 0))
    port.datagramReceived(b"honest", ("fe80::1%eth0", 500))
    assert [(datagram.data, datagram.peer) for datagram in received] == [
        (b"honest", Endpoint(ip_address("fe80::1"), 500))]


def test_answers_that_cannot_be_sent_are_counted_and_told_now_and_then():
    clock, local, said = Clock(), Endpoint(ip_address("127.0.0.1"), 500), []
    port = IkePort(local, said.append, clock.seconds)
    port.transport = Unroutable()
    port.log = Logger(observer=lambda event: said.append((event["count"], str(event["peer"].address))))
    for _ in range(100):
        port.send(Datagram(b"", local, Endpoint(ip_address("192.0.2.1"), 500)))
    clock.advance(WARNING_SPACING)
    port.send(Datagram(b"", local, Endpoint(ip_address("192.0.2.2"), 500)))
    assert said == [(1, "192.0.2.1"), (101, "192.0.2.2")]


def room(opened: socket.socket) -> int:
    return opened.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def test_flood_finds_more_room_than_this_host_gives_by_default():
    opened = open_socket(Endpoint(ip_address("127.0.0.1"), 0), lambda prepared: None)
    with opened, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ordinary:
        allowed = int(Path("/proc/sys/net/core/rmem_max").read_text())
        assert room(opened) > room(ordinary) or room(ordinary) >= allowed
