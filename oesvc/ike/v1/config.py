"""What an engine is told once."""

from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from oesvc.ike.identity import AddressIdentity, Identity
from oesvc.ike.v1.offers import MODERN, Profile
from oesvc.ike.v1.vendor import Extension, Extensions
from oesvc.ipsec.flow import Address
from oesvc.ipsec.sa import Lifetime
from oesvc.ipsec.subnets import Subnets

Entropy = Callable[[int], bytes]
"Gives so many octets that nobody can guess, as os.urandom does."

PHASE1_LIFETIME = Lifetime(8 * 3600)
PHASE2_LIFETIME = Lifetime(3600)

PHASE1_FLOOR = Lifetime(3600, 100)
PHASE2_FLOOR = Lifetime(600, 1000)


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """All times are in seconds."""

    private_key: RSAPrivateKey = field(repr=False)
    profile: Profile = MODERN
    identity: Identity | None = None
    """Without one we are our address (RFC 4322 section 4.3). A name is given as initiator (section 5.3) and behind a
    NAT; an address always: it is the one that delegations name, where a NAT translates ours."""
    configured: frozenset[Subnets] = frozenset()
    "What configured tunnels protect, ours as the source: nothing else may be wider than a host on each side."
    phase1_lifetime: Lifetime = PHASE1_LIFETIME
    phase2_lifetime: Lifetime = PHASE2_LIFETIME
    phase1_floor: Lifetime = PHASE1_FLOOR
    "Shorter lifetimes that peers propose are refused; never longer than our own."
    phase2_floor: Lifetime = PHASE2_FLOOR
    retransmission: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    "Waits after the first sending of a message, after its first repetition, and so on; the last one repeats."
    keying_time: float = 8.0
    "In all, for a tunnel that we begin; also what a stranger has for phase 1, and for a tunnel it proposes."
    doubt_time: float = 4.0
    "Silence after which a tunnel on a standing keying channel tries a new one: the peer may have rebooted."
    key_wait: float = 5.0
    "As responder, for the DNS to give the initiator's keys."
    extensions: Extensions = frozenset(Extension)
    "Announced to peers."
    new_invitations: int = 200
    """Portions of 256 octets of messages 1 of a wording never seen that are read in a second; known ones cost
    microseconds and are not limited."""
    max_invitation_octets: int = 4_000_000
    "Of those by which nobody has proved an identity yet."
    max_proven_invitations: int = 256
    dpd_idle: float = 60.0
    "Silence of a peer that there are tunnels with, after which it is asked whether it is there (RFC 3706); 0: never."
    channel_idle: float = 1800.0
    "A keying channel without tunnels that was not used for so long is closed."
    max_half_open: int = 1000
    """Keying channels that strangers, who receive at their addresses, have begun and not finished; beyond, an old one
    makes room, from where there are most."""
    max_half_open_per_prefix: int = 32
    "Of those, from one /24 or /64. Of this, as of all per prefix, a /56 may take twice as much and a /48 four times."
    max_stranger_work: int = 1000
    "Milliseconds of arithmetic for strangers that may wait; beyond, no further one may begin a keying channel."
    max_stranger_work_per_prefix: int = 250
    max_fragment_octets: int = 4_000_000
    "Of messages in pieces that are not whole yet; beyond, those that were begun first are lost, and will be repeated."
    max_channels: int = 10_000
    """Keying channels; beyond, one that has not been used for longest makes room, if it has no tunnels, or strangers
    get none."""
    max_channels_per_peer: int = 8
    "Standing ones; beyond, the oldest is closed."
    max_channels_per_prefix: int = 256
    "With peers in one /24 or /64; beyond, those of strangers there are refused."
    max_tunnels: int = 20_000
    "Tunnels; beyond, those that peers propose are refused."
    max_tunnels_per_peer: int = 1000
    max_tunnels_per_prefix: int = 4000

    def identities(self, local: Address, initiator: bool) -> tuple[Identity, Identity]:
        """Who we are at one of our addresses, and who if it turns out that a NAT translates it."""
        own, given = AddressIdentity(local), self.identity
        if isinstance(given, AddressIdentity):
            given = given if given.address.version == local.version else own
            return given, given
        return (given if given and initiator else own), given or own
