"""Addresses that mean nothing beyond a NAT: RFC 4322 section 6.2.

IPsec's NAT traversal may carry datagrams through a NAT, but phase 2 has no identity for a host behind it that the DNS
could vouch for. Such a negotiation fails, and says why (decisions 1C.20).
"""

from ipaddress import ip_network

from oesvc.ipsec.flow import Address

PRIVATE = tuple(ip_network(prefix) for prefix in (
    "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "127.0.0.0/8",
    "fc00::/7", "fe80::/10", "::1/128"))
"RFC 1918, 4193, 6598 and what never leaves a link or a host."


def is_private(address: Address) -> bool:
    return any(address in network for network in PRIVATE)


def hides(gateway: Address, address: Address) -> bool:
    """Whether there must be a NAT between us, if a gateway at a public address speaks of this one."""
    return is_private(address) and not is_private(gateway)


def explain(what: str, address: Address, gateway: Address) -> str:
    return (f"nat-id-undefined: {what} {address} is private, but the gateway {gateway} is not: a NAT lies between, and "
            "no identity exists that the DNS could vouch for (RFC 4322 section 6.2)")
