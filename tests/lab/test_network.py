"""The lab itself: the canonical network is there, forwards, and names what RFC 4322 wants named."""

import pytest

from tests.lab.gateway import GATEWAYS
from tests.lab.names import reverse_name
from tests.lab.network import Host, Network, address_of

pytestmark = pytest.mark.lab
ALICE, BOB, CAROL, SG_A, SG_B = (address_of(name) for name in ("alice", "bob", "carol", "sg-a", "sg-b"))


@pytest.mark.conformance("C-2.1-01")
@pytest.mark.parametrize("version", [4, 6])
def test_every_host_reaches_every_other_through_forwarding_gateways(named_network: Network, version: int) -> None:
    for origin in ("alice", "bob", "carol", "dave"):
        for destination in {"alice", "bob", "carol", "dave", "q", "r", "sg-a", "sg-b", "sg-d"} - {origin}:
            assert named_network[origin].ping(address_of(destination, version)) == 1, (origin, destination)


def test_a_tap_on_the_internet_sees_each_clear_datagram_once(named_network: Network) -> None:
    with named_network.capture("internet", "icmp") as tap:
        assert named_network["alice"].ping(BOB, 3) == 3
        assert named_network["alice"].ping(CAROL) == 1
    assert [packet.flow for packet in tap.end()] == [(ALICE, BOB), (BOB, ALICE)] * 3 + [(ALICE, CAROL), (CAROL, ALICE)]


@pytest.mark.parametrize(("gateway", "client", "peer"), [("sg-a", BOB, SG_B), ("sg-b", ALICE, SG_A)])
def test_records_of_the_other_side_have_a_whole_chain_of_signatures(
        named_network: Network, gateway: str, client: str, peer: str) -> None:
    host = named_network[gateway]
    delegation = validated(named_network, host, client, "TXT")
    assert delegation.startswith("; fully validated")
    assert f"X-IPsec-Server(10)={peer} AwEAA" in delegation
    key = validated(named_network, host, peer, "KEY")
    assert key.startswith("; fully validated")
    assert "16896 4 1 AwEAA" in key


def test_the_absence_of_a_record_is_signed_too(named_network: Network) -> None:
    assert "; negative response, fully validated" in validated(named_network, named_network["sg-a"], CAROL, "TXT")


def validated(net: Network, host: Host, address: str, rdtype: str) -> str:
    """What delv makes of a record, asked of the gateway's own resolver."""
    return host.run(["delv", "@127.0.0.1", "+root=.", "-a", anchors(net), rdtype, reverse_name(address)]).stdout


def anchors(net: Network) -> str:
    """The root's DS as BIND wants trust anchors to be written."""
    fields = net.folder.joinpath("root.key").read_text().partition(" DS ")[2].split()
    file = net.folder / "anchors.conf"
    file.write_text(f'trust-anchors {{ . static-ds {" ".join(fields[:3])} "{"".join(fields[3:])}"; }};\n')
    return str(file)


def test_the_lab_can_protect_a_datagram_between_its_gateways(named_network: Network) -> None:
    """A tunnel keyed by hand, as in RFC 4322 section 2.2: what the daemons' scenarios stand on."""
    hosts = [named_network[row.host] for row in GATEWAYS]
    outbound, inbound = (f"src {SG_A} dst {SG_B}", 0x1001), (f"src {SG_B} dst {SG_A}", 0x1002)
    try:
        for host in hosts:
            for ends, spi in (outbound, inbound):
                host.run(["ip", *f"xfrm state add {ends} proto esp spi {spi} mode tunnel reqid 1 "
                          f"aead rfc4106(gcm(aes)) 0x{'11' * 20} 128".split()])
        for host, there, back in ((hosts[0], outbound, inbound), (hosts[1], inbound, outbound)):
            ours, theirs = (ALICE, BOB) if host is hosts[0] else (BOB, ALICE)
            for selector, direction, (ends, _) in ((f"src {ours} dst {theirs}", "out", there),
                                                   (f"src {theirs} dst {ours}", "fwd", back)):
                host.run(["ip", *f"xfrm policy add {selector} dir {direction} tmpl {ends} proto esp reqid 1 "
                          "mode tunnel".split()])
        with named_network.capture("internet", "esp or icmp") as tap:
            assert named_network["alice"].ping(BOB, 2) == 2
            assert named_network["alice"].ping(CAROL) == 1
        seen = tap.end()
        assert [(packet.flow, packet.is_esp) for packet in seen] == [
            *[((SG_A, SG_B), True), ((SG_B, SG_A), True)] * 2, ((ALICE, CAROL), False), ((CAROL, ALICE), False)]
        assert [packet.spi for packet in seen[:2]] == [0x1001, 0x1002]
        assert not any(host.xfrm_errors() for host in hosts)
    finally:
        for host in hosts:
            host.run(["ip", "xfrm", "policy", "flush"])
            host.run(["ip", "xfrm", "state", "flush"])
