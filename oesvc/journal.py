"""What happened to each flow and why: the record that `oegw why` and `oegw timeline` read."""

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from oesvc.ipsec.flow import Address, Flow

# No options: none of these refuses anybody anything, they only say how far back the journal goes.
ENTRIES_PER_FLOW = 48
"The whole of a negotiation and several looks after it; 15 kB when they are all there."
OTHER_FLOWS = 1000
"Flows without a connection: those that have ended, and those that peers proposed in vain."
ENTRIES_PER_PEER = 16
"A main mode with its look-ups."
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
    """Entries by flow (its outbound direction), the newest kept.

    There are as many flows as there are connections, and a fixed number of others: what peers say of flows that have
    no connection pushes out what they and others said before.
    """

    def __init__(self) -> None:
        self._live: dict[Flow, deque[Entry]] = {}
        self._peers: OrderedDict[Address, deque[Entry]] = OrderedDict()
        self._others: OrderedDict[Flow, deque[Entry]] = OrderedDict()
        self.listeners: list[Callable[[Flow, Entry], object]] = []
        "Told of each entry of a flow, as it is made."

    def begin(self, flow: Flow) -> None:
        """The flow has a connection: its entries stay until its end."""
        if flow not in self._live:
            self._live[flow] = self._others.get(flow) or deque(maxlen=ENTRIES_PER_FLOW)
            self._others.pop(flow, None)

    def note(self, flow: Flow, entry: Entry) -> None:
        entries = self._live.get(flow)
        if entries is None:
            entries = self._others.get(flow) or deque(maxlen=ENTRIES_PER_FLOW)
            self._keep(flow, entries)
        entries.append(entry)
        for listener in tuple(self.listeners):
            listener(flow, entry)

    def note_peer(self, peer: Address, entry: Entry) -> None:
        """Something between us and a peer's gateway, before it is known which flow it is for."""
        entries = self._peers.pop(peer, None) or deque(maxlen=ENTRIES_PER_PEER)
        self._peers[peer] = entries
        entries.append(entry)
        while len(self._peers) > PEERS:
            self._peers.popitem(last=False)

    def adopt(self, flow: Flow, peer: Address) -> None:
        """What went on with this peer was for this flow."""
        for entry in self._peers.pop(peer, ()):
            self.note(flow, entry)
        if entries := self._live.get(flow) or self._others.get(flow):
            in_order = sorted(entries, key=lambda entry: entry.at)
            entries.clear()
            entries.extend(in_order)

    def end(self, flow: Flow) -> None:
        """The flow's connection is forgotten; its entries are kept among those of the last flows."""
        entries = self._live.pop(flow, None)
        if entries is not None:
            self._keep(flow, entries)

    def entries(self, flow: Flow) -> tuple[Entry, ...]:
        return tuple(self._live.get(flow) or self._others.get(flow) or ())

    def _keep(self, flow: Flow, entries: deque[Entry]) -> None:
        self._others[flow] = entries
        self._others.move_to_end(flow)
        while len(self._others) > OTHER_FLOWS:
            self._others.popitem(last=False)
