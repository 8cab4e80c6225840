"""The main job on real parts: strangers' gateways find each other in the DNS and encrypt what Alice sends to Bob."""

import json
import re
import select
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests.lab.capture import TCP, Packet
from tests.lab.conftest import Lab
from tests.lab.names import CROSSED, SPARE_BOB6, SPARE_BOBS, reverse_name
from tests.lab.network import Host, address_of

pytestmark = [pytest.mark.lab, pytest.mark.unused_network]

ALICE, BOB, CAROL, FRANK, SG_A, SG_B = (address_of(name) for name in ("alice", "bob", "carol", "frank", "sg-a", "sg-b"))
ALICE6, BOB6, CAROL6, SG_A6, SG_B6 = (address_of(name, 6) for name in ("alice", "bob", "carol", "sg-a", "sg-b"))
PORT = 4321
PATIENCE = 90.0
"Seconds, for an emulated machine."

ALWAYS_CLEAR = ("192.1.0.99", "192.2.0.99")
"Addresses of Alice and Bob, in the files `clear` of each other's gateways."
OTHERS = ("own", "resolver", "icmp-error")
"Why the gateway itself sends in clear, now and then."

_fresh = iter(SPARE_BOBS)


@pytest.fixture
def fresh_bob() -> str:
    """An address of Bob's to which nothing has been sent yet."""
    return next(_fresh)


def receive(sock: socket.socket, count: int, patience: float = PATIENCE) -> list[tuple[bytes, str]]:
    """Datagrams and their senders, until there are `count` or patience ends."""
    received: list[tuple[bytes, str]] = []
    deadline = time.monotonic() + patience
    while len(received) < count and select.select([sock], [], [], max(0.0, deadline - time.monotonic()))[0]:
        data, sender = sock.recvfrom(2048)
        received.append((data, sender[0]))
    return received


def without_retransmissions(packets: Sequence[Packet]) -> Iterator[Packet]:
    """Each datagram once: a slow machine may repeat some."""
    seen: set[bytes] = set()
    for packet in packets:
        if packet.payload not in seen:
            yield packet
        seen.add(packet.payload)


def ping_first_and_more(host: Host, destination: str) -> int:
    """How many of three pings were answered; the first goes alone, for of those held only first and last are kept."""
    return host.ping(destination, wait=60) + host.ping(destination, 2)


def syn_without_checksum(packet: Packet) -> bytes:
    """The sender's host leaves the checksum to an interface that it does not have."""
    return packet.payload[:16] + packet.payload[18:]


def clear(packets: Sequence[Packet], *hosts: str) -> list[Packet]:
    """Datagrams in clear from or to any of these hosts."""
    return [packet for packet in packets if set(packet.flow) & set(hosts) and not packet.is_esp]


@pytest.mark.conformance("C-11.2-01", "C-11.2-03", "C-11.2-05", "C-11.2-07", "C-11.2-11", "C-11.2-12", "C-Abs-02",
                         "C-2.2-01", "C-3.1.1-02", "C-3.1.5-01", "C-3.1.5-02", "C-4.1-01")
