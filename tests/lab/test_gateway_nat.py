"""NAT and NAPT on SG-A itself, by nftables (RFC 4322 section 6.1 and 6.3): translated first, then encrypted.

SG-A has no say in a reverse zone: it is known by name, from an address that delegates nothing.
"""

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.lab.capture import Packet
from tests.lab.conftest import Lab
from tests.lab.gateway import GATEWAYS, Gateway, start_gateways
from tests.lab.names import NAMED_ALICES, SPARE_BOBS, canonical_tree, serve_names
from tests.lab.network import TO_NET_B, Network, address_of
from tests.lab.peers.site import wait_until
from tests.lab.test_addresses import SG_A, renumber
from tests.lab.test_broken_set_ups import examined
from tests.lab.test_main_job import clear

pytestmark = pytest.mark.lab

BOBS = {version: address_of("bob", version) for version in (4, 6)}
CAROLS = {version: address_of("carol", version) for version in (4, 6)}
OUTSIDE = {version: SG_A[version][1] for version in (4, 6)}
PRIVATE = {4: ("10.1.0.65", "10.1.0.66"), 6: ("fd00:1::65", "fd00:1::66")}
FRANK = address_of("frank")
UNTOLD, ONE_TO_ONE = "10.2.0.65", "10.3.0.80"
OPTIONS = {"gateway": {"address": " ".join(OUTSIDE.values()),
                       "translated": f"10.1.0.0/24 fd00:1::/64 {ONE_TO_ONE}={NAMED_ALICES[0]}"},
           "ike": {"identity": "@sg-a.test", "keying-time": "30"}}
RULES = f"""
table inet home {{
  chain postrouting {{
    type nat hook postrouting priority srcnat;
    oifname "wan0" ip saddr {ONE_TO_ONE} snat ip to {NAMED_ALICES[0]}
    oifname "wan0" ip saddr 10.0.0.0/8 masquerade
    oifname "wan0" ip6 saddr fd00::/8 masquerade
  }}
}}
"""
ECHOES = "icmp or (icmp6 and (ip6[40] == 128 or ip6[40] == 129))"
OCTETS = 200_000
PORT = 4324


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Network() as net:
        for name, interface, addresses in (
                ("alice", "eth0", (*PRIVATE[4], *PRIVATE[6], UNTOLD, ONE_TO_ONE)),
                ("sg-a", "lan0", ("10.1.0.1", "10.2.0.1", "10.3.0.1", "fd00:1::1")), ("bob", "eth0", SPARE_BOBS[:3])):
            net[name].run(["ip", "-batch", "-"], stdin="\n".join(
                f"address add {one}/{64 if ':' in one else 24} dev {interface} {'nodad' if ':' in one else ''}"
                for one in addresses))
        for version, (before, after) in SG_A.items():
            renumber(net["sg-a"], "wan0", version, before, after, TO_NET_B)
        net["sg-a"].run(["nft", "-f", "-"], stdin=RULES)
        gateways = Gateway(net, GATEWAYS[0], OPTIONS), Gateway(net, GATEWAYS[1])
        serve_names(net, canonical_tree())
        start_gateways(gateways)
        yield Lab(net, *gateways)


def shown(packets: list[Packet], *inner: str) -> list[Packet]:
    """What of the hosts' own datagrams the Internet sees."""
    return [packet for packet in clear(packets, *inner) if not packet.is_isakmp]


@pytest.mark.conformance("C-6.1-01", "C-6.1-04", "C-6.1-05", "C-6.3-02")
@pytest.mark.parametrize("version", [4, 6])
def test_clients_behind_a_napt_share_the_gateways_own_tunnel_and_lose_no_first_datagram(lab: Lab, version: int) -> None:
    net, bob, outside = lab.net, BOBS[version], OUTSIDE[version]
    with net.capture("internet", "ip6" if version == 6 else "ip") as tap, \
            net.capture("net-b", ECHOES, name=f"arrived-{version}") as arrived:
        assert net["alice"].ping(bob, wait=60, source=PRIVATE[version][0]) == 1
        assert net["alice"].ping(bob, 2, source=PRIVATE[version][0]) == 2
        keyed = len([packet for packet in tap.packets() if packet.is_isakmp])
        assert net["alice"].ping(bob, 3, source=PRIVATE[version][1]) == 3
        much_data(lab, version)
        seen = tap.end()
        echoes = [packet for packet in arrived.end() if bob in packet.flow]
    assert shown(seen, bob, *PRIVATE[version]) == []
    assert any(packet.is_esp for packet in seen)
    assert len([packet for packet in seen if packet.is_isakmp]) == keyed
    assert {address for packet in echoes for address in packet.flow} == {bob, outside}
    first = lab.a.why(PRIVATE[version][0], bob).splitlines()[0]
    assert first.startswith(f"{PRIVATE[version][0]} -> {bob} is encrypted as {outside}, into which this gateway's NAT")


