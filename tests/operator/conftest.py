"""A daemon among fakes, and its control protocol at a real UNIX socket."""

import json
import socket
import threading
from contextlib import suppress

import pytest

from tests.oe.parts import PARANOID
from tests.oe.test_connections import table
from tests.operator.test_control import talk
from tests.test_daemon import World


@pytest.fixture
def world():
    return World(table(("192.2.0.0/24", PARANOID)))


@pytest.fixture
def served(world, tmp_path):
    """A UNIX socket on which questions are answered by the daemon's protocol, one client after the other."""
    path = tmp_path / "control"
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()

    def serve():
        with suppress(OSError):
            while True:
                client, _ = listening.accept()
                with client, client.makefile("rwb") as stream:
                    if line := stream.readline().rstrip():
                        stream.write(json.dumps(talk(world, line)).encode() + b"\n")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield path
    # Else the thread might accept from a socket that has the same number later.
    listening.shutdown(socket.SHUT_RDWR)
    thread.join()
    listening.close()