def test_the_trace_of_section_11_2(lab: Lab) -> None:
    """The first of all: nothing is known and no keying channel stands."""
    net = lab.net
    with (net.capture("sg-a", "udp port 53", interface="lo") as dns_a,
          net.capture("sg-b", "udp port 53", interface="lo") as dns_b,
          net.capture("internet", "udp port 500 or esp or icmp") as tap):
        assert net["alice"].ping(BOB, wait=60) == 1
        seen = tap.end()
        asked = [packet for capture in (dns_a, dns_b) for packet in capture.end()
                 if any(kind in packet.describe() for kind in (" TXT ", " KEY "))]
    trace = list(without_retransmissions(sorted([*asked, *seen], key=lambda packet: packet.time)))
    told = [f"{packet.source} {packet.describe().partition(' spi')[0]}" for packet in trace]
    bobs, alices, sg_as = (reverse_name(address).rstrip(".") for address in (BOB, ALICE, SG_A))
    assert told == [
        f"127.0.0.1 DNS query TXT {bobs}",           # 5B
        f"127.0.0.1 DNS answer TXT {bobs}",          # 5C
        f"{SG_A} ISAKMP main mode",                  # 5D
        f"{SG_B} ISAKMP main mode",                  # 5E
        f"{SG_A} ISAKMP main mode",                  # 5F
        f"{SG_B} ISAKMP main mode",                  # 5G
        f"{SG_A} ISAKMP main mode encrypted",        # 5H
        f"127.0.0.1 DNS query KEY {sg_as}",          # 5I
        f"127.0.0.1 DNS answer KEY {sg_as}",         # 5J
        f"{SG_B} ISAKMP main mode encrypted",        # 5K
        f"{SG_A} ISAKMP quick mode encrypted",       # 5L
        f"127.0.0.1 DNS query TXT {alices}",         # 5M
        f"127.0.0.1 DNS answer TXT {alices}",        # 5N
        f"{SG_B} ISAKMP quick mode encrypted",       # 5O
        f"{SG_A} ISAKMP quick mode encrypted",       # 5P
        f"{SG_A} ESP",                               # 6
        f"{SG_B} ESP",                               # 9
    ]


@pytest.mark.conformance("C-11.2-13", "C-3-02", "C-2.3.3-01")
def test_further_datagrams_cause_nothing_but_esp(lab: Lab) -> None:
    assert lab.net["alice"].ping(BOB, wait=60) == 1
    with lab.net.capture("internet", f"host {SG_A} or host {SG_B}") as tap:
        assert lab.net["alice"].ping(BOB, 20, interval=0.02) == 20
        assert lab.net["bob"].ping(ALICE) == 1
    seen = tap.end()
    assert len(seen) == 42
    assert all(packet.is_esp for packet in seen)


@pytest.mark.conformance("C-3.2-09", "C-3.2.2-02", "C-3.1.3-03")
def test_one_without_a_record_is_reached_in_clear_and_loses_nothing(lab: Lab) -> None:
    with lab.net.capture("internet", "icmp") as tap:
        assert ping_first_and_more(lab.net["alice"], CAROL) == 3
    assert [packet.flow for packet in tap.end()] == [(ALICE, CAROL), (CAROL, ALICE)] * 3
    assert "goes in clear: the destination publishes no delegation record" in lab.a.why(ALICE, CAROL)


@pytest.mark.conformance("C-3.2-10", "C-3.1.4-02")
@pytest.mark.parametrize(("alice", "frank", "prefix"), [
    (ALICE, FRANK, "192.1.1.128/25"), (ALICE6, address_of("frank", 6), "2001:db8:1:1::200/128")])
def test_paranoid_class_without_a_record_is_denied(lab: Lab, alice: str, frank: str, prefix: str) -> None:
    with lab.net.capture("internet", f"host {frank}") as tap:
        assert lab.net["alice"].ping(frank, 3, wait=5) == 0
    assert clear(tap.end(), alice) == []
    told = lab.a.why(alice, frank)
    assert "is denied: the destination publishes no delegation record" in told
    assert f"{prefix} is OE-paranoid" in told


