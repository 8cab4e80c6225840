"""Keying channels (phase 1 SAs): each one, and all of them by what tells their datagrams apart."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, islice

from oesvc.ike.crypto.groups import Group
from oesvc.ike.crypto.keymat import Secrets
from oesvc.ike.datagram import Endpoint, Path
from oesvc.ike.events import ChannelId
from oesvc.ike.failures import KeyingFailure
from oesvc.ike.identity import Identity
from oesvc.ike.v1.constants import MAX_EXCHANGES, NAT_TRAVERSAL_PORT, NO_COOKIE, ExchangeType
from oesvc.ike.v1.exchange import Exchange
from oesvc.ike.v1.invitations import Invitation
from oesvc.ike.v1.main_mode import Expectation, Ourselves
from oesvc.ike.v1.nat import NO_NAT, Nat
from oesvc.ike.v1.prefixes import PerPrefix
from oesvc.ike.v1.timers import Timer
from oesvc.ike.v1.tunnels import TunnelRecord
from oesvc.ike.v1.vendor import Extensions
from oesvc.ike.v1.wire.header import Header
from oesvc.ipsec.flow import Address
from oesvc.ipsec.rsa_key import RsaPublicKey
from oesvc.ipsec.sa import Lifetime

LOOKED_AT = 64
"Channels of which one is chosen that makes room: all would take a millisecond."


@dataclass(frozen=True, slots=True)
class Standing:
    """What phase 1 has left: the peer, authenticated, and the keys for what follows."""

    identity: Identity
    key: RsaPublicKey
    secrets: Secrets
    last_block: bytes
    "Of phase 1's last message; with a message ID it makes the IV of another exchange."
    group: Group
    extensions: Extensions
    "Announced by the peer."
    since: float
    expires: float
    kilobytes: int
    "That its keys may protect; 0: any number."
    initial_contact: bool
    "The peer said in phase 1 that it knows of nothing older."
    shortened: Lifetime | None
    "As responder: our lifetime, where it is shorter than the initiator's."


@dataclass(slots=True, eq=False, repr=False)
class Channel:
    """One keying channel, from its first message to its end."""

    id: ChannelId
    path: Path
    cookie_i: bytes
    cookie_r: bytes
    ourselves: Ourselves
    main_mode: Exchange
    begun: float
    nat: Nat = NO_NAT
    standing: Standing | None = None
    waiting: list[TunnelRecord] = field(default_factory=list)
    "Tunnels that begin when the channel stands."
    quick_modes: dict[int, TunnelRecord] = field(default_factory=dict)
    "By message ID, until nobody repeats messages of theirs any more."
    used_ids: set[int] = field(default_factory=set)
    invitation: Invitation | None = None
    "As responder: what the initiator said in message 1."
    deadline: Timer | None = None
    "Of phase 1, then of the channel."
    key_wait: Timer | None = None
    known_keys: dict[Identity, tuple[RsaPublicKey, ...] | str] = field(default_factory=dict)
    "As responder: the keys that the DNS has for whom the initiator claimed to be, or why there are none."
    hint: tuple[KeyingFailure, str] | None = None
    "What unauthenticated messages say about why this fails; told only when the time is over."
    octets: int = 0
    "That its keys have protected, in both directions."
    rekey: Timer | None = None
    "When to look whether it is to be replaced, or closed."
    renews_at: float = 0.0
    "From when on it is to be replaced."
    wants_keys: bool = False
    "The DNS has been asked for the peer's keys, to replace this channel."
    keepalive: Timer | None = None
    "Where we are behind a NAT."
    liveness: Timer | None = None
    heard_at: float = field(init=False)
    "When an authentic message came last."
    first_contact: bool = False
    "We knew of nothing that we share with the peer when it was begun."
    greeted: bool = False
    "The peer has been told what there was to tell."
    used_at: float = field(init=False)
    "When a tunnel was negotiated last."
    dpd_seen: int = -1
    "The peer's last R-U-THERE; dpd_asked is ours."
    dpd_asked: int = 0
    dpd_tries: int = 0
    takes_fragments: bool = False
    "The peer has announced that it does."
    rejected: bool = False
    "As responder: we have told the initiator that its signature does not verify."
    verifications: int = 0
    "As responder: of its signatures, begun."
    heard: bool = False
    unreachables: int = 0
    doubtful: bool = False
    "The peer has fallen silent on it: begin nothing new here."

    def __post_init__(self) -> None:
        self.heard_at = self.used_at = self.begun

    @property
    def local(self) -> Endpoint:
        return self.path.local

    @property
    def peer(self) -> Endpoint:
        return self.path.peer

    def may_come_by(self, path: Path) -> bool:
        """Whether its messages may come by another path than its own.

        From a peer behind a NAT, whose mapping changes, unless we are behind one too: then what changes may be forged
        (RFC 3947 section 6). And once, when main mode changes to port 4500 (section 4).
        """
        nat, awaits_5 = self.nat, not self.standing and not self.initiator
        return (path.local.address == self.local.address and path.local.port == NAT_TRAVERSAL_PORT
                and ((nat.there and not nat.here) or (nat.between and awaits_5)))

    @property
    def expectation(self) -> Expectation | None:
        return self.ourselves.expectation

    @property
    def initiator(self) -> bool:
        return self.expectation is not None

    def shares(self, tunnel: TunnelRecord) -> bool:
        """Whether a tunnel is its peer's: a delegation may give the same address and identity to another key."""
        return (self.standing is not None and tunnel.identity == self.standing.identity
                and self.standing.key in tunnel.keys)

    def is_with_peer_of(self, other: "Channel") -> bool:
        """The same, where both stand at one address."""
        mine, theirs = self.standing, other.standing
        return (mine is not None and theirs is not None and mine.identity == theirs.identity
                and mine.key == theirs.key)

    def header(self, exchange: ExchangeType, message_id: int) -> Header:
        return Header(self.cookie_i, self.cookie_r, 0, exchange, 0, message_id)

    def suspect(self, failure: KeyingFailure, detail: str) -> None:
        """Note a hint; what broke the protocol says less than anything else."""
        if self.hint is None or self.hint[0] is KeyingFailure.PHASE1_MISMATCH:
            self.hint = failure, detail

    def use_id(self, message_id: int) -> bool:
        """Note that a message ID is used; False when it was before, or when there have been too many."""
        fresh = message_id not in self.used_ids and len(self.used_ids) < MAX_EXCHANGES
        if fresh:
            self.used_ids.add(message_id)
        return fresh


