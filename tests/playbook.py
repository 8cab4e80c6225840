"""Tests written as a conversation: `>>` is what happens, `<<` is what is then asked for."""

from oesvc.oe.actions import Action
from oesvc.oe.connection import Connection
from oesvc.oe.events import Event


class Playbook:
    """A connection and a clock that stands still until `at` moves it."""

    def __init__(self, connection: Connection, now: float = 0.0) -> None:
        self.connection = connection
        self.now = now
        self.pending: list[Action] = []

    def at(self, now: float) -> "Playbook":
        self.now = now
        return self

    def __rshift__(self, event: Event) -> "Playbook":
        assert self.pending == [], f"nobody expected {self.pending}"
        self.pending = list(self.connection.handle(event, self.now))
        return self

    def __lshift__(self, action: Action) -> "Playbook":
        assert self.pending, f"expected {action}, got nothing"
        assert self.pending[0] == action, f"expected {action}, got {self.pending}"
        self.pending.pop(0)
        return self

    def __bool__(self) -> bool:
        assert self.pending == [], f"nobody expected {self.pending}"
        return True