def test_octets_are_counted_by_why_they_go_in_clear_or_encrypted_or_not_at_all(lab: Lab) -> None:
    """Pings of 56 octets, known flows and new ones; what is held is counted when it goes on."""
    alice, own, metrics = lab.net["alice"], lab.net["sg-a"], lab.a.metrics()
    for host, end in zip(("alice", "bob"), ALWAYS_CLEAR, strict=True):
        lab.net[host].run(["ip", "address", "replace", f"{end}/24", "dev", "eth0"])
    before = counted(lab.a.ask("status")["sent"])
    assert ping_first_and_more(alice, BOB) == 3
    assert ping_first_and_more(alice, CAROL) == ping_first_and_more(alice, CAROL6) == 3
    assert ping_first_and_more(own, CAROL) == 3
    assert sum(alice.ping(ALWAYS_CLEAR[1], count, source=ALWAYS_CLEAR[0]) for count in (1, 2)) == 3
    assert alice.ping(FRANK, wait=5) == alice.ping(FRANK, wait=5) == 0
    after = counted(lab.a.ask("status")["sent"])
    grown = {why: tuple(now - then for now, then in zip(after[why], before.get(why, (0, 0)), strict=True))
             for why in after if why[1] not in OTHERS}
    assert {why: much for why, much in grown.items() if any(much)} == {
        ("encrypted", ""): (3, 3 * 84), ("clear", "not-oe-capable"): (9, 6 * 84 + 3 * 104),
        ("clear", "class-is-clear"): (3, 3 * 84), ("dropped", "not-oe-capable"): (2, 2 * 84)}
    now = lab.a.metrics()
    for fate, why in (("clear", "not-oe-capable"), ("clear", "class-is-clear"), ("dropped", "not-oe-capable")):
        for unit, much in zip(("packets", "bytes"), grown[fate, why], strict=True):
            series = f'oegw_{fate}_{unit}_total{{reason="{why}"}}'
            assert now[series] - metrics[series] == much


def counted(sent: dict[str, Any]) -> dict[tuple[str, str], tuple[int, int]]:
    """Datagrams and octets, by what was done with them and why."""
    told = [("encrypted", "", sent["encrypted"])]
    told += [(fate, one["reason"], one) for fate in ("clear", "dropped") for one in sent[fate]]
    return {(fate, why): (one["datagrams"], one["octets"]) for fate, why, one in told}


@pytest.mark.conformance("C-1.3-04", "C-2.3.1-04")
def test_both_ip_versions_alike(lab: Lab) -> None:
    with lab.net.capture("internet", "ip6 and (udp port 500 or esp or icmp6)") as tap:
        assert ping_first_and_more(lab.net["alice"], BOB6) == 3
        assert lab.net["alice"].ping(CAROL6, 1, wait=60) == 1
    seen = tap.end()
    assert clear(seen, BOB6) == []
    assert {packet.flow for packet in seen if packet.is_esp} == {(SG_A6, SG_B6), (SG_B6, SG_A6)}
    assert (ALICE6, CAROL6) in {packet.flow for packet in clear(seen, ALICE6)}


def test_hosts_may_delegate_to_gateways_of_the_other_ip_version(lab: Lab) -> None:
    """IPv4 within IPv6."""
    (alice, _, _), (bob, _, _), _ = CROSSED
    for name, host in ("alice", alice), ("bob", bob):
        lab.net[name].run(["ip", "address", "replace", f"{host}/24", "dev", "eth0"])
    with lab.net.capture("internet", f"host {alice} or host {bob} or ip6 proto 50") as tap:
        assert lab.net["alice"].ping(bob, wait=60, source=alice) == 1
        assert lab.net["alice"].ping(bob, 2, source=alice) == 2
    assert [packet.flow for packet in tap.end()] == [(SG_A6, SG_B6), (SG_B6, SG_A6)] * 3


@pytest.mark.conformance("C-3.1.2-05", "C-9.3-03")
@pytest.mark.parametrize(("family", "fresh_bob", "is_syn"), [
    (socket.AF_INET, next(_fresh), "tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn"),
    (socket.AF_INET6, SPARE_BOB6, "ip6[6] == 6 and ip6[53] & 0x12 == 2")])
def test_tcp_connects_by_its_first_syn(lab: Lab, family: int, fresh_bob: str, is_syn: str) -> None:
    """The SYN that Bob sees first is the one that Alice sent first."""
    syn = f"{is_syn} and dst host {fresh_bob}"
    with (lab.net["bob"].socket(family, socket.SOCK_STREAM) as server,
          lab.net["alice"].socket(family, socket.SOCK_STREAM) as client,
          lab.net.capture("net-a", syn) as sent, lab.net.capture("net-b", syn) as arrived):
        server.bind((fresh_bob, PORT))
        server.listen()
        client.settimeout(PATIENCE)
        client.connect((fresh_bob, PORT))
        sent_syns, arrived_syns = sent.end(), arrived.end()
    assert sent_syns[0].protocol == TCP
    assert syn_without_checksum(arrived_syns[0]) == syn_without_checksum(sent_syns[0])


