"""NATs between the gateways: RFC 3947 section 3.2 finds them, RFC 4322 section 6.2 says what they spoil.

ESP goes through a NAT inside UDP. What nothing carries through it is the meaning of a private address: phase 2 has no
identity for a host there that the DNS could vouch for. Such a negotiation fails, and says why (decisions 1C.20).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_network

from oesvc.ike.crypto.keymat import Cookies, Hash
from oesvc.ike.datagram import Endpoint, Path
from oesvc.ike.identity import AddressIdentity, Identity
from oesvc.ike.v1.constants import PORT, PayloadType
from oesvc.ike.v1.vendor import Extension, Extensions
from oesvc.ike.v1.wire.payloads import Payload
from oesvc.ipsec.flow import Address

PRIVATE = tuple(ip_network(prefix) for prefix in (
    "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "127.0.0.0/8",
    "fc00::/7", "fe80::/10", "::1/128"))
"RFC 1918, 4193, 6598 and what never leaves a link or a host."


@dataclass(frozen=True, slots=True)
class Nat:
    """Which ends of a keying channel are behind a NAT, or say that they are."""

    here: bool = False
    there: bool = False

    @property
    def between(self) -> bool:
        return self.here or self.there


NO_NAT = Nat()


def discovery(hash: Hash, cookies: Cookies, path: Path) -> tuple[Payload, ...]:
    """The NAT-D payloads of messages 3 and 4: where the message goes, then where it comes from."""
    return tuple(Payload(PayloadType.NAT_D, _digest(hash, cookies, end)) for end in (path.peer, path.local))


def find_nat(received: Sequence[bytes], hash: Hash, cookies: Cookies, path: Path) -> Nat:
    """What the bodies of the peer's NAT-D payloads say. Its own addresses may be several; without any, no NAT."""
    if not received:
        return NO_NAT
    ours, *theirs = received
    return Nat(here=ours != _digest(hash, cookies, path.local),
               there=_digest(hash, cookies, path.peer) not in theirs)


@lru_cache(maxsize=1024)
def is_private(address: Address) -> bool:
    return any(address in network for network in PRIVATE)


def hides(gateway: Address, address: Address, nat: Nat = NO_NAT) -> bool:
    """Whether this address means something else, or nothing, on the other side of a NAT.

    There must be one, found or not, if a gateway at a public address speaks of a private one.
    """
    return is_private(address) and (nat.between or not is_private(gateway))


def explain(what: str, address: Address, gateway: Address) -> str:
    return (f"nat-id-undefined: {what} {address} is private, and a NAT lies between us and the gateway {gateway}: no "
            "identity exists that the DNS could vouch for (RFC 4322 section 6.2)")


def objection(path: Path, identity: Identity, nat: Nat, extensions: Extensions) -> str | None:
    """Why nothing can come of a peer that gives this identity, where a NAT is in the way."""
    gateway = path.peer.address
    if isinstance(identity, AddressIdentity) and hides(gateway, identity.address, nat):
        return explain("the peer", identity.address, gateway)
    if Extension.NAT_TRAVERSAL not in extensions and path.peer.port != PORT and not gateway.is_loopback:
        return (f"the message came from port {path.peer.port}: a NAT lies between that ESP does not go through, and "
                "the peer has not announced NAT traversal (RFC 3947)")
    return None


def _digest(hash: Hash, cookies: Cookies, end: Endpoint) -> bytes:
    """HASH(CKY-I | CKY-R | IP | Port)."""
    return hash.digest(bytes(cookies) + end.address.packed + end.port.to_bytes(2, "big"))
