"""DNS over TLS against unbound, and against servers of the test's own that misbehave: RFC 7858, RFC 8310."""

import socket
import subprocess
import time

import pytest
from twisted.internet import reactor, ssl
from twisted.internet.defer import gatherResults, maybeDeferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.protocols.basic import Int16StringReceiver
from twisted.protocols.portforward import ProxyFactory, ProxyServer

from oesvc.dns.anchors import read_anchors
from oesvc.dns.answer import SecurityStatus
from oesvc.dns.authentication import Authentication
from oesvc.dns.failures import ServerFailure, Silence
from oesvc.dns.name import parse_name
from oesvc.dns.question import VALIDATING, Question
from oesvc.dns.records import RecordType
from oesvc.dns.resolver import DnsConfig, Mode, ValidatingResolver
from oesvc.dns.sockets import leave_as_is
from oesvc.dns.tls import TlsChannel
from tests.dns.certificates import Authority
from tests.dns.conftest import await_result
from tests.dns.test_fetch import reply
from tests.zones import unbound_conf

NAME = parse_name("66.0.2.192.in-addr.arpa")
SERVER = "dns.example.net"
SECURE, INSECURE, BOGUS, INDETERMINATE = SecurityStatus


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def certified(authority):
    return authority.certify(SERVER)


@pytest.fixture(scope="module")
def unbound(servers):
    """Starts unbounds that speak TLS, each with a certificate of its own; returns where."""
    running = {}

    def start(certified):
        if certified in running:
            return running[certified][1]
        with socket.socket() as probe:
            probe.bind(("127.0.0.53", 0))
            endpoint = probe.getsockname()
        stem = servers.directory / f"tls-{len(running)}"
        configuration = unbound_conf(servers.directory, [endpoint],
                                     stubs=[(name, servers.authority) for name in servers.tree.files])
        stem.with_suffix(".conf").write_text(
            configuration.replace("unbound.pid", f"{stem.name}.pid")
            + f"server:\n  tls-port: {endpoint[1]}\n  tls-service-key: \"{certified.key}\"\n"
              f"  tls-service-pem: \"{certified.certificate}\"\n")
        with stem.with_suffix(".log").open("wb") as log:
            process = subprocess.Popen(["unbound", "-d", "-c", stem.with_suffix(".conf")], stdout=log, stderr=log)
        running[certified] = process, endpoint
        wait_until_listening(process, endpoint)
        return endpoint

    yield start
    for process, _ in running.values():
        process.terminate()
    for process, _ in running.values():
        process.wait(10)


def wait_until_listening(process, endpoint):
    for _ in range(200):
        assert process.poll() is None, f"{process.args} ended"
        with socket.socket() as knock:
            if knock.connect_ex(endpoint) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"{endpoint} does not listen")


class Wire(ProxyServer):
    """Hands octets on in both directions and keeps them."""

    def dataReceived(self, data):
        self.factory.octets.append(data)
        super().dataReceived(data)


class Streams(Int16StringReceiver):
    """Answers by a function from the query to messages; None closes."""

    def connectionMade(self):
        self.factory.connections.append(self)

    def stringReceived(self, string):
        self.factory.diary.append(string)
        for message in self.factory.behaviour(string, self):
            self.transport.loseConnection() if message is None else self.sendString(message)


@pytest.fixture
def world(authority, certified):
    """Starts servers, relays and resolvers, and closes them again."""
    opened = []

    class World:
        def __init__(self):
            self.prepared = []

        def relay(self, server):
            factory = ProxyFactory(*server)
            factory.protocol, factory.octets, factory.noisy = Wire, [], False
            return factory, self._listen(reactor.listenTCP(0, factory, interface="127.0.0.1"))

        def server(self, behaviour, files=certified):
            factory = Factory.forProtocol(Streams)
            factory.behaviour, factory.connections, factory.diary = behaviour, [], []
            pem = files.certificate.read_bytes() + files.key.read_bytes()
            context = ssl.PrivateCertificate.loadPEM(pem).options()
            return factory, self._listen(reactor.listenSSL(0, factory, context, interface="127.0.0.1"))

        def bare(self, protocol):
            factory = Factory.forProtocol(protocol)
            return self._listen(reactor.listenTCP(0, factory, interface="127.0.0.1"))

        def channel(self, server, idle=10.0, **who):
            channel = TlsChannel(reactor, server, self.who(**who), self.prepare, idle)
            opened.append(channel.close)
            return channel

        def resolver(self, server, anchor, **who):
            config = DnsConfig((server,), read_anchors([anchor]), tls={server: self.who(**who)}, tries=(1.0,))
            resolver = ValidatingResolver(config, reactor, prepare_socket=self.prepare)
            opened.append(resolver.close)
            return resolver

        def who(self, name=SERVER, pins=(), authorities=authority.file):
            return Authentication(name, pins, authorities)

        def prepare(self, sock):
            self.prepared.append(sock.type)

        def _listen(self, port):
            opened.append(port.stopListening)
            return "127.0.0.1", port.getHost().port

    yield World()
    await_result(gatherResults([maybeDeferred(close) for close in opened]))
    # Connections that were given up end in a later turn.
    await_result(deferLater(reactor, 0.01))


