"""Policies of the SPD as XFRM messages: RFC 4322 section 3.1, RFC 4301 section 4.4.1."""

import errno
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from oesvc.ipsec.flow import Address, Flow
from oesvc.ipsec.policy import ForwardingPolicy
from oesvc.ipsec.subnets import Subnets
from oesvc.kernel.constants import (
    IPPROTO_ESP,
    NLM_F_DUMP,
    XFRM_INF,
    XFRM_MODE_TRANSPORT,
    XFRM_MODE_TUNNEL,
    XFRM_POLICY_ALLOW,
    XFRM_POLICY_BLOCK,
    Direction,
    Priority,
    XfrmMessage,
)
from oesvc.kernel.netlink import Message, Request
from oesvc.kernel.structs import PolicyId, PolicyMessage, encode, encode_attributes

Network = IPv4Network | IPv6Network

EVERYWHERE: dict[int, Network] = {4: IPv4Network("0.0.0.0/0"), 6: IPv6Network("::/0")}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
VERSION = {family: version for version, family in FAMILY.items()}

ACTIONS = {ForwardingPolicy.PASS: XFRM_POLICY_ALLOW, ForwardingPolicy.ENCRYPT: XFRM_POLICY_ALLOW,
           ForwardingPolicy.DENY: XFRM_POLICY_BLOCK}

ADDRESS_OCTETS = 16
"Of xfrm_address_t, of either family."
LONGEST = 128
"Bits of the longest prefix: longer prefixes come first."

INGRESS = (Direction.FWD, Direction.IN)
"Where datagrams to hosts behind us are looked up, and those to an address of this host."


@dataclass(frozen=True, slots=True)
class Selector:
    """Which datagrams a policy is about. For ICMP the type stands in `source_port`, as XFRM has it."""

    source: Network
    destination: Network
    protocol: int = 0
    source_port: int = 0
    destination_port: int = 0
    tag: int = 0
    """The `user` of struct xfrm_selector: the kernel compares it where it looks for a policy to replace or to delete,
    and does not look at it for a datagram. So two policies may stand for the same datagrams."""

    @classmethod
    def of_flow(cls, flow: Flow) -> "Selector":
        return cls(*flow.networks)

    def fields(self, prefix: str = "sel_") -> dict[str, Any]:
        """struct xfrm_selector."""
        return {prefix + name: value for name, value in (
            ("daddr", self.destination.network_address.packed), ("saddr", self.source.network_address.packed),
            ("dport", self.destination_port), ("dport_mask", 0xFFFF if self.destination_port else 0),
            ("sport", self.source_port), ("sport_mask", 0xFFFF if self.source_port else 0),
            ("family", FAMILY[self.source.version]), ("prefixlen_d", self.destination.prefixlen),
            ("prefixlen_s", self.source.prefixlen), ("proto", self.protocol), ("user", self.tag))}

    @classmethod
    def read(cls, message: Any, prefix: str = "sel_") -> "Selector":
        """Other programs' selectors may have bits beyond their prefixes, which the kernel does not look at."""
        family = message[prefix + "family"]
        return cls(
            ip_network((address(family, message[prefix + "saddr"]), message[prefix + "prefixlen_s"]), strict=False),
            ip_network((address(family, message[prefix + "daddr"]), message[prefix + "prefixlen_d"]), strict=False),
            message[prefix + "proto"], message[prefix + "sport"], message[prefix + "dport"], message[prefix + "user"])

    @property
    def flow(self) -> Flow:
        """The pair of addresses, for a selector of single hosts."""
        return Flow(self.source.network_address, self.destination.network_address)

    def __str__(self) -> str:
        ports = f" protocol {self.protocol} ports {self.source_port}-{self.destination_port}" if self.protocol else ""
        return f"{self.source} -> {self.destination}{ports}"


@dataclass(frozen=True, slots=True)
class Template:
    """How a policy wants its datagrams protected by ESP: in a tunnel between gateways, or (None) end to end."""

    reqid: int
    gateways: Flow | None
    optional: bool = False
    "For what comes in: out of any tunnel, or out of none."


@dataclass(frozen=True, slots=True)
class Policy:
    """One entry of the SPD."""

    direction: Direction
    selector: Selector
    priority: int
    action: int = XFRM_POLICY_ALLOW
    template: Template | None = None
    lives: int = 0
    "Seconds after which the kernel removes it, unless it is put again (0: never)."

    @property
    def closes(self) -> bool:
        """Whether nothing passes by it in clear."""
        return self.action == XFRM_POLICY_BLOCK or (self.template is not None and not self.template.optional)


def address(family: int, octets: bytes) -> Address:
    """xfrm_address_t."""
    return ip_address(octets[:4] if family == socket.AF_INET else octets[:16])


def policy_fields(policy: Policy) -> dict[str, Any]:
    """struct xfrm_userpolicy_info."""
    return policy.selector.fields() | {
        "soft_byte_limit": XFRM_INF, "hard_byte_limit": XFRM_INF, "soft_packet_limit": XFRM_INF,
        "hard_packet_limit": XFRM_INF, "hard_add_expires_seconds": policy.lives,
        "priority": policy.priority, "dir": policy.direction, "action": policy.action}


