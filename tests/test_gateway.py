"""The service itself: what it makes of the configuration, and how it starts and stops."""

import dataclasses
import select
import socket
import subprocess
import sys
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from types import SimpleNamespace

import pytest
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from oesvc.config import load
from oesvc.gateway import FOLLOW_AGAIN, GatewayService
from oesvc.ike.datagram import Endpoint
from oesvc.ike.events import TunnelFailed
from oesvc.ike.failures import KeyingFailure
from oesvc.ike.identity import AddressIdentity
from oesvc.interfaces import PlaneError
from oesvc.ipsec.flow import Flow
from oesvc.kernel.addresses import OwnAddress
from oesvc.kernel.constants import IFA_F_TEMPORARY
from oesvc.keys import key_pair
from oesvc.name_service import dns_config
from oesvc.plane_settings import plane_config

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


class Silent:
    """Takes the place of an IkePort."""

    def __init__(self):
        self.transport = SimpleNamespace(stopListening=self.refuse)

    def send(self, datagram):
        pass

    def refuse(self):
        raise RuntimeError("this port does not stop")


class Plane:
    """Takes the place of the forwarding plane; starts and stops when the test says."""

    def __init__(self):
        self.started, self.stopped = Deferred(), Deferred()

    def own_socket(self, sock):
        pass

    def start(self, listener):
        return self.started

    def stop(self):
        return self.stopped


class Service(GatewayService):
    """A gateway that leaves the sockets of IKE and the DNS alone."""

    def __init__(self, config):
        super().__init__(config, MemoryReactorClock())
        self._plane = Plane()
        self.tried = []

    def _open_ike_ports(self, addresses):
        pass

    def _listen_for_unreachables(self):
        pass

    async def _recover(self):
        pass

    def _in_thread(self, function, *args):
        return maybeDeferred(function, *args)

    def _try_resolvers(self):
        self.tried.append("the resolvers")


def planned(config):
    return plane_config(config, (ip_address("192.1.1.4"),), dns_config(config).servers)


def test_never_clear_by_default_is_everything_but_what_a_line_names(write):
    plane = planned(load(write("[policy]\ndefault = private", clear="0.0.0.0/0\n", private="192.2.0.0/16\n")))
    assert plane.never_clear == (ip_network("192.2.0.0/16"), ip_network("::/0")) and plane.spared == ()


@pytest.mark.parametrize("written, answered", [("", False), ("icmp-on-deny = no", False), ("icmp-on-deny = yes", True)])
def test_denied_datagrams_are_answered_where_the_configuration_says_so(write, written, answered):
    assert planned(load(write(f"[gateway]\n{written}"))).icmp_on_deny is answered


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


@pytest.fixture
def seen():
    """What is logged meanwhile."""
    events = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)


def test_a_part_that_does_not_stop_keeps_no_other_from_stopping(write, seen):
    service = Service(load(write("[gateway]\naddress = 127.0.0.1")))
    service._ports[Endpoint(ip_address("127.0.0.1"), 500)] = Silent()
    service._resolver.close = lambda: fail(RuntimeError("nor does the resolver"))
    ended = []
    service.stopService().addCallback(ended.append)
    assert ended == []
    service._plane.stopped.callback(None)
    assert ended == [None]
    assert [str(event["log_failure"].value) for event in seen] == ["this port does not stop", "nor does the resolver"]


def test_a_service_that_is_stopped_while_it_starts_opens_nothing_more(write):
    service = Service(load(write("[gateway]\naddress = 127.0.0.1")))
    service.startService()
    service.stopService()
    service._plane.started.callback(None)
    service._plane.stopped.callback(None)
    assert (service.tried, service._reactor.unixServers) == ([], [])


