"""UDP datagrams of IKE, with where they come from and go to."""

from dataclasses import dataclass

from oesvc.ipsec.flow import Address


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An IKE endpoint: an address and a UDP port."""

    address: Address
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if self.address.version == 6 else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class Path:
    """Between which endpoints IKE goes to and fro."""

    local: Endpoint
    peer: Endpoint


@dataclass(frozen=True, slots=True)
class Datagram:
    """The UDP payload of one IKE datagram, sent or received."""

    data: bytes
    local: Endpoint
    peer: Endpoint

    @property
    def path(self) -> Path:
        return Path(self.local, self.peer)
