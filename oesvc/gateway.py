"""The gateway as a Twisted service: everything put together, started and stopped in order."""

import os
import random
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, DeferredLock, gatherResults, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.reflect import namedAny

from oesvc import __version__
from oesvc.alarm import Alarm
from oesvc.arithmetic import Arithmetic
from oesvc.config import Config, ConfigError
from oesvc.configured_peers import ConfiguredPeers
from oesvc.daemon import KeyingDaemon
from oesvc.discovery import Discovery
from oesvc.dns.anchor_keeper import FILE_NAME, AnchorKeeper
from oesvc.dns.records import RecordType
from oesvc.dns.resolver import ValidatingResolver
from oesvc.ike.datagram import Datagram, Endpoint
from oesvc.ike.v1.config import PHASE1_FLOOR, EngineConfig
from oesvc.ike.v1.constants import NAT_TRAVERSAL_PORT
from oesvc.ike.v1.engine import IkeEngine
from oesvc.ike.v1.offers import PROFILES
from oesvc.interfaces import PlaneError
from oesvc.ipsec.flow import Address, Flow
from oesvc.ipsec.sa import Lifetime
from oesvc.journal import Journal
from oesvc.kept import FILE_NAME as KEPT
from oesvc.kept import keep
from oesvc.kernel.addresses import AddressWatch, OwnAddress, list_addresses, outside, outside_addresses
from oesvc.kernel.service import LinuxForwardingPlane
from oesvc.kernel.unknown_spis import UnknownSpis
from oesvc.keys.key_pair import KeyPairError, load, public_key
from oesvc.keys.rollover import KeyRing
from oesvc.name_service import dns_config, seldom_asked, warnings
from oesvc.oe.configured import ConfiguredTunnel
from oesvc.oe.connections import Connections
from oesvc.operator.control import ControlFactory
from oesvc.operator.dns_report import Inspector
from oesvc.operator.metrics import Collector, MetricsSite
from oesvc.operator.report import status_line
from oesvc.partners import FILE_NAME as PARTNERS
from oesvc.partners import PartnerFile, Partners
from oesvc.plane_settings import plane_config
from oesvc.running_policy import RunningPolicy
from oesvc.service_manager import ServiceManager
from oesvc.statistics import CountedResolver, Statistics
from oesvc.udp import IKE_PORT, IkePort, open_socket, source_address
from oesvc.unreachable import UnreachablePort

CONTROL_MODE = 0o660
FOLLOW_AGAIN = 10.0
"Seconds until this host's addresses are looked at again, when the kernel has refused to follow them."


