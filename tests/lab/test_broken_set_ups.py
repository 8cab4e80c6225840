"""Gateways broken on purpose, in the lab's network with its kernel, zones and resolvers: the first line of `doctor` or
`why` names the cause. More are in tests/operator/doctor/.
"""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType

import pytest

from oesvc.operator.doctor.checks import answer, as_text
from oesvc.operator.doctor.gather import KERNEL_PARTS, gather
from tests.dns.conftest import OddServer
from tests.lab.conftest import Lab
from tests.lab.gateway import ENVIRONMENT, Gateway
from tests.lab.keys import private_key_file
from tests.lab.names import BROKEN, OF_EXPIRED_ZONE, OF_UNSIGNED_ZONE, SPARE_BOBS, WITHOUT_RECORD
from tests.lab.network import Host, address_of

pytestmark = pytest.mark.lab

ALICE, BOB, FRANK, SG_A, SG_B = (address_of(name) for name in ("alice", "bob", "frank", "sg-a", "sg-b"))
PATIENCE = 60.0
"Seconds, for an emulated machine."
FENCE = "nft 'table inet fence {{ chain c {{ type {}; {}; }}; }}'"
NO_FENCE = "nft delete table inet fence"
INPUT, SOURCE_NAT, DESTINATION_NAT = (
    f"{kind} priority 0" for kind in ("filter hook input", "nat hook postrouting", "nat hook prerouting"))
NOT_THERE = "192.1.1.44"

CLOCK_BEHIND = 20 * 86400
"Seconds: before the lab's zones were signed."

_fresh = iter(SPARE_BOBS[60:])


@dataclass(frozen=True)
class Fault:
    """One way in which SG-A is broken."""

    name: str
    cause: str
    "Of the first line."
    make: str = ""
    "A script, run there; {folder} is one for files, {key} the gateway's key."
    unmake: str = ""
    client: str = ALICE
    "Whose records are asked for."
    options: Mapping[str, str] = field(default_factory=dict)
    "Of its configuration, with other values."


def sysctl(name: str, bad: str, usual: str, why: str) -> Fault:
    return Fault(name, f"{name} is {bad}: {why}", f"sysctl -q {name}={bad}", f"sysctl -q {name}={usual}")


def of_client(name: str, cause: str) -> Fault:
    """Broken in the records of a host."""
    return Fault(name, cause, client=BROKEN[name])