def question(name=NAME):
    return Question(name, RecordType.TXT, VALIDATING)


def answer(query, text=b"the right text"):
    """To a padded query."""
    end = query.index(b"\0", 12) + 5
    return reply(query, text, question=query[12:end])


def ask(channel, name=NAME, patience=5.0):
    return await_result(channel.exchange(question(name), patience))


def test_a_chain_over_unbound_takes_one_connection_and_nothing_is_in_clear(world, servers, unbound, certified):
    wire, endpoint = world.relay(unbound(certified))
    found = await_result(world.resolver(endpoint, servers.anchor).look_up(NAME, RecordType.TXT))
    assert found.status is SECURE and found.rdatas
    assert world.prepared == [socket.SOCK_STREAM]
    assert wire.octets
    seen = b"".join(wire.octets).lower()
    assert SERVER.encode() in seen, "the name of the server, which is no secret"
    assert not any(word in seen for word in (b"in-addr", b"arpa", b"\x03192", b"x-ipsec-server"))


@pytest.mark.parametrize("days, who, reason", [
    (30, {"name": "dns.example.org"}, r"did not prove who it is: its certificate is for dns\.example\.net$"),
    (30, {"pins": (bytes(32),)}, r"did not prove who it is: its key is none of those in tls-pin but \S{43}=$"),
    (30, {"name": None, "pins": (bytes(32),)}, "its key is none of those in tls-pin"),
    (30, {"authorities": None}, "its certificate comes from an authority that we do not trust$"),
    (-1, {}, "did not prove who it is: its certificate has expired$"),
    (90, {}, "did not prove who it is: its certificate is not valid yet$"),
], ids=["name", "pin and name", "pin", "authority", "expired", "early"])
def test_a_server_that_is_not_who_it_should_be_hears_no_question(world, servers, unbound, authority, days, who, reason):
    endpoint = unbound(authority.certify(SERVER, days))
    found = await_result(world.resolver(endpoint, servers.anchor, **who).look_up(NAME, RecordType.TXT))
    assert found.status is INDETERMINATE
    with pytest.raises(ServerFailure, match=reason):
        ask(world.channel(endpoint, **who))
    assert found.reason.startswith(f"no answer for TXT: 127.0.0.53@{endpoint[1]}")
    assert set(world.prepared) == {socket.SOCK_STREAM}, "no other way was tried"
    server, own = world.server(lambda query, _: [answer(query)], authority.certify(SERVER, days))
    with pytest.raises(ServerFailure, match=reason):
        ask(world.channel(own, **who))
    assert server.diary == []


def test_the_right_pin_is_enough_without_a_name_and_needed_beside_one(world, authority, certified):
    expired = authority.certify("elsewhere.example", -1)
    _, endpoint = world.server(lambda query, _: [answer(query)], expired)
    pins = (bytes(32), expired.pin)
    assert ask(world.channel(endpoint, name=None, pins=pins, authorities=None))
    with pytest.raises(ServerFailure, match="has expired"):
        ask(world.channel(endpoint, name="elsewhere.example", pins=pins))
    _, both = world.server(lambda query, _: [answer(query)])
    assert ask(world.channel(both, pins=(certified.pin,)))


class Greeter(Protocol):
    def connectionMade(self):
        self.transport.write(b"220 mail.example.net ready\r\n")


class Closer(Protocol):
    def connectionMade(self):
        self.transport.loseConnection()


@pytest.mark.parametrize("start, reason", [
    (lambda world, servers: world.bare(Greeter), "speaks no TLS that we understand"),
    (lambda world, servers: world.bare(Closer), "closed the connection in the TLS handshake"),
    (lambda world, servers: ("127.0.0.1", 9), "cannot be reached .*ECONNREFUSED"),
    (lambda world, servers: servers.authority, "did not finish a TLS handshake in time: does it speak TLS"),
], ids=["another protocol", "closes", "nobody", "DNS without TLS"])
def test_where_no_tls_is_spoken_the_question_is_not_put_in_clear(world, servers, start, reason):
    found = await_result(world.resolver(start(world, servers), servers.anchor).look_up(NAME, RecordType.TXT))
    assert found.status is INDETERMINATE
    with pytest.raises(ServerFailure, match=reason):
        ask(world.channel(start(world, servers)), patience=0.1)
    assert set(world.prepared) == {socket.SOCK_STREAM}


