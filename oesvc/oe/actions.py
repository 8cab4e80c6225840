"""What a connection asks of the outside world; named in the imperative."""

from dataclasses import dataclass, field

from oesvc.ipsec.flow import Address, Flow
from oesvc.ipsec.policy import ForwardingPolicy
from oesvc.oe.delegation import Delegation
from oesvc.oe.reasons import Because


@dataclass(frozen=True, slots=True)
class Action:
    """A request that the keying daemon carries out."""


@dataclass(frozen=True, slots=True)
class InstallPolicy(Action):
    policy: ForwardingPolicy
    gateways: Flow | None = None
    because: Because | None = field(default=None, compare=False)
    "By what its octets are to be counted."


@dataclass(frozen=True, slots=True)
class LookUpDelegation(Action):
    destination: Address


@dataclass(frozen=True, slots=True)
class StartKeying(Action):
    delegation: Delegation


@dataclass(frozen=True, slots=True)
class KeyConfigured(Action):
    """Begin a configured tunnel with its peer."""


@dataclass(frozen=True, slots=True)
class QueryLastUse(Action):
    pass


@dataclass(frozen=True, slots=True)
class TearDown(Action):
    """Remove policy and SAs, send the peers a delete where one is due, forget the connection."""

    tunnels: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CloseTunnel(Action):
    """Delete a tunnel that another has replaced; the connection lives on."""

    tunnel: int