def test_the_service_manager_hears_of_readiness_when_the_policy_is_in_force(write, tmp_path, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        config = load(write("[gateway]\naddress = 127.0.0.1"))
        service = Service(replace(config, control_socket=tmp_path / "control"))
        service._anchors.start = lambda *parts: None
        service.startService()
        with pytest.raises(BlockingIOError):
            manager.recv(4096)
        service._plane.started.callback(None)
        flows = "0 flows encrypted, 0 in clear, 0 denied, 0 held; 0 tunnels"
        assert manager.recv(4096).decode() == f"READY=1\nSTATUS={flows}"
        service.stopService()
        assert manager.recv(4096).startswith(b"STOPPING=1\n")
        service._plane.stopped.callback(None)


def test_the_service_manager_hears_why_the_service_cannot_start(write, tmp_path, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        service = Service(load(write("[gateway]\naddress = 127.0.0.1")))
        service._reactor.stop = lambda: None
        service.startService()
        service._plane.started.errback(PlaneError("there is no `nft`"))
        assert manager.recv(4096) == b"STATUS=there is no `nft`"


def test_resolvers_that_cannot_be_tried_are_told(write, seen):
    service = GatewayService(load(write("[gateway]\naddress = 127.0.0.1")), MemoryReactorClock())
    service._resolver.survey = lambda: fail(RuntimeError("what nobody thought of"))
    service._resolver.prime = lambda: fail(RuntimeError("and another"))
    service._resolver.look_up = lambda *question: Deferred()
    service._try_resolvers()
    assert ["what nobody thought of" in event["log_failure"].getErrorMessage() for event in seen] == [True]


def test_unknown_spis_count_where_ike_is_served_and_elsewhere_are_nothing(write):
    service = Service(load(write("[gateway]\naddress = 127.0.0.1")))
    here, there, stranger = ip_address("127.0.0.1"), ip_address("127.0.0.2"), ip_address("192.0.2.9")
    sent = []
    for port in (500, 4500):
        service._ports[Endpoint(here, port)] = SimpleNamespace(send=sent.append)
    for address in (there, here):
        for port in (None, 61234):
            service._unknown_spi(Flow(stranger, address), 0xDEADBEEF, port)
    assert [(one.local, one.peer) for one in sent] == [
        (Endpoint(here, 500), Endpoint(stranger, 500)), (Endpoint(here, 4500), Endpoint(stranger, 61234))]


@pytest.mark.conformance("C-3.2.5-06")
def test_icmp_errors_about_our_ike_ports_reach_the_engine_and_others_do_not(write):
    """This kernel's own, about closed ports of the loopback interface."""
    service = GatewayService(load(write("[gateway]\naddress = 127.0.0.1")), MemoryReactorClock())
    service._plane = Plane()
    here, peer = ip_address("127.0.0.1"), ip_address("127.0.0.2")
    service._ports[Endpoint(here, 500)] = Silent()
    service._engine.initiate(Flow(here, peer), here, peer, AddressIdentity(peer), (), 0.0)
    service.daemon.keying.turn()
    service._listen_for_unreachables()
    listener, = service._icmp.values()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((str(here), 0))
        own = Endpoint(here, sender.getsockname()[1])

        def errors(count):
            for _ in range(count):
                sender.sendto(b"IKE", (str(peer), 9))
                assert select.select([listener], [], [], 10)[0], "nothing is heard"
                listener.doRead()

        errors(3)
        channel, = service._engine._core.channels.with_peer(peer)
        assert channel.unreachables == 0
        service._ports[own] = Silent()
        errors(3)
    service._reactor.advance(9)
    assert service.daemon.statistics.failures[TunnelFailed, KeyingFailure.PORT_UNREACHABLE] == 1
    listener.close()


class Following(Service):
    """A gateway whose addresses are what the test says; its plane does what it is told at once."""

    def __init__(self, config):
        super().__init__(config)
        self.opened, self.gone = [], []
        self._plane.reconfigure = self.reconfigured
        self.daemon.address_gone = self.gone.append
        self.running = True
        self.planned = []

    def reconfigured(self, plane):
        self.planned.append(plane.own)
        return succeed(None)

    def _open_ike_ports(self, addresses):
        for address in addresses:
            self.opened.append(address)
            self._ports[Endpoint(address, 500)] = Silent()

    def have(self, *addresses, flags=0):
        self.found = [OwnAddress(ip_address(address), "eth0", flags) for address in addresses]
        self._addresses_changed()

    def _addresses_outside(self):
        return self.found


def test_addresses_that_come_are_protected_and_served_and_those_that_go_given_back(write):
    """One that goes alone keeps its port: it may come back."""
    service = Following(load(write()))
    service._own = service._addresses = ()
    first, second, six = map(ip_address, ("192.0.2.1", "192.0.2.2", "2001:db8::1"))
    service.have("192.0.2.1")
    assert (service.planned, service.opened) == ([(first,)], [first])
    service.have()
    service.have("192.0.2.1")
    assert (service.opened, service.gone) == ([first], [])
    service.have("192.0.2.2", "2001:db8::1")
    assert (service.planned[-1], service.opened, service.gone) == ((second, six), [first, second, six], [first])
    assert {local.address for local in service._ports} == {second, six}
    service.have("192.0.2.2")
    assert service.gone == [first] and service._addresses == (second,)


def test_address_that_nobody_should_call_is_protected_but_not_served(write):
    service = Following(load(write()))
    service._own = service._addresses = ()
    service.have("2001:db8::1", flags=IFA_F_TEMPORARY)
    assert (service.planned, service.opened) == ([(ip_address("2001:db8::1"),)], [])
    assert service._is_ours(ip_address("2001:db8::1"))


def test_policy_that_is_reloaded_while_addresses_change_is_not_lost(write):
    service = Following(load(write()))
    service._own = service._addresses = ()
    waiting, configs = [], []

    def slow(plane):
        configs.append(plane)
        waiting.append(Deferred())
        return waiting[-1]

    service._plane.reconfigure = slow
    other = dataclasses.replace(service._config, clients=(ip_network("198.51.100.0/24"),))
    service._reconfigure(other)
    service.have("192.0.2.1")
    waiting.pop(0).callback(None)
    waiting.pop(0).callback(None)
    assert configs[-1].clients == other.clients and configs[-1].own == (ip_address("192.0.2.1"),)


class Reluctant(Following):
    """Its plane answers when the test says; its one address is protected and served."""

    def __init__(self, config):
        super().__init__(config)
        self.waiting = []
        self._own = self._addresses = (ip_address("192.0.2.1"),)
        self._open_ike_ports(self._own)

    def reconfigured(self, plane):
        super().reconfigured(plane)
        self.waiting.append(Deferred())
        return self.waiting[-1]

    def answer(self, result=None):
        while self.waiting:
            self.waiting.pop(0).callback(result)


def test_address_that_is_back_before_the_plane_has_followed_it_is_protected_and_served_in_the_end(write):
    service = Reluctant(load(write()))
    first, second = map(ip_address, ("192.0.2.1", "192.0.2.2"))
    service.have("192.0.2.2")
    for _ in range(3):
        service.have("192.0.2.1")
    service.answer()
    assert service.planned == [(second,), (first,)] and service._own == service._addresses == (first,)
    assert {local.address for local in service._ports} == {first}
    assert service.gone == [first, second]


def test_addresses_that_the_plane_refuses_to_follow_are_tried_again_until_the_service_stops(write):
    service = Reluctant(load(write()))
    second = ip_address("192.0.2.2")
    service.have("192.0.2.2")
    for _ in range(2):
        service.answer(Failure(PlaneError("no")))
        service._reactor.advance(FOLLOW_AGAIN - 1)
        assert service.waiting == []
        service._reactor.advance(1)
    service.answer()
    assert service.planned == 3 * [(second,)] and service._own == (second,) and service.opened[-1] == second
    service._reactor.advance(2 * FOLLOW_AGAIN)
    service.have("192.0.2.3")
    service.answer(Failure(PlaneError("no")))
    service.stopService()
    service._reactor.advance(2 * FOLLOW_AGAIN)
    assert len(service.planned) == 4
