"""Who a gateway says it is in phase 1: RFC 4322 sections 4.3 and 5.3."""

from dataclasses import dataclass

from oesvc.ipsec.flow import Address


@dataclass(frozen=True, slots=True)
class AddressIdentity:
    """ID_IPV4_ADDR or ID_IPV6_ADDR; its key stands in the reverse map."""

    address: Address

    def __str__(self) -> str:
        return str(self.address)


@dataclass(frozen=True, slots=True)
class FqdnIdentity:
    """ID_FQDN; its key stands in the forward map. The name is ASCII, lower case, without a final dot."""

    fqdn: str

    def __str__(self) -> str:
        return f"@{self.fqdn}"


Identity = AddressIdentity | FqdnIdentity
