"""How much leaves in clear, and why: counted by this kernel's nftables, in a network namespace.

Its SPD is asked too; only the packet queue is not there on all kernels: what would be held is dropped.
"""

import socket
import struct
import subprocess
import sys
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from twisted.internet.task import deferLater

from oesvc.ipsec.account import ASIDE, Amount, Aside, Verdict
from oesvc.ipsec.ports import Ports
from oesvc.kernel.constants import NETLINK_XFRM
from oesvc.kernel.counters import Tally, all_verdicts, counter_name
from oesvc.kernel.hold import Datagram
from oesvc.kernel.netlink import NetlinkSocket
from oesvc.kernel.plane_config import PlaneConfig
from oesvc.kernel.ruleset import ruleset
from oesvc.kernel.sets import FlowSets
from tests.kernel.test_service import DENY, ENCRYPT, FLOW, GATEWAYS, PASS, Flow, Kernel, Plane, done

REASONS = ("NO_RECORD", "NO_ANSWER")
CLIENT = {4: ip_address("192.1.0.65"), 6: ip_address("2001:db8:1::65")}
HOST = {4: ip_address("203.0.113.9"), 6: ip_address("2001:db8:9::9")}
OWN = {4: ip_address("192.1.1.4"), 6: ip_address("2001:db8::4")}
OTHER = {4: ip_address("203.0.113.10"), 6: ip_address("2001:db8:9::10")}
CONFIG = PlaneConfig(clients=(ip_network("192.1.0.0/24"), ip_network("2001:db8:1::/64")), reasons=REASONS)
HEADER = {4: 20, 6: 40}
NO_RECORD, NO_ANSWER = (Verdict(PASS, reason) for reason in REASONS)
UDP, ESP = 17, 50
MAC = bytes.fromhex("020000000001")
ROOT = Path(__file__).parents[2]


class HookedSets(FlowSets):
    """The sets, and rules that do without the queue."""

    def load(self, text):
        return super().load(text.replace("queue flags bypass to 4322", "drop"))


class Gateway:
    """A plane on this kernel, and a client on the wire before it."""

    def __init__(self, reactor, version):
        self.reactor, self.version = reactor, version
        self.flow, self.other = (Flow(CLIENT[version], there[version]) for there in (HOST, OTHER))
        self.wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self.wire.bind(("oe1", 0))

    async def start(self, config=CONFIG):
        self.plane = Plane(config, Kernel())
        self.plane._xfrm = NetlinkSocket(self.reactor, NETLINK_XFRM)
        self.plane._sets = HookedSets(self.reactor)
        await self.plane._sets.load(ruleset(config))

    async def install(self, flow, policy, because=""):
        await self.plane.install_policy(flow, policy, GATEWAYS if policy is ENCRYPT else None, because)

    def sends(self, flow, octets, times=1, protocol=UDP, ports=(999, 9)):
        """The client does: datagrams of so many octets each."""
        there = struct.pack("!HH", *ports).ljust(octets - HEADER[self.version], b"\1")
        ends = flow.source.packed + flow.destination.packed
        if self.version == 4:
            header = struct.pack("!BBHIBBH", 0x45, 0, octets, 0, 64, protocol, 0) + ends
            header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
        else:
            header = struct.pack("!IHBB", 6 << 28, octets - 40, protocol, 64) + ends
        frame = MAC + bytes(6) + struct.pack("!H", {4: 0x0800, 6: 0x86DD}[self.version]) + header + there
        for _ in range(times):
            self.wire.send(frame)

    async def counts(self, expected):
        """Soon, and no more than that: what is on the wire is not counted yet."""
        deadline = self.reactor.seconds() + 20
        while (found := {verdict: tuple(amount) for verdict, amount in (await self.plane.account()).items()
                         if amount.octets}) != expected:
            assert self.reactor.seconds() < deadline, found
            await deferLater(self.reactor, 0.05)


def checksum(header):
    total = sum(struct.unpack("!10H", header))
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


