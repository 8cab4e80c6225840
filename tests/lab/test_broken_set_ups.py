"""Gateways broken on purpose, each in a way that takes a kernel: the first line of `doctor` or `why` names the cause.

Those that are broken in the DNS alone are in tests/operator/doctor/test_broken_set_ups.py.
"""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType

import pytest

from oesvc.operator.doctor.checks import answer, as_text
from oesvc.operator.doctor.gather import KERNEL_PARTS, gather
from tests.lab.conftest import Lab
from tests.lab.gateway import Gateway
from tests.lab.names import SPARE_BOBS
from tests.lab.network import Host, address_of

pytestmark = pytest.mark.lab

ALICE, BOB, FRANK, SG_A, SG_B = (address_of(name) for name in ("alice", "bob", "frank", "sg-a", "sg-b"))
PATIENCE = 60.0
"Seconds, for an emulated machine."

_fresh = iter(SPARE_BOBS[60:])


def examined(gateway: Gateway, client: str, kernel_parts: Mapping[str, str] = MappingProxyType({}),
             **changes: str) -> list[str]:
    """What the doctor says on a gateway; `changes` are options of its configuration with other values."""
    file = gateway.folder / "oegw.conf"
    if changes:
        lines = file.read_text().splitlines()
        file = gateway.folder / "changed.conf"
        file.write_text("\n".join(next((f"{option} = {value}" for option, value in changes.items()
                                        if line.startswith(f"{option} = ")), line) for line in lines))
    with gateway.host.entered():
        return as_text(answer(gather(file, gateway.control, [ip_address(client)], kernel_parts))).splitlines()


@contextmanager
def rule(host: Host, text: str) -> Iterator[None]:
    """A rule of a firewall at the input."""
    host.run(["nft", f"table inet fence {{ chain c {{ type filter hook input priority 0; {text}; }}; }}"])
    try:
        yield
    finally:
        host.run(["nft", "delete table inet fence"])


@contextmanager
def setting(host: Host, name: str, value: str, usual: str) -> Iterator[None]:
    host.run(["sysctl", "-q", f"{name}={value}"])
    try:
        yield
    finally:
        host.run(["sysctl", "-q", f"{name}={usual}"])


def test_nothing_is_wrong_with_the_gateways_of_the_lab(lab: Lab) -> None:
    assert not [line for line in examined(lab.a, ALICE, KERNEL_PARTS) if line.startswith("problem")]


def test_doctor_names_what_is_broken_around_a_running_daemon(lab: Lab, tmp_path: Path) -> None:
    host, full = lab.a.host, tmp_path / "full"
    full.mkdir()
    with rule(host, "meta l4proto esp drop"):
        assert "the firewall drops incoming ESP: a rule (handle " in examined(lab.a, ALICE)[0]
    with rule(host, "udp dport { 500, 4500 } reject"):
        assert "the firewall drops incoming UDP port 500: a rule (handle " in examined(lab.a, ALICE)[0]
    with setting(host, "net.ipv4.ip_forward", "0", "1"):
        assert "net.ipv4.ip_forward is 0: nothing is forwarded for the clients" in examined(lab.a, ALICE)[0]
    with setting(host, "net.ipv4.conf.wan0.disable_xfrm", "1", "0"):
        assert "net.ipv4.conf.wan0.disable_xfrm is 1: what leaves there is not encrypted" in examined(lab.a, ALICE)[0]
    assert "192.1.0.0/25 is only a part of 192.1.0.0/24, which is attached to lan0" in examined(
        lab.a, ALICE, clients="192.1.0.0/25 2001:db8:1::/64")[0]
    assert "there is no interface eth9 on this host; there are lan0, wan0" in examined(lab.a, ALICE, inside="eth9")[0]
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", full], check=True)
    try:
        assert f"written into the state directory {full}: No space left on device" in examined(
            lab.a, ALICE, state=str(full))[0]
    finally:
        subprocess.run(["umount", full], check=True)


def test_doctor_tells_of_a_daemon_that_died_and_of_another_one_in_its_place(lab: Lab) -> None:
    lab.b.kill()
    charon = lab.net.folder / "charon"
    shutil.copy("/usr/bin/python3.11", charon)
    try:
        first = examined(lab.b, BOB)[0]
        assert f"no daemon runs: {lab.b.control} is left of one that died, but the records of {SG_B}, " in first
        assert first.endswith("are published: peers that trust them cannot reach you")
        other = lab.b.host.popen([str(charon), "-c", "import socket, time; s = socket.socket(socket.AF_INET, "
                                  f"socket.SOCK_DGRAM); s.bind(('{SG_B}', 500)); time.sleep(600)"], "charon.log")
        deadline = time.monotonic() + PATIENCE
        while "charon" not in (first := examined(lab.b, BOB)[0]) and time.monotonic() < deadline:
            time.sleep(0.5)
        assert f"another program holds UDP port 500: charon (process {other.pid})" in first
        other.kill()
        other.wait()
    finally:
        lab.b.start()
        lab.b.wait()


def test_why_names_a_gateway_that_cannot_be_reached_and_a_resolver_that_is_gone(lab: Lab) -> None:
    bob = next(_fresh)
    with rule(lab.b.host, "udp dport 500 drop"):
        steps = json.loads(lab.a.oegw("probe", "--json", "--from", ALICE, bob, check=False))["steps"]
    assert [step["well"] for step in steps] == [True, True, True, True, False, None, False]
    assert lab.a.why(ALICE, bob).splitlines()[0].startswith(
        f"{ALICE} -> {bob} goes in clear: no gateway of the destination answered: gateway {SG_B}: ")
    with rule(lab.a.host, "udp sport 53 drop"):
        steps = json.loads(lab.a.oegw("probe", "--json", "--from", ALICE, FRANK, check=False))["steps"]
        first = lab.a.why(ALICE, FRANK).splitlines()[0]
    assert first.startswith(f"{ALICE} -> {FRANK} is denied: the DNS gave no usable answer: ")
    assert steps[-1]["well"] is False
    lab.a.oegw("drop", ALICE, FRANK)


def test_probe_encrypts_and_peers_and_sas_tell_with_whom_and_how_much(lab: Lab) -> None:
    bob = next(_fresh)
    steps = json.loads(lab.a.oegw("probe", "--json", "--from", ALICE, bob))["steps"]
    assert all(step["well"] for step in steps)
    assert lab.net["alice"].ping(bob, 3) == 3
    sas = [sa for sa in json.loads(lab.a.oegw("sas", "--json"))["sas"] if bob in (sa["source"], sa["destination"])]
    assert sorted(sa["way"] for sa in sas) == ["in", "out"] and all(sa["datagrams"] >= 3 for sa in sas)
    (peer,) = [one for one in json.loads(lab.a.oegw("peers", "--json"))["peers"] if one["peer"] == SG_B]
    assert peer["identities"] == [SG_B] and set(peer["trust"]) == {"proved by DNSSEC"}
