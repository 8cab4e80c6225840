"""The prompt inside the daemon, asked by OpenSSH's own client."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from twisted.internet.testing import MemoryReactorClock

from oesvc.config import load
from oesvc.gateway import GatewayService
from oesvc.keys import key_pair
from oesvc.operator.manhole import HOST_KEY, Prompt
from tests.oe.parts import ALICE, BOB
from tests.pair import Pair

ROOT = Path(__file__).parents[2]
ESCAPES = re.compile(rb"\x1b(?:\[[0-9;?]*[A-Za-z]|c)|[\x00-\x09\x0b-\x1f]")
CLIENT = [word for option in ("IdentitiesOnly=yes", "BatchMode=yes", "IdentityAgent=none", "StrictHostKeyChecking=no")
          for word in ("-o", option)]
THROUGH_SOCKET = """
import socket, sys, threading, os
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
def out():
    while data := s.recv(65536): os.write(1, data)
threading.Thread(target=out, daemon=True).start()
while data := os.read(0, 65536): s.sendall(data)
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with two key pairs of ssh-keygen's, the first authorized, and a socket's name short enough."""
    folder = tmp_path_factory.mktemp("m")
    for name in ("ours", "theirs"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    (folder / "authorized").write_text("# the night shift\n" + (folder / "ours.pub").read_text())
    return folder


@pytest.fixture(scope="module")
def server(files):
    """A manhole in a process of its own; the port of 127.0.0.1."""
    with subprocess.Popen([sys.executable, "-W", "ignore", "-m", "tests.operator.manhole_server", files / "authorized",
                           files, files / "socket"], stdout=subprocess.PIPE, cwd=ROOT) as process:
        try:
            yield process.stdout.readline().decode().strip()
        finally:
            process.terminate()


@pytest.fixture
def ssh(files, server):
    def ssh(typed, key="ours", options=(), host="127.0.0.1"):
        """What one session shows, without colours, for lines that are typed; and the client's status."""
        command = ["ssh", "-tt", "-F", "none", "-p", server, "-i", files / key, *CLIENT,
                   "-o", f"UserKnownHostsFile={files}/known", *options, host]
        typed = "".join(f"{line}\n" for line in (*typed, "\x04"))
        done = subprocess.run(command, input=typed.encode(), capture_output=True, timeout=60, check=False)
        return ESCAPES.sub(b"", done.stdout).decode(), done.returncode, done.stderr.decode()
    return ssh


def test_a_listed_key_gets_a_prompt_that_knows_flows_and_sas(ssh):
    shown, _, said = ssh(["len(daemon.tunnels), len(flows('keyed')), len(sas())",
                          f"flow('{ALICE}', '{BOB}').state.value", f"why('{ALICE}', '{BOB}')"])
    assert "(1, 1, 2)" in shown, said
    assert "keyed" in shown and f"{ALICE} -> {BOB} is encrypted" in shown


def test_help_tells_every_name_and_what_the_source_says(ssh):
    shown, _, said = ssh(["help()", "help(type(daemon))"])
    for name in Prompt(Pair().a.daemon, lambda: 0.0).names():
        assert f"\n{name}\n    " in shown, said
    assert "The one place where the OE machine meets DNS, IKE and the forwarding plane." in shown


@pytest.mark.parametrize("options, key", [((), "theirs"), (("-o", "PubkeyAuthentication=no"), "ours"),
                                          (("-o", "PreferredAuthentications=password"), "ours")])
def test_another_key_or_a_password_gets_nothing(ssh, options, key):
    shown, status, said = ssh(["daemon"], key, options)
    assert (shown, status) == ("", 255) and "Permission denied (publickey)" in said


def test_a_list_that_others_may_write_counts_for_nothing(ssh, files):
    (files / "authorized").chmod(0o664)
    try:
        assert ssh(["daemon"])[1] == 255
    finally:
        (files / "authorized").chmod(0o644)
    assert "KeyingDaemon" in ssh(["daemon"])[0]


def test_no_port_is_forwarded_and_no_command_carried_out(ssh, server):
    assert "forwarding failed" in ssh([], options=("-R", "0:127.0.0.1:9"))[2]
    assert "exec request failed" in ssh([], host="127.0.0.1", options=("-T", "-o", "RemoteCommand=daemon"))[2]


def test_a_unix_socket_serves_as_well(ssh, files, tmp_path):
    (tmp_path / "through").write_text(THROUGH_SOCKET)
    proxy = f"ProxyCommand={sys.executable} {tmp_path}/through {files}/socket"
    assert "KeyingDaemon" in ssh(["daemon"], options=("-o", proxy), host="manhole")[0]


def test_the_secret_keys_of_sas_are_not_shown(ssh):
    shown, _, _ = ssh(["sas()"])
    assert "spi=" in shown and "key=" not in shown and "b'" not in shown


def test_the_host_key_is_its_owners_alone(server, files):
    assert (files / HOST_KEY).stat().st_mode & 0o777 == 0o600


@pytest.fixture
def gateway(tmp_path):
    """A gateway that is not started, with lines in [gateway]."""
    def gateway(lines):
        (tmp_path / "policies").mkdir()
        key_pair.generate(tmp_path / "key.pem")
        file = tmp_path / "oegw.conf"
        file.write_text(f"[gateway]\naddress = 192.0.2.1\n{lines}\n[ike]\nprivate-key = {tmp_path}/key.pem\n"
                        f"[dns]\nservers = 127.0.0.1\n[paths]\npolicies = {tmp_path}/policies\nstate = {tmp_path}\n")
        return GatewayService(load(file), MemoryReactorClock())
    return gateway


def test_there_is_no_manhole_unless_the_configuration_says_so(gateway):
    service = gateway("")
    service._listen_for_manhole()
    assert service._reactor.tcpServers == service._reactor.unixServers == []


def test_a_manhole_is_opened_where_the_configuration_says(gateway, tmp_path):
    service = gateway(f"manhole = {tmp_path}/manhole\nmanhole-keys = {tmp_path}/keys")
    service._listen_for_manhole()
    (path, factory, *_), = service._reactor.unixServers
    assert path == f"{tmp_path}/manhole" and type(factory).__name__ == "ManholeFactory"
