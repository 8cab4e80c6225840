"""How the words of the command line are read."""

from argparse import ArgumentTypeError
from ipaddress import IPv4Address, IPv6Address, ip_address

SHORTEST_WATCH, LONGEST_WATCH = 0.1, 3600.0


def address(text: str) -> IPv4Address | IPv6Address:
    try:
        return ip_address(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is no IP address") from None


def seconds(written: str) -> float:
    """Between two looks of `oegw status --watch`."""
    try:
        number = float(written)
    except ValueError:
        number = 0.0
    if not SHORTEST_WATCH <= number <= LONGEST_WATCH:
        raise ArgumentTypeError(f"{written!r} is no number of seconds from {SHORTEST_WATCH:g} to {LONGEST_WATCH:g}")
    return number
