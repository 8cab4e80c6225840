"""A keying daemon without IKE: it plays the daemon's part on a real forwarding plane, told what to do by a test.

    python3 -m tests.kernel.plane_daemon SOCKET CONFIGURATION

One JSON value a line over a UNIX socket: `{"do": NAME, ...}` in, `{"result": ...}` or `{"error": TEXT}` out. Keys and
SPIs come from the flow and a generation, so that two such daemons agree without talking to each other.
"""

import hashlib
import json
import subprocess
import sys
from collections import Counter
from dataclasses import fields
from ipaddress import ip_address, ip_network
from typing import Any

from twisted.internet import reactor, task
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks, maybeDeferred
from twisted.internet.protocol import DatagramProtocol, Factory
from twisted.logger import globalLogPublisher, textFileLogObserver
from twisted.protocols.basic import LineOnlyReceiver

from oesvc.ipsec.flow import Flow
from oesvc.ipsec.policy import ForwardingPolicy
from oesvc.ipsec.sa import Encryption, EspTransform, Integrity, IpsecSa, Lifetime
from oesvc.kernel.plane_config import PlaneConfig
from oesvc.kernel.service import LinuxForwardingPlane

GCM = EspTransform(Encryption.AES_GCM_16, 128, None)
CBC = EspTransform(Encryption.AES_CBC, 256, Integrity.HMAC_SHA2_256_128)
TRANSFORMS = {"gcm": (GCM, 20, 0), "cbc": (CBC, 32, 32)}


def flow_of(pair: list[str]) -> Flow:
    return Flow(ip_address(pair[0]), ip_address(pair[1]))


def make_sa(flow: Flow, gateways: Flow, seconds: int = 3600, generation: int = 0, transform: str = "gcm",
            kilobytes: int = 0) -> IpsecSa:
    """The SA that carries `flow` (in its own direction); both ends make the same."""
    digest = hashlib.sha512(f"{flow} {generation}".encode()).digest()
    kind, key, integrity_key = TRANSFORMS[transform]
    return IpsecSa(0x1000 + int.from_bytes(digest[:4], "big") // 2, gateways.source, gateways.destination, flow, kind,
                   digest[:key], digest[-integrity_key:] if integrity_key else b"", Lifetime(seconds, kilobytes))


def in_words(sa: IpsecSa) -> str:
    """An SA as `ip xfrm` wants to hear of it."""
    return (f"src {sa.source} dst {sa.destination} proto esp spi {sa.spi} mode tunnel "
            f"aead rfc4106(gcm(aes)) 0x{sa.encryption_key.hex()} 128")


def ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True)


def read_config(text: str) -> PlaneConfig:
    readers = {"clients": ip_network, "own": ip_address, "never_clear": ip_network, "resolver_sources": ip_network}
    wanted = json.loads(text)
    assert wanted.keys() <= {field.name for field in fields(PlaneConfig)}
    return PlaneConfig(**{name: tuple(readers.get(name, str)(one) for one in value) if isinstance(value, list)
                          else value for name, value in wanted.items()})