async def each_reason_has_its_own_total(gateway):
    await gateway.start()
    await gateway.install(gateway.flow, PASS, "NO_RECORD")
    await gateway.install(gateway.other, PASS, "NO_ANSWER")
    gateway.sends(gateway.flow, 100, 3)
    gateway.sends(gateway.other, 1000, 2)
    gateway.sends(Flow(gateway.flow.source, gateway.flow.destination + 70), 500)
    gateway.sends(Flow(gateway.flow.source, gateway.flow.source + 1), 500)
    await gateway.counts({NO_RECORD: (3, 300), NO_ANSWER: (2, 2000)})
    await gateway.install(gateway.flow, DENY, "NO_RECORD")
    await gateway.install(gateway.other, ENCRYPT)
    gateway.sends(gateway.flow, 100)
    gateway.sends(gateway.other, 200)
    await gateway.counts({NO_RECORD: (3, 300), NO_ANSWER: (2, 2000), Verdict(DENY, "NO_RECORD"): (1, 100),
                          Verdict(ENCRYPT): (1, 200)})


async def another_reason_counts_from_its_moment(gateway):
    await gateway.start()
    await gateway.install(gateway.flow, PASS, "NO_RECORD")
    gateway.sends(gateway.flow, 100)
    await gateway.install(gateway.flow, PASS, "NO_ANSWER")
    gateway.sends(gateway.flow, 200)
    await gateway.counts({NO_RECORD: (1, 100), NO_ANSWER: (1, 200)})
    assert "known4" in nft("list map inet oegw known4"), "there it stands"


async def totals_survive_flows_reloads_and_the_table(gateway):
    await gateway.start()
    await gateway.install(gateway.flow, PASS, "NO_RECORD")
    gateway.sends(gateway.flow, 100)
    await gateway.plane.forget(gateway.flow)
    gateway.sends(gateway.flow, 100)
    await gateway.counts({NO_RECORD: (1, 100)})
    await gateway.install(gateway.flow, PASS, "NO_RECORD")
    await gateway.plane.reconfigure(replace(CONFIG, never_clear=(ip_network("198.51.100.0/24"),)))
    gateway.sends(gateway.flow, 100)
    await gateway.counts({NO_RECORD: (2, 200)})
    nft("flush ruleset")
    await gateway.counts({NO_RECORD: (2, 200)})
    await gateway.plane._restore_table()
    gateway.sends(gateway.flow, 100)
    await gateway.counts({NO_RECORD: (3, 300)})


async def what_is_no_matter_of_its_flow_is_not_counted_as_its(gateway):
    everywhere = ip_network({4: "0.0.0.0/0", 6: "::/0"}[gateway.version])
    resolver = ip_network(gateway.flow.source + 1)
    await gateway.start(replace(CONFIG, resolver_sources=(resolver,), port_rules=(
        (everywhere, Ports(UDP, 0, 7), False), (everywhere, Ports(UDP, 0, 25), True))))
    asking = Flow(gateway.flow.source + 1, gateway.flow.destination)
    for flow in (gateway.flow, asking):
        await gateway.install(flow, ENCRYPT)
        gateway.sends(flow, 100, ports=(999, 53))
        gateway.sends(flow, 200, ports=(999, 7))
        gateway.sends(flow, 300, ports=(999, 25))
        gateway.sends(Flow(flow.source, flow.source + 2), 500, ports=(999, 25))
    gateway.sends(gateway.other, 400, protocol=ESP)
    gateway.sends(gateway.flow, 400, protocol=ESP)
    await gateway.counts({
        Verdict(ENCRYPT): (2, 500), Verdict(PASS, Aside.RESOLVER.name): (1, 100),
        Verdict(PASS, Aside.PORTS.name): (2, 400),
        Verdict(DENY, Aside.PORTS.name): (2, 600), Verdict(PASS, Aside.SELF_PROTECTED.name): (1, 400)})


