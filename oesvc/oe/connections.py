"""All connections of a gateway: instances by flow, classes by prefix, and who is due next."""

import heapq
from collections import deque
from collections.abc import Iterable, Iterator

from oesvc.ipsec.flow import Flow
from oesvc.ipsec.subnets import Subnets
from oesvc.oe.aging import Lifespans
from oesvc.oe.classes import ClassTable
from oesvc.oe.configured import ConfiguredTunnel
from oesvc.oe.connection import Connection
from oesvc.oe.machine import State

Instance = Connection | ConfiguredTunnel

MAX_FLOWS = 200_000
"""The set of flows that the kernel lets pass holds somewhat more."""
LOOKED_AT = 64
"Connections, for one that can go; of the rest it is the next ones' turn the next time."
DUE_AT_ONCE = 16
"The kernel is asked about each; more answers would come than the reactor reads in one turn."


class Connections:
    """The connection table. Deadlines lie in a heap; an entry that is not its connection's `scheduled` is stale."""

    def __init__(self, classes: ClassTable, lifespans: Lifespans, max_flows: int = MAX_FLOWS,
                 configured: Iterable[ConfiguredTunnel] = ()) -> None:
        """`configured` are there for good, beside the opportunistic ones and apart from them."""
        self.classes = classes
        self.lifespans = lifespans
        self._max_flows = max_flows
        self._displaced = 0
        self._by_flow: dict[Flow, Connection] = {}
        self._round: deque[Connection] = deque()
        "Those that have not yet been looked at for one that can go."
        self._heap: list[tuple[float, Instance]] = []
        self.configured = {tunnel.flow: tunnel for tunnel in configured}
        for tunnel in self.configured.values():
            self.schedule(tunnel)

    def __len__(self) -> int:
        return len(self._by_flow)

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._by_flow.values())

    def get(self, flow: Flow) -> Instance | None:
        """The connection of a flow, or the configured tunnel of two networks."""
        return self.configured.get(flow) if isinstance(flow, Subnets) else self._by_flow.get(flow)

    def configured_for(self, flow: Flow) -> ConfiguredTunnel | None:
        """The configured tunnel that a flow belongs to: of several, that to the smallest network."""
        holding = [tunnel for tunnel in self.configured.values() if tunnel.flow.holds(flow)]
        return max(holding, key=lambda tunnel: tunnel.flow.destination_length, default=None)

    def instantiate(self, flow: Flow) -> Instance:
        """The flow's connection; a new one of the class of its destination where there is none (3.2.1, 3.3.2)."""
        if isinstance(flow, Subnets):
            return self.configured[flow]
        connection = self._by_flow.get(flow)
        if connection is None or connection.state is State.EXPIRED:
            line = self.classes.find(flow.destination)
            connection = Connection(flow, line, line.options.lifespans or self.lifespans)
            self._by_flow[flow] = connection
        return connection

    def displaced(self) -> Connection | None:
        """Where there are too many: an old one without a tunnel, which its next datagram may bring back."""
        if len(self) <= self._max_flows:
            return None
        for _ in range(LOOKED_AT):
            if not self._round:
                self._round.extend(self)
            connection = self._round.popleft()
            if connection.state in (State.CLEAR_TEXT, State.DENY) and self.get(connection.flow) is connection:
                self._displaced += 1
                return connection
        return None

    def bounds(self) -> dict[str, tuple[int, int, int]]:
        """By option: how much of it is used, the limit, and how often it did not suffice."""
        return {"max-flows": (len(self), self._max_flows, self._displaced)}

    def forget(self, connection: Connection) -> None:
        """Delete an instance, unless another has taken its place."""
        if self._by_flow.get(connection.flow) is connection:
            del self._by_flow[connection.flow]

    def schedule(self, connection: Instance) -> None:
        """Take note of a connection's deadline after it has changed. One that was put off stays where it lies."""
        deadline, scheduled = connection.deadline, connection.scheduled
        if deadline is None or (scheduled is not None and scheduled <= deadline):
            return
        connection.scheduled = deadline
        heapq.heappush(self._heap, (deadline, connection))
        if len(self._heap) > 1.25 * len(self) + 64:
            self._heap = [entry for entry in self._heap if self._is_scheduled(*entry)]
            heapq.heapify(self._heap)

    def _is_scheduled(self, at: float, connection: Instance) -> bool:
        return connection.scheduled == at and self.get(connection.flow) is connection

    def next_deadline(self) -> float | None:
        while self._heap:
            at, connection = self._heap[0]
            if connection.deadline == at and self._is_scheduled(at, connection):
                return at
            heapq.heappop(self._heap)
            if connection.scheduled == at:
                connection.scheduled = None
                if self.get(connection.flow) is connection:
                    self.schedule(connection)
        return None

    def due(self, now: float) -> list[Instance]:
        """Connections whose lifespan has ended, some at a time; each is told once."""
        found: list[Instance] = []
        while len(found) < DUE_AT_ONCE and (at := self.next_deadline()) is not None and at <= now:
            found.append(heapq.heappop(self._heap)[1])
            found[-1].scheduled = None
        return found
