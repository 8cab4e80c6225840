"""IKE's ladders: two engines are brought to a step, then one of them gets messages that the fuzzer has written.

An input is the step (one octet) and up to four messages: two octets of length, then how it is sent (`Kind`, its
message ID and flags), the type of its first payload, and its payloads. The last one may be shorter than it says.

A pair is brought to its step by the calls that brought another one there, results of the arithmetic included, so that
this costs no arithmetic. What only made an engine refuse has changed nothing, so it may serve the next input too:
after PATIENCE of them the honest handshake is let go on, and has to end well.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cache
from ipaddress import ip_address
from typing import Any, get_args

from fuzz.finding import fit_for_a_log, hold
from fuzz.forging import known, mend, seal, signing_key
from oesvc.ike.datagram import Datagram, Endpoint
from oesvc.ike.events import (
    ChannelUp,
    DatagramRefused,
    IkeEvent,
    LifetimeShortened,
    MessageSeen,
    SasReady,
    TunnelDeleted,
    TunnelFailed,
    TunnelLost,
    TunnelMoved,
    TunnelProposed,
    TunnelUp,
    Way,
)
from oesvc.ike.identity import AddressIdentity, FqdnIdentity
from oesvc.ike.v1.config import EngineConfig
from oesvc.ike.v1.constants import NAT_TRAVERSAL_PORT, NON_ESP_MARKER, ExchangeType, Flag, PayloadType
from oesvc.ike.v1.engine import IkeEngine
from oesvc.ike.v1.invitations import UNPROVEN_LIFE
from oesvc.ike.v1.wire.header import Header
from oesvc.ipsec.flow import Flow
from oesvc.keys.key_pair import public_key
from tests.ike.forge import channel_of
from tests.ike.nat_box import INSIDE, NatBox
from tests.ike.pair import SG_A, SG_B, Fault, Gateway, Pair, faithful

NAMES = "ab"
NOT_BEGUN, ALL = -1, 9
"Of the steps: before anything was sent; after all nine datagrams of an honest handshake."
PROVEN = 5
"The first datagram by which its sender has proved what nobody else can change."
PATIENCE = 64
"Inputs in vain that one engine serves."
MOST_MESSAGES = 4
MOST_EVENTS, MOST_DATAGRAMS, MOST_TUNNELS = 200, 200, 1 + MOST_MESSAGES
"That one input may lead to at either end within 30 s."
COUNTED = ("channels", "half_open_channels", "tunnels", "calculations")
"What stays as it is when a datagram is refused, or nothing is told."
OF_PEERS = (ChannelUp, TunnelProposed, SasReady, TunnelUp, TunnelDeleted, TunnelLost, TunnelMoved,
            LifetimeShortened)
KNOWN_EVENTS = get_args(IkeEvent)
SECOND_FLOW = Flow(ip_address("192.1.0.67"), ip_address("192.2.0.68"))
NOT_THE_PEER = Endpoint(ip_address("198.51.100.99"), 40001)
FQDN = FqdnIdentity("gateway.example")


class Kind(IntEnum):
    """How a message is sent: the lowest three bits of its first octet."""

    SEALED = 0
    "Encrypted under the victim's keys, in the exchange that it awaits."
    SEALED_INFORMATIONAL = 1
    CLEAR = 2
    CLEAR_INFORMATIONAL = 3
    RAW = 4
    "The whole datagram."
    HONEST = 5
    "The datagram that the victim awaits."
    CHANGED = 6
    "The same, but what follows stands in it, from the octet on that the first two say."
    LATER = 7
    "No message: time passes, and the honest peer may go on."


WRITTEN = (Kind.SEALED, Kind.SEALED_INFORMATIONAL, Kind.CLEAR, Kind.CLEAR_INFORMATIONAL)
"Those whose payloads the fuzzer writes, under a header of ours."
MESSAGE_IDS = (None, 0x11111111, 0x22222222, 0)
"By the next two bits; None is that of the datagram awaited."
MENDED = 0x20
"Lengths and counts are made right."
ELSEWHERE = 0x80
"It comes from where the peer is not. The bit between is the header's flag COMMIT."
OTHER_ID = 0x33333333
LATER = 0.3


class Recorder:
    """An engine whose calls are noted down."""

    def __init__(self, engine: IkeEngine) -> None:
        self.engine, self.calls = engine, []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = getattr(self.engine, name)

        def noted(*arguments: Any) -> Any:
            if name != "next_deadline":
                self.calls.append((name, arguments))
            return call(*arguments)

        return noted


@dataclass(frozen=True)
class Step:
    """A moment of the honest handshake, to which a pair can be brought again and again."""

    number: int
    nat: NatBox | None
    now: float
    awaited: Datagram | None
    up: Sequence[bool]
    "Whether the tunnel has come up before, at either end."
    calls: Sequence[Sequence[tuple[str, tuple[Any, ...]]]]


def new_pair(fault: Fault, nat: bool) -> Pair:
    a, b = (EngineConfig(signing_key(name), identity=FQDN if nat and name == "a" else None) for name in NAMES)
    pair = Pair(a, b, fault, addresses=(INSIDE if nat else SG_A, SG_B))
    for gateway, other in zip(pair.gateways, reversed(NAMES), strict=True):
        theirs = (public_key(signing_key(other)),)
        gateway.keys = {AddressIdentity(getattr(pair, other).address): theirs, FQDN: theirs}
    return pair


@cache
def step(number: int, nat: bool = False) -> Step:
    """The moment in which datagram `number` of the handshake is awaited, maybe with a NAT before the initiator."""
    held: list[Datagram] = []
    box = NatBox() if nat else None

    def held_at(index: int, datagram: Datagram) -> Sequence[tuple[float, Datagram]]:
        copies = (box or faithful)(index, datagram)
        if index >= number:
            held.extend(copy for _, copy in copies)
            return []
        return copies

    pair = new_pair(held_at, nat)
    for gateway in pair.gateways:
        gateway.engine = Recorder(gateway.engine)
    if number != NOT_BEGUN:
        pair.initiate()
        pair.run(0.3)
    return Step(number, box, pair.now, held[0] if held else None,
                [bool(gateway.heard(TunnelUp)) for gateway in pair.gateways],
                [gateway.engine.calls for gateway in pair.gateways])


def bring_to(step: Step) -> Pair:
    """Two engines as they were then."""
    box = step.nat and replace(step.nat, mappings=dict(step.nat.mappings))
    pair = new_pair(box or faithful, nat=bool(box))
    pair.now = step.now
    for gateway, calls in zip(pair.gateways, step.calls, strict=True):
        for name, arguments in calls:
            getattr(gateway.engine, name)(*arguments)
    return pair


@cache
def way(number: int, name: str, nat: bool = False) -> tuple[Header, Datagram]:
    """The header of messages to the victim at this step, and a datagram that goes their way."""
    awaited = step(number, nat).awaited
    if awaited:
        return Header.parse(without_marker(awaited)), awaited
    channel = channel_of(getattr(bring_to(step(number, nat)), name))
    return channel.header(ExchangeType.QUICK_MODE, OTHER_ID), Datagram(b"", channel.local, channel.peer)


class Attempt:
    """A pair at a step, and what is done to one of its gateways."""

    def __init__(self, step: Step, name: str) -> None:
        self.step, self.pair = step, bring_to(step)
        self.served: list[bytes] = []
        "Inputs, which have all been in vain."
        self.victim: Gateway = getattr(self.pair, name)

    def inject(self, datagram: Datagram) -> list[object]:
        """Deliver a datagram to the victim, and look at what it does about it. Returns what it tells."""
        engine, told, sent = self.victim.engine, len(self.victim.events), len(self.pair.capture)
        before, deadline = engine.counters(), engine.next_deadline()
        self.pair.inject(datagram)
        after, events = engine.counters(), self.victim.events[told:]
        check(events)
        if after["refused"] != before["refused"] or not events:
            changed = {name for name in COUNTED if after[name] != before[name]}
            hold(not changed, f"what was refused or meant nothing has changed {changed}: {before}, {after}, {events}")
            # A message 1 is remembered for a time, one deadline for all of them.
            allowed = deadline, self.pair.now + UNPROVEN_LIFE
            hold(events or engine.next_deadline() in allowed, "what meant nothing has changed a deadline")
        hold(len(self.pair.capture) - sent <= len(events) + 1, "more was sent than was told")
        return events

    def ends_well(self) -> None:
        """The honest handshake goes on as if nothing had been (where it is over: another one)."""
        if self.step.awaited:
            self.pair.inject(self.step.awaited)
        else:
            self.pair.initiate(SECOND_FLOW)
        self.pair.run(9)
        before = self.step.up if self.step.awaited else (False, False)
        for gateway, was_up in zip(self.pair.gateways, before, strict=True):
            failed = gateway.heard(TunnelFailed) or gateway.heard(TunnelDeleted)
            hold((was_up or gateway.heard(TunnelUp)) and not failed,
                 f"the honest handshake does not end well at {gateway.name}: {gateway.events[-8:]}, after the inputs "
                 f"{', '.join(data.hex() for data in self.served)}")

    def comes_to_rest(self) -> None:
        """What was begun is over in 30 s, at both ends."""
        self.pair.run(30)
        hold(len(self.pair.capture) <= MOST_DATAGRAMS, f"{len(self.pair.capture)} datagrams")
        for gateway in self.pair.gateways:
            check(gateway.events)
            hold(len(gateway.events) <= MOST_EVENTS, f"{len(gateway.events)} events at {gateway.name}")
            left = gateway.engine.counters()
            hold(left["half_open_channels"] == left["calculations"] == 0, f"not at rest: {left}")
            hold(left["tunnels"] <= MOST_TUNNELS, f"there are {left['tunnels']} tunnels")


class Ladder:
    """A target: what an input says is done to an engine that stands at one of some steps."""

    def __init__(self, *steps: tuple[int, str], nat: bool = False) -> None:
        """Each step is the number of the datagram awaited, and who is the victim: 'a' initiates, 'b' responds."""
        self.steps, self.nat = steps, nat
        self._serving: dict[tuple[int, str], Attempt] = {}

    def __call__(self, data: bytes) -> None:
        if not data:
            return
        number, name = self.steps[data[0] % len(self.steps)]
        attempt = self._serving.pop((number, name), None) or Attempt(step(number, self.nat), name)
        attempt.served.append(data)
        in_vain = [self.deliver(attempt, message) for message in messages(data[1:])]
        if not all(in_vain):
            attempt.comes_to_rest()
        elif len(attempt.served) >= PATIENCE:
            attempt.ends_well()
        else:
            self._serving[number, name] = attempt

    def finish(self) -> None:
        """Let all honest handshakes end."""
        while self._serving:
            self._serving.popitem()[1].ends_well()

    def deliver(self, attempt: Attempt, message: bytes) -> bool:
        """Do what the message says; whether the honest handshake must still end well."""
        how, first, body = message[0], message[1], message[2:]
        kind, honest = Kind(how & 7), attempt.step.awaited
        if kind is Kind.LATER:
            attempt.pair.run(LATER)
            return False
        usual, shape = way(attempt.step.number, attempt.victim.name, self.nat)
        header, proven = _header(usual, how), False
        body = known(attempt.victim, without_marker(honest) if honest else b"", body)
        if how & MENDED and kind in WRITTEN:
            body = mend(first, body)
        if kind in (Kind.SEALED, Kind.SEALED_INFORMATIONAL) and attempt.victim.engine.counters()["channels"]:
            data, proven = seal(attempt.victim, header, first, body)
        elif kind is Kind.HONEST and honest:
            attempt.inject(honest)
            return False
        elif kind is Kind.CHANGED and honest:
            data = _changed(without_marker(honest), first << 8 | body[0] if body else 0, body[1:])
        else:
            data = bytes([first]) + body if kind is Kind.RAW else replace(header, next_payload=first).pack(body)
        if how & ELSEWHERE:
            shape = replace(shape, peer=NOT_THE_PEER)
        events = attempt.inject(replace(shape, data=_marker(shape) + data))
        forged = attempt.step.number >= PROVEN and not proven
        # What is changed may be what nothing covers; fragments may be those of the honest datagram.
        if forged and kind is not Kind.CHANGED and first != PayloadType.FRAGMENT:
            hold(not any(map(needs_proof, events)), f"nothing vouches for what has caused {events}")
        return forged or (bool(events) and all(isinstance(event, DatagramRefused) for event in events))


def messages(data: bytes) -> list[bytes]:
    """The messages of an input, each with how it is sent and the type of its first payload before its payloads."""
    found: list[bytes] = []
    while len(data) >= 4 and len(found) < MOST_MESSAGES:
        length = max(2, int.from_bytes(data[:2], "big"))
        found.append(data[2:2 + length])
        data = data[2 + length:]
    return found


def needs_proof(event: object) -> bool:
    """Whether only what the peer has proved may cause it."""
    taken = isinstance(event, MessageSeen) and event.way is Way.RECEIVED and event.encrypted
    return taken or isinstance(event, OF_PEERS)


def check(events: Sequence[object]) -> None:
    """Events are of those that are declared, and can be told; we talk to whom we have called."""
    for event in events:
        hold(isinstance(event, KNOWN_EVENTS), f"no event: {event!r}")
        if isinstance(event, ChannelUp) and event.initiator:
            hold(event.identity == AddressIdentity(event.peer), f"the peer says it is {event.identity}")
        for name in ("reason", "detail", "name", "flow", "identity"):
            if (value := getattr(event, name, None)) is not None:
                fit_for_a_log(str(value))


def _header(usual: Header, how: int) -> Header:
    message_id = MESSAGE_IDS[how >> 3 & 3]
    if Kind(how & 7) in (Kind.SEALED_INFORMATIONAL, Kind.CLEAR_INFORMATIONAL):
        usual = replace(usual, exchange=ExchangeType.INFORMATIONAL, message_id=OTHER_ID)
    usual = replace(usual, flags=how >> 5 & Flag.COMMIT)
    return usual if message_id is None else replace(usual, message_id=message_id)


def _changed(data: bytes, at: int, octets: bytes) -> bytes:
    at %= len(data)
    return data[:at] + octets + data[at + len(octets):]


def _marker(datagram: Datagram) -> bytes:
    return NON_ESP_MARKER if NAT_TRAVERSAL_PORT in (datagram.local.port, datagram.peer.port) else b""


def without_marker(datagram: Datagram) -> bytes:
    return datagram.data[len(_marker(datagram)):]
