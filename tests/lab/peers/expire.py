"""Tell the kernel that an SA has reached its soft lifetime: it says so to the keying daemon, as it would in time."""

import socket
import struct

from tests.lab.network import Host

NETLINK_XFRM = 6
NLM_F_REQUEST, NLM_F_ACK, NLMSG_ERROR = 1, 4, 2
XFRM_MSG_EXPIRE = 0x18
SELECTOR, LIFETIMES, STATE = 56, 108, 224
"Octets of struct xfrm_selector, of the limits and counters in struct xfrm_usersa_info, and of the whole of that."
USER_EXPIRE = 232
ESP = 50


def expire_softly(host: Host, destination: str, spi: int) -> None:
    """Of the ESP SA to the address `destination` with this SPI. Raises OSError if there is none."""
    family = socket.AF_INET6 if ":" in destination else socket.AF_INET
    id = socket.inet_pton(family, destination).ljust(16, b"\0") + struct.pack("!IB3x", spi, ESP)
    source = bytes(16)
    state = bytes(SELECTOR) + id + source + bytes(LIFETIMES) + struct.pack("=IIH", 0, 0, family)
    body = state.ljust(STATE, b"\0").ljust(USER_EXPIRE, b"\0")
    header = struct.pack("=IHHII", 16 + len(body), XFRM_MSG_EXPIRE, NLM_F_REQUEST | NLM_F_ACK, 1, 0)
    with host.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_XFRM) as kernel:
        kernel.send(header + body)
        answer = kernel.recv(4096)
    kind, error = struct.unpack_from("=H", answer, 4)[0], struct.unpack_from("=i", answer, 16)[0]
    if kind != NLMSG_ERROR or error:
        raise OSError(-error, f"the SA {spi:#x} to {destination} cannot be expired")
