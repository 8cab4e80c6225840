"""Which flows are decided, told to the hooks: elements of the sets in the table `inet oegw`."""

import errno
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThreadPool

from oesvc.ipsec.account import Amount, Verdict
from oesvc.ipsec.flow import Flow
from oesvc.ipsec.policy import ForwardingPolicy
from oesvc.ipsec.subnets import Subnets
from oesvc.kernel.constants import (
    NETLINK_NETFILTER,
    NFNL_MSG_BATCH_BEGIN,
    NFNL_MSG_BATCH_END,
    NFNL_SUBSYS_NFTABLES,
    NFPROTO_INET,
    NFT_MSG_DELSETELEM,
    NFT_MSG_DELTABLE,
    NFT_MSG_GETOBJ,
    NFT_MSG_GETTABLE,
    NFT_MSG_NEWSETELEM,
    NLA_F_NESTED,
    NLM_F_CREATE,
    NLM_F_DUMP,
)
from oesvc.kernel.counters import NFTA_OBJ_TABLE, counter_name, read_counters
from oesvc.kernel.netlink import Message, NetlinkSocket, Request, attribute, attributes
from oesvc.kernel.queue import NFGEN
from oesvc.kernel.ruleset import TABLE, load

MEMBERSHIP: dict[ForwardingPolicy, tuple[str, ...]] = {
    ForwardingPolicy.PASS: ("known",),
    ForwardingPolicy.DENY: ("known", "denied"),
    ForwardingPolicy.ENCRYPT: ("known", "quoted"),
}
"In which sets a flow stands. `known` is a map: it leads to the counter of what is done with the flow, and why."

ADDRESS_OCTETS = {4: 4, 6: 16}

# Attributes of linux/netfilter/nf_tables.h.
NFTA_TABLE_NAME = NFTA_SET_ELEM_LIST_TABLE = NFTA_LIST_ELEM = NFTA_SET_ELEM_KEY = NFTA_DATA_VALUE = 1
NFTA_SET_ELEM_LIST_SET = 2
NFTA_SET_ELEM_LIST_ELEMENTS = 3
NFTA_SET_ELEM_OBJREF = 9


def nested(kind: int, value: bytes) -> bytes:
    return attribute(kind | NLA_F_NESTED, value)


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode("ascii") + b"\0")


NFPROTO = NFGEN.pack(NFPROTO_INET, 0, 0)
GONE = frozenset({errno.ENOENT})
"Somebody has flushed the ruleset. Until it is restored nothing is held, but the traps stay closed."


def batch_mark(kind: int) -> Request:
    """Beginning or end of a transaction."""
    return Request(kind, NFGEN.pack(0, 0, NFNL_SUBSYS_NFTABLES), "change the table")


def table_request(kind: int, body: bytes, deed: str, flags: int = 0, about: object = None) -> Request:
    return Request((NFNL_SUBSYS_NFTABLES << 8) | kind, NFPROTO + body, deed, flags, GONE, about)


def element(kind: int, name: str, flow: Flow, counter: str = "") -> Request:
    """Add or delete one flow; as an ICMP error quotes it, its answers' addresses are what counts."""
    pair = flow.reversed() if name == "quoted" else flow
    before, after, deed, flags = _around(kind, name, flow.source.version, counter)
    body = b"".join((before, pair.source.packed, pair.destination.packed, after))
    return table_request(kind, body, deed, flags, flow)


@lru_cache(maxsize=1024)
def _around(kind: int, name: str, version: int, counter: str) -> tuple[bytes, bytes, str, int]:
    """What many flows have in common: the octets before the addresses and after them, in words, the flags."""
    ends = b"\xff" * 2 * ADDRESS_OCTETS[version]
    one = nested(NFTA_SET_ELEM_KEY, attribute(NFTA_DATA_VALUE, ends))
    if counter:
        one += text(NFTA_SET_ELEM_OBJREF, counter)
    whole = (text(NFTA_SET_ELEM_LIST_TABLE, TABLE) + text(NFTA_SET_ELEM_LIST_SET, f"{name}{version}")
             + nested(NFTA_SET_ELEM_LIST_ELEMENTS, nested(NFTA_LIST_ELEM, one)))
    before, _, after = whole.partition(ends)
    deed, flags = ("add to", NLM_F_CREATE) if kind == NFT_MSG_NEWSETELEM else ("delete from", 0)
    return before, after, f"{deed} the set {name}:", flags


