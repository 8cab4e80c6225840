"""Identification payloads as identities and flows: RFC 2407 section 4.6.2, RFC 4322 sections 4.3 and 4.6.2."""

import re
from ipaddress import IPv4Address, IPv6Address, ip_network

from oesvc.ike.identity import AddressIdentity, FqdnIdentity, Identity
from oesvc.ike.v1.constants import NAT_TRAVERSAL_PORT, PORT, IdType, name_of
from oesvc.ike.v1.errors import IdentityError
from oesvc.ike.v1.wire.payloads import Identification
from oesvc.ipsec.flow import Address, Network, host

UDP = 17
FQDN = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*")
ADDRESSES: dict[int, tuple[type[Address], int]] = {
    IdType.IPV4_ADDR: (IPv4Address, 4),
    IdType.IPV6_ADDR: (IPv6Address, 16),
}
SUBNETS: dict[int, tuple[type[Address], int]] = {
    IdType.IPV4_ADDR_SUBNET: (IPv4Address, 4),
    IdType.IPV6_ADDR_SUBNET: (IPv6Address, 16),
}


def pack_identity(identity: Identity) -> bytes:
    """The ID payload's body of main mode."""
    if isinstance(identity, FqdnIdentity):
        return Identification(IdType.FQDN, 0, 0, identity.fqdn.encode("ascii")).pack()
    kind = IdType.IPV4_ADDR if identity.address.version == 4 else IdType.IPV6_ADDR
    return Identification(kind, 0, 0, identity.address.packed).pack()


def parse_identity(body: bytes) -> Identity:
    """Who the peer of phase 1 says it is. Raises IdentityError for what RFC 4322 has no key record for."""
    id = Identification.parse(body)
    if (id.protocol, id.port) not in ((0, 0), (UDP, PORT), (UDP, NAT_TRAVERSAL_PORT)):
        raise IdentityError(f"the identity is bound to protocol {id.protocol} port {id.port}")
    if id.type in ADDRESSES:
        family, length = ADDRESSES[id.type]
        if len(id.data) == length:
            return AddressIdentity(family(id.data))
    elif id.type == IdType.FQDN:
        name = id.data.decode("latin-1").lower().removesuffix(".")
        if FQDN.fullmatch(name):
            return FqdnIdentity(name)
    raise IdentityError(f"the identity {name_of(IdType, id.type)} of {len(id.data)} octets is no address and no "
                        "domain name")


def pack_network(network: Network) -> bytes:
    """A network as an ID payload's body of quick mode; a host is one of one address (RFC 4322 section 4.6.2)."""
    kind = IdType.IPV4_ADDR_SUBNET if network.version == 4 else IdType.IPV6_ADDR_SUBNET
    return Identification(kind, 0, 0, network.network_address.packed + network.netmask.packed).pack()


def parse_network(body: bytes) -> Network:
    """The network that an ID payload of quick mode names, as configured tunnels have them. Raises IdentityError."""
    id = Identification.parse(body)
    if id.type in SUBNETS and not (id.protocol or id.port):
        _, length = SUBNETS[id.type]
        mask = int.from_bytes(id.data[length:], "big")
        bits = mask.bit_count()
        if len(id.data) == 2 * length and mask == (1 << 8 * length) - (1 << 8 * length - bits):
            return ip_network((id.data[:length], bits), strict=False)
    return host(parse_host(body))


def parse_host(body: bytes) -> Address:
    """The one host that an ID payload of quick mode names. Raises IdentityError for anything wider or narrower."""
    id = Identification.parse(body)
    if id.protocol or id.port:
        raise IdentityError(f"the tunnel is only for protocol {id.protocol} port {id.port}, not for all of a host")
    if id.type in ADDRESSES:
        family, length = ADDRESSES[id.type]
        if len(id.data) == length:
            return family(id.data)
    elif id.type in SUBNETS:
        family, length = SUBNETS[id.type]
        if len(id.data) == 2 * length:
            if id.data[length:] != b"\xff" * length:
                raise IdentityError(f"the tunnel is for the subnet {family(id.data[:length])} with mask "
                                    f"{family(id.data[length:])}; only single hosts are acceptable")
            return family(id.data[:length])
    raise IdentityError(f"the identity {name_of(IdType, id.type)} of {len(id.data)} octets is no single host")
