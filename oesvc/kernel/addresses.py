"""This host's own addresses, as the kernel lists them."""

from collections.abc import Collection
from ipaddress import ip_address

from pyroute2 import IPRoute

from oesvc.ipsec.flow import Address
from oesvc.kernel.spd import Network

RT_SCOPE_UNIVERSE = 0
IFA_F_TEMPORARY = 0x01
IFA_F_DEPRECATED = 0x20


def outside_addresses(clients: Collection[Network], inside: Collection[str]) -> tuple[Address, ...]:
    """The lasting global addresses that do not lead to clients, in the kernel's order. Asks once, at start."""
    found: list[Address] = []
    with IPRoute() as route:
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in route.get_links()}
        for entry in route.get_addr(scope=RT_SCOPE_UNIVERSE):
            flags = entry.get_attr("IFA_FLAGS") or entry["flags"]
            address = ip_address(entry.get_attr("IFA_LOCAL") or entry.get_attr("IFA_ADDRESS"))
            if (names[entry["index"]] not in inside and not flags & (IFA_F_TEMPORARY | IFA_F_DEPRECATED)
                    and not any(address in network for network in clients)):
                found.append(address)
    return tuple(found)
