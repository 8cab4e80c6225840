"""The seams between the keying daemon and the outside worlds, so that each side can be built and tested alone."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from oesvc.dns.answer import Answer, Name
from oesvc.ike.datagram import Datagram
from oesvc.ike.events import ChannelId, IkeEvent, TunnelId, WorkId
from oesvc.ike.identity import Identity
from oesvc.ipsec.account import Account
from oesvc.ipsec.flow import Address, Flow
from oesvc.ipsec.policy import ForwardingPolicy
from oesvc.ipsec.rsa_key import RsaPublicKey
from oesvc.ipsec.sa import IpsecSa

Bounds = Mapping[str, tuple[int, int, int]]
"""How much is used of what is bounded, of how much, and how often that was not enough since the start: by the name
of the option in oegw.conf. Of a bound per peer or prefix, what the one with the most uses."""


Traffic = Mapping[tuple[int, Address], tuple[int, int]]
"Octets and datagrams, by SPI and outer destination of an SA."


class DelayedCall(Protocol):
    def cancel(self) -> None: ...

    def active(self) -> bool: ...


class Clock(Protocol):
    """Twisted's IReactorTime, as far as we use it."""

    def seconds(self) -> float: ...

    def callLater(self, delay: float, callable: Callable[..., object], *args: object) -> DelayedCall: ...  # noqa: N802


class Resolver(Protocol):
    """The DNS, validated."""

    def look_up(self, name: Name, rdtype: int, client: Address | None = None) -> "Deferred[Answer]":
        """Ask for one RRset. Never fails: silence and nonsense are answers too, INDETERMINATE.

        `client` is whose traffic makes us ask: what one prefix may ask at a time is limited. None: we ourselves.
        """

    def bounds(self) -> Bounds: ...


class ForwardingPlane(Protocol):
    """RFC 4322 section 3.1 in the kernel. Every Deferred fires with None when the kernel has acknowledged."""

    def start(self, listener: "PlaneListener") -> "Deferred[None]":
        """Clean up what a former run left behind, install traps and hooks, begin to hold new flows."""

    def stop(self) -> "Deferred[None]":
        """Take everything out again but blocks for prefixes that must never go in clear."""

    def install_policy(self, flow: Flow, policy: ForwardingPolicy,
                       gateways: "Flow | None" = None, because: str = "") -> "Deferred[None]":
        """Put a flow's policy in force, then release (PASS, ENCRYPT) or discard (DENY) its held datagrams.

        ENCRYPT needs `gateways`: the outer addresses, ours as the source. HOLD takes the pair out of `known`, so
        that its next datagram is held and acquired again. Idempotent; replaces what was there without a gap.
        What leaves, or does not, is counted by `because`, one of the plane's reasons.
        """

    def add_sas(self, flow: Flow, sas: Sequence[IpsecSa]) -> "Deferred[None]":
        """Install SAs of a tunnel (`flow` is its outbound direction); an inbound one brings its ingress policy.

        All SAs of one flow share its reqid, from the range kept for opportunistic tunnels; an SA accepts only its
        own pair of inner addresses (RFC 4322 section 12.1). Fails with PlaneError when the kernel refuses.
        """

    def change_sas(self, flow: Flow, sas: Sequence[IpsecSa]) -> "Deferred[None]":
        """Give installed SAs other lifetimes, or another address or port of the peer; absent ones are no error.

        Their sequence numbers and ages go on; the flow's policy goes with its outbound SA.
        """

    def remove_sas(self, flow: Flow, sas: Sequence[IpsecSa]) -> "Deferred[None]":
        """Remove SAs; with a flow's last inbound SA its ingress policy goes too. Absent ones are no error."""

    def traffic(self, sas: Sequence[IpsecSa]) -> "Deferred[Traffic]":
        """How much each of these SAs has carried so far; those that are gone are left out."""

    def forget(self, flow: Flow) -> "Deferred[None]":
        """Back to non-existent: remove the flow's outbound policy and place in `known`, drop its held datagrams."""

    def last_use(self, flow: Flow) -> "Deferred[float]":
        """UNIX time at which the flow was last used in either direction (policy or SA); 0.0 for never."""

    def account(self) -> "Deferred[Account]":
        """How much has left since the plane was made, and why; totals never fall. Never fails."""

    def is_connected(self, flow: Flow) -> "Deferred[bool]":
        """Whether this host itself, as the flow's source, has a TCP connection open to its destination."""

    def bounds(self) -> Bounds: ...