FAULTS = (
    Fault("ESP dropped", "the firewall drops incoming ESP: a rule (handle ",
          FENCE.format(INPUT, "meta l4proto esp drop"), NO_FENCE),
    Fault("UDP ports closed", "the firewall drops incoming UDP port 500: a rule (handle ",
          FENCE.format(INPUT, "udp dport { 500, 4500 } reject"), NO_FENCE),
    sysctl("net.ipv4.ip_forward", "0", "1", "nothing is forwarded for the clients"),
    sysctl("net.ipv4.conf.wan0.disable_xfrm", "1", "0", "what leaves there is not encrypted"),
    Fault("clients translated", f"the firewall translates what comes from the clients 192.1.0.0/24 into {SG_A}, so",
          FENCE.format(SOURCE_NAT, 'oifname "wan0" masquerade'), NO_FENCE),
    Fault("UDP port 500 handed on", f"the firewall hands incoming UDP port 500 on to {ALICE}, not {SG_A}: a rule",
          FENCE.format(DESTINATION_NAT, f"udp dport 500 dnat ip to {ALICE}"), NO_FENCE),
    Fault("not translated", "[gateway] translated: no rule of this host's firewall translates 10.9.0.0/24",
          options={"translated": "10.9.0.0/24"}),
    Fault("private clients", "[gateway] clients: 10.9.0.0/24 is private", "ip address add 10.9.0.1/24 dev lan0",
          "ip address delete 10.9.0.1/24 dev lan0", options={"clients": "192.1.0.0/24 10.9.0.0/24"}),
    Fault("wrong mask", "192.1.0.0/25 is only a part of 192.1.0.0/24, which is attached to lan0",
          options={"clients": "192.1.0.0/25"}),
    Fault("wrong interface", "there is no interface eth9 on this host; there are lan0, wan0",
          options={"inside": "eth9"}),
    Fault("address of nobody", f"[gateway] address: {NOT_THERE} is no address of this host; it has ",
          options={"address": NOT_THERE}),
    Fault("small MTU", "the MTU of wan0 is 1300: datagrams of 1280 octets", "ip link set wan0 mtu 1300",
          "ip link set wan0 mtu 1500", options={"clients": "192.1.0.0/24 2001:db8:1::/64"}),
    Fault("disk full", "written into the state directory {folder}: No space left on device",
          "mount -t tmpfs -o size=16k none {folder}", "umount {folder}", options={"state": "{folder}"}),
    Fault("key open to others", "others may read it (mode 0644)", "install -m 0644 {key} {folder}/key.pem",
          options={"private-key": "{folder}/key.pem"}),
    Fault("key lost", "the private key cannot be used: {folder}/lost.pem: there is no such file",
          options={"private-key": "{folder}/lost.pem"}),
    Fault("error in a policy file", "{folder}/private:1: '192.0.2.1/24'", "echo 192.0.2.1/24 > {folder}/private",
          options={"policies": "{folder}"}),
    Fault("another key in the DNS", f"the key in the DNS is not this gateway's: {'4.1.1.192.in-addr.arpa.'} has RSA-",
          "openssl genrsa -out {folder}/key.pem 2048 2>/dev/null && chmod 600 {folder}/key.pem",
          options={"private-key": "{folder}/key.pem"}),
    Fault("gateway without a record", "no key of this gateway is in the DNS: there is no KEY record at 44.1.1.192.",
          f"ip address add {NOT_THERE}/24 dev wan0", f"ip address delete {NOT_THERE}/24 dev wan0",
          options={"address": NOT_THERE}),
    Fault("host without a record", f"no record lets this gateway act for {WITHOUT_RECORD}: there is neither TXT nor",
          client=WITHOUT_RECORD),
    of_client("another gateway in TXT", "names the gateway 203.0.113.1, which is not this one (192.1.1.4)"),
    of_client("another key in IPSECKEY", "the IPSECKEY record of 192.1.0.152 has another key"),
    of_client("mistyped TXT", "a TXT record of 192.1.0.153 cannot be read: 'X-IPsec-Server=192.1.1.4' is not of the"),
    of_client("alias that leads nowhere", "no record lets this gateway act for 192.1.0.154: the alias "),
    Fault("expired signatures", f"the TXT record of {OF_EXPIRED_ZONE} cannot be believed: the DNSKEY records of ",
          client=OF_EXPIRED_ZONE, options={"clients": "192.1.0.0/24 192.1.9.0/24"}),
    Fault("unsigned zone", f"the records of {OF_UNSIGNED_ZONE} are not signed", client=OF_UNSIGNED_ZONE,
          options={"clients": "192.1.0.0/24 192.1.8.0/24"}),
)


def examined(gateway: Gateway, client: str, kernel_parts: Mapping[str, str] = MappingProxyType({}),
             **changes: str) -> list[str]:
    """What the doctor says on a gateway; `changes` are options of its configuration with other values."""
    file = gateway.folder / "oegw.conf"
    if changes:
        file = changed(gateway, changes)
    with gateway.host.entered():
        return as_text(answer(gather(file, gateway.control, [ip_address(client)], kernel_parts))).splitlines()


def changed(gateway: Gateway, changes: Mapping[str, str]) -> Path:
    """A configuration like the gateway's, with other values."""
    written = [line.partition(" = ") for line in (gateway.folder / "oegw.conf").read_text().splitlines()]
    lines = [f"{option}{equals}{changes.get(option, value)}" for option, equals, value in written]
    new = [f"{option} = {value}" for option, value in changes.items() if option not in {each[0] for each in written}]
    file = gateway.folder / "changed.conf"
    file.write_text("\n".join([lines[0], *new, *lines[1:]]))
    return file


@contextmanager
def rule(host: Host, text: str) -> Iterator[None]:
    """A rule of a firewall at the input."""
    host.run(["sh", "-ec", FENCE.format(INPUT, text)])
    try:
        yield
    finally:
        host.run(["sh", "-ec", NO_FENCE])


