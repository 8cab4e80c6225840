"""Runs main mode for all keying channels, in both roles: RFC 2409 section 5.1, RFC 4322 sections 3.2.5 and 3.3.1."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from oesvc.ike.datagram import Datagram, Path
from oesvc.ike.events import ChannelFailed, ChannelUp, DatagramRefused, KeysWanted, Way
from oesvc.ike.failures import KeyingFailure
from oesvc.ike.identity import Identity
from oesvc.ike.v1.admission import Admission
from oesvc.ike.v1.arithmetic import Whose
from oesvc.ike.v1.channels import Channel, Standing
from oesvc.ike.v1.constants import (
    LAST_ERROR_NOTIFY,
    LINGER,
    MAX_IDENTITIES,
    MAX_VERIFICATIONS,
    NAT_TRAVERSAL_PORT,
    NO_COOKIE,
    UNREACHABLE_IS_CONSISTENT,
    ExchangeType,
    NotifyType,
    Protocol,
)
from oesvc.ike.v1.core import Core
from oesvc.ike.v1.errors import (
    MalformedError,
    NatError,
    NoProposalChosenError,
    PeerError,
    SignatureError,
    UnexpectedError,
)
from oesvc.ike.v1.exchange import Exchange, Outcome
from oesvc.ike.v1.informational import Informational
from oesvc.ike.v1.main_mode import (
    INITIATOR,
    NAME_SENT,
    RESPONDER,
    Authenticated,
    ChoiceSent,
    Claimed,
    Expectation,
    IdentitySent,
    Ourselves,
    ValueAnswered,
    ValueSent,
    out_1,
    with_keys_out_6,
)
from oesvc.ike.v1.mapping import change_port, path_to
from oesvc.ike.v1.nat import objection
from oesvc.ike.v1.negotiation import responder_lifetime
from oesvc.ike.v1.phase1_offer import say
from oesvc.ike.v1.phase2 import Phase2
from oesvc.ike.v1.tunnels import TunnelRecord, TunnelState
from oesvc.ike.v1.vendor import Extension
from oesvc.ike.v1.wire.header import Header
from oesvc.ike.v1.wire.payloads import Deletion, Notification
from oesvc.ipsec.flow import Address
from oesvc.ipsec.rsa_key import RsaPublicKey
from oesvc.ipsec.sa import Lifetime


class Phase1:
    """Brings keying channels up, and begins the tunnels that wait for them."""

    def __init__(self, core: Core, phase2: Phase2, informational: Informational,
                 stands: Callable[[Channel, float], None]) -> None:
        """`stands` is called with each channel that comes to stand, before anything is begun under it."""
        self._core, self._phase2, self._informational = core, phase2, informational
        self._stands = stands
        self._admission = Admission(core, self.end, self.close)

    def attach(self, tunnel: TunnelRecord, now: float) -> None:
        """Begin a tunnel under the standing channel, or let it wait for one that is being made, or make one."""
        expectation = Expectation(tunnel.identity, tunnel.keys)
        channel = self._core.channels.standing(tunnel.peer, tunnel.identity, tunnel.keys)
        if (channel and channel.standing and channel.local.address == tunnel.local
                and channel.standing.expires > tunnel.gives_up):
            self._phase2.begin(tunnel, channel, channel.standing, now)
            self._core.timers.at(now + self._core.config.doubt_time, self._doubt, tunnel, channel)
            return
        tunnel.state, tunnel.channel_id = TunnelState.WAITING, None
        pending = self._core.channels.pending(tunnel.local, tunnel.peer, expectation)
        if pending:
            pending.waiting.append(tunnel)
        else:
            path = path_to(self._core, tunnel.local, tunnel.peer, expectation)
            self.begin(path, expectation, tunnel.gives_up, now, [tunnel])

    def first_message(self, header: Header, data: bytes, datagram: Datagram, now: float) -> None:
        """A stranger's invitation to a keying channel: answered and forgotten. Raises PeerError."""
        try:
            answer = self._core.invitations.answer(header, data, datagram.local, datagram.peer, now)
        except NoProposalChosenError as error:
            self._informational.send_clear_notify(error.notify, header, datagram)
            raise
        self._core.counters.first_messages += 1
        self._core.send(answer, datagram.path)

    def third_message(self, header: Header, data: bytes, datagram: Datagram, now: float) -> None:
        """Of a stranger who has got our message 2: this begins a channel. Raises PeerError."""
        invitation = self._core.invitations.redeem(header, datagram.local, datagram.peer, now)
        if self._core.channels.has(header):
            raise UnexpectedError("cookies of a keying channel with somebody else")
        self._admission.admit(datagram.peer.address)
        stage = ChoiceSent(invitation.offer, invitation.suite, invitation.lifetime, invitation.shortened,
                           invitation.extensions)
        exchange = Exchange(ExchangeType.MAIN_MODE, 0, RESPONDER, stage, self._core.calculate, Whose.STRANGERS,
                            datagram.peer.address)
        channel = Channel(self._core.channels.next_id(), datagram.path, header.initiator_cookie,
                          header.responder_cookie, self._ourselves(datagram.path, None), exchange, now)
        channel.invitation = invitation
        channel.takes_fragments = Extension.FRAGMENTATION in invitation.extensions
        self._add(channel, now + self._core.config.keying_time)
        for way, name in (Way.RECEIVED, "main mode 1"), (Way.SENT, "main mode 2"):
            self._core.saw(way, name, channel, None, encrypted=False)
        try:
            self.message(channel, header, data, datagram.path, now)
        except PeerError:
            self._core.channels.remove(channel)
            raise

    def message(self, channel: Channel, header: Header, data: bytes, path: Path, now: float) -> None:
        """Take a message of main mode. Raises PeerError."""
        exchange = channel.main_mode
        if exchange.repeats(data):
            self._repeated(channel, now)
            return
        if header.responder_cookie == NO_COOKIE or header.message_id:
            raise MalformedError("a message of main mode with a message ID, or without the responder's cookie")
        try:
            if channel.nat.between and path.local.port != NAT_TRAVERSAL_PORT:
                raise UnexpectedError("a NAT lies between, but the message did not come to port 4500")
            exchange.take(channel.ourselves, header, data, now,
                          lambda name, outcome, now: self._climbed(channel, name, outcome, header, path, now),
                          lambda error: self._not_taken(channel, error))
        except PeerError as error:
            self._suspect(channel, error)
            raise

    def _climbed(self, channel: Channel, name: str, outcome: Outcome, header: Header, path: Path, now: float) -> None:
        self._saw(Way.RECEIVED, name, channel, header.encrypted)
        if isinstance(outcome.stage, ValueSent):
            self._core.channels.answered(channel, header.responder_cookie)
            channel.takes_fragments = Extension.FRAGMENTATION in outcome.stage.extensions
        elif isinstance(outcome.stage, ValueAnswered):
            channel.nat = outcome.stage.agreement.nat
        elif isinstance(outcome.stage, IdentitySent):
            channel.nat = outcome.stage.agreement.nat
            change_port(self._core, channel)
        elif isinstance(outcome.stage, Claimed):
            self._core.channels.move(channel, path)
        if outcome.reply:
            self._send(channel, outcome, now)
        elif isinstance(outcome.stage, Claimed):
            self._judge_claim(channel, outcome.stage, now)
        else:
            self._up(channel, outcome.stage, now)

    def _suspect(self, channel: Channel, error: PeerError) -> None:
        channel.suspect(error.failure, f"{channel.peer.address}: {error}")

    def _not_taken(self, channel: Channel, error: PeerError) -> None:
        """Arithmetic has shown that a message is not what it should be."""
        self._suspect(channel, error)
        self._core.tell(DatagramRefused(channel.peer.address, str(error)))

    def keys_found(self, channel: Channel, identity: Identity, keys: Sequence[RsaPublicKey], now: float) -> None:
        """The DNS has given an initiator's keys; any of them may verify (RFC 4322 section 5.1)."""
        self._answered(channel, identity, tuple(keys), now)

    def keys_missing(self, channel: Channel, identity: Identity, reason: str, now: float) -> None:
        self._answered(channel, identity, reason, now)

    def notified(self, channel: Channel, notification: Notification) -> None:
        """What a peer that has not proved itself says about phase 1: a hint, for when time runs out (3.2.5)."""
        if notification.type > LAST_ERROR_NOTIFY or channel.standing:
            return
        offered = (f"; offered were {say(self._core.config.profile.phase1)}"
                   if notification.type == NotifyType.NO_PROPOSAL_CHOSEN else "")
        channel.suspect(KeyingFailure.PHASE1_REFUSED, f"{channel.peer.address} answered with the notify "
                        f"{notification.name}, which nothing vouches for{offered}")

    def unreachable(self, peer: Address) -> None:
        """An ICMP error, which anybody could have forged (RFC 4322 section 9.2)."""
        for channel in self._core.channels.with_peer(peer):
            channel.unreachables += 1

    def end(self, channel: Channel, failure: KeyingFailure, detail: str) -> None:
        """Remove a channel; tunnels that are not up yet fail with it."""
        self._core.channels.remove(channel)
        self._phase2.channel_ends(channel, failure, detail)
        waiting, channel.waiting = channel.waiting, []
        for tunnel in waiting:
            if self._core.tunnels.get(tunnel.id):
                self._phase2.fail(tunnel, failure, detail)
        if not channel.initiator and not channel.standing and not isinstance(channel.main_mode.stage, ChoiceSent):
            self._core.tell(ChannelFailed(channel.id, channel.peer.address, failure, detail))

    def ended_by_peer(self, channel: Channel, detail: str, now: float) -> None:
        """A standing channel is gone: what the peer has not answered yet begins anew under another one."""
        self._core.channels.remove(channel)
        self._renew(self._phase2.unanswered(channel), now)
        self.end(channel, KeyingFailure.PHASE2_REFUSED, detail)

    def begin(self, path: Path, expectation: Expectation, deadline: float, now: float,
              waiting: Sequence[TunnelRecord] = ()) -> None:
        """Invite a peer to a keying channel, for the tunnels that wait for it."""
        outcome = out_1(self._core.message_1)
        exchange = Exchange(ExchangeType.MAIN_MODE, 0, INITIATOR, outcome.stage, self._core.calculate, Whose.OURS,
                            path.peer.address)
        channel = Channel(self._core.channels.next_id(), path, self._core.new_cookie(), NO_COOKIE,
                          self._ourselves(path, expectation), exchange, now)
        channel.waiting.extend(waiting)
        self._add(channel, deadline)
        self._send(channel, outcome, now)

    def want_keys(self, channel: Channel) -> None:
        """Ask for the keys of a standing channel's peer, which is to prove itself anew."""
        if channel.standing:
            self._core.tell(KeysWanted(channel.id, channel.peer.address, channel.standing.identity))

    def _ourselves(self, path: Path, expectation: Expectation | None) -> Ourselves:
        config = self._core.config
        identity, behind_nat = config.identities(path.local.address, initiator=expectation is not None)
        return Ourselves(config.profile, config.phase1_lifetime, config.phase1_floor, config.extensions, path, identity,
                         behind_nat, config.private_key, self._core.entropy, expectation)

    def _add(self, channel: Channel, deadline: float) -> None:
        peer = channel.peer.address
        channel.first_contact = not (any(tunnel.up_since for tunnel in self._core.tunnels.of_peer(peer))
                                     or any(other.standing for other in self._core.channels.with_peer(peer)))
        self._core.channels.add(channel)
        channel.deadline = self._core.timers.at(deadline, self._out_of_time, channel)

    def _repeated(self, channel: Channel, now: float) -> None:
        again = channel.main_mode.answer_again(now)
        if again:
            self._core.send_on(channel, again)

    def _send(self, channel: Channel, outcome: Outcome, now: float) -> None:
        """The initiator repeats its messages until they are answered; the responder only answers repetitions."""
        data = channel.main_mode.seal(channel.header(ExchangeType.MAIN_MODE, 0), outcome, now)
        self._core.send_on(channel, data)
        self._saw(Way.SENT, NAME_SENT[type(outcome.stage)], channel, outcome.encrypted)
        if channel.initiator:
            self._core.repeat(channel, channel.main_mode, data, now)

    def _saw(self, way: Way, name: str, channel: Channel, encrypted: bool) -> None:
        flow = channel.waiting[0].flow if channel.waiting else None
        self._core.saw(way, name, channel, flow, encrypted)

    def _judge_claim(self, channel: Channel, claim: Claimed, now: float) -> None:
        """Verify message 5 by what the DNS has said before on this channel, or ask it."""
        if claim.identity in channel.known_keys:
            self._verify(channel, claim, now)
        elif why := objection(channel.path, claim.identity, channel.nat, claim.agreement.extensions):
            self._reject(channel, NatError(why))
        elif len(channel.known_keys) == MAX_IDENTITIES:
            self._reject(channel, SignatureError(f"{claim.identity} is one identity too many"))
        else:
            self._want_keys(channel, claim, now)

    def _want_keys(self, channel: Channel, claim: Claimed, now: float) -> None:
        """Who has come this far gets the time that it takes."""
        config = self._core.config
        if channel.deadline:
            channel.deadline.cancel()
        channel.deadline = self._core.timers.at(now + config.keying_time, self._out_of_time, channel)
        channel.key_wait = self._core.timers.at(now + config.key_wait, lambda now: self.keys_missing(
            channel, claim.identity, f"the DNS gave no keys for {claim.identity} within {config.key_wait:g} s", now))
        self._core.tell(KeysWanted(channel.id, channel.peer.address, claim.identity))

    def _answered(self, channel: Channel, identity: Identity, answer: tuple[RsaPublicKey, ...] | str,
                  now: float) -> None:
        """Note what the DNS has said of an identity, and go on with the claim to be it, if one has waited for that.

        An answer may be late: the initiator may have been refused meanwhile and claim now to be somebody else.
        """
        channel.known_keys[identity] = answer
        claim = channel.main_mode.stage
        if isinstance(claim, Claimed) and claim.identity == identity and not channel.main_mode.busy:
            if channel.key_wait:
                channel.key_wait.cancel()
            self._verify(channel, claim, now)

    def _verify(self, channel: Channel, claim: Claimed, now: float) -> None:
        known = channel.known_keys[claim.identity]

        def verified(outcome: Outcome, now: float) -> None:
            self._send(channel, outcome, now)
            self._up(channel, outcome.stage, now)

        try:
            if isinstance(known, str):
                raise SignatureError(known)
            channel.verifications += 1
            channel.main_mode.climb(with_keys_out_6(channel.ourselves, claim, known), verified,
                                    lambda error: self._reject(channel, error), now)
        except SignatureError as error:
            self._reject(channel, error)

    def _reject(self, channel: Channel, error: PeerError) -> None:
        """Message 5 was not the initiator's, or its keys are not in the DNS. Wait on for another one, but not for ever:
        to verify it is work.
        """
        if not channel.rejected:
            channel.rejected = True
            self._informational.send_notify(channel, Notification(Protocol.ISAKMP, error.notify), None)
        channel.main_mode.step_back()
        channel.suspect(error.failure, str(error))
        self._core.tell(DatagramRefused(channel.peer.address, str(error)))
        if channel.verifications == MAX_VERIFICATIONS:
            self.end(channel, error.failure, str(error))

    def _up(self, channel: Channel, stage: Authenticated, now: float) -> None:
        agreement, exchange = stage.agreement, channel.main_mode
        last_block = exchange.state.iv if exchange.state else b""
        standing = Standing(stage.identity, stage.key, agreement.secrets, last_block, agreement.suite.group,
                            agreement.extensions, now, now + agreement.lifetime.seconds, agreement.lifetime.kilobytes,
                            stage.initial_contact,
                            agreement.lifetime if agreement.shortened else None)
        self._core.channels.stands(channel, standing)
        if channel.invitation:
            self._core.invitations.prove(channel.invitation, channel.peer.address)
        if channel.deadline:
            channel.deadline.cancel()
        self._expires(channel, standing.expires)
        exchange.settle()
        channel.known_keys.clear()
        self._core.timers.at(now + LINGER, exchange.finish)
        self._core.tell(ChannelUp(channel.id, channel.peer.address, stage.identity, channel.initiator))
        self._stands(channel, now)
        self._bound_peer(channel)
        waiting, channel.waiting = channel.waiting, []
        for tunnel in waiting:
            if self._core.tunnels.get(tunnel.id):
                self._phase2.begin(tunnel, channel, standing, now)

    def shorten(self, channel: Channel, notification: Notification) -> None:
        """The responder lets the channel end earlier than we had offered. Raises MalformedError."""
        standing = channel.standing
        if standing and notification.protocol == Protocol.ISAKMP and channel.deadline:
            ours = Lifetime(round(standing.expires - standing.since), standing.kilobytes)
            lifetime = responder_lifetime([notification], Protocol.ISAKMP, ours, self._core.config.phase1_floor)
            channel.standing = replace(standing, expires=standing.since + lifetime.seconds,
                                       kilobytes=lifetime.kilobytes)
            channel.deadline.cancel()
            self._expires(channel, channel.standing.expires)

    def _expires(self, channel: Channel, when: float) -> None:
        channel.deadline = self._core.timers.at(when, self._expired, channel)

    def _expired(self, channel: Channel, _: float) -> None:
        self.close(channel, "the keying channel has expired")

    def _bound_peer(self, newest: Channel) -> None:
        """No peer has more channels than it needs; behind one NAT there may be several peers."""
        too_many = self._core.channels.of_same_peer(newest)[:-self._core.config.max_channels_per_peer]
        self._core.budgets.overrun("max_channels_per_peer", len(too_many))
        for channel in too_many:
            self.close(channel, "the peer has newer keying channels")

    def close(self, channel: Channel, why: str) -> None:
        """Phase 1 ends with an authenticated delete (RFC 4322 section 3.2.8)."""
        deletion = Deletion(Protocol.ISAKMP, (channel.cookie_i + channel.cookie_r,))
        self._informational.send_delete(channel, deletion, None)
        self.end(channel, KeyingFailure.PHASE2_SILENT, why)

    def _out_of_time(self, channel: Channel, _: float) -> None:
        peer, unreachables = channel.peer.address, channel.unreachables
        if channel.hint:
            self.end(channel, *channel.hint)
        elif not channel.heard and unreachables >= UNREACHABLE_IS_CONSISTENT:
            self.end(channel, KeyingFailure.PORT_UNREACHABLE,
                     f"{unreachables} ICMP errors and nothing else came from {peer}")
        elif not channel.heard:
            self.end(channel, KeyingFailure.PEER_SILENT, f"nothing came from {peer}")
        else:
            self.end(channel, KeyingFailure.PEER_SILENT, f"{peer} fell silent in main mode")

    def _doubt(self, tunnel: TunnelRecord, channel: Channel, now: float) -> None:
        """Silence on an old channel: the peer may have rebooted and not know it any more (RFC 4322 section 9.3)."""
        if tunnel in self._phase2.unanswered(channel):
            channel.doubtful = True
            self._renew([tunnel], now)

    def _renew(self, tunnels: Sequence[TunnelRecord], now: float) -> None:
        """Begin tunnels anew, each of them once at most."""
        for tunnel in tunnels:
            if not tunnel.renewed:
                tunnel.renewed = True
                self._phase2.withdraw(tunnel)
                self.attach(tunnel, now)
