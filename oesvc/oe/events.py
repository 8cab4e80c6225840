"""What can happen to a connection; named in the past tense."""

from dataclasses import dataclass

from oesvc.dns.answer import SecurityStatus
from oesvc.ipsec.flow import Flow
from oesvc.oe.delegation import Delegation


@dataclass(frozen=True, slots=True)
class Event:
    """Something that the outside world tells a connection."""

    detail: str = ""
    "One sentence for people: the particulars."


@dataclass(frozen=True, slots=True)
class Acquired(Event):
    """The forwarding plane holds a datagram of this flow and asks for keys."""


@dataclass(frozen=True, slots=True)
class Answered(Event):
    """The DNS was asked; how long what it said (or its silence) may be believed."""

    expires: float = 0.0


@dataclass(frozen=True, slots=True)
class DelegationFound(Answered):
    """There are gateways to key with: properly formatted, with keys, and vouched for as far as the policy asks."""

    delegations: tuple[Delegation, ...] = ()
    "In the order in which they are to be tried."
    status: SecurityStatus = SecurityStatus.INDETERMINATE
    "How far the weakest of the answers can be believed."


@dataclass(frozen=True, slots=True)
class DelegationAbsent(Answered):
    """There is no delegation record: the destination is not OE capable."""


@dataclass(frozen=True, slots=True)
class LookUpFailed(Answered):
    """The DNS did not answer, or nonsense."""


@dataclass(frozen=True, slots=True)
class DelegationBad(Answered):
    """A record is there and is misformatted, or DNSSEC says that it is forged."""


@dataclass(frozen=True, slots=True)
class RoomWanted(Event):
    """There are as many flows as are allowed, and this one can be decided anew when it is used again."""


@dataclass(frozen=True, slots=True)
class Dropped(Event):
    """An administrator wants the flow to be decided anew."""


@dataclass(frozen=True, slots=True)
class PolicyChanged(Event):
    """The administrator has put the flow's destination into another class."""


@dataclass(frozen=True, slots=True)
class PeerAuthorized(Event):
    """A peer proposed a tunnel for this flow and may act for its far end (section 3.3.3)."""

    status: SecurityStatus = SecurityStatus.INDETERMINATE
    "How far the weakest of the answers that say so can be believed."


@dataclass(frozen=True, slots=True)
class ProposalLapsed(Event):
    """The tunnel that a peer had proposed came to nothing."""


@dataclass(frozen=True, slots=True)
class TunnelNegotiated(Event):
    """A set of phase 2 SAs stands."""

    tunnel: int = 0
    gateways: Flow | None = None
    "The outer addresses, ours as the source."
    begun_here: bool = True
    "Whether we were the initiator."


@dataclass(frozen=True, slots=True)
class PeerSilent(Event):
    """No word from the gateway, or only ICMP unreachables (3.2.5, the first failure)."""


@dataclass(frozen=True, slots=True)
class PeerRefused(Event):
    """Phase 2 was refused, or went unanswered (3.2.5, the second failure)."""


@dataclass(frozen=True, slots=True)
class ChannelRefused(Event):
    """Phase 1 was refused, or misunderstood, by whoever answered: it could not prove yet who it is."""


@dataclass(frozen=True, slots=True)
class PeerNotAuthentic(Event):
    """The gateway's signature or identity is not what the DNS says (3.2.5, the third failure)."""


@dataclass(frozen=True, slots=True)
class SasRefused(Event):
    """Our own forwarding plane refused the SAs: the peer is not to blame, and it may soon be over."""


@dataclass(frozen=True, slots=True)
class SoftLifetimeReached(Event):
    """The keys serve a little longer; now is the time for new ones."""


@dataclass(frozen=True, slots=True)
class KeysDoubted(Event):
    """Signs, which may be forged, say that the peer does not have our keys, or we not the peer's (3.2.6)."""


@dataclass(frozen=True, slots=True)
class HardLifetimeReached(Event):
    """The forwarding plane dropped the keys."""


@dataclass(frozen=True, slots=True)
class PeerDeleted(Event):
    """The peer closed the tunnel with an authenticated delete."""


@dataclass(frozen=True, slots=True)
class PeerLost(Event):
    """The peer's gateway does not answer any more: it is dead, or out of reach (sections 8 and 9.3)."""


@dataclass(frozen=True, slots=True)
class PathChosen(Event):
    """Of several tunnels, each with another gateway of the peer's, this one is to be sent by (section 8)."""

    tunnel: int = 0


@dataclass(frozen=True, slots=True)
class LifespanEnded(Event):
    """Time to ask whether the flow is still in use."""


@dataclass(frozen=True, slots=True)
class FoundInUse(Event):
    """The forwarding plane saw traffic lately."""


@dataclass(frozen=True, slots=True)
class FoundConnected(Event):
    """It saw none, but a TCP connection of this host is open, and may go on at any time (section 3.4.1)."""


@dataclass(frozen=True, slots=True)
class FoundIdle(Event):
    """The forwarding plane saw none."""
