"""Datagrams from addresses that nothing is known of, at a gateway that stands idle or has a tunnel with somebody else.

An input is the step (one octet) and up to four messages, framed as those of the ladders: how it is sent, the type of
its first payload, and its payloads, or what the whole datagram is.
"""

from ipaddress import ip_address

from fuzz.finding import hold
from fuzz.forging import mend
from fuzz.ladders import ALL, COUNTED, NOT_BEGUN, PATIENCE, Attempt, messages, step
from oesvc.ike.datagram import Datagram, Endpoint
from oesvc.ike.events import DatagramRefused
from oesvc.ike.v1.constants import NAT_TRAVERSAL_PORT, NO_COOKIE, NON_ESP_MARKER, PORT, ExchangeType
from oesvc.ike.v1.invitations import UNPROVEN_LIFE
from oesvc.ike.v1.wire.header import Header
from tests.ike.pair import SG_B

STEPS = (NOT_BEGUN, ALL)
MOST_AMPLIFICATION = 3
"Octets that a spoofed datagram makes us send to its alleged sender, to those that its real one has sent."
ALLEGED = (ip_address("203.0.113.9"), ip_address("2001:db8::9"))
OURS = (SG_B, ip_address("2001:db8::1"))
PACE = 0.05
"Seconds between two of them."
EXCHANGES = (ExchangeType.MAIN_MODE, ExchangeType.AGGRESSIVE_MODE, ExchangeType.INFORMATIONAL, ExchangeType.QUICK_MODE)
COOKIE = b"\1" * 8


class Strangers:
    """A target: no calculation, no channel comes of it, and no more octets than the bound."""

    def __init__(self) -> None:
        self._serving: dict[int, Attempt] = {}

    def __call__(self, data: bytes) -> None:
        if not data:
            return
        number = STEPS[data[0] % len(STEPS)]
        attempt = self._serving.pop(number, None) or Attempt(step(number), "b")
        attempt.served.append(data)
        for message in messages(data[1:]):
            self._deliver(attempt, message[0], message[1:])
        if len(attempt.served) >= PATIENCE:
            attempt.ends_well()
        else:
            self._serving[number] = attempt

    def finish(self) -> None:
        """Let all honest handshakes end."""
        while self._serving:
            self._serving.popitem()[1].ends_well()

    def _deliver(self, attempt: Attempt, how: int, body: bytes) -> None:
        """The bits of `how`: NAT traversal's port, mended, IPv6, a whole datagram, a cookie, the exchange, flag."""
        port = NAT_TRAVERSAL_PORT if how & 1 else PORT
        if not how & 8:
            first, chain = body[0], body[1:]
            header = Header(COOKIE, COOKIE if how & 16 else NO_COOKIE, first, EXCHANGES[how >> 5 & 3], how >> 7, 0)
            body = header.pack(mend(first, chain) if how & 2 else chain)
            body = NON_ESP_MARKER * (how & 1) + body
        family = how >> 2 & 1
        ours, alleged = Endpoint(OURS[family], port), Endpoint(ALLEGED[family], port)
        self._judge(attempt, Datagram(body, ours, alleged))

    def _judge(self, attempt: Attempt, datagram: Datagram) -> None:
        engine = attempt.victim.engine
        before, deadline = engine.counters(), engine.next_deadline()
        attempt.pair.now += PACE
        engine.receive_datagram(datagram, attempt.pair.now)
        events, answers, after = engine.events(), engine.datagrams_to_send(), engine.counters()
        hold(all(isinstance(event, DatagramRefused) for event in events), f"a stranger has caused {events}")
        # A message 1 is remembered for a time, one deadline for all of them.
        allowed = deadline, attempt.pair.now + UNPROVEN_LIFE
        hold([before[name] for name in COUNTED] == [after[name] for name in COUNTED] and
             engine.next_deadline() in allowed, f"a stranger has changed something: {before}, {after}")
        hold(len(answers) <= 1, f"{len(answers)} answers to a stranger")
        for answer in answers:
            hold((answer.local, answer.peer) == (datagram.local, datagram.peer), "an answer to somebody else")
            hold(len(answer.data) <= MOST_AMPLIFICATION * len(datagram.data),
                 f"{len(datagram.data)} octets are answered by {len(answer.data)}")