class Channels:
    """All keying channels behind one port."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._by_id: dict[ChannelId, Channel] = {}
        self._by_cookies: dict[tuple[bytes, bytes], Channel] = {}
        self._by_peer: dict[Address, dict[ChannelId, Channel]] = {}
        self._half_open: dict[ChannelId, Channel] = {}
        self._half_open_near, self._near = PerPrefix(), PerPrefix()

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Channel]:
        return iter(list(self._by_id.values()))

    def next_id(self) -> ChannelId:
        return ChannelId(next(self._numbers))

    def add(self, channel: Channel) -> None:
        self._by_id[channel.id] = channel
        self._by_cookies[channel.cookie_i, channel.cookie_r] = channel
        self._by_peer.setdefault(channel.peer.address, {})[channel.id] = channel
        self._near.add(channel.peer.address)
        if not channel.initiator:
            self._half_open[channel.id] = channel
            self._half_open_near.add(channel.peer.address)

    def remove(self, channel: Channel) -> None:
        if self._by_id.pop(channel.id, None) is None:
            return
        self._leave_half_open(channel)
        self._near.remove(channel.peer.address)
        self._by_cookies.pop((channel.cookie_i, channel.cookie_r), None)
        self._leave_peer(channel, channel.peer.address)
        for timer in (channel.deadline, channel.key_wait, channel.rekey, channel.liveness, channel.keepalive):
            if timer:
                timer.cancel()
        channel.main_mode.stop()

    def answered(self, channel: Channel, cookie_r: bytes) -> None:
        """The responder has told its cookie."""
        del self._by_cookies[channel.cookie_i, channel.cookie_r]
        channel.cookie_r = cookie_r
        self._by_cookies[channel.cookie_i, cookie_r] = channel

    def stands(self, channel: Channel, standing: Standing) -> None:
        """Phase 1 is over: the channel counts no longer as half open."""
        channel.standing = standing
        self._leave_half_open(channel)

    def use(self, channel: Channel, now: float) -> None:
        """A tunnel is negotiated under it."""
        channel.used_at = now
        if self._by_id.pop(channel.id, None):
            self._by_id[channel.id] = channel

    def longest_unused(self) -> list[Channel]:
        """Some of the standing ones that have not been used for longest, those first."""
        return [channel for channel in islice(self._by_id.values(), LOOKED_AT) if channel.standing]

    def most_crowded_half_open(self) -> Channel:
        """Of some of the oldest ones, the one with the most neighbours; who came first, where there are several."""
        return max(islice(self._half_open.values(), LOOKED_AT), key=lambda channel: self.half_open_near(
            channel.peer.address))

    def get(self, id: ChannelId) -> Channel | None:
        return self._by_id.get(id)

    def move(self, channel: Channel, path: Path) -> None:
        """Its messages go by another path from now on."""
        before, after = channel.peer.address, path.peer.address
        channel.path = path
        if before == after:
            return
        self._leave_peer(channel, before)
        self._by_peer.setdefault(after, {})[channel.id] = channel
        self._near.remove(before)
        self._near.add(after)
        if channel.id in self._half_open:
            self._half_open_near.remove(before)
            self._half_open_near.add(after)

    def has(self, header: Header) -> bool:
        """Whether there is one with both cookies, whoever it is with."""
        return (header.initiator_cookie, header.responder_cookie) in self._by_cookies

    def find(self, header: Header, path: Path) -> Channel | None:
        """The channel of a datagram by its cookies; one that knows no responder's cookie yet takes any."""
        cookie_i, cookie_r = header.initiator_cookie, header.responder_cookie
        channel = self._by_cookies.get((cookie_i, cookie_r)) or self._by_cookies.get((cookie_i, NO_COOKIE))
        return channel if channel and (channel.peer == path.peer or channel.may_come_by(path)) else None

    def with_peer(self, peer: Address) -> list[Channel]:
        """Oldest first."""
        return list(self._by_peer.get(peer, {}).values())

    def standing(self, peer: Address, identity: Identity, keys: Sequence[RsaPublicKey] | None = None) \
            -> Channel | None:
        """The newest one, which is the right one if the peer has rebooted (RFC 4322 section 3.3.2)."""
        return next((channel for channel in reversed(self.with_peer(peer))
                     if (standing := channel.standing) and not channel.doubtful
                     and standing.identity == identity and (keys is None or standing.key in keys)), None)

    def is_newest(self, channel: Channel) -> bool:
        """With its peer, who is whom an address, an identity and a key tell from others."""
        standing, peer = channel.standing, channel.peer.address
        return standing is not None and self.standing(peer, standing.identity, (standing.key,)) is channel

    def of_same_peer(self, channel: Channel) -> list[Channel]:
        """The standing ones, oldest first."""
        return [other for other in self.with_peer(channel.peer.address) if channel.is_with_peer_of(other)]

    def pending(self, local: Address, peer: Address, expectation: Expectation) -> Channel | None:
        """Phase 1 begun by us with the same peer, identity and keys."""
        return next((channel for channel in self.with_peer(peer)
                     if channel.standing is None and channel.expectation == expectation
                     and channel.local.address == local), None)

    def half_open(self) -> int:
        return len(self._half_open)

    def half_open_near(self, peer: Address) -> int:
        return self._half_open_near.count(peer)

    def near(self, peer: Address) -> int:
        return self._near.count(peer)

    def most_half_open_near(self) -> int:
        return self._half_open_near.most()

    def most_near(self) -> int:
        return self._near.most()

    def most_standing(self) -> int:
        """With one peer."""
        return max((most for with_peer in self._by_peer.values() for most in Counter(
            (channel.standing.identity, channel.standing.key) for channel in with_peer.values()
            if channel.standing).values()), default=0)

    def _leave_peer(self, channel: Channel, peer: Address) -> None:
        del self._by_peer[peer][channel.id]
        if not self._by_peer[peer]:
            del self._by_peer[peer]

    def _leave_half_open(self, channel: Channel) -> None:
        if channel.id in self._half_open:
            del self._half_open[channel.id]
            self._half_open_near.remove(channel.peer.address)
