"""How the words of the command line are read."""

import argparse
from ipaddress import ip_address

from oesvc.ipsec.flow import Address
from oesvc.oe.delegation import MalformedRecordError, gateway_name


def address(text: str) -> Address:
    try:
        return ip_address(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no IP address") from None


def gateway(text: str) -> Address | str:
    """By its address, or as @FQDN."""
    try:
        return gateway_name(text[1:]) if text.startswith("@") else address(text)
    except MalformedRecordError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
