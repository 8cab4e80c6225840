"""What an engine counts, for status and metrics."""

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """All since the engine began."""

    first_messages: int = 0
    "Main mode 1 from strangers, answered without state."
    refused: int = 0
    "Datagrams that were dropped."
