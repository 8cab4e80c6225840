"""What the Debian package brings besides the program: its unit, and the check that comes before it."""

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

DEBIAN = Path(__file__).parent.parent / "debian"
WORST_EXPOSURE = 25
"Tenths, on the scale of systemd-analyze: 0 is wholly enclosed, 100 wholly exposed."

HOLD = """
import socket, subprocess, sys
sockets = []
for port in sys.argv[2:]:
    sockets.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sockets[-1].bind(("127.0.0.1", int(port)))
sys.exit(subprocess.run([sys.argv[1]]).returncode)
"""


def ports_are_free(*held):
    """Asked in a network namespace of its own, in which a process holds these UDP ports."""
    inside = ["sh", "-c", 'ip link set lo up; exec "$@"', "sh", sys.executable, "-c", HOLD]
    return subprocess.run(["unshare", "-rn", *inside, DEBIAN / "ike-ports-are-free", *map(str, held)],
                          capture_output=True, text=True, check=False)


@pytest.mark.parametrize("unit", sorted(file.name for file in DEBIAN.glob("*.service")))
def test_each_service_is_enclosed(unit):
    done = subprocess.run(["systemd-analyze", "security", "--offline=true", f"--threshold={WORST_EXPOSURE}",
                           DEBIAN / unit], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout.splitlines()[-1]


def test_the_service_has_a_user_of_its_own_three_capabilities_and_the_time_to_end():
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str
    unit.read(DEBIAN / "oegw.service")
    service = unit["Service"]
    assert service["User"] == "oegw"
    assert service["KillMode"] == "mixed", "with control-group systemd ends the nft that closes paranoid prefixes"
    for capabilities in (service["AmbientCapabilities"], service["CapabilityBoundingSet"]):
        assert set(capabilities.split()) == {"CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW"}


def test_no_field_and_no_reload_is_there_twice():
    """Several work on these files at once; dpkg refuses a field that is there twice."""
    for stanza in (DEBIAN / "control").read_text().split("\n\n"):
        fields = [line.partition(":")[0] for line in stanza.splitlines() if line[:1] not in (" ", "#")]
        assert len(fields) == len(set(fields)), fields
    assert (DEBIAN / "oegw.service").read_text().count("\nExecReload=") == 1


@pytest.mark.parametrize("held", [(), (53,)])
def test_other_ports_are_no_obstacle(held):
    done = ports_are_free(*held)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize("held", [(500,), (4500,), (500, 4500)])
def test_a_daemon_on_an_ike_port_is_named_once_with_what_would_help(held):
    done = ports_are_free(*held)
    refusal, help_text = done.stdout.splitlines()
    assert done.returncode == 1
    assert refusal.startswith(tuple(f"oegw: UDP port {port} is served by python" for port in held))
    assert "(process " in refusal
    assert "systemctl disable --now" in help_text and "systemctl start oegw" in help_text


def test_maintainer_scripts_are_shell():
    for script in (*DEBIAN.glob("oegw.p*"), DEBIAN / "ike-ports-are-free"):
        assert subprocess.run(["sh", "-n", script], check=False).returncode == 0
