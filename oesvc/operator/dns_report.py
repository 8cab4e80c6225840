"""`oegw dns`: what the DNS says of a host or a gateway, why that is believed, and what the daemon makes of it."""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from oesvc.discovery import Asked, Discovery, Replied
from oesvc.dns.answer import Answer
from oesvc.dns.name import name_text
from oesvc.dns.presentation import rdata_text
from oesvc.dns.records import RecordType
from oesvc.dns.resolver import ValidatingResolver
from oesvc.dns.trace import Trace
from oesvc.ike.identity import AddressIdentity, FqdnIdentity, Identity
from oesvc.ipsec.flow import Address, Flow
from oesvc.oe import events as ev
from oesvc.oe.aging import Lifespans
from oesvc.oe.authorization import DELEGATION_READERS, Reading, Standing, read_delegations, unusable
from oesvc.oe.classes import ClassTable
from oesvc.oe.connection import Connection
from oesvc.oe.delegation import Delegation, MalformedRecordError, parse_key_record
from oesvc.operator.chain_report import chain, questions
from oesvc.operator.inquiry import TYPES, Inquiry
from oesvc.operator.report import OUTCOMES, SCHEMA


class Inspector:
    """Looks up as the daemon does, and tells what came of it."""

    def __init__(self, resolver: ValidatingResolver, discovery: Discovery, classes: ClassTable,
                 unix_time: Callable[[], float], clock_skew: int = 0) -> None:
        self._resolver, self._discovery, self._classes = resolver, discovery, classes
        self._unix_time, self._clock_skew = unix_time, clock_skew

    async def inspect(self, inquiry: Inquiry) -> dict[str, Any]:
        traces = await gatherResults([self._resolver.trace(inquiry.name, TYPES[rdtype], inquiry.fresh)
                                      for rdtype in inquiry.types])
        deciding = Deferred.fromCoroutine(self._decision(inquiry.host))
        keys = await self._discovery.keys(_identity(inquiry.host), _unheard)
        decision = await deciding
        return {"schema": SCHEMA, "subject": str(inquiry.host), "name": name_text(inquiry.name),
                "fresh": inquiry.fresh, "dnssec": self._discovery.policy.value,
                "lookups": [self._look_up(inquiry, rdtype, trace)
                            for rdtype, trace in zip(inquiry.types, traces, strict=True)],
                "decision": decision,
                "as_gateway": {"keys": [str(key) for key in keys.keys], "detail": keys.detail}}

    def _look_up(self, inquiry: Inquiry, rdtype: str, trace: Trace) -> dict[str, Any]:
        now, answer = self._unix_time(), trace.answer
        refused = unusable(answer, self._discovery.policy)
        return {"type": rdtype, "name": name_text(inquiry.name), **_verdict(answer, now),
                "canonical": name_text(answer.canonical) if answer.rdatas else None,
                "remembered": _verdict(trace.remembered, now) if trace.remembered else None,
                "questions": questions(trace.links), "chain": chain(trace.links, now, self._clock_skew),
                "not_believed": refused.detail if refused else None,
                "records": [_record(answer.rdtype, rdata, reading) for rdata, reading in
                            zip(answer.rdatas, self._read(answer, inquiry.host), strict=True)]}

    def _read(self, answer: Answer, host: Address | str) -> list[Reading]:
        if answer.rdtype in DELEGATION_READERS:
            return read_delegations(answer, host, self._discovery.policy, calling=not isinstance(host, str))
        return [_read_key(rdata, host) for rdata in answer.rdatas]

    async def _decision(self, host: Address | str) -> dict[str, Any] | None:
        """What would become of the first datagram to `host`: the daemon's own look-ups, judged by its own machine."""
        if isinstance(host, str):
            return None
        line = self._classes.find(host)
        connection = Connection(Flow(host, host), line, Lifespans())
        connection.handle(ev.Acquired(), 0.0)
        asked: list[Asked | Replied] = []
        if line.connection_class.initiates:
            connection.handle(await self._discovery.delegations(host, asked.append, policy=line.options.dnssec), 0.0)
        gateways = [{"gateway": str(d.gateway), "precedence": d.precedence, "keys": [str(key) for key in d.keys]}
                    for d in connection.delegations]
        outcome = "is keyed with its gateway" if gateways else OUTCOMES[connection.forwarding]
        return {"class": line.connection_class.value, "policy": str(line), "state": connection.state.value,
                "outcome": outcome, "reason": str(connection.reason), "because": connection.reason.because.name,
                "gateways": gateways, "look_ups": [str(one) for one in asked if isinstance(one, Replied)]}


def _identity(host: Address | str) -> Identity:
    return FqdnIdentity(host) if isinstance(host, str) else AddressIdentity(host)


def _unheard(happened: Asked | Replied) -> None:
    """The questions are told elsewhere."""


def _verdict(answer: Answer, now: float) -> dict[str, Any]:
    return {"status": answer.status.value, "kind": answer.kind.value, "reason": answer.reason,
            "believed_for": round(max(0.0, answer.expires - now), 1)}


def _record(rdtype: int, rdata: bytes, reading: Reading) -> dict[str, Any]:
    delegation = reading.delegation
    return {"text": str(delegation) if rdtype == RecordType.IPSECKEY and delegation else rdata_text(rdtype, rdata),
            "standing": reading.standing.value, "delegation": _delegation(delegation) if delegation else None,
            "objection": reading.objection or None}


def _delegation(delegation: Delegation) -> dict[str, Any]:
    return {"precedence": delegation.precedence, "gateway": str(delegation.gateway),
            "keys": [str(key) for key in delegation.keys], "remarks": list(delegation.remarks)}


def _read_key(rdata: bytes, host: Address | str) -> Reading:
    """A KEY record says nothing of gateways, but is a gateway's own key (RFC 4322 section 5.1)."""
    try:
        return Reading(Standing.USED, Delegation(0, host, (parse_key_record(rdata),), written_as="KEY"))
    except MalformedRecordError as error:
        return Reading(Standing.SKIPPED, objection=str(error))