@pytest.mark.conformance("C-3.1.1-02", "C-3.1.2-03", "C-Abs-02")
@pytest.mark.parametrize("count", [1, 10, 30])
def test_no_first_datagram_is_lost_or_in_clear_when_flows_begin_together(lab: Lab, count: int) -> None:
    """With the whole of DNS and IKE behind it; what the plane alone holds, 300 at once, is in test_plane."""
    bobs = [next(_fresh) for _ in range(count)]
    with (lab.net["bob"].socket() as server, lab.net["alice"].socket() as client,
          lab.net.capture("internet", f"host {SG_A} or net 192.2.0.0/24") as tap):
        server.bind(("0.0.0.0", PORT))
        for bob in bobs:
            client.sendto(bob.encode(), (bob, PORT))
        received = receive(server, count)
        seen = tap.end()
    assert sorted(data.decode() for data, _ in received) == sorted(bobs)
    assert {sender for _, sender in received} == {ALICE}
    assert clear(seen, ALICE, *bobs) == []


@pytest.mark.conformance("C-3.1.2-04", "C-3.1.2-06")
def test_of_many_datagrams_the_first_and_the_last_come_in_order(lab: Lab, fresh_bob: str) -> None:
    with lab.net["bob"].socket() as server, lab.net["alice"].socket() as client:
        server.bind((fresh_bob, PORT))
        for number in range(5):
            client.sendto(bytes([number]), (fresh_bob, PORT))
        received = [data[0] for data, _ in receive(server, 2)] + [data[0] for data, _ in receive(server, 1, 1.0)]
    assert received == [0, 4]


@pytest.mark.conformance("C-3.1.3-03", "C-3.1.1-02")
def test_no_first_datagram_to_one_without_a_record_is_lost(lab: Lab) -> None:
    sources = [f"192.1.0.{number}" for number in range(100, 150)]
    alice, carol = lab.net["alice"], lab.net["carol"]
    alice.run(["ip", "-batch", "-"], stdin="\n".join(f"address add {source}/24 dev eth0" for source in sources))
    with carol.socket() as server, alice.socket() as client:
        server.bind((CAROL, PORT))
        senders = []
        for source in sources:
            sender = alice.socket()
            sender.bind((source, PORT))
            sender.sendto(b"x", (CAROL, PORT))
            senders.append(sender)
        received = receive(server, len(sources))
        for sender in senders:
            sender.close()
        client.sendto(b"done", (CAROL, PORT))
        assert receive(server, 1)[0][0] == b"done"
    assert sorted(sender for _, sender in received) == sorted(sources)


@pytest.mark.conformance("C-7-01", "C-7-02")
@pytest.mark.parametrize(("gateways", "bob"), [((SG_A, SG_B), next(_fresh)), ((SG_A6, SG_B6), SPARE_BOB6)])
def test_the_gateway_itself_is_protected_too(lab: Lab, gateways: tuple[str, str], bob: str) -> None:
    """RFC 4322 section 7: its own datagrams are held at output and go through a tunnel of their own."""
    with lab.net.capture("internet", "esp or icmp or (icmp6 and ip6[40] < 130)") as tap:
        assert ping_first_and_more(lab.net["sg-a"], bob) == 3
    seen = tap.end()
    assert [packet.flow for packet in seen] == [gateways, gateways[::-1]] * 3
    assert clear(seen, gateways[0], bob) == []
    entries = ("\n" + lab.net["sg-a"].xfrm("state")).split("\nsrc ")
    modes = [re.search(r"mode (\w+)", entry) for entry in entries
             if f"sel src {gateways[0]}" in entry and "spi 0x00000000" not in entry]
    assert {mode[1] for mode in modes if mode} == {"tunnel"}


