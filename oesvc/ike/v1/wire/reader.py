"""Reads octets within bounds."""

import struct
from typing import Any

from oesvc.ike.v1.errors import MalformedError


class Reader:
    """A cursor over octets; `what` names them in errors."""

    __slots__ = ("_data", "_position", "_what")

    def __init__(self, data: bytes, what: str) -> None:
        self._data, self._position, self._what = data, 0, what

    def take(self, count: int) -> bytes:
        begin, end = self._position, self._position + count
        if end > len(self._data):
            raise MalformedError(f"{self._what} ends after {len(self._data)} octets, {end - len(self._data)} too early")
        self._position = end
        return self._data[begin:end]

    def fields(self, layout: struct.Struct) -> tuple[Any, ...]:
        return layout.unpack(self.take(layout.size))

    def rest(self) -> bytes:
        return self.take(self.left)

    @property
    def left(self) -> int:
        return len(self._data) - self._position
