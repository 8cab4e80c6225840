"""The SAs of one flow and what its SPD entries say of them: jobs that `FlowTable.run` does one after the other."""

from collections.abc import Callable, Generator, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.logger import Logger
from twisted.python.failure import Failure

from oesvc.interfaces import PlaneError, Traffic
from oesvc.ipsec.flow import Address, Flow
from oesvc.ipsec.policy import ForwardingPolicy
from oesvc.ipsec.sa import IpsecSa
from oesvc.kernel.configured import lift
from oesvc.kernel.constants import XFRM_POLICY_ALLOW
from oesvc.kernel.flows import NO_INGRESS, FlowEntry, SaKey
from oesvc.kernel.netlink import ExistsError, Message
from oesvc.kernel.plane_config import PlaneConfig
from oesvc.kernel.sad import add_sa, change_sa, delete_sa, get_sa, read_traffic, succeed_sa
from oesvc.kernel.spd import (
    ACTIONS,
    INGRESS,
    Policy,
    Template,
    create_policy,
    flow_policy,
    ingress_policies,
    put_policy,
)
from oesvc.kernel.standing import AT_ONCE
from oesvc.kernel.structs import SaMessage

Job = Generator[Deferred[Any], Any, None]
Ask = Callable[..., "Deferred[list[Message]]"]
LOG = Logger()

ANY: dict[int, Address] = {4: IPv4Address(0), 6: IPv6Address(0)}
"""The outer source that an ingress policy wants: several gateways may speak for a host (RFC 4322 section 8), and a
peer may move. The reqid, which is the flow's own, is what ties it to the flow's SAs."""


class SaJobs:
    """What is done to the SAs of a flow. `put` is for what adds to the kernel: it raises PlaneError once we stop."""

    def __init__(self, request: Ask, put: Ask, config: Callable[[], PlaneConfig]) -> None:
        self._request = request
        self._put = put
        self._config = config

    @inlineCallbacks
    def add(self, entry: FlowEntry, sas: Sequence[IpsecSa]) -> Job:
        """All or none. One after the other: of those that the kernel refuses, none is ours to take back."""
        added: list[IpsecSa] = []
        try:
            for sa in sas:
                inbound = sa.flow == entry.flow.reversed()
                if not inbound and sa.flow != entry.flow:
                    raise PlaneError(f"add an SA for {sa.flow} to the tunnel of {entry.flow}: another flow")
                yield self._put(add_sa(sa, entry.reqid, inbound, self._config().tunnel_packets))
                added.append(sa)
                if not inbound:
                    entry.outbound += ((sa.spi, sa.destination),)
                else:
                    entry.inbound += ((sa.spi, sa.destination),)
                    gateways = Flow(ANY[sa.source.version], sa.destination)
                    yield from self._put_ingress(entry, Template(entry.reqid, gateways))
        except PlaneError:
            yield self.remove(entry, added)
            raise

    def _put_ingress(self, entry: FlowEntry, template: Template) -> Job:
        ends = self._config().ends(entry.flow)
        for policy in ingress_policies(entry.flow, template, ends):
            if ends or entry.ingress_ends or entry.ingress.get(policy.direction) != template:
                yield self._put((put_policy if policy.direction in entry.ingress else create_policy)(policy))
                entry.ingress = {**entry.ingress, policy.direction: template}
        entry.ingress_ends = ends

    @inlineCallbacks
    def renew(self, entry: FlowEntry) -> Job:
        """What the flow may do without a daemon has changed: its policies end then, or end no more."""
        ends = self._config().ends(entry.flow)
        if entry.ends != ends and entry.policy is ForwardingPolicy.ENCRYPT:
            yield self.put_outbound(entry, flow_policy(entry.flow, ACTIONS[entry.policy], entry.template, ends))
        if entry.ingress_ends != ends and (template := next(iter(entry.ingress.values()), None)):
            yield from self._put_ingress(entry, template)

    def put_outbound(self, entry: FlowEntry, policy: Policy) -> "Deferred[Any]":
        """A policy of another program for this very pair stays, and decides: the SPD has one for each selector.

        So the pair may be let through to it, but not if it must be encrypted or denied: who knows what that one says?
        """
        def stands(_: Any) -> None:
            entry.outbound_policy, entry.ends = True, policy.lives

        def is_anothers(failure: Failure) -> None:
            failure.trap(ExistsError)
            if policy.template or policy.action != XFRM_POLICY_ALLOW:
                raise PlaneError(f"{entry.flow}: another program has a policy for this very pair in the SPD, which "
                                 "would count in place of ours; the pair is held until that one is removed") from None
            LOG.info("{flow}: another program has a policy for this very pair in the SPD; it decides", flow=entry.flow)

        put = self._put((put_policy if entry.outbound_policy else create_policy)(policy))
        return put.addCallbacks(stands, is_anothers)

    @inlineCallbacks
    def change(self, entry: FlowEntry, sas: Sequence[IpsecSa]) -> Job:
        for sa in sas:
            key = sa.spi, sa.destination
            former = [each for each in entry.outbound if sa.flow == entry.flow and each[0] == sa.spi]
            if key in entry.sas:
                yield self._request(change_sa(sa, entry.reqid, key in entry.inbound, self._config().tunnel_packets))
            elif former:
                yield from self._move(entry, sa, former[0])

    def _move(self, entry: FlowEntry, sa: IpsecSa, former: SaKey) -> Job:
        """Its peer has another address. What comes in finds its SA by our own address: nothing changes there."""
        for message in (yield self._request(get_sa(*former))):
            state = SaMessage(message.octets)
            state.decode()
            yield self._put(succeed_sa(sa, entry.reqid, state, self._config().tunnel_packets))
            entry.outbound += ((sa.spi, sa.destination),)
        before, now = (Template(entry.reqid, Flow(sa.source, peer)) for peer in (former[1], sa.destination))
        if entry.policy is ForwardingPolicy.ENCRYPT and entry.template == before:
            ends = self._config().ends(entry.flow)
            yield self.put_outbound(entry, flow_policy(entry.flow, ACTIONS[entry.policy], now, ends))
            entry.template = now
        yield self._request(delete_sa(*former))
        entry.lose(former)

    @inlineCallbacks
    def remove(self, entry: FlowEntry, sas: Sequence[IpsecSa]) -> Job:
        """The ingress policy goes last: until then nothing comes in by another way."""
        keys: set[SaKey] = {(sa.spi, sa.destination) for sa in sas}.intersection(entry.sas)
        if keys:
            yield self._request(*(delete_sa(*key) for key in keys))
            entry.lose(*keys)
        if entry.ingress and not entry.inbound:
            yield self._request(*(lift(way, entry.flow, entry.reqid) for way in entry.ingress))
            entry.ingress = dict.fromkeys(INGRESS, Template(entry.reqid, None)) if entry.configured else NO_INGRESS

    @inlineCallbacks
    def traffic(self, sas: Sequence[IpsecSa]) -> Generator[Deferred[Any], Any, Traffic]:
        """Of any flows."""
        replies: list[Message] = []
        for start in range(0, len(sas), AT_ONCE):
            replies += yield self._request(*(get_sa(sa.spi, sa.destination) for sa in sas[start:start + AT_ONCE]))
        return read_traffic(replies)
