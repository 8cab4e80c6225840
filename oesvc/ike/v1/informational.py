"""Informational exchanges: RFC 2409 section 5.7 under a keying channel, RFC 2408 section 4.8 without one."""

from hmac import compare_digest

from oesvc.ike.crypto.cipher import CbcState
from oesvc.ike.crypto.keymat import Secrets
from oesvc.ike.datagram import Datagram, Path
from oesvc.ike.events import Way
from oesvc.ike.v1.channels import Channel
from oesvc.ike.v1.constants import ExchangeType, NotifyType, PayloadType, Protocol
from oesvc.ike.v1.core import Core
from oesvc.ike.v1.errors import HashError, UnexpectedError
from oesvc.ike.v1.main_mode import Claimed, IdentitySent, ValueAnswered
from oesvc.ike.v1.mapping import heard
from oesvc.ike.v1.negotiation import read_notices
from oesvc.ike.v1.wire.header import Header
from oesvc.ike.v1.wire.message import Message, open_encrypted, seal_clear, seal_encrypted
from oesvc.ike.v1.wire.payloads import Deletion, Notification, Payload, pack_chain
from oesvc.ipsec.flow import Flow

LIVENESS = (NotifyType.R_U_THERE, NotifyType.R_U_THERE_ACK)
ONE_LIVENESS = [[int(type)] for type in LIVENESS]


class Informational:
    """Writes and reads informational messages; what they mean is told elsewhere."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def send_notify(self, channel: Channel, notification: Notification, flow: Flow | None) -> None:
        payload = Payload(PayloadType.NOTIFICATION, notification.pack())
        self._send(channel, payload, f"notify {notification.name}", flow)

    def send_unremembered(self, channel: Channel, notification: Notification, message_id: int) -> None:
        """One that is sent often and means little: nobody is told of it, its message ID is not kept."""
        self._seal(channel, Payload(PayloadType.NOTIFICATION, notification.pack()), message_id)

    def send_delete(self, channel: Channel, deletion: Deletion, flow: Flow | None) -> None:
        self._send(channel, Payload(PayloadType.DELETE, deletion.pack()), "delete", flow)

    def send_clear_notify(self, type: NotifyType, header: Header, datagram: Datagram) -> None:
        """Refuse a message for which there are no keys."""
        cookies = header.initiator_cookie, header.responder_cookie
        notification = Notification(Protocol.ISAKMP, type, b"".join(cookies))
        reply = Header(*cookies, 0, ExchangeType.INFORMATIONAL, 0, int.from_bytes(self._core.entropy(4), "big"))
        data = seal_clear(reply, [Payload(PayloadType.NOTIFICATION, notification.pack())])
        self._core.send(data, datagram.path)

    def open(self, channel: Channel, header: Header, data: bytes, path: Path, now: float) -> Message:
        """Read a message under a channel's keys. Raises PeerError unless it is authentic and new.

        Whether those of RFC 3706 are new is for their sequence numbers to tell.
        """
        secrets, last_block = _keys(channel)
        committing = channel.quick_modes.get(header.message_id)
        connects = committing is not None and committing.awaits_connected  # CONNECTED has its quick mode's message ID
        if not header.message_id or (header.message_id in channel.used_ids and not connects):
            raise UnexpectedError("an informational message with a message ID that was used before")
        message, _ = open_encrypted(header, data, _state(secrets, last_block, header.message_id))
        digest, covered = message.after_hash()
        if not compare_digest(digest, _hash(secrets, header.message_id, covered)):
            raise HashError("an informational message whose HASH(1) does not verify")
        if is_liveness(message):
            return message
        if any(notification.type in LIVENESS for notification in read_notices(message)):
            raise UnexpectedError("R-U-THERE, or an answer to it, with something else in its message")
        if connects:
            channel.heard_at = now  # but by its message ID nobody can tell whether it is a repetition
        elif channel.use_id(header.message_id):
            heard(self._core, channel, path, now)
        else:
            raise UnexpectedError("too many exchanges under one keying channel")
        return message

    def _send(self, channel: Channel, payload: Payload, name: str, flow: Flow | None) -> None:
        self._seal(channel, payload, self._core.new_message_id(channel))
        self._core.saw(Way.SENT, name, channel, flow, encrypted=True)

    def _seal(self, channel: Channel, payload: Payload, message_id: int) -> None:
        secrets, last_block = _keys(channel)
        digest = _hash(secrets, message_id, pack_chain([payload]))
        data, _ = seal_encrypted(channel.header(ExchangeType.INFORMATIONAL, message_id),
                                 [Payload(PayloadType.HASH, digest), payload],
                                 _state(secrets, last_block, message_id))
        self._core.send_on(channel, data)


def deletions(message: Message) -> list[Deletion]:
    return [Deletion.parse(body) for body in message.all(PayloadType.DELETE)]


def is_liveness(message: Message) -> bool:
    """Whether it is one message of RFC 3706 and nothing else."""
    return [notification.type for notification in message.notifications()] in ONE_LIVENESS and not deletions(message)


def names(message: Message) -> list[str]:
    """What is worth to be told of a message, for people."""
    return ([f"notify {notification.name}" for notification in message.notifications()
             if notification.type not in LIVENESS] + ["delete" for _ in deletions(message)])


def _keys(channel: Channel) -> tuple[Secrets, bytes]:
    """The secrets, and the last block of phase 1 so far. Raises UnexpectedError when there are none yet."""
    if channel.standing:
        return channel.standing.secrets, channel.standing.last_block
    stage, state = channel.main_mode.stage, channel.main_mode.state
    if isinstance(stage, IdentitySent | ValueAnswered | Claimed) and state:
        return stage.agreement.secrets, state.iv
    raise UnexpectedError("an encrypted informational message before there are keys")


def _state(secrets: Secrets, last_block: bytes, message_id: int) -> CbcState:
    return secrets.phase2_state(last_block, message_id)


def _hash(secrets: Secrets, message_id: int, covered: bytes) -> bytes:
    """HASH(1) = prf(SKEYID_a, M-ID | N/D)."""
    return secrets.prf_a(message_id.to_bytes(4, "big") + covered)
