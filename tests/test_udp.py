"""The sockets of IKE."""

import socket
from ipaddress import ip_address
from pathlib import Path

from oesvc.ike.datagram import Endpoint
from oesvc.udp import open_socket


def room(opened: socket.socket) -> int:
    return opened.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def test_flood_finds_more_room_than_this_host_gives_by_default():
    opened = open_socket(Endpoint(ip_address("127.0.0.1"), 0), lambda prepared: None)
    with opened, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ordinary:
        allowed = int(Path("/proc/sys/net/core/rmem_max").read_text())
        assert room(opened) > room(ordinary) or room(ordinary) >= allowed
