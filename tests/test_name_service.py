"""The resolvers as configured, and that nobody who looks up names for us waits for opportunistic encryption."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from oesvc import config
from oesvc.dns.anchors import AnchorError
from oesvc.dns.answer import Answer, AnswerKind, SecurityStatus
from oesvc.dns.budget import Limits
from oesvc.dns.crowd import CrowdLimits
from oesvc.dns.name import parse_name
from oesvc.dns.resolver import APEXES, DnsConfig, Mode
from oesvc.dns.servers import Problem
from oesvc.name_service import dns_config, possible_circle, resolver_sources, seldom_asked, warnings

OWN = (ip_address("192.1.1.4"), ip_address("2001:db8::4"))
CLIENTS = (ip_network("192.1.0.0/24"), ip_network("2001:db8:1::/64"))
ANCHOR = ". IN DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D\n"


@pytest.fixture
def read(tmp_path):
    """The DnsConfig of an oegw.conf with these lines in its [dns]."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "anchor").write_text(ANCHOR)
    (tmp_path / "resolv.conf").write_text("nameserver 192.0.2.1\n")

    def read(*lines):
        file = tmp_path / "oegw.conf"
        file.write_text("\n".join([f"[paths]\npolicies = {tmp_path}/policies\n[dns]",
                                   *(line.format(folder=tmp_path) for line in lines)]))
        return dns_config(config.load(file), tmp_path / "resolv.conf")
    return read


def test_servers_are_asked_where_the_configuration_says(read):
    anchors = "trust-anchors = {folder}/anchor"
    assert read(anchors).servers == (("192.0.2.1", 53),)
    assert read(anchors, "servers = 127.0.0.1 ::1@5353").servers == (("127.0.0.1", 53), ("::1", 5353))
    encrypted = read(anchors, "servers = 192.0.2.53#dns.example.net 2001:db8::53@8853#other.example", "tls = yes")
    assert {server: who.name for server, who in encrypted.tls.items()} == {
        ("192.0.2.53", 853): "dns.example.net", ("2001:db8::53", 8853): "other.example"}


def test_all_that_the_resolver_needs_to_know_reaches_it(read):
    dns = read("trust-anchors = {folder}/anchor {folder}/anchor", "negative-anchors = broken.example",
               "clock-skew = 60", "look-ups = 50", "look-ups-per-client = 5")
    assert dns.mode is Mode.VALIDATE and len(dns.anchors[0].delegation) >= 1
    assert dns.negative_anchors == ((b"broken", b"example"),)
    assert (dns.clock_skew, dns.crowd.in_all, dns.crowd.per_client) == (60, 50, 5)
    assert read("mode = off", "trust-anchors = {folder}/none").anchors == ()
    assert read("mode = trust-ad", "trusted-path = yes").mode is Mode.TRUST_AD


def test_what_only_other_files_show_to_be_wrong_is_said(read):
    with pytest.raises(AnchorError, match="none: "):
        read("trust-anchors = {folder}/none")
    with pytest.raises(ValueError, match=r"trust-ad believes whoever can answer for 192\.0\.2\.1"):
        read("mode = trust-ad")
    with pytest.raises(ValueError, match="anchor: no certificates of authorities"):
        read("trust-anchors = {folder}/anchor", "servers = 192.0.2.53#a.example", "tls = yes",
             "tls-ca = {folder}/anchor")


def test_what_a_look_up_may_cost_and_wait_is_the_configurations(read):
    anchors, plain = "trust-anchors = {folder}/anchor", DnsConfig((("192.0.2.1", 53),), mode=Mode.OFF)
    usual = read(anchors)
    assert (usual.tries, usual.patience, usual.limits, usual.crowd) == (
        plain.tries, plain.patience, plain.limits, plain.crowd), "what is written as the default is the default"
    other = read(anchors, "tries = 2, 3", "patience = 20", "look-up-queries = 50", "look-up-signatures = 70",
                 "look-up-depth = 9", "look-up-hashes = 5000", "look-up-octets = 70000",
                 "look-ups = 7", "look-ups-per-client = 3")
    assert (other.tries, other.patience) == ((2.0, 3.0), 20.0)
    assert other.limits == Limits(queries=50, signatures=70, depth=9, hashes=5000, octets=70000)
    assert other.crowd == CrowdLimits(per_client=3, in_all=7)


