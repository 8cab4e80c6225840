"""What happened to each flow and why: the record that `oegw why` and `oegw timeline` read."""

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from oesvc.ipsec.flow import Address, Flow

ENTRIES_PER_FLOW = 48
FLOWS_AFTER_THEIR_END = 1000
ENTRIES_PER_PEER = 16
PEERS = 1000
"Peers whose gateways negotiate with us for flows not known yet."


class Party(Enum):
    """The columns of RFC 4322 section 11.2, seen from one gateway."""

    HERE = "here"
    "The host on our side of the flow."
    GATEWAY = "gateway"
    "This gateway."
    DNS = "DNS"
    PEER = "peer"
    "The peer's gateway."
    THERE = "there"
    "The host on the far side."


class Ink(Enum):
    """The symbols of section 11.2."""

    CLEAR = "-"
    CLEAR_IKE = "~"
    ENCRYPTED_IKE = "#"
    ESP = "="


@dataclass(frozen=True, slots=True)
class Arrow:
    """Something that went from one party to another."""

    label: str
    "The step's name in section 11.2 where it has one ('5B'), else empty."
    ink: Ink
    origin: Party
    end: Party


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened."""

    at: float
    "UNIX time."
    text: str
    arrow: Arrow | None = None


class Journal:
    """Entries by flow (its outbound direction), the newest kept; a flow's stay a while after its end."""

    def __init__(self) -> None:
        self._live: dict[Flow, deque[Entry]] = {}
        self._peers: OrderedDict[Address, deque[Entry]] = OrderedDict()
        self._ended: OrderedDict[Flow, tuple[Entry, ...]] = OrderedDict()

    def note(self, flow: Flow, entry: Entry) -> None:
        entries = self._live.get(flow)
        if entries is None:
            before: Iterable[Entry] = self._ended.pop(flow, ())
            entries = self._live[flow] = deque(before, maxlen=ENTRIES_PER_FLOW)
        entries.append(entry)

    def note_peer(self, peer: Address, entry: Entry) -> None:
        """Something between us and a peer's gateway, before it is known which flow it is for."""
        entries = self._peers.pop(peer, None) or deque(maxlen=ENTRIES_PER_PEER)
        self._peers[peer] = entries
        entries.append(entry)
        while len(self._peers) > PEERS:
            self._peers.popitem(last=False)

    def adopt(self, flow: Flow, peer: Address) -> None:
        """What went on with this peer was for this flow."""
        entries = sorted([*self._peers.pop(peer, ()), *self._live.pop(flow, ())], key=lambda entry: entry.at)
        for entry in entries:
            self.note(flow, entry)

    def end(self, flow: Flow) -> None:
        """The flow's connection is forgotten; its entries are kept among those of the last flows."""
        entries = self._live.pop(flow, None)
        if entries is None:
            return
        self._ended[flow] = tuple(entries)
        while len(self._ended) > FLOWS_AFTER_THEIR_END:
            self._ended.popitem(last=False)

    def entries(self, flow: Flow) -> tuple[Entry, ...]:
        return tuple(self._live.get(flow, ())) or self._ended.get(flow, ())
