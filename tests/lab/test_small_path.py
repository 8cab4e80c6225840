"""Keys of 4,096 bits, and a path that lets small datagrams through and no fragments."""

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.lab.conftest import Lab
from tests.lab.gateway import GATEWAYS, Gateway, start_gateways
from tests.lab.keys import private_key_file
from tests.lab.names import canonical_tree, serve_names
from tests.lab.network import Network, address_of
from tests.lab.prepare import STRONG

pytestmark = pytest.mark.lab

MTU = {4: 1280, 6: 1400}
"""By IP version, between the gateways. Hosts may send 1,280 octets of IPv6 on any path (RFC 8200 section 5): with what
ESP adds to them that is more than 1,280, and only fragments would carry it."""
NO_FRAGMENTS = """table inet path {
  chain arriving {
    type filter hook prerouting priority -450; policy accept;
    iifname "wan0" ip frag-off & 0x3fff != 0 counter drop
    iifname "wan0" exthdr frag exists counter drop
  }
}
"""
OCTETS = 300_000
PORT = 4323


@pytest.fixture(scope="module")
def narrow_lab() -> Iterator[Lab]:
    with Network() as net:
        serve_names(net, canonical_tree(STRONG))
        for row in GATEWAYS:
            net[row.host].run(["nft", "-f", "-"], stdin=NO_FRAGMENTS)
        a, b = (Gateway(net, row, {"ike": {"private-key": str(private_key_file(row.host, STRONG))}})
                for row in GATEWAYS)
        start_gateways((a, b))
        yield Lab(net, a, b)


def fragments(lab: Lab) -> list[str]:
    """The counters of what the path has refused."""
    listed = lab.net["sg-a"].run(["nft", "list", "table", "inet", "path"]).stdout
    listed += lab.net["sg-b"].run(["nft", "list", "table", "inet", "path"]).stdout
    return [line for line in listed.splitlines() if "counter" in line and "packets 0 " not in line]


@pytest.mark.parametrize("version", [4, 6])
def test_strong_keys_and_much_data_get_through_a_narrow_path(narrow_lab: Lab, version: int) -> None:
    net, alice, bob = narrow_lab.net, address_of("alice", version), address_of("bob", version)
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    for row in GATEWAYS:
        net[row.host].run(["ip", "link", "set", "wan0", "mtu", str(MTU[version])])
    with net.capture("internet", f"esp or host {alice} or host {bob}") as tap:
        assert net["alice"].ping(bob, wait=60) == 1
        with net["bob"].socket(family, socket.SOCK_STREAM) as server, \
                net["alice"].socket(family, socket.SOCK_STREAM) as client:
            server.bind((bob, PORT))
            server.listen()
            client.settimeout(60)
            client.connect((bob, PORT))
            sending = threading.Thread(target=lambda: (client.sendall(bytes(OCTETS)), client.shutdown(socket.SHUT_WR)))
            sending.start()
            connection, _ = server.accept()
            with connection:
                connection.settimeout(60)
                received = sum(map(len, iter(lambda: connection.recv(65536), b"")))
            sending.join()
    assert received == OCTETS
    seen = tap.packets()
    assert seen and all(packet.is_esp for packet in seen)
    assert fragments(narrow_lab) == []