async def what_this_host_sends_is_counted_too_and_its_keying_apart(gateway):
    own = OWN[gateway.version]
    for command in (["address", "add", str(own), "dev", "oe0"], ["route", "add", "default", "dev", "oe0"]):
        subprocess.run(["ip", f"-{gateway.version}", *command], check=True)
    await gateway.start(replace(CONFIG, own=(own,)))
    await gateway.install(Flow(own, gateway.flow.destination), PASS, "NO_RECORD")
    for mark, times, octets in ((0, 2, 100), (CONFIG.mark, 1, 50)):
        with socket.socket(socket.AF_INET if gateway.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as sending:
            sending.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            sending.bind((str(own), 999))
            for _ in range(times):
                sending.sendto(bytes(octets), (str(gateway.flow.destination), 9))
    headers = HEADER[gateway.version] + 8
    await gateway.counts({NO_RECORD: (2, 2 * (headers + 100)), Verdict(PASS, Aside.OWN.name): (1, headers + 50)})


def nft(command):
    return subprocess.run(["nft", *command.split()], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("what", [
    each_reason_has_its_own_total, another_reason_counts_from_its_moment, totals_survive_flows_reloads_and_the_table,
    what_is_no_matter_of_its_flow_is_not_counted_as_its, what_this_host_sends_is_counted_too_and_its_keying_apart])
def test_of_what_leaves(what, version):
    done = subprocess.run(["unshare", "-n", "sh", "-ec", f"""
        ip link set lo up
        ip link add oe0 address {MAC.hex(":")} type veth peer name oe1
        for one in all default oe0 oe1; do echo 1 >/proc/sys/net/ipv6/conf/$one/disable_ipv6; done
        echo 0 >/proc/sys/net/ipv6/conf/oe0/disable_ipv6
        ip link set oe0 arp off up
        ip link set oe1 up
        exec {sys.executable} -c 'from twisted.internet.defer import Deferred
from twisted.internet.task import react
from tests.kernel import test_account as here
react(lambda reactor: Deferred.fromCoroutine(here.{what.__name__}(here.Gateway(reactor, {version}))))'
        """], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_was_held_is_counted_when_it_goes_on_and_what_is_displaced_as_undecided():
    plane = Plane(replace(CONFIG, reasons=REASONS))
    for number in range(4):
        plane._datagram_arrived(Datagram(number, FLOW, 0, 0, 100 + number))
    done(plane.install_policy(FLOW, PASS, None, "NO_RECORD"))
    plane._datagram_arrived(Datagram(5, FLOW, 0, 0, 1000))
    found = plane._tally.account()
    assert found[NO_RECORD] == Amount(3, 100 + 103 + 1000)
    assert found[Verdict(DENY, Aside.UNDECIDED.name)] == Amount(2, 101 + 102)


def test_a_change_of_the_reason_alone_leaves_the_spd_alone():
    plane = Plane(CONFIG)
    done(plane.install_policy(FLOW, PASS, None, "NO_RECORD"))
    plane.said()
    for because in ("NO_ANSWER", "NO_ANSWER"):
        done(plane.install_policy(FLOW, PASS, None, because))
    assert plane.said() == ["known: PASS, NO_RECORD to PASS, NO_ANSWER"]


def test_without_a_kernel_that_answers_the_totals_are_those_last_known():
    tally = Tally(REASONS)
    assert tally.heard({"pass_no_record": Amount(1, 10)})[NO_RECORD] == Amount(1, 10)
    tally.begin_anew()
    assert tally.heard({})[NO_RECORD] == Amount(1, 10)
    assert tally.heard({"pass_no_record": Amount(1, 2), "of_another_program": Amount(1, 1)})[NO_RECORD] == Amount(2, 12)


def test_each_counter_has_a_name_of_its_own():
    verdicts = all_verdicts(REASONS)
    assert len({counter_name(one) for one in verdicts}) == len(verdicts) == 7 + len(ASIDE)
    assert all(f"counter {counter_name(one)} {{ }}" in ruleset(CONFIG) for one in verdicts)
