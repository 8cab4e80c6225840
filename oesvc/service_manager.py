"""What systemd is told of the daemon: sd_notify(3), one small datagram for each piece of news."""

import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

LONGEST_STATUS = 500
"Characters."


class ServiceManager:
    """Tells readiness, the state in one line, and twice in each watchdog period that the reactor turns.

    Says nothing where NOTIFY_SOCKET is not set: another service manager, or a terminal.
    """

    _log = Logger()

    def __init__(self, environment: Mapping[str, str], reactor: Any, status: Callable[[], str]) -> None:
        """`status` says in one line what the daemon holds; it is asked while the service runs."""
        self._socket_name = environment.get("NOTIFY_SOCKET", "")
        self._status = status
        self._pulse = LoopingCall(self._beat)
        self._pulse.clock = reactor
        self._failed = False
        watched = environment.get("WATCHDOG_PID") in (None, str(os.getpid()))
        self._period = int(environment.get("WATCHDOG_USEC", "0")) / 1e6 if watched else 0.0

    def ready(self) -> None:
        """The service is up: policy is in force, the control socket answers."""
        self._tell("READY=1", f"STATUS={self._line()}")
        if self._period and not self._pulse.running:
            self._pulse.start(self._period / 2).addErrback(
                lambda failure: self._log.failure("the watchdog's pulse", failure=failure))

    def reloading(self) -> None:
        """The configuration is read anew; `ready` ends that."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=reading the policy anew")

    def failed(self, why: str) -> None:
        """It will not come up: `systemctl status` says why, and goes on to."""
        self._failed = True
        self._tell(f"STATUS={_one_line(why)}")

    def stopping(self) -> None:
        if self._pulse.running:
            self._pulse.stop()
        self._tell("STOPPING=1", *([] if self._failed else ["STATUS=taking leave of the peers"]))

    def _beat(self) -> None:
        self._tell("WATCHDOG=1", f"STATUS={self._line()}")

    def _line(self) -> str:
        return _one_line(self._status())

    def _tell(self, *news: str) -> None:
        if not self._socket_name:
            return
        address = "\0" + self._socket_name[1:] if self._socket_name.startswith("@") else self._socket_name
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as to_manager:
                to_manager.sendto("\n".join(news).encode(), address)
        except OSError as error:
            # A manager that hears nothing ends us in time; that is not ours to do.
            self._log.warn("the service manager does not hear {news}: {error}", news=news[0], error=error)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:LONGEST_STATUS]
