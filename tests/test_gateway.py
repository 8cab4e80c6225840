"""The service itself: what it makes of the configuration, and how it starts and stops."""

import subprocess
import sys
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from oesvc.config import load
from oesvc.gateway import _plane_config
from oesvc.keys import key_pair
from oesvc.name_service import dns_config

ROOT = Path(__file__).parents[1]


@pytest.fixture
def write(tmp_path):
    """Write a configuration with a key in place, of these lines and policy files; returns its path."""
    def write(text="", **policies):
        (tmp_path / "policies").mkdir()
        for name, lines in policies.items():
            (tmp_path / "policies" / name.replace("_", "-")).write_text(lines)
        key_pair.generate(tmp_path / "key.pem")
        file = tmp_path / "oegw.conf"
        file.write_text(f"{text}\n[ike]\nprivate-key = {tmp_path}/key.pem\n[dns]\nservers = 127.0.0.1\n"
                        f"[paths]\npolicies = {tmp_path}/policies\nstate = {tmp_path}\n")
        return file
    return write


def planned(config):
    return _plane_config(config, (ip_address("192.1.1.4"),), dns_config(config))


def test_never_clear_by_default_is_everything_but_what_a_line_names(write):
    plane = planned(load(write("[policy]\ndefault = private", clear="0.0.0.0/0\n", private="192.2.0.0/16\n")))
    assert plane.never_clear == (ip_network("192.2.0.0/16"), ip_network("::/0")) and plane.spared == ()


def test_addresses_on_which_nobody_should_call_are_protected_all_the_same(write):
    """Asked of this kernel, in a network namespace: the second address is deprecated."""
    done = subprocess.run(["unshare", "-rn", "sh", "-ec", f"""
        ip link set lo up
        ip address add 2001:db8::10/128 dev lo
        ip address add 2001:db8::20/128 dev lo preferred_lft 0
        exec {sys.executable} -c '
from pathlib import Path
from twisted.internet.testing import MemoryReactorClock
from oesvc.config import load
from oesvc.gateway import GatewayService
service = GatewayService(load(Path("{write()}")), MemoryReactorClock())
print(*service._addresses)
print(*sorted(service._plane._config.own), service._is_ours(service._own[0]) and service._is_ours(service._own[1]))
'"""], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout.splitlines() == ["2001:db8::10", "2001:db8::10 2001:db8::20 True"], done.stderr
