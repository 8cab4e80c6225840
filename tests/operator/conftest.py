"""A daemon among fakes, and its control protocol at a real UNIX socket."""

import json
import socket
import threading

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
    """A UNIX socket on which one question is answered by the daemon's protocol."""
    path = tmp_path / "control"
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()

    def serve():
        client, _ = listening.accept()
        with client, client.makefile("rwb") as stream:
            stream.write(json.dumps(talk(world, stream.readline().rstrip())).encode() + b"\n")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield path
    listening.close()