class Daemon:
    """The listener, and what a test may ask for. Rules: (prefix of the destination, verdict, delay in seconds)."""

    def __init__(self, config: PlaneConfig) -> None:
        self.config = config
        self.plane = LinuxForwardingPlane(reactor, config)
        self.rules: list[dict[str, Any]] = []
        self.touched: dict[Flow, list[IpsecSa]] = {}
        self.acquisitions: Counter[Flow] = Counter()
        self.acquired_at: list[float] = []
        self.expired: list[list[Any]] = []
        self.failures: list[str] = []

    # PlaneListener

    def acquired(self, flow: Flow) -> None:
        self.acquisitions[flow] += 1
        self.acquired_at.append(reactor.seconds())
        for rule in self.rules:
            if self.acquisitions[flow] == 1 and flow.destination in ip_network(rule["prefix"]):
                task.deferLater(reactor, rule["delay"], self.decide, flow, rule).addErrback(self.failed)
                return

    def sa_expired(self, flow: Flow, spi: int, hard: bool) -> None:
        self.expired.append(["sa", str(flow), hard])

    def failed(self, failure: Any) -> None:
        self.failures.append(failure.getTraceback())

    @inlineCallbacks
    def decide(self, flow: Flow, rule: dict[str, Any]) -> Any:
        policy = ForwardingPolicy[rule["verdict"]]
        if policy is ForwardingPolicy.ENCRYPT:
            yield self.do_key(flow, **rule["tunnel"])
        else:
            self.touched.setdefault(flow, [])
            yield self.plane.install_policy(flow, policy)

    # Orders

    def do_rules(self, rules: list[dict[str, Any]]) -> None:
        self.rules = rules
        for record in (self.acquisitions, self.acquired_at, self.expired, self.failures):
            record.clear()

    def do_decide(self, verdict: str, **tunnel: Any) -> "Deferred[Any]":
        """Decide all flows that were acquired, all at once."""
        rule = {"verdict": verdict, "tunnel": tunnel}
        return gatherResults([self.decide(flow, rule) for flow in self.acquisitions], consumeErrors=True) \
            .addCallback(len)

    def do_send(self, destination: str, port: int, text: str, timeout: float = 10) -> "Deferred[str]":
        """Send a datagram from an exempt socket of ours; fires with what comes back."""
        answered: Deferred[str] = Deferred()
        protocol = DatagramProtocol()
        protocol.datagramReceived = lambda data, sender: answered.callback(data.decode())
        listening = reactor.listenUDP(0, protocol)
        self.plane.own_socket(listening.socket)
        protocol.transport.write(text.encode(), (destination, port))
        return answered.addTimeout(timeout, reactor).addBoth(
            lambda result: maybeDeferred(listening.stopListening).addCallback(lambda _: result))

    @inlineCallbacks
    def do_second(self) -> Any:
        """Another plane beside this one."""
        yield LinuxForwardingPlane(reactor, self.config).start(self)

    @inlineCallbacks
    def do_key(self, flow: Any, gateways: list[str], **keying: Any) -> Any:
        """Inbound first, as a responder does; then the rest."""
        flow = flow if isinstance(flow, Flow) else flow_of(flow)
        outer = flow_of(gateways)
        sas = [make_sa(flow.reversed(), outer.reversed(), **keying), make_sa(flow, outer, **keying)]
        self.touched.setdefault(flow, []).extend(sas)
        for sa in sas:
            yield self.plane.add_sas(flow, [sa])
        yield self.plane.install_policy(flow, ForwardingPolicy.ENCRYPT, outer)

    @inlineCallbacks
    def do_key_all(self, flows: list[list[str]], **tunnel: Any) -> Any:
        for flow in flows:
            yield self.do_key(flow, **tunnel)

    @inlineCallbacks
    def do_unkey(self, flow: list[str], gateways: list[str], **keying: Any) -> Any:
        outbound, outer = flow_of(flow), flow_of(gateways)
        yield self.plane.forget(outbound)
        yield self.plane.remove_sas(outbound, [make_sa(outbound, outer, **keying),
                                               make_sa(outbound.reversed(), outer.reversed(), **keying)])

    def do_install(self, flow: list[str], policy: str, gateways: list[str] | None = None) -> "Deferred[None]":
        self.touched.setdefault(flow_of(flow), [])
        return self.plane.install_policy(flow_of(flow), ForwardingPolicy[policy],
                                         flow_of(gateways) if gateways else None)

    @inlineCallbacks
    def do_forget(self, flows: list[list[str]]) -> Any:
        for flow in flows:
            yield self.plane.forget(flow_of(flow))

    @inlineCallbacks
    def do_reset(self) -> Any:
        """Forget all that tests have made."""
        self.rules = []
        flows = {*self.touched, *self.acquisitions}
        for flow in flows:
            yield self.plane.forget(flow)
            yield self.plane.remove_sas(flow, self.touched.pop(flow, []))
        self.do_rules([])

    def do_lie(self, host_flow: list[str], gateways: list[str], namespace: str, wide: str) -> None:
        """Give another host our inbound SA of a flow, but for any inner addresses: a peer that lies."""
        outer = flow_of(gateways)
        sa = make_sa(flow_of(host_flow), outer)
        everything = "0.0.0.0/0" if sa.flow.source.version == 4 else "::/0"
        ip(f"-n {namespace} xfrm state add {in_words(sa)} reqid 9 flag af-unspec")
        ip(f"-n {namespace} xfrm policy add src {everything} dst {wide} dir out "
           f"tmpl src {outer.source} dst {outer.destination} proto esp reqid 9 mode tunnel")

    def do_limit_packets(self, flow: list[str], gateways: list[str], soft: int, hard: int) -> None:
        """Set limits that no peer negotiates on a standing outbound SA."""
        sa = make_sa(flow_of(flow), flow_of(gateways))
        ip(f"xfrm state update {in_words(sa)} limit packet-soft {soft} limit packet-hard {hard}")

    def do_shorten(self, flow: list[str], gateways: list[str], seconds: int) -> "Deferred[None]":
        """Let the SAs of a tunnel end earlier, as a peer may say."""
        there, outer = flow_of(flow), flow_of(gateways)
        return self.plane.change_sas(there, [make_sa(there, outer, seconds),
                                             make_sa(there.reversed(), outer.reversed(), seconds)])

    def do_last_use(self, flow: list[str]) -> "Deferred[float]":
        return self.plane.last_use(flow_of(flow))

    def do_report(self) -> dict[str, Any]:
        return {"acquired": {str(flow): count for flow, count in self.acquisitions.items()}, "expired": self.expired,
                "acquired_at": self.acquired_at, "failures": self.failures}

    def do_stop(self) -> "Deferred[None]":
        return self.plane.stop()

    def do_restart(self) -> "Deferred[None]":
        """As a new daemon would begin."""
        self.plane = LinuxForwardingPlane(reactor, self.config)
        return self.plane.start(self)

    def do_start(self) -> "Deferred[None]":
        return self.plane.start(self)


class Orders(LineOnlyReceiver):
    """One connection of the test."""

    delimiter = b"\n"
    MAX_LENGTH = 1 << 20

    def lineReceived(self, line: bytes) -> None:
        order = json.loads(line)
        daemon: Daemon = self.factory.daemon
        done = maybeDeferred(getattr(daemon, f"do_{order.pop('do')}"), **order)
        done.addCallbacks(lambda result: {"result": result}, lambda failure: {"error": failure.getErrorMessage()})
        done.addCallback(lambda answer: self.sendLine(json.dumps(answer).encode()))


def main() -> None:
    globalLogPublisher.addObserver(textFileLogObserver(sys.stderr))
    factory = Factory.forProtocol(Orders)
    factory.daemon = Daemon(read_config(sys.argv[2]))
    reactor.listenUNIX(sys.argv[1], factory)
    reactor.run()


if __name__ == "__main__":
    main()
