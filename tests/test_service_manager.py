"""What systemd is told: heard on a socket of its kind, by a clock that the test turns."""

import os
import socket
import time

import pytest
from twisted.internet.task import Clock

from oesvc.service_manager import LONGEST_STATUS, ServiceManager


@pytest.fixture(params=["in the file system", "abstract"])
def hear(tmp_path, request):
    """NOTIFY_SOCKET for a socket of the test, and a function that reads what has come."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        name = str(tmp_path / "notify") if request.param == "in the file system" else f"@oegw-test-{os.getpid()}"
        manager.bind(name.replace("@", "\0"))
        manager.setblocking(False)

        def heard():
            news = []
            while True:
                try:
                    news.append(manager.recv(4096).decode().split("\n"))
                except BlockingIOError:
                    return news
        heard.name = name
        yield heard


def test_nothing_is_said_where_nobody_listens():
    manager = ServiceManager({}, Clock(), lambda: 1 / 0)
    manager.failed("no reason")
    manager.stopping()


def test_ready_is_told_with_the_state(hear):
    ServiceManager({"NOTIFY_SOCKET": hear.name}, Clock(), lambda: "3 flows").ready()
    assert hear() == [["READY=1", "STATUS=3 flows"]]


def test_the_watchdog_is_told_twice_in_its_period_until_the_service_stops(hear):
    clock, flows = Clock(), iter(range(100))
    environment = {"NOTIFY_SOCKET": hear.name, "WATCHDOG_USEC": "20000000", "WATCHDOG_PID": str(os.getpid())}
    manager = ServiceManager(environment, clock, lambda: f"{next(flows)} flows")
    clock.advance(60)
    assert hear() == []
    manager.ready()
    clock.pump([10] * 2)
    assert hear() == [["READY=1", "STATUS=0 flows"], *(["WATCHDOG=1", f"STATUS={n} flows"] for n in (1, 2, 3))]
    manager.stopping()
    clock.advance(60)
    assert hear() == [["STOPPING=1", "STATUS=taking leave of the peers"]]


def test_a_reload_is_told_with_the_time_of_its_beginning(hear):
    manager = ServiceManager({"NOTIFY_SOCKET": hear.name}, Clock(), lambda: "3 flows")
    before = time.monotonic_ns() // 1000
    manager.reloading()
    manager.ready()
    (reloading, began, _), (ready, _) = hear()
    assert (reloading, ready) == ("RELOADING=1", "READY=1")
    assert before <= int(began.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000


def test_the_watchdog_of_another_process_is_not_ours(hear):
    clock = Clock()
    manager = ServiceManager({"NOTIFY_SOCKET": hear.name, "WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "1"}, clock, str)
    manager.ready()
    assert (len(hear()), clock.getDelayedCalls()) == (1, [])


def test_the_reason_of_a_failure_stays_one_line_of_bounded_length(hear):
    manager = ServiceManager({"NOTIFY_SOCKET": hear.name}, Clock(), str)
    manager.failed("UDP 192.0.2.1:500:\nin use" + "x" * 9999)
    manager.stopping()
    (status,), stopping = hear()
    assert stopping == ["STOPPING=1"]
    assert status.startswith("STATUS=UDP 192.0.2.1:500: in usexxx") and len(status) == len("STATUS=") + LONGEST_STATUS


def test_a_manager_that_has_gone_disturbs_nothing(tmp_path):
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone")}, Clock(), lambda: "3 flows").ready()