@pytest.mark.parametrize("servers, sources", [
    ([], []),
    (["127.0.0.1"], ["192.1.1.4/32", "2001:db8::4/128"]),
    (["127.0.0.53", "::1"], ["192.1.1.4/32", "2001:db8::4/128"]),
    (["2001:db8::4"], ["192.1.1.4/32", "2001:db8::4/128"]),
    (["192.1.0.53"], ["192.1.0.53/32"]),
    (["2001:db8:1::53", "192.1.0.53"], ["2001:db8:1::53/128", "192.1.0.53/32"]),
    (["198.51.100.53", "2001:db8:99::53", "fe80::1%eth0"], []),
    (["192.1.0.53", "127.0.0.1", "198.51.100.53"], ["192.1.0.53/32", "192.1.1.4/32", "2001:db8::4/128"]),
], ids=["none", "loopback", "both loopbacks", "our address", "client", "clients", "elsewhere", "one of each"])
def test_whose_questions_pass_without_oe(servers, sources):
    found = resolver_sources([(server, 53) for server in servers], OWN, CLIENTS)
    assert list(map(str, found)) == sources


@pytest.mark.parametrize("server, hint", [
    ("127.0.0.1", "127.0.0.1 is on this host: .* 53 and 853 only, .* [dns] servers must name that one too"),
    ("192.1.0.53", "192.1.0.53 is among the clients: .* from this address .* [dns] servers must name that one too"),
    ("198.51.100.53", "198.51.100.53 is elsewhere: nothing of ours holds its questions"),
])
def test_a_resolver_that_may_wait_for_us_is_explained(server, hint):
    first, *rest = hint.split(" .* ")
    explained = possible_circle([(server, 53)], OWN, CLIENTS)
    assert explained.startswith(first) and all(part in explained for part in rest)


def primed(status=SecurityStatus.SECURE, kind=AnswerKind.DATA, reason="proven"):
    return [Answer(apex, 48, kind, status, reason) for apex in APEXES]


SELDOM = [Answer(parse_name(f"{octet}.in-addr.arpa"), 16, AnswerKind.NODATA, status, "proven") for octet, status in (
    (1, SecurityStatus.SECURE), (2, SecurityStatus.INDETERMINATE), (3, SecurityStatus.INDETERMINATE))]


def told(failing=(), answers=None, mode=Mode.TRUST_AD, servers=("127.0.0.1",), seldom=SELDOM):
    dns = DnsConfig(tuple((server, 53) for server in servers), mode=mode, trusted_path=True)
    return list(warnings(dns, OWN, CLIENTS, failing, answers or primed(), seldom))


def test_nothing_is_said_when_all_is_well():
    assert told() == []


def test_resolvers_that_do_not_answer_are_explained_in_one_line():
    silent = primed(SecurityStatus.INDETERMINATE, AnswerKind.NONE, "no answer")
    line, = told([Problem("127.0.0.1", "did not answer", silent=True)], silent)
    assert line.startswith("no resolver can be used, so nothing can be encrypted: 127.0.0.1 did not answer. 127.0.0.1 ")
    line, = told([Problem("127.0.0.1", "ignores DO", silent=False)], silent)
    assert line == "no resolver can be used, so nothing can be encrypted: 127.0.0.1 ignores DO."


def test_a_resolver_that_answers_out_of_its_memory_only_is_explained_in_one_line():
    line, = told(seldom=[replace(one, status=SecurityStatus.INDETERMINATE, reason="no answer") for one in SELDOM])
    assert line.startswith("the DNS tells only what was asked before, so nothing new can be encrypted: no answer. "
                           "127.0.0.1 is on this host: its own questions pass at the ports 53 and 853 only")


def test_names_seldom_asked_are_zones_of_the_public_reverse_map():
    assert seldom_asked(lambda places, count: places[:count]) == tuple(
        parse_name(f"{octet}.in-addr.arpa") for octet in (1, 2, 3))
    last: list[int] = []
    assert seldom_asked(lambda places, count: last.extend(places[-count:]) or last) == tuple(
        parse_name(f"{octet}.in-addr.arpa") for octet in (221, 222, 223))
    assert last == [218, 219, 220], "10 and 127 are left out"


def test_one_resolver_of_two_that_fails_is_one_line_and_no_alarm():
    said = told([Problem("192.0.2.1", "did not answer", silent=True)], servers=("192.0.2.1", "127.0.0.1"))
    assert said == ["resolver 192.0.2.1 did not answer"]


def test_what_cannot_be_believed_is_said_once_and_for_the_highest_zone():
    assert told(answers=primed(SecurityStatus.BOGUS, reason="forged")) == ["the DNS cannot be validated at .: forged"]
    partly = [*primed()[:2], *primed(SecurityStatus.BOGUS, reason="forged")[2:]]
    assert told(answers=partly) == ["the DNS cannot be validated at in-addr.arpa.: forged"]


def test_modes_that_weaken_are_said_loudly():
    unvouched = primed(SecurityStatus.INSECURE)
    assert "NOBODY CHECKS" in told(answers=unvouched, mode=Mode.OFF)[0]
    assert told(answers=unvouched)[0].startswith("[dns] mode = trust-ad, but the resolver does not vouch for the keys")
