"""`twistd oegw` as a person meets it: its help, and what it says of a configuration that cannot be used."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from oesvc.config import ConfigError, load
from oesvc.gateway import _engine_config, _remove_dead_socket
from oesvc.ipsec.sa import Lifetime
from oesvc.keys import key_pair
from oesvc.name_service import name_servers

ROOT = Path(__file__).parent.parent
TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "-n", "--pidfile=", "oegw"]


def twistd(*arguments):
    return subprocess.run([*TWISTD, *arguments], capture_output=True, text=True, timeout=60, cwd=ROOT, check=False)


@pytest.fixture
def configure(tmp_path):
    """Write a configuration with a key in place; returns its path."""
    def configure(text):
        (tmp_path / "policies").mkdir()
        key_pair.generate(tmp_path / "key.pem")
        file = tmp_path / "oegw.conf"
        file.write_text(f"[paths]\npolicies = {tmp_path}/policies\n{text.format(folder=tmp_path)}")
        return file
    return configure


def test_help_tells_the_option_and_what_it_is_for():
    shown = twistd("--help")
    assert shown.returncode == 0
    assert "--config" in shown.stdout and "RFC 4322" in shown.stdout


@pytest.mark.parametrize("text, complaint", [
    ("[ike]\nkeying-time = soon\n", "oegw.conf:4: keying-time: 'soon' is no number"),
    ("[ike]\nprivate-key = {folder}/none.pem\n", "none.pem: there is no such file; make a key with `oegw keys gen`"),
    ("[ike]\nprivate-key = {folder}/key.pem\n[gateway]\naddress = 127.0.0.1\n[dns]\nservers = 127.0.0.1\n"
     "trust-anchors = {folder}/none.key\n", "none.key"),
])
def test_unusable_configuration_is_one_line_and_a_status(configure, text, complaint):
    ended = twistd("--config", str(configure(text)))
    assert ended.returncode == 1
    assert complaint in ended.stderr
    assert "Traceback" not in ended.stderr


def test_engine_is_told_what_the_configuration_says_of_lifetimes(configure):
    read = load(configure("[ike]\nprivate-key = {folder}/key.pem\ntunnel-lifetime = 900\ntunnel-kilobytes = 5000\n"
                          "min-tunnel-lifetime = 60\nmin-tunnel-kilobytes = 100\n"))
    told = _engine_config(read)
    assert (told.phase2_lifetime, told.phase2_floor) == (Lifetime(900, 5000), Lifetime(60, 100))


@pytest.mark.parametrize("text, servers", [
    ("# comment\nnameserver 127.0.0.1\noptions edns0\nnameserver 2001:db8::53\n", ["127.0.0.1", "2001:db8::53"])])
def test_name_servers_of_resolv_conf_are_read(tmp_path, text, servers):
    file = tmp_path / "resolv.conf"
    file.write_text(text)
    assert list(map(str, name_servers(file))) == servers


@pytest.mark.parametrize("text", ["", "nameserver localhost\n"])
def test_resolv_conf_without_servers_says_what_to_write_instead(tmp_path, text):
    file = tmp_path / "resolv.conf"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"resolv.conf: .*name \[dns\] servers in oegw.conf"):
        name_servers(file)


def test_socket_of_a_dead_daemon_is_removed_and_nothing_else(tmp_path):
    path = tmp_path / "control"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        with pytest.raises(OSError, match="another oegw answers here"):
            _remove_dead_socket(path)
    _remove_dead_socket(path)
    assert not path.exists()
    path.write_text("no socket")
    _remove_dead_socket(path)
    assert path.exists()