def test_questions_share_a_connection_and_answers_come_in_any_order(world):
    held = []

    def answer_in_reverse(query, stream):
        held.append(query)
        return [answer(one) for one in reversed(held)] if len(held) == 50 else []

    server, endpoint = world.server(answer_in_reverse)
    channel = world.channel(endpoint)
    names = [(b"%d" % number, *NAME) for number in range(50)]
    found = await_result(gatherResults([channel.exchange(question(name), 5.0) for name in names]))
    assert len(server.connections) == 1
    for name, data in zip(names, found, strict=True):
        assert data[12:].startswith(bytes([len(name[0])]) + name[0] + b"\x0266")
    assert {len(query) for query in held} == {128}, "padded: all look alike"


def test_what_does_not_answer_the_question_is_passed_over(world):
    def answer_wrongly_first(query, stream):
        forged = answer(query, b"forged")
        return [bytes([query[0] ^ 1]) + forged[1:], forged.replace(b"\x0266", b"\x0267"), b"", b"x", answer(query)]

    _, endpoint = world.server(answer_wrongly_first)
    assert b"the right text" in ask(world.channel(endpoint))


def test_a_question_that_the_server_may_not_have_read_is_asked_once_more(world):
    server, endpoint = world.server(lambda query, _: [None] if len(server.diary) < 2 else [answer(query)])
    channel = world.channel(endpoint)
    assert b"the right text" in ask(channel)
    assert len(server.connections) == 2
    server.behaviour = lambda query, _: [None]
    with pytest.raises(ServerFailure, match="closed the connection without an answer"):
        ask(channel)
    assert len(server.diary) == 4


def test_an_idle_connection_is_closed_and_another_one_opened_when_needed(world):
    server, endpoint = world.server(lambda query, _: [answer(query)])
    channel = world.channel(endpoint, idle=0.05)
    for _ in range(2):
        assert ask(channel) and ask(channel)
        while server.connections[-1].transport.connected:
            await_result(deferLater(reactor, 0.02))
    assert len(server.connections) == 2


def test_a_connection_on_which_nothing_comes_any_more_is_replaced(world):
    server, endpoint = world.server(lambda query, stream: [answer(query)] if stream is not server.connections[0]
                                    or len(server.diary) == 1 else [])
    channel = world.channel(endpoint)
    assert ask(channel)
    with pytest.raises(Silence, match="did not answer over TLS"):
        ask(channel, patience=0.1)
    assert b"the right text" in ask(channel)
    assert len(server.connections) == 2


def test_the_authorities_that_the_system_trusts_may_vouch(world, authority, monkeypatch):
    _, endpoint = world.server(lambda query, _: [answer(query)])
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    assert b"the right text" in ask(world.channel(endpoint, authorities=None))


def test_a_socket_that_cannot_be_prepared_is_not_used(world, authority):
    def refuse(sock):
        raise OSError("no CAP_NET_ADMIN")

    server, endpoint = world.server(lambda query, _: [answer(query)])
    channel = TlsChannel(reactor, endpoint, Authentication(SERVER, (), authority.file), refuse)
    for _ in range(2):
        with pytest.raises(ServerFailure, match=r"cannot be reached .its socket cannot be prepared: no CAP_NET"):
            ask(channel)
    assert server.connections == []


def test_closing_ends_what_is_under_way(world):
    _, endpoint = world.server(lambda query, _: [])
    channel = world.channel(endpoint)
    waiting = channel.exchange(question(), 600.0)
    await_result(deferLater(reactor, 0.1))
    channel.close()
    with pytest.raises(ServerFailure, match="was left"):
        await_result(waiting)
    await_result(deferLater(reactor, 0.01))
    assert [call for call in reactor.getDelayedCalls() if call.getTime() > reactor.seconds() + 100] == []


def test_authentication_says_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match="its name or its key"):
        Authentication(None)
    empty = tmp_path / "ca.pem"
    for content in (None, "no certificate"):
        if content:
            empty.write_text(content)
        with pytest.raises(ValueError, match=r"ca\.pem: no certificates of authorities"):
            Authentication(SERVER, (), empty)


@pytest.mark.conformance("C-4.5-02")
def test_tls_makes_a_resolver_elsewhere_fit_for_trust_ad_and_is_for_all_servers_or_none():
    server, other = ("192.0.2.53", 853), ("192.0.2.54", 853)
    assert DnsConfig((server,), mode=Mode.TRUST_AD, tls={server: Authentication(SERVER)})
    with pytest.raises(ValueError, match="all or none"):
        DnsConfig((server, other), mode=Mode.TRUST_AD, tls={server: Authentication(SERVER)})


def test_servers_with_ipv6_addresses(world, authority, certified):
    factory = Factory.forProtocol(Streams)
    factory.behaviour, factory.connections, factory.diary = lambda query, _: [answer(query)], [], []
    pem = certified.certificate.read_bytes() + certified.key.read_bytes()
    port = reactor.listenSSL(0, factory, ssl.PrivateCertificate.loadPEM(pem).options(), interface="::1")
    channel = TlsChannel(reactor, ("::1", port.getHost().port), Authentication(SERVER, (), authority.file), leave_as_is)
    assert b"the right text" in ask(channel)
    channel.close()
    await_result(maybeDeferred(port.stopListening))
