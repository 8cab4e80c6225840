"""The IKEv1 engine: what its owner calls, and which part each datagram belongs to."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from oesvc.ike.datagram import Datagram, Path
from oesvc.ike.events import ChannelId, DatagramRefused, IkeEvent, TunnelFailed, TunnelId, Way, WorkId
from oesvc.ike.failures import KeyingFailure
from oesvc.ike.identity import Identity
from oesvc.ike.v1 import mapping, unknown_spi
from oesvc.ike.v1.channels import Channel
from oesvc.ike.v1.config import EngineConfig, Entropy
from oesvc.ike.v1.constants import (
    NAT_KEEPALIVE,
    NAT_TRAVERSAL_PORT,
    NO_COOKIE,
    NON_ESP_MARKER,
    ExchangeType,
    NotifyType,
    PayloadType,
    Protocol,
    name_of,
)
from oesvc.ike.v1.core import Core
from oesvc.ike.v1.errors import ExchangeTypeError, MalformedError, PeerError, UnexpectedError
from oesvc.ike.v1.informational import Informational, deletions, is_liveness, names
from oesvc.ike.v1.liveness import Liveness
from oesvc.ike.v1.nat import explain, hides
from oesvc.ike.v1.phase1 import Phase1
from oesvc.ike.v1.phase2 import Phase2
from oesvc.ike.v1.renewal import Renewal
from oesvc.ike.v1.teardown import Teardown
from oesvc.ike.v1.tunnels import TunnelRecord, TunnelState
from oesvc.ike.v1.vendor import Extension
from oesvc.ike.v1.wire.header import Header
from oesvc.ike.v1.wire.message import open_clear
from oesvc.ike.v1.wire.payloads import Notification
from oesvc.ipsec.flow import Address, Flow
from oesvc.ipsec.rsa_key import RsaPublicKey
from oesvc.ipsec.subnets import Subnets


class IkeEngine:
    """All keying channels and tunnels behind one port (oesvc.interfaces.KeyingEngine)."""

    def __init__(self, config: EngineConfig, entropy: Entropy) -> None:
        self._core = Core(config, entropy)
        self._informational = Informational(self._core)
        self._phase2 = Phase2(self._core, self._informational, self._noticed)
        self._phase1 = Phase1(self._core, self._phase2, self._informational, self._stands)
        self._teardown = Teardown(self._core, self._phase1, self._phase2, self._informational)
        self._renewal = Renewal(self._core, self._phase1)
        self._liveness = Liveness(self._core, self._informational, self._teardown.peer_died)
        self._closed = False

    def initiate(self, flow: Flow, local: Address, peer: Address, identity: Identity,
                 keys: Sequence[RsaPublicKey], now: float, within: float | None = None) -> TunnelId:
        """Begin a tunnel for `flow` with a gateway that must prove to be `identity` by one of `keys`."""
        id = self._core.tunnels.next_id()
        if self._closed:
            self._core.tell(TunnelFailed(id, flow, peer, KeyingFailure.CLOSING, "this gateway is shutting down"))
            return id
        if not isinstance(flow, Subnets) and hides(peer, flow.source):
            detail = explain("our host", flow.source, peer)
            self._core.tell(TunnelFailed(id, flow, peer, KeyingFailure.NO_IDENTITY, detail))
            return id
        tunnel = TunnelRecord(id, flow, local, peer, identity, tuple(keys), TunnelState.WAITING,
                              now + (within or self._core.config.keying_time))
        self._core.tunnels.add(tunnel)
        self._phase1.attach(tunnel, now)
        return id

    def work_done(self, work: WorkId, result: Any, now: float) -> None:
        """What a Work's `calculate` has returned."""
        self._core.work_done(work, result, now)

    def keys_found(self, channel: ChannelId, identity: Identity, keys: Sequence[RsaPublicKey], now: float) -> None:
        if claimed := self._core.channels.get(channel):
            (self._renewal if claimed.standing else self._phase1).keys_found(claimed, identity, keys, now)

    def keys_missing(self, channel: ChannelId, identity: Identity, reason: str, now: float) -> None:
        if claimed := self._core.channels.get(channel):
            self._phase1.keys_missing(claimed, identity, reason, now)

    def accept_tunnel(self, tunnel: TunnelId, now: float) -> None:
        if record := self._core.tunnels.get(tunnel):
            self._phase2.accept(record, now)

    def refuse_tunnel(self, tunnel: TunnelId, reason: str, now: float) -> None:
        if record := self._core.tunnels.get(tunnel):
            self._phase2.refuse(record, reason)

    def sas_installed(self, tunnel: TunnelId, now: float) -> None:
        if record := self._core.tunnels.get(tunnel):
            self._phase2.installed(record, now)

    def delete_tunnel(self, tunnel: TunnelId, now: float) -> None:
        if record := self._core.tunnels.get(tunnel):
            self._teardown.delete(record, now)

    def peer_unreachable(self, peer: Address, now: float) -> None:
        self._phase1.unreachable(peer)

    def disown(self, local: Address, peer: Address, spi: int, port: int | None, now: float) -> None:
        if not self._closed:
            unknown_spi.disown(self._core, self._informational, unknown_spi.path_of(local, peer, port), spi)

    def use_key(self, key: RSAPrivateKey) -> None:
        """Sign with another key of ours; exchanges that are under way end with the one that they began with."""
        self._core.config = replace(self._core.config, private_key=key)

    def address_gone(self, local: Address, now: float) -> None:
        self._teardown.address_gone(local)

    def close(self, now: float) -> None:
        if not self._closed:
            self._closed = True
            self._teardown.close(now)

    def receive_datagram(self, datagram: Datagram, now: float) -> None:
        """Take one datagram from the wire. What is wrong with it is told, and changes nothing."""
        try:
            self._receive(datagram, now)
        except PeerError as error:
            self._core.counters.refused += 1
            self._core.tell(DatagramRefused(datagram.peer.address, str(error), error.flow))

    def handle_deadline(self, now: float) -> None:
        self._core.timers.run_due(now)

    def next_deadline(self) -> float | None:
        return self._core.timers.next_deadline()

    def datagrams_to_send(self) -> list[Datagram]:
        return self._core.take_datagrams()

    def events(self) -> list[IkeEvent]:
        return self._core.take_events()

    def channel_key(self, channel: ChannelId) -> tuple[bytes, bytes]:
        """The initiator's cookie and the key of the cipher of a standing channel, for reading captures."""
        found = self._core.channels.get(channel)
        return (found.cookie_i, found.standing.secrets.cipher.key) if found and found.standing else (b"", b"")

    def counters(self) -> dict[str, int]:
        """How much there is of what is bounded, and what came of the bounds."""
        core = self._core
        return {"channels": len(core.channels), "half_open_channels": core.channels.half_open(),
                "tunnels": len(core.tunnels), "invitations": len(core.invitations),
                "proven_invitations": core.invitations.proven, "calculations": core.work_under_way,
                **asdict(core.counters)}

    def bounds(self, now: float) -> dict[str, tuple[int, int, int]]:
        """Of each budget, by its option's name: how much is used, of how much, and how often that was not enough."""
        return self._core.budgets.bounds(now)

    def _receive(self, datagram: Datagram, now: float) -> None:
        data = datagram.data
        if datagram.local.port == NAT_TRAVERSAL_PORT:
            if data == NAT_KEEPALIVE:
                return
            if not data.startswith(NON_ESP_MARKER):
                raise MalformedError("a datagram on port 4500 without the marker that tells IKE from ESP")
            data = data[len(NON_ESP_MARKER):]
        header = Header.parse(data)
        channel = self._core.channels.find(header, datagram.path)
        if channel is None:
            self._from_stranger(header, data, datagram, now)
        else:
            channel.heard = True
            if header.next_payload == PayloadType.FRAGMENT:
                if Extension.FRAGMENTATION not in self._core.config.extensions:
                    raise UnexpectedError("a fragment, which we have not announced that we take")
                whole = self._core.fragments.take(header, data, now)
                if whole is None:
                    return
                header, data = _of_same_exchange(header, whole), whole
            self._from_peer(channel, header, data, datagram.path, now)

    def _from_stranger(self, header: Header, data: bytes, datagram: Datagram, now: float) -> None:
        if self._closed:
            raise UnexpectedError("this gateway is shutting down (RFC 4322 section 9.3)")
        if header.exchange == ExchangeType.MAIN_MODE:
            invited = header.responder_cookie != NO_COOKIE
            (self._phase1.third_message if invited else self._phase1.first_message)(header, data, datagram, now)
            return
        if header.exchange == ExchangeType.INFORMATIONAL and not header.encrypted:
            said = open_clear(header, data).notifications()
            if unknown_spi.refused(self._core, datagram.peer.address, said, vouched=False):
                return
        if header.responder_cookie != NO_COOKIE:
            raise UnexpectedError("cookies of no keying channel that we have")
        if header.exchange == ExchangeType.AGGRESSIVE_MODE:
            self._informational.send_clear_notify(NotifyType.INVALID_EXCHANGE_TYPE, header, datagram)
        raise ExchangeTypeError(f"exchange {name_of(ExchangeType, header.exchange)} from a stranger; only main mode "
                                "may begin a keying channel (RFC 4322 section 4.6.1)")

    def _from_peer(self, channel: Channel, header: Header, data: bytes, path: Path, now: float) -> None:
        if header.exchange == ExchangeType.INFORMATIONAL:
            self._informed(channel, header, data, path, now)
        elif self._closed:
            raise UnexpectedError("this gateway is shutting down (RFC 4322 section 9.3)")
        elif header.exchange == ExchangeType.MAIN_MODE:
            self._phase1.message(channel, header, data, path, now)
        elif header.exchange == ExchangeType.QUICK_MODE:
            self._phase2.message(channel, header, data, path, now)
        else:
            if header.encrypted and channel.standing:
                # Extended authentication and mode-config begin so (no RFC has them); their HASH is that of HASH(1).
                self._informational.open(channel, header, data, path, now)
                refusal = Notification(Protocol.ISAKMP, NotifyType.INVALID_EXCHANGE_TYPE)
                self._informational.send_notify(channel, refusal, None)
            raise ExchangeTypeError(f"exchange {name_of(ExchangeType, header.exchange)} under a keying channel; only "
                                    "quick mode and informational are used")
        self._renewal.wear(channel, len(data), now)

    def _stands(self, channel: Channel, now: float) -> None:
        """Phase 1 has just ended, maybe with the word that the peer begins anew."""
        if channel.standing and channel.standing.initial_contact:
            self._teardown.initial_contact(channel, now)
        mapping.stands(self._core, channel, now)
        self._liveness.watch(channel, now)
        self._renewal.watch(channel, now)

    def _noticed(self, channel: Channel, notices: Sequence[Notification], now: float) -> None:
        """An authentic status notify, alone or with quick mode."""
        if any(notification.type == NotifyType.INITIAL_CONTACT for notification in notices):
            self._teardown.initial_contact(channel, now)
        for notification in notices:
            if notification.type == NotifyType.CONNECTED:
                self._phase2.connected(channel, notification, now)
            elif notification.type == NotifyType.RESPONDER_LIFETIME:
                self._phase1.shorten(channel, notification)
                self._renewal.watch(channel, now)
                self._phase2.shorten(channel, notification, now)

    def _informed(self, channel: Channel, header: Header, data: bytes, path: Path, now: float) -> None:
        """What comes in clear, or before the peer has proved itself, is no more than a hint."""
        if channel.standing and not header.encrypted:
            raise UnexpectedError("an informational message in clear under a standing keying channel")
        message = (self._informational.open(channel, header, data, path, now) if header.encrypted
                   else open_clear(header, data))
        for name in names(message):
            self._core.saw(Way.RECEIVED, name, channel, None, header.encrypted)
        if not channel.standing:
            for notification in message.notifications():
                self._phase1.notified(channel, notification)
        elif is_liveness(message):
            self._liveness.received(channel, message.notifications()[0], header.message_id, path, now)
        else:
            notices = message.notifications()
            self._noticed(channel, notices, now)
            unknown_spi.refused(self._core, channel.peer.address, notices, vouched=True)
            for notification in notices:
                self._phase2.refused_by_peer(channel, notification)
        for deletion in deletions(message) if channel.standing else []:
            self._teardown.received(channel, deletion, now)


def _of_same_exchange(fragment: Header, whole: bytes) -> Header:
    """The header of a message that came in pieces. Raises MalformedError unless it is of the same channel."""
    header = Header.parse(whole)
    if ((header.initiator_cookie, header.responder_cookie) != (fragment.initiator_cookie, fragment.responder_cookie)
            or header.next_payload == PayloadType.FRAGMENT):
        raise MalformedError("fragments that make up no message of their channel")
    return header