def test_the_time_line_and_the_reasons_are_told(lab: Lab) -> None:
    assert lab.net["alice"].ping(BOB, wait=60) == 1
    drawn = lab.a.timeline(ALICE, BOB)
    steps = ["5", "5B", "5C", "5D", "5E", "5F", "5G", "5H", "5K", "5L", "5O", "5P", "6"]
    places = [drawn.find(f"({step})") for step in steps]
    assert -1 not in places and places == sorted(places)
    told = lab.a.why(ALICE, BOB)
    for part in (f"{ALICE} -> {BOB} is encrypted", "0.0.0.0/0 is OE-permissive", "data, secure",
                 f"proved to be {SG_B}"):
        assert part in told
    answer = json.loads(lab.b.oegw("why", BOB, ALICE, "--json"))
    assert (answer["state"], answer["schema"]) == ("keyed", 1)
    told_steps = dict.fromkeys(entry["step"] for entry in answer["history"])
    assert [step for step in told_steps if step in ("5I", "5J", "5M", "5N")] == ["5I", "5J", "5M", "5N"]


def test_the_metrics_count_what_was_seen(lab: Lab) -> None:
    assert lab.net["alice"].ping(BOB, wait=60) == 1
    here, there = lab.a.metrics(), lab.b.metrics()
    assert here['oegw_flows{class="oe-permissive",state="keyed"}'] >= 1
    assert min(told['oegw_handshakes_total{kind="tunnel"}'] for told in (here, there)) >= 1
    assert here['oegw_dns_lookups_total{result="data",status="secure"}'] >= 1
    for time_of, labels in ("first_datagram_delay", '{outcome="encrypt"}'), ("dns_lookup", ""):
        times, number = (here[f"oegw_{time_of}_seconds_{what}{labels}"] for what in ("sum", "count"))
        assert number >= 1 and 0 < times < PATIENCE * number
    assert here['oegw_trust_anchor_keys{state="valid"}'] >= 1 and there["oegw_tunnels_proposed_total"] >= 1
    assert here["oegw_held_datagrams"] == here['oegw_budget_used{budget="max-held"}'] == 0
    assert here['oegw_budget_refused_total{budget="max-held"}'] == 0


def test_the_dns_is_told_as_the_daemon_sees_it(lab: Lab) -> None:
    answer = json.loads(lab.a.oegw("dns", BOB, "--json"))
    assert [(look_up["type"], look_up["status"]) for look_up in answer["lookups"]] == [
        ("TXT", "secure"), ("IPSECKEY", "secure"), ("KEY", "secure")]
    assert [record["standing"] for look_up in answer["lookups"][:2] for record in look_up["records"]] == ["used"] * 2
    assert [gateway["gateway"] for gateway in answer["decision"]["gateways"]] == [SG_B]
    told = lab.a.oegw("dns", BOB)
    assert f"a flow to {BOB} is keyed with its gateway" in told and "(remembered)" in told


@pytest.mark.conformance("C-12.1-04", "C-12.1-05")
@pytest.mark.parametrize(("family", "alice", "bob"), [(socket.AF_INET, ALICE, BOB), (socket.AF_INET6, ALICE6, BOB6)])
def test_clear_datagrams_of_a_keyed_flow_are_dropped_on_arrival(lab: Lab, family: int, alice: str, bob: str) -> None:
    """Somebody on the Internet claims to be Bob."""
    assert lab.net["alice"].ping(bob, wait=60) == 1
    before = lab.net["sg-a"].xfrm_errors().get("XfrmInTmplMismatch", 0)
    carol = lab.net["carol"]
    carol.run(["ip", "address", "add", bob, "dev", "lo"])
    try:
        with lab.net["alice"].socket(family) as server, carol.socket(family) as client:
            server.bind((alice, PORT))
            client.bind((bob, PORT))
            client.sendto(b"forged", (alice, PORT))
            assert receive(server, 1, 2.0) == []
    finally:
        carol.run(["ip", "address", "delete", f"{bob}/{32 if family == socket.AF_INET else 128}", "dev", "lo"])
    assert lab.net["sg-a"].xfrm_errors()["XfrmInTmplMismatch"] == before + 1
