"""What happened to each flow and why: the record that `oegw why` and `oegw timeline` read."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from oesvc.ipsec.flow import Address, Flow

# No options: none of these refuses anybody anything, they only say how far back the journal goes.
ENTRIES_PER_FLOW = 48
"The whole of a negotiation and several looks after it; 15 kB when they are all there."
LIVE_OCTETS = 8_000_000
"Of the entries of flows with a connection, about: the stories of thousands of flows; why each is as it is, it knows."
ENTRY_OCTETS, FLOW_OCTETS = 160, 300
"What an entry takes besides its text, and a flow besides its entries."
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


Entries = list[Entry]


class Journal:
    """Entries by flow (its outbound direction), the newest kept.

    Those of flows with a connection share LIVE_OCTETS: the flow of which nothing was told for longest loses its
    story first. Of other flows there is a fixed number: what peers say of them pushes out what they and others said
    before, and nothing else.
    """

    def __init__(self) -> None:
        self._live: OrderedDict[Flow, Entries] = OrderedDict()
        self._octets = 0
        self._peers: OrderedDict[Address, Entries] = OrderedDict()
        self._others: OrderedDict[Flow, Entries] = OrderedDict()
        self.listeners: list[Callable[[Flow, Entry], object]] = []
        "Told of each entry of a flow, as it is made."

    def begin(self, flow: Flow) -> None:
        """The flow has a connection: its entries stay as long as there is room."""
        if flow not in self._live:
            entries = self._others.pop(flow, [])
            self._live[flow] = entries
            self._octets += _octets(entries)
            self._make_room()

    def note(self, flow: Flow, entry: Entry) -> None:
        entries = self._live.get(flow)
        if entries is None:
            entries = self._others.get(flow, [])
            _add(entries, entry, ENTRIES_PER_FLOW)
            self._keep(flow, entries)
        else:
            self._octets += _add(entries, entry, ENTRIES_PER_FLOW)
            self._live.move_to_end(flow)
            self._make_room()
        for listener in tuple(self.listeners):
            listener(flow, entry)

    def note_peer(self, peer: Address, entry: Entry) -> None:
        """Something between us and a peer's gateway, before it is known which flow it is for."""
        entries = self._peers.pop(peer, [])
        self._peers[peer] = entries
        _add(entries, entry, ENTRIES_PER_PEER)
        while len(self._peers) > PEERS:
            self._peers.popitem(last=False)

    def adopt(self, flow: Flow, peer: Address) -> None:
        """What went on with this peer was for this flow."""
        for entry in self._peers.pop(peer, ()):
            self.note(flow, entry)
        if entries := self._live.get(flow) or self._others.get(flow):
            entries.sort(key=lambda entry: entry.at)

    def end(self, flow: Flow) -> None:
        """The flow's connection is forgotten; its entries are kept among those of the last flows."""
        entries = self._live.pop(flow, None)
        if entries is not None:
            self._octets -= _octets(entries)
            self._keep(flow, entries)

    def entries(self, flow: Flow) -> tuple[Entry, ...]:
        return tuple(self._live.get(flow) or self._others.get(flow) or ())

    def _keep(self, flow: Flow, entries: Entries) -> None:
        self._others[flow] = entries
        self._others.move_to_end(flow)
        while len(self._others) > OTHER_FLOWS:
            self._others.popitem(last=False)

    def _make_room(self) -> None:
        while self._octets > LIVE_OCTETS and len(self._live) > 1:
            self._octets -= _octets(self._live.popitem(last=False)[1])


def _add(entries: Entries, entry: Entry, most: int) -> int:
    """Append, and let the oldest go where there are too many; by how many octets they grow."""
    entries.append(entry)
    gone = entries.pop(0).text if len(entries) > most else None
    return len(entry.text) - len(gone) if gone is not None else ENTRY_OCTETS + len(entry.text)


def _octets(entries: Entries) -> int:
    return FLOW_OCTETS + sum(ENTRY_OCTETS + len(entry.text) for entry in entries)
