"""Zones of private addresses that every resolver may serve by itself: RFC 6303 section 4, RFC 7793.

Their delegations in the public tree are unsigned, but a resolver that answers for them answers for that too, so no
proof can be had through it. Without this list every private address would look like an attack.
"""

from oesvc.dns.answer import Name
from oesvc.dns.name import is_below, parse_name

LOCALLY_SERVED: tuple[Name, ...] = tuple(parse_name(zone) for zone in (
    "10.in-addr.arpa", "168.192.in-addr.arpa", "254.169.in-addr.arpa", "127.in-addr.arpa", "0.in-addr.arpa",
    *(f"{octet}.172.in-addr.arpa" for octet in range(16, 32)),
    *(f"{octet}.100.in-addr.arpa" for octet in range(64, 128)),
    "255.255.255.255.in-addr.arpa",
    "d.f.ip6.arpa", *(f"{digit}.e.f.ip6.arpa" for digit in "89ab"),
    *(f"{digit}{'.0' * 31}.ip6.arpa" for digit in "01"),
))


def local_zone(name: Name) -> Name | None:
    """The locally served zone that holds `name`."""
    return next((zone for zone in LOCALLY_SERVED if is_below(name, zone)), None)