def template_fields(template: Template, version: int) -> dict[str, Any]:
    """struct xfrm_user_tmpl: any algorithm will do; which ones, the SAs say."""
    outer = template.gateways
    return {
        "id_daddr": outer.destination.packed if outer else b"", "saddr": outer.source.packed if outer else b"",
        "id_proto": IPPROTO_ESP, "family": FAMILY[outer.source.version if outer else version],
        "reqid": template.reqid, "mode": XFRM_MODE_TUNNEL if outer or template.optional else XFRM_MODE_TRANSPORT,
        "optional": template.optional,
        "aalgos": 0xFFFFFFFF, "ealgos": 0xFFFFFFFF, "calgos": 0xFFFFFFFF}


def create_policy(policy: Policy) -> Request:
    """Create the policy; refused where the SPD has one of this selector and direction, of whatever priority."""
    return _policy_request(XfrmMessage.NEWPOLICY, policy)


def put_policy(policy: Policy) -> Request:
    """Create the policy, or replace the one of the same selector and direction without a gap."""
    return _policy_request(XfrmMessage.UPDPOLICY, policy)


def _policy_request(kind: XfrmMessage, policy: Policy) -> Request:
    deed = "block" if policy.action == XFRM_POLICY_BLOCK else "protect" if policy.template else "pass"
    body = _policy_info(policy)
    if policy.template:
        body += encode_attributes([("XFRMA_TMPL", template_fields(policy.template, policy.selector.source.version))])
    return Request(kind, body, f"put a policy ({policy.direction.name.lower()}, {deed}) for", about=policy.selector)


def _policy_info(policy: Policy) -> bytes:
    """struct xfrm_userpolicy_info. Of all flows' policies all but the addresses, which it begins with, is the same."""
    which = policy.selector
    return b"".join((*(network.network_address.packed.ljust(ADDRESS_OCTETS, b"\0")
                       for network in (which.destination, which.source)),
                     _after_the_addresses(policy.direction, policy.priority, policy.action, policy.lives,
                                          which.source.version, which.source.prefixlen, which.destination.prefixlen,
                                          which.protocol, which.source_port, which.destination_port, which.tag)))


@lru_cache(maxsize=1024)
def _after_the_addresses(direction: Direction, priority: int, action: int, lives: int, version: int, source: int,
                         destination: int, *what: int) -> bytes:
    """Of prefixes of these lengths."""
    anywhere = EVERYWHERE[version].network_address
    selector = Selector(ip_network((anywhere, source)), ip_network((anywhere, destination)), *what)
    fields = policy_fields(Policy(direction, selector, priority, action, lives=lives))
    return encode(PolicyMessage, fields)[2 * ADDRESS_OCTETS:]


def delete_policy(direction: Direction, selector: Selector) -> Request:
    """Delete the policy, if there is one."""
    return Request(XfrmMessage.DELPOLICY, encode(PolicyId, selector.fields() | {"dir": direction}),
                   f"delete the policy ({direction.name.lower()}) for", tolerates=frozenset({errno.ENOENT}),
                   about=selector)


def get_policy(direction: Direction, selector: Selector) -> Request:
    """Ask for the policy; no reply if there is none."""
    return Request(XfrmMessage.GETPOLICY, encode(PolicyId, selector.fields() | {"dir": direction}),
                   f"get the policy ({direction.name.lower()}) for", tolerates=frozenset({errno.ENOENT}),
                   about=selector)


def list_policies() -> Request:
    return Request(XfrmMessage.GETPOLICY, b"", "list the policies", flags=NLM_F_DUMP)


def read_policies(messages: list[Message]) -> Iterator[Any]:
    """The decoded replies; the policies of single sockets, which a dump lists too, are left out."""
    for message in messages:
        decoded = PolicyMessage(message.octets)
        decoded.decode()
        if decoded["dir"] <= Direction.FWD:
            yield decoded


def flow_priority(flow: Flow) -> int:
    """Of a configured tunnel's policies, that of the longest prefix first."""
    return Priority.CONFIGURED + LONGEST - flow.destination_length if isinstance(flow, Subnets) else Priority.FLOW


def flow_policy(flow: Flow, action: int, template: Template | None, lives: int = 0) -> Policy:
    """The outbound policy of one flow (RFC 4322 sections 3.1.3 to 3.1.5)."""
    return Policy(Direction.OUT, Selector.of_flow(flow), flow_priority(flow), action, template, lives)


def ingress_policies(flow: Flow, template: Template, lives: int = 0) -> list[Policy]:
    """What answers the flow must come out of its own tunnel (RFC 4322 section 12.1)."""
    selector = Selector.of_flow(flow.reversed())
    return [Policy(direction, selector, flow_priority(flow), template=template, lives=lives) for direction in INGRESS]
