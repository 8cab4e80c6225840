"""All connections of a gateway: instances by flow, classes by prefix, and who is due next."""

import heapq
from collections.abc import Iterator
from itertools import islice

from oesvc.ipsec.flow import Flow
from oesvc.oe.aging import Lifespans
from oesvc.oe.classes import ClassTable
from oesvc.oe.connection import Connection
from oesvc.oe.machine import State

MAX_FLOWS = 200_000
"""The set of flows that the kernel lets pass holds somewhat more."""
LOOKED_AT = 64
"Connections, for one that can go; of the rest it is the next ones' turn the next time."


class Connections:
    """The connection table. Deadlines lie in a heap; an entry whose time is no longer its connection's is stale."""

    def __init__(self, classes: ClassTable, lifespans: Lifespans, max_flows: int = MAX_FLOWS) -> None:
        self.classes = classes
        self.lifespans = lifespans
        self._max_flows = max_flows
        self._displaced = 0
        self._by_flow: dict[Flow, Connection] = {}
        self._heap: list[tuple[float, int, Flow]] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._by_flow)

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._by_flow.values())

    def get(self, flow: Flow) -> Connection | None:
        return self._by_flow.get(flow)

    def instantiate(self, flow: Flow) -> Connection:
        """The flow's connection; a new one of the class of its destination where there is none (3.2.1, 3.3.2)."""
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
        for flow, connection in list(islice(self._by_flow.items(), LOOKED_AT)):
            if connection.state in (State.CLEAR_TEXT, State.DENY):
                self._displaced += 1
                return connection
            self._by_flow[flow] = self._by_flow.pop(flow)
        return None

    def bounds(self) -> dict[str, tuple[int, int, int]]:
        """By option: how much of it is used, the limit, and how often it did not suffice."""
        return {"max-flows": (len(self), self._max_flows, self._displaced)}

    def forget(self, connection: Connection) -> None:
        """Delete an instance, unless another has taken its place."""
        if self._by_flow.get(connection.flow) is connection:
            del self._by_flow[connection.flow]

    def schedule(self, connection: Connection) -> None:
        """Take note of a connection's deadline after it has changed.

        While it has none, as during a rekey, what lies in the heap may be dropped: the same deadline is noted anew.
        """
        if connection.deadline == connection.scheduled:
            return
        connection.scheduled = connection.deadline
        if connection.deadline is not None:
            self._count += 1
            heapq.heappush(self._heap, (connection.deadline, self._count, connection.flow))

    def next_deadline(self) -> float | None:
        self._drop_stale()
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> list[Connection]:
        """The connections whose lifespan has ended; each is told once."""
        found = []
        self._drop_stale()
        while self._heap and self._heap[0][0] <= now:
            connection = self._by_flow[heapq.heappop(self._heap)[2]]
            connection.scheduled = None
            found.append(connection)
            self._drop_stale()
        return found

    def _drop_stale(self) -> None:
        while self._heap:
            deadline, _, flow = self._heap[0]
            connection = self._by_flow.get(flow)
            if connection is not None and connection.deadline == connection.scheduled == deadline:
                return
            heapq.heappop(self._heap)
