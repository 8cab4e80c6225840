"""What a keying engine tells its owner; the same for every version of IKE."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NewType

from oesvc.ike.failures import KeyingFailure
from oesvc.ike.identity import Identity
from oesvc.ipsec.flow import Address, Flow
from oesvc.ipsec.rsa_key import RsaPublicKey
from oesvc.ipsec.sa import IpsecSa, Lifetime, UdpPorts

ChannelId = NewType("ChannelId", int)
"A keying channel (phase 1 SA), numbered by its engine."

TunnelId = NewType("TunnelId", int)
"One attempt at a tunnel, and the tunnel that comes of it, numbered by its engine."


WorkId = NewType("WorkId", int)
"A calculation that an engine waits for."


@dataclass(frozen=True, slots=True)
class Job:
    """A calculation, to be called in any thread: it touches nothing of the engine's."""

    rank: int
    "Of several that wait, the one with the lowest is to be done first."
    run: Callable[[], Any] = field(repr=False)

    def __call__(self) -> Any:
        """What `work_done` takes."""
        return self.run()


@dataclass(frozen=True, slots=True)
class Work:
    """Slow arithmetic is to be done: answer with `work_done`.

    Without an answer the negotiation that needs it runs out of its time.
    """

    id: WorkId
    calculate: Job


@dataclass(frozen=True, slots=True)
class KeysWanted:
    """An initiator gave its identity; answer with `keys_found` or `keys_missing` (RFC 4322 section 3.3.1)."""

    channel: ChannelId
    peer: Address
    identity: Identity


@dataclass(frozen=True, slots=True)
class ChannelUp:
    """A keying channel stands: the peer's signature was verified."""

    channel: ChannelId
    peer: Address
    identity: Identity
    initiator: bool


@dataclass(frozen=True, slots=True)
class ChannelFailed:
    """Phase 1 as responder came to nothing (as initiator, each waiting tunnel gets its TunnelFailed)."""

    channel: ChannelId
    peer: Address
    failure: KeyingFailure
    detail: str


@dataclass(frozen=True, slots=True)
class TunnelProposed:
    """A peer proposes a tunnel; answer with `accept_tunnel` or `refuse_tunnel` (RFC 4322 section 3.3.2)."""

    tunnel: TunnelId
    flow: Flow
    "From our side to the peer's: the source is ours to protect, the destination is what the peer speaks for."
    peer: Address
    identity: Identity
    key: RsaPublicKey
    "The key that verified the peer's signature."
    calls_from_there: bool = False
    "Its messages come from the flow's destination itself, with no NAT between that others might be behind too."


@dataclass(frozen=True, slots=True)
class SasReady:
    """Put these SAs into the kernel, then say `sas_installed`: the next message waits for it.

    As initiator both SAs come at once, before quick mode 3 is sent; as responder the inbound one comes before
    quick mode 2 is sent, and the outbound one when quick mode 3 has arrived (RFC 4322 section 11.2, 5O and 5P).
    """

    tunnel: TunnelId
    flow: Flow
    sas: tuple[IpsecSa, ...]


@dataclass(frozen=True, slots=True)
class TunnelUp:
    """Both SAs are installed and the last message is sent or received: datagrams may flow."""

    tunnel: TunnelId
    flow: Flow
    local: Address
    peer: Address
    identity: Identity


@dataclass(frozen=True, slots=True)
class LifetimeShortened:
    """The peer lets the keys of a tunnel end earlier than was agreed (RFC 2407 section 4.6.3.1)."""

    tunnel: TunnelId
    flow: Flow
    lifetime: Lifetime
    "Counted from when its SAs were made; what is 0 is not changed."


@dataclass(frozen=True, slots=True)
class TunnelMoved:
    """The peer is at another address or port than before: its NAT maps it anew. What is sent to it is to go there."""

    tunnel: TunnelId
    flow: Flow
    gateways: Flow
    "The outer addresses now, ours as the source."
    udp: UdpPorts
    "In the same order."


@dataclass(frozen=True, slots=True)
class TunnelFailed:
    """An attempt at a tunnel came to nothing; SAs installed for it are to be removed."""

    tunnel: TunnelId
    flow: Flow
    peer: Address
    failure: KeyingFailure
    detail: str
    "One sentence: what the peer did, and what would have been right."


@dataclass(frozen=True, slots=True)
class TunnelDeleted:
    """The peer closed a standing tunnel by an authenticated delete; ours has been sent back (section 3.4.2)."""

    tunnel: TunnelId
    flow: Flow
    peer: Address

    @property
    def detail(self) -> str:
        return f"an authenticated delete came from {self.peer}"


@dataclass(frozen=True, slots=True)
class TunnelLost:
    """The peer does not answer any more under the keying channel: it is dead, or has forgotten us (section 9.3)."""

    tunnel: TunnelId
    flow: Flow
    peer: Address
    detail: str


@dataclass(frozen=True, slots=True)
class SpiRefused:
    """Something speaks for it that the peer does not have the SPI that a tunnel sends by (3.2.6).

    Somebody says so, and nothing vouches for it; or the peer has closed its last keying channel, and not the tunnel.
    """

    tunnel: TunnelId
    flow: Flow
    peer: Address
    detail: str


@dataclass(frozen=True, slots=True)
class TunnelGone:
    """A deletion that we began is over: confirmed by the peer, or given up after three tries (section 3.4.2)."""

    tunnel: TunnelId
    flow: Flow
    confirmed: bool


class Way(Enum):
    SENT = "sent"
    RECEIVED = "received"


@dataclass(frozen=True, slots=True)
class MessageSeen:
    """A message of an exchange was sent or taken, for the journal and the time line; duplicates are not told."""

    way: Way
    name: str
    "As RFC 4322 section 11.2 counts them: 'main mode 1' to 6, 'quick mode 1' to 3, 'delete', ..."
    local: Address
    peer: Address
    flow: Flow | None
    "The flow that it is about, where that is known."
    encrypted: bool


@dataclass(frozen=True, slots=True)
class DatagramRefused:
    """A datagram was dropped, and why; it changed nothing."""

    peer: Address
    reason: str
    flow: Flow | None = None
    "The tunnel that an authentic message proposed in vain."


IkeEvent = (Work | KeysWanted | ChannelUp | ChannelFailed | TunnelProposed | SasReady | TunnelUp | LifetimeShortened
            | TunnelMoved | TunnelFailed | TunnelDeleted | TunnelLost | SpiRefused | TunnelGone | MessageSeen
            | DatagramRefused)
