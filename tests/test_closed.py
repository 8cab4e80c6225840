"""Before any daemon runs, what must never go in clear is blocked already: tried in a network namespace of its own."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHOW = "ip xfrm policy list; nft list ruleset"
CLOSE = [sys.executable, "-m", "oesvc.closed"]


@pytest.fixture
def configuration(tmp_path):
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies/private").write_text("203.0.113.0/24\n2001:db8:9::/48\n")
    file = tmp_path / "oegw.conf"
    file.write_text("[gateway]\naddress = 192.0.2.1\nclients = 198.51.100.0/24\n[paths]\n"
                    f"policies = {tmp_path}/policies\ncontrol-socket = {tmp_path}/control\nstate = {tmp_path}\n")
    return file


def closed(file, then=f"; {SHOW}"):
    """In a network of its own; what it says, and what stands there then."""
    return subprocess.run(["unshare", "-n", "sh", "-ec", f'"$@" {then}', "sh", *CLOSE, file], cwd=ROOT, text=True,
                          capture_output=True, check=False, env={**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})


@pytest.mark.conformance("C-3.2-10")
def test_clients_and_this_host_reach_nothing_of_the_paranoid_class_before_the_daemon_has_started(configuration):
    done = closed(configuration)
    assert done.returncode == 0, done.stderr
    for source in ("198.51.100.0/24", "192.0.2.1/32"):
        assert f"src {source} dst 203.0.113.0/24 \n\tdir out action block" in done.stdout
    for rule in (f'{to} counter name "deny_no_source" drop' for to in (
            "ip daddr 203.0.113.0/24", "ip6 daddr 2001:db8:9::/48")):
        assert rule in done.stdout
    assert "tmpl" not in done.stdout and "queue" not in done.stdout


def test_where_nothing_is_to_be_blocked_nothing_is_done(configuration):
    (configuration.parent / "policies/private").write_text("")
    done = closed(configuration)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_a_running_daemon_is_left_alone(configuration):
    with socket.socket(socket.AF_UNIX) as control:
        control.bind(str(configuration.parent / "control"))
        control.listen()
        done = closed(configuration)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_what_is_wrong_is_one_line(configuration):
    configuration.write_text("[gateway]\nclients = nonsense\n")
    done = closed(configuration)
    assert done.returncode == 1
    assert done.stderr.startswith("oegw: what must never go in clear is not blocked: ") and done.stderr.count("\n") == 1
