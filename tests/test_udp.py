"""The sockets of IKE."""

import socket
from ipaddress import ip_address
from pathlib import Path

import pytest

from oesvc.ike.datagram import Endpoint
from oesvc.ike.v1.constants import NAT_KEEPALIVE, NON_ESP_MARKER
from oesvc.kernel.own_socket import receive_esp
from oesvc.udp import open_socket


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_kernel_takes_esp_and_keepalives_from_port_4500_and_leaves_what_has_the_marker(address):
    opened = open_socket(Endpoint(ip_address(address), 0), receive_esp)
    with opened, socket.socket(opened.family, socket.SOCK_DGRAM) as sender:
        for datagram in NAT_KEEPALIVE, b"\0\0\1\0" + bytes(60), NON_ESP_MARKER + b"IKE":
            sender.sendto(datagram, opened.getsockname())
        opened.settimeout(10)
        assert opened.recv(100) == NON_ESP_MARKER + b"IKE"


def room(opened: socket.socket) -> int:
    return opened.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def test_flood_finds_more_room_than_this_host_gives_by_default():
    opened = open_socket(Endpoint(ip_address("127.0.0.1"), 0), lambda prepared: None)
    with opened, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ordinary:
        allowed = int(Path("/proc/sys/net/core/rmem_max").read_text())
        assert room(opened) > room(ordinary) or room(ordinary) >= allowed
