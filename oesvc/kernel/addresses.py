"""This host's own addresses, as the kernel lists them."""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from ipaddress import ip_address

from pyroute2 import IPRoute

from oesvc.ipsec.flow import Address
from oesvc.kernel.spd import Network

RT_SCOPE_UNIVERSE = 0

# From the protocol: linux/if_addr.h
IFA_F_TEMPORARY = 0x01
IFA_F_DADFAILED = 0x08
IFA_F_DEPRECATED = 0x20
IFA_F_TENTATIVE = 0x40

WAITS = (0.25,) * 16
"Seconds. Whether another host has an address is known after one or two (RFC 4862 section 5.4), without a link never."


@dataclass(frozen=True, slots=True)
class OwnAddress:
    """A global address of this host, as it stands."""

    address: Address
    interface: str
    flags: int = 0

    @property
    def tentative(self) -> bool:
        return bool(self.flags & IFA_F_TENTATIVE) and not self.flags & IFA_F_DADFAILED

    @property
    def lasting(self) -> bool:
        """Whether a peer may call it, now and as long as we run."""
        return not self.flags & (IFA_F_TEMPORARY | IFA_F_DEPRECATED | IFA_F_TENTATIVE | IFA_F_DADFAILED)


def list_addresses() -> list[OwnAddress]:
    """All global ones, in the kernel's order."""
    with IPRoute() as route:
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in route.get_links()}
        return [OwnAddress(ip_address(entry.get_attr("IFA_LOCAL") or entry.get_attr("IFA_ADDRESS")),
                           names[entry["index"]], entry.get_attr("IFA_FLAGS") or entry["flags"])
                for entry in route.get_addr(scope=RT_SCOPE_UNIVERSE)]


def outside_addresses(clients: Collection[Network], inside: Collection[str],
                      list_all: Callable[[], list[OwnAddress]] = list_addresses,
                      wait: Callable[[float], None] = time.sleep) -> list[OwnAddress]:
    """The global addresses that do not lead to clients. Waits, up to 4 s, until it is known whether one is ours."""
    for seconds in (*WAITS, None):
        found = [one for one in list_all()
                 if one.interface not in inside and not any(one.address in network for network in clients)]
        if seconds is None or not any(one.tentative for one in found):
            break
        wait(seconds)
    return found