class PlaneError(OSError):
    """The kernel refused; the text says what and why."""


class PlaneListener(Protocol):
    """What the forwarding plane reports. Calls never raise and may repeat: the daemon is idempotent per flow."""

    def acquired(self, flow: Flow) -> None:
        """A datagram of a flow without policy is held (RFC 4322 section 3.1.1)."""

    def sa_expired(self, flow: Flow, spi: int, hard: bool) -> None:
        """An SA reached its soft or hard lifetime; `flow` is the tunnel's outbound direction."""


class KeyingEngine(Protocol):
    """IKE as a value machine: no clock, no socket, no DNS. `now` is in seconds and never goes back.

    After every call the owner takes `datagrams_to_send()`, `events()` and `next_deadline()`.
    """

    def initiate(self, flow: Flow, local: Address, peer: Address, identity: Identity,
                 keys: Sequence[RsaPublicKey], now: float, within: float | None = None) -> TunnelId:
        """Begin a tunnel for `flow` with the gateway `peer`, which must prove to be `identity` by one of `keys`.

        It fails when it does not stand `within` so many seconds (None: the keying time of all).
        Uses the standing keying channel with that peer when it was authenticated by one of these keys.
        """

    def work_done(self, work: WorkId, result: Any, now: float) -> None:
        """What a Work's `calculate` has returned."""

    def keys_found(self, channel: ChannelId, identity: Identity, keys: Sequence[RsaPublicKey], now: float) -> None:
        """The keys of the identity that KeysWanted has named; late answers are welcome, but count for it alone."""

    def keys_missing(self, channel: ChannelId, identity: Identity, reason: str, now: float) -> None: ...

    def accept_tunnel(self, tunnel: TunnelId, now: float) -> None: ...

    def refuse_tunnel(self, tunnel: TunnelId, reason: str, now: float) -> None: ...

    def sas_installed(self, tunnel: TunnelId, now: float) -> None: ...

    def delete_tunnel(self, tunnel: TunnelId, now: float) -> None:
        """Tell the peer that a standing tunnel ends (three tries, 10 s apart); TunnelGone follows.

        A tunnel that is still being negotiated is given up at once, and TunnelGone follows too.
        """

    def receive_datagram(self, datagram: Datagram, now: float) -> None:
        """Take one datagram from the wire. Never raises."""

    def peer_unreachable(self, peer: Address, now: float) -> None:
        """An ICMP unreachable came for our messages; counts only when consistent and alone (section 9.2)."""

    def disown(self, local: Address, peer: Address, spi: int, port: int | None, now: float) -> None:
        """Tell a peer, as well as we can, that we do not receive by an SPI which it sends by (section 3.2.6).

        `port` is the peer's where ESP came within UDP, to our port 4500; None: it came as ESP.
        """

    def address_gone(self, local: Address, now: float) -> None:
        """An address of ours is gone for good: channels and tunnels from there are lost (TunnelLost, TunnelFailed)."""

    def close(self, now: float) -> None:
        """Announce the end of all tunnels and channels; from now on negotiations are ignored (section 9.3)."""

    def handle_deadline(self, now: float) -> None: ...

    def next_deadline(self) -> float | None: ...

    def datagrams_to_send(self) -> list[Datagram]: ...

    def events(self) -> list[IkeEvent]: ...

    def channel_key(self, channel: ChannelId) -> tuple[bytes, bytes]:
        """The initiator's cookie and the key of the cipher of a standing channel, for reading captures."""

    def counters(self) -> dict[str, int]:
        """How much there is, and was, for status and metrics."""

    def bounds(self, now: float) -> Bounds: ...