@lru_cache(maxsize=256)
def memberships(verdict: Verdict | None) -> Mapping[str, str]:
    """The sets, each with the counter that the flow's element leads to there."""
    if verdict is None:
        return {}
    return {name: counter_name(verdict) if name == "known" else "" for name in MEMBERSHIP[verdict.policy]}


def table_deleted(message: Message, table: str = TABLE) -> bool:
    """Whether it says that a table of ours is gone, as after somebody's `nft flush ruleset`."""
    return message.kind == (NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_DELTABLE and any(
        kind == NFTA_TABLE_NAME and value == table.encode() + b"\0"
        for kind, value in attributes(message.body[NFGEN.size:]))


class FlowSets:
    """The sets, changed in transactions."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._socket = NetlinkSocket(reactor, NETLINK_NETFILTER)
        self._inner: dict[Flow, set[Flow]] = {}

    def change(self, flow: Flow, before: Verdict | None, after: Verdict | None) -> "Deferred[list[Message]]":
        """Move a flow from the sets of one policy to those of another, and with it what is translated into it.

        The ruleset knows configured tunnels.
        """
        if isinstance(flow, Subnets):
            return succeed([])
        inner = self._inner.get(flow, ()) if after else self._inner.pop(flow, ())
        return self._change((flow, *inner), before, after)

    def include(self, inner: Flow, flow: Flow, verdict: Verdict) -> "Deferred[list[Message]]":
        """The firewall translates `inner` into a flow of this policy: the hooks see the one, the SPD the other."""
        known = self._inner.setdefault(flow, set())
        new = {inner} - known
        known.add(inner)
        return self._change(new, None, verdict)

    def _change(self, flows: Iterable[Flow], before: Verdict | None,
                after: Verdict | None) -> "Deferred[list[Message]]":
        """Deleting first: within a transaction, that is how an element gets another counter."""
        old, new = memberships(before), memberships(after)
        changes = [element(kind, name, flow, counter if kind == NFT_MSG_NEWSETELEM else "") for flow in flows
                   for kind, these, others in ((NFT_MSG_DELSETELEM, old, new), (NFT_MSG_NEWSETELEM, new, old))
                   for name, counter in these.items() if others.get(name) != counter]
        return self._transaction(*changes) if changes else succeed([])

    def counters(self) -> "Deferred[dict[str, Amount]]":
        """How much of each has been counted since the table was made: one answer, whatever flows there are."""
        asked = self._socket.request(table_request(NFT_MSG_GETOBJ, text(NFTA_OBJ_TABLE, TABLE), "read the counters",
                                                   NLM_F_DUMP))
        return asked.addCallback(read_counters)

    def load(self, text: str) -> "Deferred[None]":
        """Hand a ruleset to `nft`, all or nothing, in a thread of its own. Fails with PlaneError."""
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), load, text)

    def delete_table(self) -> "Deferred[list[Message]]":
        return self._transaction(table_request(NFT_MSG_DELTABLE, text(NFTA_TABLE_NAME, TABLE), "delete the table"))

    def table_exists(self) -> "Deferred[bool]":
        asked = self._socket.request(table_request(NFT_MSG_GETTABLE, text(NFTA_TABLE_NAME, TABLE), "get the table"))
        return asked.addCallback(bool)

    def _transaction(self, *requests: Request) -> "Deferred[list[Message]]":
        return self._socket.request(*requests, opening=batch_mark(NFNL_MSG_BATCH_BEGIN),
                                    closing=batch_mark(NFNL_MSG_BATCH_END))

    def close(self) -> None:
        self._socket.close()
