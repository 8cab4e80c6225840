"""What the kernel says unasked: XFRM messages of the groups ACQUIRE and EXPIRE, read into values."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from oesvc.ipsec.flow import Address, Flow
from oesvc.ipsec.subnets import Subnets
from oesvc.kernel.constants import CONFIGURED_PRIORITIES, XfrmMessage
from oesvc.kernel.netlink import Message
from oesvc.kernel.spd import Selector, address
from oesvc.kernel.structs import AcquireMessage, ExpireMessage


@dataclass(frozen=True, slots=True)
class Acquire:
    """A datagram met a policy that wants an SA which is not there; it is lost."""

    flow: Flow
    priority: int
    "Of the policy."


@dataclass(frozen=True, slots=True)
class SaExpired:
    """An SA reached its soft limit, or (hard) its end: then the kernel has removed it."""

    spi: int
    destination: Address
    reqid: int
    hard: bool


Notification = Acquire | SaExpired


def _acquire(message: Any) -> Acquire:
    if message["priority"] in CONFIGURED_PRIORITIES:
        policy = Selector.read(message)
        return Acquire(Subnets.between(policy.source, policy.destination), message["priority"])
    return Acquire(Selector.read(message, "wanted_sel_").flow, message["priority"])


def _sa_expired(message: Any) -> SaExpired:
    return SaExpired(message["id_spi"], address(message["family"], message["id_daddr"]), message["reqid"],
                     bool(message["hard"]))


READERS: dict[int, tuple[type[Any], Callable[[Any], Notification]]] = {
    XfrmMessage.ACQUIRE: (AcquireMessage, _acquire),
    XfrmMessage.EXPIRE: (ExpireMessage, _sa_expired),
}


def read_notification(message: Message) -> Notification | None:
    """None for messages that nobody here waits for."""
    if message.kind not in READERS:
        return None
    structure, read = READERS[message.kind]
    decoded = structure(message.octets)
    decoded.decode()
    return read(decoded)
