"""A policy line for a single host, and a source that is one: what stands for the two, and their flow's own policy.

Asked of this kernel's SPD, by datagrams, in a network namespace.
"""

import socket
import struct
import subprocess
import sys
from contextlib import suppress
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from oesvc.kernel.constants import NETLINK_XFRM
from oesvc.kernel.exemptions import traps
from oesvc.kernel.netlink import NetlinkSocket
from oesvc.kernel.plane_config import PlaneConfig
from oesvc.kernel.service import TRAP
from oesvc.kernel.spd import Selector
from oesvc.kernel.standing import delete_policies, replace_policies
from tests.kernel.test_reconfigure import standing
from tests.kernel.test_service import DENY, ENCRYPT, PASS, Flow, Kernel, Plane

ADDRESSES = {4: ("192.1.1.4", "203.0.113.1", "203.0.113.77", "0.0.0.0/0"),
             6: ("2001:db8::4", "2001:db8:9::1", "2001:db8:9::77", "::/0")}


ETH_P_ALL = 3


class Host:
    """A plane with the SPD of this kernel, and no hooks."""

    def __init__(self, reactor, version, source):
        own, peer, gateway, everywhere = ADDRESSES[version]
        self.flow, self.gateways = (Flow(ip_address(own), ip_address(one)) for one in (peer, gateway))
        self.everywhere, single = ip_network(everywhere), ip_network(peer)
        whose = {"own": {"own": (self.flow.source,)}, "clients": {"clients": (ip_network(own),)}}[source]
        self.permissive = PlaneConfig(**whose, keys_last=3600)
        self.private = PlaneConfig(**whose, keys_last=3600, never_clear=(single,))
        self.spared = PlaneConfig(**whose, keys_last=3600, never_clear=(self.everywhere,), spared=(single,))
        self.xfrm = NetlinkSocket(reactor, NETLINK_XFRM)

    async def start(self, config):
        self.plane, self.config = Plane(config, Kernel()), config
        self.plane._xfrm = self.xfrm
        await replace_policies(self.xfrm, standing(config))

    async def reload(self, config):
        await self.plane.reconfigure(config)
        self.config = config

    async def install(self, policy):
        await self.plane.install_policy(self.flow, policy, self.gateways)

    async def dead(self):
        """As the kernel does with the traps, half a minute later."""
        for policy in traps(self.config, TRAP):
            for request in delete_policies(self.xfrm, [(policy.direction, policy.selector)]):
                await request

    def shown(self):
        selector = Selector.of_flow(self.flow)
        text = subprocess.run(["ip", "-o", "xfrm", "policy"], capture_output=True, text=True, check=True).stdout
        found = [line for line in text.splitlines() if "proto" not in line.partition("dir")[0]
                 and line.startswith(f"src {selector.source} dst {selector.destination} ")]
        return sorted("block" if "action block" in one else "encrypt" if "tmpl" in one else "pass" for one in found)

    def sent(self):
        """Whether this kernel lets a datagram of the flow out in clear: a trap swallows it without an error."""
        wanted = struct.pack(">HH", 999, 9) + b"\0\x08"
        version4 = self.flow.source.version == 4
        with (socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL)) as seeing,
              socket.socket(socket.AF_INET if version4 else socket.AF_INET6, socket.SOCK_DGRAM) as sending):
            seeing.bind(("oe0", ETH_P_ALL))
            seeing.setblocking(False)
            sending.bind((str(self.flow.source), 999))
            with suppress(PermissionError):
                sending.sendto(b"", (str(self.flow.destination), 9))
            seen = []
            with suppress(BlockingIOError):
                while True:
                    seen.append(seeing.recv(2000))
        return any(wanted in one for one in seen)


async def clear_before_a_reload(host):
    await host.start(host.permissive)
    await host.install(PASS)
    assert host.sent()
    await host.reload(host.private)
    assert host.shown() == ["block", "pass"]
    await host.plane.forget(host.flow)
    assert host.shown() == ["block"]
    await host.install(ENCRYPT)
    await host.plane.forget(host.flow)
    await host.dead()
    assert not host.sent()


async def private_from_the_start(host):
    await host.start(host.private)
    assert not host.sent()
    for policy, shown in ((ENCRYPT, "encrypt"), (DENY, "block"), (PASS, "pass")):
        await host.install(policy)
        assert host.shown() == sorted(["block", shown])
    assert host.sent(), "the flow's own comes first"


async def spared_from_the_start(host):
    await host.start(host.spared)
    assert not host.sent(), "nobody has decided"
    await host.install(PASS)
    assert host.sent()
    await host.install(DENY)
    assert not host.sent()
    await host.plane.forget(host.flow)
    await host.dead()
    assert host.sent()


async def reloads_under_a_tunnel(host):
    await host.start(host.permissive)
    await host.install(ENCRYPT)
    for config, shown in ((host.private, ["block", "encrypt"]), (host.permissive, ["encrypt"])):
        await host.reload(config)
        assert host.shown() == shown


@pytest.mark.parametrize(("source", "version"), [("own", 4), ("own", 6), ("clients", 4)])
@pytest.mark.parametrize("what", [
    clear_before_a_reload, private_from_the_start, spared_from_the_start, reloads_under_a_tunnel])
def test_what_stands_for_two_hosts_and_the_policy_of_their_flow_leave_each_other_alone(what, source, version):
    own = ADDRESSES[version][0]
    done = subprocess.run(["unshare", "-n", "sh", "-ec", f"""
        ip link add oe0 type veth peer name oe1
        ip link set oe0 arp off up
        ip link set oe1 up
        ip address add {own} dev oe0 {"nodad" * (version == 6)}
        ip -{version} route add default dev oe0
        exec {sys.executable} -c 'import sys
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from tests.kernel import test_single_hosts as here
react(lambda reactor: Deferred.fromCoroutine(here.{what.__name__}(here.Host(reactor, {version}, "{source}"))))'
        """], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
