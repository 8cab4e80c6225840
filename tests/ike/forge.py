"""Messages that an authenticated peer could send, but that our own engine never would."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import ip_network

from oesvc.ike.datagram import Datagram, Endpoint
from oesvc.ike.v1.channels import Channel
from oesvc.ike.v1.constants import ExchangeType, PayloadType
from oesvc.ike.v1.identification import pack_network
from oesvc.ike.v1.wire.header import Header
from oesvc.ike.v1.wire.message import open_clear, open_encrypted, seal_clear, seal_encrypted
from oesvc.ike.v1.wire.payloads import Payload, pack_chain
from oesvc.ike.v1.wire.proposals import Attribute, Proposal, Transform, pack_sa, parse_sa
from oesvc.ipsec.flow import Address
from tests.ike.pair import Gateway, Pair

P = PayloadType


def pack_host(address: Address) -> bytes:
    """The ID payload of quick mode for a single host."""
    return pack_network(ip_network(address))


def channel_of(gateway: Gateway) -> Channel:
    """The newest keying channel, secrets and all."""
    return list(gateway.engine._core.channels)[-1]


def protected(channel: Channel, exchange: ExchangeType, message_id: int, payloads: Sequence[Payload],
              digest: bytes | None = None) -> bytes:
    """An encrypted message with a right HASH(1), or the one given."""
    secrets = channel.standing.secrets
    if digest is None:
        digest = secrets.prf_a(message_id.to_bytes(4, "big") + pack_chain(payloads))
    return seal_encrypted(channel.header(exchange, message_id), [Payload(P.HASH, digest), *payloads],
                          secrets.phase2_state(channel.standing.last_block, message_id))[0]


def informational(channel: Channel, message_id: int, *payloads: Payload, digest: bytes | None = None) -> bytes:
    return protected(channel, ExchangeType.INFORMATIONAL, message_id, payloads, digest)


def message_5_with(channel: Channel, data: bytes, *more: Payload) -> bytes:
    """Main mode 5 of this initiator's channel, with more payloads."""
    agreement = channel.main_mode.stage.agreement
    state = agreement.secrets.first_state(agreement.public_i, agreement.public_r)
    message, _ = open_encrypted(Header.parse(data), data, state)
    return seal_encrypted(message.header, [*message.payloads, *more], state)[0]


def to(receiver: Gateway, sender: Gateway, data: bytes, port: int = 500) -> Datagram:
    return Datagram(data, endpoint(receiver, port), endpoint(sender, port))


def endpoint(gateway: Gateway, port: int = 500) -> Endpoint:
    return Endpoint(gateway.address, port)


def deliver(pair: Pair, sender: Gateway, data: bytes) -> None:
    receiver = pair.b if sender is pair.a else pair.a
    pair.inject(to(receiver, sender, data))


def first_message(pair: Pair, change: Callable[[Transform], Transform]) -> bytes:
    """Main mode 1 of SG-A, with each of its transforms changed."""
    pair.initiate()
    data = pair.capture[0].data
    message = open_clear(Header.parse(data), data)
    [proposal] = parse_sa(message.one(P.SA))
    changed = replace(proposal, transforms=tuple(map(change, proposal.transforms)))
    return seal_clear(message.header, [Payload(P.SA, pack_sa((changed,)))])


def set_attribute(type: int, number: int) -> Callable[[Transform], Transform]:
    def change(transform: Transform) -> Transform:
        kept = tuple(attribute for attribute in transform.attributes if attribute.type != type)
        return replace(transform, attributes=(*kept, Attribute.of(type, number)))
    return change


def drop_attribute(type: int) -> Callable[[Transform], Transform]:
    return lambda transform: replace(transform, attributes=tuple(
        attribute for attribute in transform.attributes if attribute.type != type))


def one_transform(protocol: int, id: int, **attributes: int) -> Proposal:
    return Proposal(1, protocol, b"\1\2\3\4", (Transform(1, id, tuple(
        Attribute.of(int(type[1:]), number) for type, number in attributes.items())),))