class GatewayService(Service):
    """`twistd oegw`. What is wrong with its files shows when it is made, with the kernel when it starts."""

    log = Logger()

    def __init__(self, config: Config, reactor: Any) -> None:
        """Raises ConfigError."""
        self._config = config
        self._reactor = reactor
        outside = [] if config.addresses else outside_addresses(config.clients, config.inside)
        self._own = config.addresses or tuple(own.address for own in outside)
        self._addresses = config.addresses or tuple(own.address for own in outside if own.lasting)
        try:
            self._engine = IkeEngine(_engine_config(config), os.urandom)
            dns = dns_config(config)
            self._anchors = AnchorKeeper(config.state_directory / FILE_NAME, dns.anchors, dns.clock_skew)
        except (KeyPairError, ValueError) as error:
            raise ConfigError(str(error)) from None
        statistics = Statistics()
        self._plane = LinuxForwardingPlane(reactor, plane_config(config, self._own, dns.servers), statistics.released,
                                           self._local_address)
        self._dns = dns
        self._resolver = ValidatingResolver(replace(dns, anchors=self._anchors.anchors), reactor, time.time,
                                            self._plane.own_socket)
        self._ports: dict[Endpoint, IkePort] = {}
        self._icmp: dict[int, UnreachablePort] = {}
        self._watch: AddressWatch | None = None
        self._turn = DeferredLock()
        self._following = DeferredLock()
        self._follow_again = Alarm(reactor, self._addresses_changed)
        self._keeping = DeferredLock()
        self._control: Any = None
        self._listening: list[Any] = []
        self._arithmetic = Arithmetic(reactor, config.threads or os.cpu_count() or 1)
        discovery = Discovery(CountedResolver(self._resolver, statistics, reactor.seconds), config.dnssec,
                              random.SystemRandom().random, config.hosts_by_name)
        classes = config.class_table()
        self._inspector = Inspector(self._resolver, discovery, classes, time.time, dns.clock_skew)
        configured = [ConfiguredTunnel(peer.name, subnets, peer.start, peer.place)
                      for peer in config.tunnels for subnets in peer.subnets]
        self.daemon = KeyingDaemon(
            connections=Connections(classes, config.lifespans, config.max_flows, configured), discovery=discovery,
            plane=self._plane, engine=self._engine, journal=Journal(), clock=reactor, unix_time=time.time,
            send=self._send, is_ours=self._is_ours, choice=config.multi_homing,
            calculate=self._arithmetic.calculate, peers=ConfiguredPeers(config.tunnels, discovery),
            partners=Partners(PartnerFile(config.state_directory / PARTNERS),
                              self._in_thread),
            key_directory=config.state_directory / "wireshark", statistics=statistics,
            local_address=self._local_address)
        self._unknown_spis = UnknownSpis(reactor, self._unknown_spi)
        self._manager = ServiceManager(os.environ, reactor, lambda: status_line(self.daemon))
        self._policy = RunningPolicy(config, self.daemon, self._reconfigure)

    def startService(self) -> "Deferred[None]":
        super().startService()
        signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self._policy.hang_up))
        return Deferred.fromCoroutine(self._start()).addErrback(self._cannot_start)

    async def _start(self) -> None:
        self._arithmetic.start()
        self._open_ike_ports(self._addresses)
        self._listen_for_unreachables()
        await self._plane.start(self.daemon)
        if not self.running:
            return  # to whoever stops us meanwhile
        self._keep()
        self.daemon.begin_configured()
        if not self._config.addresses:
            self._watch = AddressWatch(self._reactor, self._addresses_changed)
            self._addresses_changed()
        await self._recover()
        if not self.running:
            return
        self._try_resolvers()
        self._anchors.start(self._resolver.fetch_keys, self._resolver.trust, self._reactor, time.time)
        self._listen_for_control()
        self._listen_for_metrics()
        self._listen_for_manhole()
        self.log.info("oegw {version} guards {addresses} and {clients}", version=__version__,
                      addresses=_listed(self._own) or "no address yet",
                      clients=_listed(self._config.clients) or "no clients")
        self._manager.ready()

    def _cannot_start(self, failure: Failure) -> None:
        """Say why in one line, and end with an exit status that says so too: the reactor itself knows only success."""
        self._manager.failed(failure.getErrorMessage())
        if failure.check(OSError):
            self.log.critical("oegw cannot start: {why}", why=failure.getErrorMessage())
        else:
            self.log.failure("oegw cannot start", failure=failure)
        self._reactor.addSystemEventTrigger("after", "shutdown", os._exit, 1)
        self._reactor.callLater(0, self._reactor.stop)

    def _open_ike_ports(self, addresses: Iterable[Address]) -> None:
        prepare = {IKE_PORT: self._plane.own_socket, NAT_TRAVERSAL_PORT: self._plane.own_socket_for_esp}
        for local in (Endpoint(address, port) for address in addresses for port in prepare):
            try:
                opened = open_socket(local, prepare[local.port])
            except PlaneError:
                raise
            except OSError as error:
                raise OSError(f"UDP {local}: {error.strerror}; is another IKE daemon running, or the address not "
                              "this host's?") from None
            port = IkePort(local, self.daemon.receive_datagram)
            self._reactor.adoptDatagramPort(opened.fileno(), opened.family, port, maxPacketSize=65535)
            opened.close()
            self._ports[local] = port

    def _listen_for_unreachables(self) -> None:
        try:
            for version in {address.version for address in self._addresses} - self._icmp.keys():
                self._icmp[version] = UnreachablePort(self._reactor, version, self._unreachable,
                                                      self._plane.own_socket)
        except OSError as error:
            # Silence is then the only failure that there is.
            self.log.error("ICMP errors about IKE are not heard: {error}", error=error)

    async def _recover(self) -> None:
        """Former partners hear of us (section 9.3); and we hear of those whose SPIs we have lost."""
        try:
            self.daemon.recovery.greet(await self.daemon.partners.restore())
        except (sqlite3.Error, OSError) as error:
            self.log.error("the list of connected gateways cannot be kept in {folder}: {error}; after a crash former "
                           "partners are not told that we have lost their tunnels",
                           folder=self._config.state_directory, error=error)
        try:
            await self._unknown_spis.start()
        except PlaneError as error:
            # Who sends into the void then finds out by itself (RFC 3706).
            self.log.error("ESP by SPIs that we do not have is not noticed: {error}", error=error)

    def _in_thread(self, function: Callable[..., Any], *args: Any) -> "Deferred[Any]":
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), function, *args)

    def _unknown_spi(self, ends: Flow, spi: int, port: int | None) -> None:
        """ESP may come to any address of this host; a gateway is what IKE is served on."""
        if Endpoint(ends.destination, IKE_PORT) in self._ports:
            self.daemon.recovery.unknown_spi(ends, spi, port)

    def _unreachable(self, local: Endpoint, peer: Address) -> None:
        if local in self._ports:
            self.daemon.peer_unreachable(peer)

    def _reconfigure(self, config: Config) -> "Deferred[None]":
        """Another policy is in force. Fails with PlaneError, and then it is not."""
        def answered(result: object) -> object:
            self._manager.ready()
            return result
        self._manager.reloading()
        changed = self._turn.run(lambda: self._put_in_force(config, self._own))
        return changed.addCallback(lambda _: self._keep()).addBoth(answered)

    def _keep(self) -> None:
        """What must never go in clear, for a boot at which the files have an error; no disk makes us wait."""
        self._keeping.run(self._in_thread, keep, self._config).addErrback(lambda failure: self.log.error(
            "{file} cannot be written: {why}; should the configuration have an error at the next boot, what must never "
            "go in clear may do so", file=self._config.state_directory / KEPT, why=failure.getErrorMessage()))

    def _put_in_force(self, config: Config, own: tuple[Address, ...]) -> "Deferred[None]":
        def in_force(_: object) -> None:
            self._config, self._own = config, own
        return self._plane.reconfigure(plane_config(config, own, self._dns.servers)).addCallback(in_force)

    # Addresses that come and go

    def _addresses_changed(self) -> None:
        if not self._following.waiting:  # that one will see it too
            self._following.run(lambda: Deferred.fromCoroutine(self._follow())).addErrback(self._not_followed)

    def _not_followed(self, failure: Failure) -> None:
        self.log.failure("following this host's addresses", failure=failure)
        if self.running and failure.check(PlaneError):
            self._follow_again.set(self._reactor.seconds() + FOLLOW_AGAIN)

    def _addresses_outside(self) -> list[OwnAddress]:
        return outside(list_addresses(), self._config.clients, self._config.inside)

    async def _follow(self) -> None:
        """Protect what this host sends from the addresses that it has now, and serve IKE on the lasting ones.

        One call at a time, each with the addresses that there are when its turn has come: they may be back to what
        they were before the one before was done. Whatever is held or trapped meanwhile waits. Of an address that is
        gone the port stays, and with it what was keyed by it, until there is another of its IP version: it may come
        back, as after a broken link.
        """
        if not self.running:
            return
        found = self._addresses_outside()
        own, lasting = (tuple(one.address for one in found if one.lasting or every) for every in (True, False))
        if own != self._own:
            self.log.info("this host's addresses outside are now {addresses}", addresses=_listed(own) or "none")
            await self._turn.run(lambda: self._put_in_force(self._config, own))
        if not self.running:
            return
        served = {local.address for local in self._ports}
        self._addresses = lasting
        try:
            self._open_ike_ports(address for address in lasting if address not in served)
        except OSError as error:
            self.log.error("IKE is not served: {error}", error=error)
            if isinstance(error, PlaneError):
                self._follow_again.set(self._reactor.seconds() + FOLLOW_AGAIN)
        self._listen_for_unreachables()
        for gone in served - set(own):
            if any(other.version == gone.version for other in lasting):
                self._close_ike_ports(gone)
                self.daemon.address_gone(gone)

    def _close_ike_ports(self, address: Address) -> None:
        for local in [local for local in self._ports if local.address == address]:
            maybeDeferred(self._ports.pop(local).transport.stopListening).addErrback(self._not_stopped)

    def _local_address(self, peer: Address) -> Address:
        return source_address(self._addresses, peer, self._plane.own_socket)

    def _listen_for_control(self) -> None:
        path = self._config.control_socket
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _remove_dead_socket(path)
        factory = ControlFactory(self.daemon, self._inspector, self._reactor.seconds, self.use_key, self._policy,
                                 self._config.translated)
        self._control = self._reactor.listenUNIX(str(path), factory, mode=CONTROL_MODE)

    def use_key(self) -> str:
        """Sign with the key that is on the disk now (RFC 4322 section 5.4); which it is. Raises KeyPairError."""
        key = load(self._config.private_key)
        self._engine.use_key(key)
        self.log.info("signing with {key} from now on", key=public_key(key))
        return str(public_key(key))

    def _listen_for_metrics(self) -> None:
        self._listen("metrics", self._config.metrics, lambda: MetricsSite(
            Collector(self.daemon, lambda: self._anchors.points, self._reactor.seconds,
                      KeyRing(self._config.private_key))))

    def _listen_for_manhole(self) -> None:
        # By its name, so that SSH is loaded only where it is wanted.
        self._listen("manhole", self._config.manhole, lambda: namedAny("oesvc.operator.manhole.ManholeFactory")(
            self.daemon, self._reactor.seconds, self._config.manhole_keys, self._config.state_directory))

    def _listen(self, option: str, where: Path | tuple[Address, int] | None, make: Callable[[], Any]) -> None:
        try:
            match where:
                case Path() as path:
                    _remove_dead_socket(path)
                    self._listening.append(self._reactor.listenUNIX(str(path), make(), mode=CONTROL_MODE))
                case (address, port):
                    self._listening.append(self._reactor.listenTCP(port, make(), interface=str(address)))
        except (CannotListenError, OSError, ImportError, ValueError) as error:
            # What is not counted or looked into is encrypted all the same.
            self.log.error("[gateway] {option}: {error}", option=option, error=error)

    def stopService(self) -> "Deferred[None]":
        """Take leave of the peers, leave the kernel as it was but for what must never go in clear.

        Fires when each part has stopped, whatever became of the others.
        """
        super().stopService()
        self._manager.stopping()
        parts = [self._follow_again.stop,
                 self._unknown_spis.close, self.daemon.close, self.daemon.partners.close, self._anchors.close,
                 *(part.close for part in (*self._icmp.values(), self._watch) if part),
                 *(port.transport.stopListening for port in self._ports.values()),
                 *(port.stopListening for port in (self._control, *self._listening) if port),
                 self._resolver.close, self._plane.stop]
        stopped = DeferredList([maybeDeferred(stop).addErrback(self._not_stopped) for stop in parts])
        return stopped.addCallback(lambda _: self._arithmetic.stop())

    def _not_stopped(self, failure: Failure) -> None:
        self.log.failure("stopping", failure=failure)

    def _send(self, datagram: Datagram) -> None:
        # Without one, its address is gone: as if lost on the way.
        if port := self._ports.get(datagram.local):
            port.send(datagram)

    def _is_ours(self, address: Address) -> bool:
        outside = (rule.outside for rule in self._config.translated if rule.outside)
        return address in self._own or any(address in network for network in (*self._config.clients, *outside))

    def _try_resolvers(self) -> None:
        seldom = [self._resolver.look_up(zone, RecordType.TXT) for zone in seldom_asked(random.SystemRandom().sample)]
        asked: list[Deferred[Any]] = [self._resolver.survey(), self._resolver.prime(), gatherResults(seldom)]
        gatherResults(asked, consumeErrors=True).addCallback(self._primed).addErrback(
            lambda failure: self.log.failure("trying the resolvers", failure=failure))

    def _primed(self, result: list[Any]) -> None:
        """The resolvers were asked while our policy was in force: what of that an administrator should know."""
        found = list(warnings(self._dns, self._own, self._config.clients, *result))
        for warning in found:
            self.log.warn("{warning}", warning=warning)
        if not found:
            self.log.info("the DNS answers while our policy is in force: {reason}", reason=result[1][0].reason)


def _engine_config(config: Config) -> EngineConfig:
    return EngineConfig(load(config.private_key), PROFILES[config.profile.value], config.identity,
                        configured=frozenset(subnets for peer in config.tunnels for subnets in peer.subnets),
                        keying_time=config.keying_time,
                        phase1_lifetime=Lifetime(config.channel_lifetime),
                        phase2_lifetime=Lifetime(config.tunnel_lifetime, config.tunnel_kilobytes),
                        phase1_floor=replace(PHASE1_FLOOR, seconds=config.min_channel_lifetime),
                        phase2_floor=Lifetime(config.min_tunnel_lifetime, config.min_tunnel_kilobytes),
                        **config.ike_limits)


def _remove_dead_socket(path: Path) -> None:
    """Remove a socket of a daemon that is gone. Raises OSError where one answers."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise OSError(f"{path}: another oegw answers here")


def _listed(things: Iterable[object]) -> str:
    return ", ".join(map(str, things))
