"""All connections of a gateway: instances by flow, classes by prefix, and who is due next."""

import heapq
from collections import deque
from collections.abc import Iterator

from oesvc.ipsec.flow import Flow
from oesvc.oe.aging import Lifespans
from oesvc.oe.classes import ClassTable
from oesvc.oe.connection import Connection
from oesvc.oe.machine import State

MAX_FLOWS = 200_000
"""The set of flows that the kernel lets pass holds somewhat more."""
LOOKED_AT = 64
"Connections, for one that can go; of the rest it is the next ones' turn the next time."
DUE_AT_ONCE = 16
"The kernel is asked about each; more answers would come than the reactor reads in one turn."


class Connections:
    """The connection table. Deadlines lie in a heap; an entry that is not its connection's `scheduled` is stale."""

    def __init__(self, classes: ClassTable, lifespans: Lifespans, max_flows: int = MAX_FLOWS) -> None:
        self.classes = classes
        self.lifespans = lifespans
        self._max_flows = max_flows
        self._displaced = 0
        self._by_flow: dict[Flow, Connection] = {}
        self._round: deque[Connection] = deque()
        "Those that have not yet been looked at for one that can go."
        self._heap: list[tuple[float, Connection]] = []

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

    def schedule(self, connection: Connection) -> None:
        """Take note of a connection's deadline after it has changed. One that was put off stays where it lies."""
        deadline, scheduled = connection.deadline, connection.scheduled
        if deadline is None or (scheduled is not None and scheduled <= deadline):
            return
        connection.scheduled = deadline
        heapq.heappush(self._heap, (deadline, connection))
        if len(self._heap) > 1.25 * len(self) + 64:
            self._heap = [entry for entry in self._heap if self._is_scheduled(*entry)]
            heapq.heapify(self._heap)

    def _is_scheduled(self, at: float, connection: Connection) -> bool:
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

    def due(self, now: float) -> list[Connection]:
        """Connections whose lifespan has ended, some at a time; each is told once."""
        found: list[Connection] = []
        while len(found) < DUE_AT_ONCE and (at := self.next_deadline()) is not None and at <= now:
            found.append(heapq.heappop(self._heap)[1])
            found[-1].scheduled = None
        return found