def much_data(lab: Lab, version: int) -> None:
    """A TCP connection through the NAT fills its datagrams: the path's MTU is found."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    received = []
    with lab.net["bob"].socket(family, socket.SOCK_STREAM) as server, \
            lab.net["alice"].socket(family, socket.SOCK_STREAM) as client:
        server.bind((BOBS[version], PORT))
        server.listen()
        client.bind((PRIVATE[version][0], 0))
        client.settimeout(60)
        client.connect((BOBS[version], PORT))
        accepted, _ = server.accept()
        accepted.settimeout(60)
        sender = threading.Thread(target=lambda: (client.sendall(bytes(OCTETS)), client.shutdown(socket.SHUT_WR)))
        sender.start()
        with accepted:
            while data := accepted.recv(65536):
                received.append(len(data))
        sender.join()
    assert sum(received) == OCTETS


@pytest.mark.conformance("C-6.1-01", "C-6.1-02")
def test_host_behind_a_nat_is_looked_up_and_encrypted_as_what_it_is_translated_into(lab: Lab) -> None:
    net, bob, translated = lab.net, SPARE_BOBS[0], NAMED_ALICES[0]
    with net.capture("internet", "ip") as tap, net.capture("sg-b", "udp port 53", interface="lo") as dns:
        assert net["alice"].ping(bob, wait=60, source=ONE_TO_ONE) == 1
        assert net["alice"].ping(bob, 2, source=ONE_TO_ONE) == 2
        seen, asked = tap.end(), [packet.describe() for packet in dns.end()]
    assert shown(seen, bob, translated, ONE_TO_ONE) == []
    assert any(" TXT 80.0.1.192.in-addr.arpa" in question for question in asked)
    assert "encrypted" in lab.a.why(translated, bob)


def test_what_the_configuration_does_not_say_is_translated_is_encrypted_too_but_for_the_first_datagram_lost(
        lab: Lab) -> None:
    """The SPD is asked again after the NAT: the trap drops what nobody has decided, and has it keyed."""
    net, bob = lab.net, SPARE_BOBS[1]
    with net.capture("internet", "ip") as tap:
        assert net["alice"].ping(bob, wait=2, source=UNTOLD) == 0
        wait_until(lambda: net["alice"].ping(bob, wait=1, source=UNTOLD) == 1, "an answer through the tunnel")
        assert net["alice"].ping(bob, 3, source=UNTOLD) == 3
    assert shown(tap.end(), bob, UNTOLD) == []


def test_doctor_finds_that_the_firewall_does_what_the_configuration_says_until_it_does_not(lab: Lab) -> None:
    def about_nat() -> list[str]:
        return [line for line in examined(lab.a, address_of("sg-a")) if "translate" in line]

    assert about_nat() == []
    lab.net["sg-a"].run(["nft", "flush", "chain", "inet", "home", "postrouting"])
    try:
        first = about_nat()[0]
    finally:
        lab.net["sg-a"].run(["nft", "-f", "-"], stdin=f"delete table inet home\n{RULES}")
    assert "[gateway] translated: no rule of this host's firewall translates 10.1.0.0/24" in first


@pytest.mark.parametrize("version", [4, 6])
def test_one_without_a_record_is_reached_in_clear_through_the_nat_and_loses_nothing(lab: Lab, version: int) -> None:
    carol = CAROLS[version]
    with lab.net.capture("internet", f"host {carol}") as tap:
        host = lab.net["alice"]
        assert host.ping(carol, wait=60, source=PRIVATE[version][0]) == 1
        assert host.ping(carol, 2, source=PRIVATE[version][0]) == 2
    assert {frozenset(packet.flow) for packet in tap.end()} >= {
        frozenset((OUTSIDE[version], carol))}


def test_paranoid_destination_sees_nothing_in_clear_translated_or_not(lab: Lab) -> None:
    """Neither while the firewall translates, nor while somebody loads it anew without its rules."""
    net = lab.net
    with net.capture("internet", f"host {FRANK} and not arp") as tap:
        assert net["alice"].ping(FRANK, 2, wait=3, source=PRIVATE[4][0]) == 0
        net["sg-a"].run(["nft", "delete", "table", "inet", "home"])
        try:
            for source in PRIVATE[4][0], PRIVATE[4][1], ONE_TO_ONE:
                assert net["alice"].ping(FRANK, 2, wait=2, source=source) == 0
        finally:
            net["sg-a"].run(["nft", "-f", "-"], stdin=RULES)
    assert tap.end() == []
    assert "is denied" in lab.a.why(OUTSIDE[4], FRANK)


@pytest.mark.conformance("C-6.3-01")
def test_nobody_calls_a_host_behind_a_nat_and_the_attempt_costs_one_look_up(lab: Lab) -> None:
    with lab.net.capture("sg-b", "udp port 53", interface="lo") as dns, \
            lab.net.capture("internet", "udp port 500 or esp") as tap:
        for _ in range(4):
            assert lab.net["bob"].ping(PRIVATE[4][0], wait=2) == 0
        questions = [packet.describe() for packet in dns.end() if " query " in packet.describe()]
        assert [packet for packet in tap.end() if packet.is_isakmp] == []
    assert len([one for one in questions if " TXT 65.0.1.10.in-addr.arpa" in one]) == 1
    assert len(questions) < 12
