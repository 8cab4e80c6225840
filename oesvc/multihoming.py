"""Hosts behind several gateways: which of their tunnels is sent by (RFC 4322 section 8, options 1 and 2).

Option 5 needs nothing of this: the tunnel that came to stand last is sent by, and `oe/paths.py` sees to it.
"""

from collections.abc import Callable, Mapping

from oesvc.alarm import Alarm
from oesvc.interfaces import Clock, ForwardingPlane
from oesvc.ipsec.flow import Flow
from oesvc.notes import log_failure
from oesvc.oe import events as ev
from oesvc.oe.connection import Connection
from oesvc.oe.machine import State
from oesvc.oe.paths import Choice
from oesvc.tunnels import Tunnels

TURN = 10.0
"Seconds that a gateway has before it is the next one's turn: the kernel has no round robin by datagrams."
LOOK = 2.0
"Seconds between two looks at which gateways datagrams came from."


class Multihoming:
    """Watches the connections that have several tunnels, and chooses among them."""

    def __init__(self, choice: Choice, plane: ForwardingPlane, tunnels: Tunnels, clock: Clock,
                 tell: Callable[[Connection, ev.Event], None]) -> None:
        """`tell` hands an event to a connection."""
        self._plane, self._tunnels, self._clock, self._tell = plane, tunnels, clock, tell
        self._every, self._choose = {Choice.LAST_KEYED: (0.0, None), Choice.ROUND_ROBIN: (TURN, self._take_turns),
                                     Choice.LAST_RECEIVED: (LOOK, self._ask)}[choice]
        self._watched: dict[Flow, Connection] = {}
        self._received: dict[int, int] = {}
        "Datagrams, by tunnel, when it was last looked at."
        self._alarm = Alarm(clock, self._look)

    def watch(self, connection: Connection) -> None:
        """A connection has changed."""
        if self._choose and len(connection.paths) > 1 and connection.flow not in self._watched:
            self._watched[connection.flow] = connection
            self._set_alarm()

    def stop(self) -> None:
        self._alarm.stop()

    def _set_alarm(self) -> None:
        if self._watched and not self._alarm.is_set:
            self._alarm.set(self._clock.seconds() + self._every)

    def _look(self) -> None:
        for flow, connection in list(self._watched.items()):
            if len(connection.paths) < 2 or connection.state is State.EXPIRED:
                del self._watched[flow]
            elif self._choose and connection.state is State.KEYED:
                self._choose(connection)
        standing = {path.tunnel for connection in self._watched.values() for path in connection.paths}
        self._received = {tunnel: number for tunnel, number in self._received.items() if tunnel in standing}
        self._set_alarm()

    def _take_turns(self, connection: Connection) -> None:
        """Option 1: the tunnels in the order of their numbers."""
        numbers = sorted(path.tunnel for path in connection.paths)
        following = numbers[(numbers.index(connection.paths[0].tunnel) + 1) % len(numbers)]
        self._tell(connection, ev.PathChosen("it takes turns", following))

    def _ask(self, connection: Connection) -> None:
        """Option 2: how much has come by each tunnel."""
        tunnels = [tunnel for path in connection.paths if (tunnel := self._tunnels.get(path.tunnel))]
        numbers = {(sa.spi, sa.destination): tunnel.id for tunnel in tunnels for sa in tunnel.inbound}
        counted = self._plane.traffic([sa for tunnel in tunnels for sa in tunnel.inbound])
        counted.addCallback(lambda traffic: self._compare(
            connection, {numbers[sa]: datagrams for sa, (_, datagrams) in traffic.items()}))
        log_failure(counted, connection.flow, "datagrams received by each gateway")

    def _compare(self, connection: Connection, counts: Mapping[int, int]) -> None:
        """The one that is sent by stays as long as datagrams come by it."""
        grown = {tunnel: count - self._received.get(tunnel, 0) for tunnel, count in counts.items()}
        self._received |= counts
        most = max(grown, key=lambda tunnel: grown[tunnel], default=None)
        if most is not None and grown[most] and not grown.get(connection.tunnel or 0):
            self._tell(connection, ev.PathChosen("datagrams come from there", most))
