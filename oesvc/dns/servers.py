"""The servers in the order in which they are asked: by preference, those that failed when others answered last."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from oesvc.dns.question import Question

FIRST_PENALTY, LONGEST_PENALTY = 10.0, 300.0
"Seconds until a server that failed is tried again; twice as many each time."
DOUBT = 60.0
"Seconds for which a server that hands on no signatures is not asked for any."


class Channel(Protocol):
    """A way to one server."""

    def exchange(self, question: Question, patience: float) -> "Deferred[bytes]":
        """The octets of the answer; fails with ServerFailure."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a server cannot be used."""

    server: str
    what: str
    silent: bool
    "It could not even be heard."

    def __str__(self) -> str:
        return f"{self.server} {self.what}"


class Server:
    """What we know of one server."""

    log = Logger()

    def __init__(self, text: str) -> None:
        self.text = text
        "As it is called in messages."
        self.channel: Channel
        self.proving = DeferredLock()
        self.signs = False
        "Whether it was seen to hand on signatures since it last failed."
        self.doubted_until = 0.0
        self.resume: float | None = None
        "When to try it again; None while it answers."
        self.examined = False
        "Whether that is being done."
        self._penalty = FIRST_PENALTY

    def report(self, what: str) -> None:
        """What an administrator should know; told once by those who find it out."""
        self.log.warn("resolver {server} {what}", server=self.text, what=what)

    def failed(self, problem: str, now: float) -> None:
        """It failed where another answered."""
        if self.resume is not None and self.resume > now:
            return
        if self.resume is None:
            self.log.info("resolver {server} {problem}: others are asked first", server=self.text, problem=problem)
        self.resume, self.signs = now + self._penalty, False
        self._penalty = min(2 * self._penalty, LONGEST_PENALTY)

    def answered(self) -> None:
        if self.resume is not None:
            self.log.info("resolver {server} answers again", server=self.text)
        self.resume, self._penalty = None, FIRST_PENALTY


class Pool:
    """All servers, the preferred one first."""

    def __init__(self, servers: Iterable[Server], clock: Callable[[], float]) -> None:
        self.servers, self._clock = tuple(servers), clock

    def in_order(self) -> list[Server]:
        return sorted(self.servers, key=lambda server: server.resume or 0.0)

    def due(self) -> list[Server]:
        """Those to be tried again now."""
        now = self._clock()
        return [server for server in self.servers
                if server.resume is not None and server.resume <= now and not server.examined]

    def close(self) -> None:
        for server in self.servers:
            server.channel.close()


def describe(address: Any, port: int, usual_port: int, name: str | None) -> str:
    """A server as it would be written in the configuration."""
    return f"{address}{f'@{port}' if port != usual_port else ''}{f'#{name}' if name else ''}"
