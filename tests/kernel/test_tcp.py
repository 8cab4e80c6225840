"""Open TCP connections as the kernel tells them: real sockets on the loopback interface, a real kernel."""

import socket
from ipaddress import ip_address

import pytest
from twisted.internet import selectreactor

from oesvc.ipsec.flow import Flow
from oesvc.kernel.tcp import TcpConnections


@pytest.fixture
def reactor():
    return selectreactor.SelectReactor()


def ask(reactor, *pairs):
    """Whether there are connections, all asked for at once."""
    connections, answers = TcpConnections(reactor), []
    for source, destination in pairs:
        asked = connections.is_open(Flow(ip_address(source), ip_address(destination)))
        asked.addBoth(answers.append)
    deadline = reactor.seconds() + 30
    while len(answers) < len(pairs) and reactor.seconds() < deadline:
        reactor.doIteration(0.1)
    connections.close()
    return answers


@pytest.fixture
def connected():
    """A connection between two sockets, by the client's family and the server's address."""
    opened = []

    def connect(family, address):
        listener = socket.socket(family)
        listener.bind((address if family == socket.AF_INET else "::", 0))
        listener.listen()
        client = socket.socket(family)
        client.connect((address, listener.getsockname()[1]))
        server, _ = listener.accept()
        opened.extend((listener, client, server))
        return client, server

    yield connect
    for one in opened:
        one.close()


@pytest.mark.conformance("C-3.4.1-14")
def test_connection_is_found_by_its_addresses_while_it_is_open(reactor, connected):
    client, server = connected(socket.AF_INET, "127.0.0.1")
    source, destination = client.getsockname()[0], "127.0.0.1"
    assert ask(reactor, (source, destination), (source, "127.0.0.3"), ("127.0.0.4", destination)) == [
        True, False, False]
    server.close()
    assert ask(reactor, (source, destination)) == [True], "this end may still send"
    client.close()


def test_connection_of_ipv4_on_a_socket_for_ipv6_is_found(reactor, connected):
    connected(socket.AF_INET6, "::ffff:127.0.0.9")
    assert ask(reactor, ("127.0.0.1", "127.0.0.9"), ("127.0.0.1", "127.0.0.10")) == [True, False]


def test_connection_of_ipv6_is_found(reactor, connected):
    connected(socket.AF_INET6, "::1")
    assert ask(reactor, ("::1", "::1"), ("::1", "::2")) == [True, False]


def test_closed_connection_is_none(reactor, connected):
    client, server = connected(socket.AF_INET, "127.0.0.11")
    client.close()
    server.close()
    assert ask(reactor, ("127.0.0.1", "127.0.0.11")) == [False]
