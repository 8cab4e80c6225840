"""What happened to each flow and why: the record that `oegw why` and `oegw timeline` read."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

from oesvc.dns.name import name_text, reverse_name
from oesvc.ipsec.flow import Address, Flow

# No options: none of these refuses anybody anything, they only say how far back the journal goes.
ENTRIES_PER_FLOW = 48
"The whole of a negotiation and several looks after it; 15 kB when they are all there."
LIVE_OCTETS = 8_000_000
"Of the entries of flows with a connection, about: the stories of thousands of flows; why each is as it is, it knows."
STORY_OCTETS, ENTRY_OCTETS, WORDS_OCTETS = 200, 24, 110
"What a story takes besides its entries, an entry besides its words, and words besides their letters; about."
WORDS = 500
"Of those told last: what is new may have been said of another flow before."
AT_ONCE = 0.0005
"Seconds. For people who are told milliseconds, what happened within them happened at the same time."
OWN_NAME = "\0"
"In a text: the name of the flow's destination in the reverse map."
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


class Entry(NamedTuple):
    """One thing that happened."""

    at: float
    "UNIX time."
    text: str
    arrow: Arrow | None = None


Words = tuple[str, Arrow | None]
Story = tuple[float | Words, ...]
"""Entries in little room, for there are a hundred thousand stories, and most are alike: how many octets it takes, then
each time at which something happened, and after it what did, in words that many stories share."""
NOTHING_YET: Story = (STORY_OCTETS,)


def _entries(story: Story) -> Iterator[Entry]:
    at = 0.0
    for part in story[1:]:
        if isinstance(part, tuple):
            yield Entry(at, *part)
        else:
            at = part


_same = lru_cache(maxsize=1024)(int)
"A number: of very many stories the same one."


def _octets(story: Story) -> int:
    return int(story[0])  # type: ignore[arg-type]


def _longer(story: Story, at: float, words: Words, octets: int) -> Story:
    """With what happened now; it takes so many octets more."""
    octets = _same(_octets(story) + octets)
    for part in reversed(story):
        if part.__class__ is float:
            if 0 <= at - part < AT_ONCE:
                return (octets, *story[1:], words)
            break
    return (octets, *story[1:], at, words)


def _without_the_first(story: Story) -> Story:
    octets, at, _, *rest = story
    if rest and isinstance(rest[0], tuple):
        rest.insert(0, at)
    return (octets - ENTRY_OCTETS, *rest)  # type: ignore[operator]


def _in_order(story: Story) -> Story:
    parts: list[float | Words] = [_octets(story)]
    for at, text, arrow in sorted(_entries(story), key=lambda entry: entry.at):
        parts += at, (text, arrow)
    return tuple(parts)


class Journal:
    """Entries by flow (its outbound direction), the newest kept.

    Those of flows with a connection share LIVE_OCTETS: the flow of which nothing was told for longest loses its
    story first. Of other flows there is a fixed number: what peers say of them pushes out what they and others said
    before, and nothing else.
    """

    def __init__(self) -> None:
        self._live: OrderedDict[Flow, Story] = OrderedDict()
        self._octets = 0
        self._peers: OrderedDict[Address, Story] = OrderedDict()
        self._others: OrderedDict[Flow, Story] = OrderedDict()
        self._words: dict[str, Words] = {}
        self.listeners: list[Callable[[Flow, Entry], object]] = []
        "Told of each entry of a flow, as it is made."

    def begin(self, flow: Flow) -> None:
        """The flow has a connection: its entries stay as long as there is room."""
        if flow not in self._live:
            self._live[flow] = story = self._others.pop(flow, NOTHING_YET)
            self._octets += _octets(story)
            self._make_room()

    def note(self, flow: Flow, entry: Entry) -> None:
        self._take(flow, entry)
        for listener in tuple(self.listeners):
            listener(flow, _whole(entry, flow))

    def _take(self, flow: Flow, entry: Entry) -> None:
        story = self._live.get(flow)
        if story is None:
            self._keep(flow, self._told(self._others.get(flow, NOTHING_YET), entry, ENTRIES_PER_FLOW))
        else:
            self._live[flow] = longer = self._told(story, entry, ENTRIES_PER_FLOW)
            self._live.move_to_end(flow)
            self._octets += _octets(longer) - _octets(story)
            self._make_room()

    def note_peer(self, peer: Address, entry: Entry) -> None:
        """Something between us and a peer's gateway, before it is known which flow it is for."""
        self._peers[peer] = self._told(self._peers.get(peer, NOTHING_YET), entry, ENTRIES_PER_PEER)
        self._peers.move_to_end(peer)
        while len(self._peers) > PEERS:
            self._peers.popitem(last=False)

    def adopt(self, flow: Flow, peer: Address) -> None:
        """What went on with this peer was for this flow."""
        for entry in _entries(self._peers.pop(peer, NOTHING_YET)):
            self.note(flow, entry)
        for stories in (self._live, self._others):
            if flow in stories:
                stories[flow] = _in_order(stories[flow])

    def end(self, flow: Flow) -> None:
        """The flow's connection is forgotten; its entries are kept among those of the last flows."""
        story = self._live.pop(flow, None)
        if story is not None:
            self._octets -= _octets(story)
            self._keep(flow, story)

    def entries(self, flow: Flow) -> tuple[Entry, ...]:
        story = self._live.get(flow) or self._others.get(flow, NOTHING_YET)
        return tuple(_whole(entry, flow) for entry in _entries(story))

    def _keep(self, flow: Flow, story: Story) -> None:
        self._others[flow] = story
        self._others.move_to_end(flow)
        while len(self._others) > OTHER_FLOWS:
            self._others.popitem(last=False)

    def _make_room(self) -> None:
        while self._octets > LIVE_OCTETS and len(self._live) > 1:
            self._octets -= _octets(self._live.popitem(last=False)[1])

    def _told(self, story: Story, entry: Entry, most: int) -> Story:
        """With an entry more; the oldest goes where there are too many."""
        at, text, arrow = entry
        words, octets = self._words.get(text), ENTRY_OCTETS
        if words is None or words[1] is not arrow:
            if len(self._words) >= WORDS:
                self._words.clear()
            self._words[text] = words = text, arrow
            octets += WORDS_OCTETS + len(text)
        longer = _longer(story, at, words, octets)
        if len(longer) > most and sum(isinstance(part, tuple) for part in longer) > most:
            return _without_the_first(longer)
        return longer


def _whole(entry: Entry, flow: Flow) -> Entry:
    """With the flow's own name where that was left out."""
    if OWN_NAME not in entry.text:
        return entry
    return entry._replace(text=entry.text.replace(OWN_NAME, name_text(reverse_name(flow.destination))))
