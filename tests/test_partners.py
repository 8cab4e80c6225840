"""The list of connected gateways: in memory, on disk, and when the disk is no good (RFC 4322 section 9.3)."""

import os
import signal
import sqlite3
import subprocess
import sys
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher

from oesvc.ipsec.flow import Flow
from oesvc.ipsec.subnets import Subnets
from oesvc.partners import FILE_NAME, Partner, PartnerFile, Partners
from tests.oe.parts import ALICE, FLOW, SG_A, SG_B

SIX = ip_address("2001:db8:1:1::5")
FLOW6 = Flow(ip_address("2001:db8:1::65"), ip_address("2001:db8:2::66"))
OTHER = Flow(ALICE, SG_B)


@pytest.fixture
def path(tmp_path):
    return tmp_path / FILE_NAME


@pytest.fixture
def logged():
    lines = []
    globalLogPublisher.addObserver(lines.append)
    yield lines
    globalLogPublisher.removeObserver(lines.append)


def errors(lines):
    return [line for line in lines if line["log_level"].name == "error"]


def left(path):
    """What a next run finds; this one has not been ended in order."""
    return PartnerFile(path).open()


def begun(path):
    partners = Partners(PartnerFile(path))
    found = []
    partners.restore().addCallback(found.extend)
    return partners, found


@pytest.mark.conformance("C-9.3-07")
def test_who_is_connected_is_on_disk_at_once_and_who_is_no_longer_is_not(path):
    partners, found = begun(path)
    partners.connected(1, SG_B, FLOW)
    partners.connected(2, SIX, FLOW6)
    partners.connected(3, SG_A, FLOW.reversed())
    partners.parted(3)
    assert found == []
    assert left(path) == [Partner(SIX, FLOW6), Partner(SG_B, FLOW)]


def test_of_several_tunnels_with_a_gateway_the_newest_that_stands_is_listed(path):
    partners, _ = begun(path)
    for tunnel, flow in enumerate((FLOW, OTHER)):
        partners.connected(tunnel, SG_B, flow)
    assert (left(path), partners.flow_with(SG_B)) == ([Partner(SG_B, OTHER)], OTHER)
    partners.parted(1)
    assert left(path) == [Partner(SG_B, FLOW)]
    partners.parted(0)
    partners.parted(0)
    assert (left(path), partners.flow_with(SG_B)) == ([], None)


def test_a_configured_tunnel_is_known_but_not_listed_for_it_begins_by_itself(path):
    partners, _ = begun(path)
    subnets = Subnets.between(ip_network("192.1.0.0/24"), ip_network("192.2.0.0/24"))
    partners.connected(1, SG_B, subnets)
    assert (left(path), partners.flow_with(SG_B)) == ([], subnets)


def test_after_an_end_in_order_nobody_has_to_be_told(path):
    partners, _ = begun(path)
    partners.connected(1, SG_B, FLOW)
    partners.close()
    partners.parted(1)
    assert left(path) == []


KILLED = """
import os, signal, sys
from ipaddress import ip_address
from pathlib import Path
from oesvc.ipsec.flow import Flow
from oesvc.partners import PartnerFile, Partners
partners = Partners(PartnerFile(Path(sys.argv[1])))
partners.restore()
flow = Flow(ip_address("192.1.0.65"), ip_address("192.2.0.66"))
for number in range(200):
    partners.connected(number, ip_address(0xC0000200 + number), flow)
    if number >= 100:
        partners.parted(number - 100)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.conformance("C-9.3-07")
def test_the_list_is_whole_after_kill_9(path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=Path(__file__).parents[1], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [int(partner.gateway) & 0xFF for partner in left(path)] == list(range(199, 99, -1))


@pytest.mark.parametrize("damage", [
    lambda path: path.write_bytes(os.urandom(8192)),
    lambda path: path.write_bytes(b"SQLite format 3\0" + bytes(4080)),
    lambda path: sqlite3.connect(path).executescript("PRAGMA user_version = 7"),
    lambda path: sqlite3.connect(path).executescript(
        "CREATE TABLE partners (gateway, source, destination, number);"
        "INSERT INTO partners VALUES ('nobody', '1.2.3.4', '5.6.7.8', 1)"),
    lambda path: sqlite3.connect(path).executescript("CREATE TABLE partners (what)"),
])
def test_a_broken_file_is_set_aside_with_one_line_and_a_new_one_begun(path, logged, damage):
    damage(path)
    partners, found = begun(path)
    assert found == []
    assert len(errors(logged)) == 1
    assert path.with_suffix(".broken").exists()
    partners.connected(1, SG_B, FLOW)
    assert left(path) == [Partner(SG_B, FLOW)]


def test_without_a_place_for_the_file_the_start_says_so_and_the_list_is_kept_in_memory(tmp_path, logged):
    partners = Partners(PartnerFile(tmp_path / "nowhere" / FILE_NAME))
    refused = []
    partners.restore().addErrback(refused.append)
    partners.connected(1, SG_B, FLOW)
    assert refused[0].check(OSError, sqlite3.Error)
    assert (errors(logged), partners.flow_with(SG_B)) == ([], FLOW)


class Disk:
    """Takes the place of a PartnerFile; what it is to do is done when the test says."""

    def __init__(self):
        self.waiting, self.written = [], []

    def in_thread(self, function, *args):
        self.waiting.append((Deferred(), function, args))
        return self.waiting[-1][0]

    def write(self, changes):
        self.written.append(dict(changes))

    def does(self, error=None):
        done, function, args = self.waiting.pop(0)
        done.errback(error) if error else done.callback(function(*args))


def test_while_the_disk_is_slow_changes_are_gathered_and_one_write_at_a_time_takes_them():
    disk = Disk()
    partners = Partners(disk, disk.in_thread)
    partners.connected(1, SG_B, FLOW)
    for tunnel in range(2, 1000):
        partners.connected(tunnel, SG_A, OTHER)
    partners.parted(1)
    assert len(disk.waiting) == 1
    disk.does()
    disk.does()
    assert disk.waiting == []
    assert disk.written == [{SG_B: FLOW}, {SG_B: None, SG_A: OTHER}]


def test_what_a_full_disk_did_not_take_is_said_once_and_written_later(logged):
    disk = Disk()
    partners = Partners(disk, disk.in_thread)
    for tunnel, gateway in enumerate((SG_A, SG_B)):
        partners.connected(tunnel, gateway, FLOW)
        disk.does(sqlite3.OperationalError("database or disk is full"))
    partners.connected(3, SIX, FLOW6)
    disk.does()
    assert len(errors(logged)) == 1
    assert disk.written == [{SG_A: FLOW, SG_B: FLOW, SIX: FLOW6}]