def test_nothing_is_wrong_with_the_gateways_of_the_lab(lab: Lab) -> None:
    assert not [line for line in examined(lab.a, ALICE, KERNEL_PARTS) if line.startswith("problem")]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_first_line_of_the_doctor_names_the_cause_while_the_daemon_runs(lab: Lab, tmp_path: Path, fault: Fault) -> None:
    places = {"folder": str(tmp_path), "key": str(private_key_file("sg-a"))}

    def run(script: str) -> None:
        for word, place in places.items():
            script = script.replace(f"{{{word}}}", place)
        # Only its network: `ip netns exec` has mounts of its own.
        subprocess.run(["nsenter", f"--net=/run/netns/{lab.a.host.namespace}", "sh", "-ec", script], check=True)

    options = {"address": SG_A, "clients": "192.1.0.0/24", **fault.options}
    run(fault.make)
    try:
        first, second, *_ = examined(lab.a, fault.client, **{
            option: value.replace("{folder}", str(tmp_path)) for option, value in options.items()})
    finally:
        run(fault.unmake)
    assert fault.cause.replace("{folder}", str(tmp_path)) in first
    assert second.startswith("    mend it: ")


def test_first_line_names_a_resolver_that_knows_no_dnssec(lab: Lab) -> None:
    """It hands on the question alone, as if EDNS had never been invented."""
    forwarder, resolver, asks_from = ("127.0.0.1", 5300), ("127.0.0.1", 53), ("127.0.0.2", 0)

    def old_forwarder(question: bytes) -> bytes:
        end = question.index(b"\0", 12) + 5
        with lab.a.host.socket() as sock:
            sock.settimeout(PATIENCE)
            sock.bind(asks_from)
            sock.sendto(question[:10] + b"\0\0" + question[12:end], resolver)
            return sock.recv(65535)

    with lab.a.host.entered():
        server = OddServer(forwarder, old_forwarder)
    server.start()
    to = ":".join(map(str, forwarder))
    lab.a.host.run(["sh", "-ec", FENCE.format(
        "nat hook output priority 0", f"ip saddr != {asks_from[0]} udp dport 53 dnat ip to {to}")])
    try:
        first = examined(lab.a, ALICE, address=SG_A)[0]
    finally:
        lab.a.host.run(["sh", "-ec", NO_FENCE])
        server.close()
    assert "hands on no DNSSEC signatures, so nothing can be believed" in first


def test_doctor_tells_of_a_daemon_that_died_of_another_in_its_place_of_a_wrong_clock_and_a_wrong_anchor(
        lab: Lab, tmp_path: Path) -> None:
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
        behind, strange = tmp_path / "behind", tmp_path / "strange-anchor"
        behind.mkdir()
        (behind / "sitecustomize.py").write_text(f"import time\n_right = time.time\n"
                                                 f"time.time = lambda: _right() - {CLOCK_BEHIND}\n")
        lab.b.start(environment=ENVIRONMENT | {"PYTHONPATH": f"{behind}:{ENVIRONMENT['PYTHONPATH']}"})
        lab.b.wait()
        first = examined(lab.b, BOB)[0]
        assert "the clock of this host is behind, or its time zone is wrong: the keys of the zone . itself are" in first
        lab.b.kill()
        strange.write_text(". 3600 IN DS 4322 13 2 " + "4322" * 16)
        file = changed(lab.b, {"trust-anchors": str(strange), "state": str(tmp_path)})
        lab.b.start(file)
        lab.b.wait()
        assert "the trust anchor is wrong: none of the keys of . is its trust anchor" in examined(
            lab.b, BOB, **{"trust-anchors": str(strange), "state": str(tmp_path)})[0]
    finally:
        lab.b.kill()
        lab.b.start()
        lab.b.wait()


def test_why_names_a_gateway_that_cannot_be_reached_and_a_resolver_that_is_gone(lab: Lab) -> None:
    bob = next(_fresh)
    with rule(lab.b.host, "udp dport 500 drop"):
        steps = json.loads(lab.a.oegw("probe", "--json", "--from", ALICE, bob, check=False))["steps"]
    # Where a keying channel stands already, it is quick mode that is not answered.
    assert [step["well"] for step in steps] in ([True, True, True, True, False, None, False],
                                                [True, True, True, True, True, False, False])
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
