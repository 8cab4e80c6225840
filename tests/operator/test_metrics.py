"""What Prometheus is told, over HTTP as it asks, and whether the dashboard and the alerts ask for what there is."""

import json
import os
import re
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, ConnectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from oesvc.config import OPTIONS, load
from oesvc.discovery import Discovery
from oesvc.dns.rollover import KeyState, KnownKey, TrustPoint
from oesvc.gateway import GatewayService
from oesvc.ipsec.account import Amount, Verdict
from oesvc.ipsec.flow import Flow
from oesvc.ipsec.policy import ForwardingPolicy
from oesvc.keys import key_pair
from oesvc.keys.rollover import KeyRing
from oesvc.oe.authorization import DnssecPolicy
from oesvc.operator.metrics import Collector, MetricsSite
from oesvc.statistics import DELAYS, CountedResolver
from tests.oe.parts import ALICE, BOB, PARANOID, SG_A
from tests.pair import Pair

EXAMPLES = Path(__file__).parents[2] / "etc/prometheus"
SILENT = BOB + 1
POINTS = (TrustPoint((), (KnownKey(None, KeyState.VALID, 1), KnownKey(None, KeyState.PENDING, 2)), refreshed=1000),
          TrustPoint((b"example",), (), refreshed=2000))


@pytest.fixture(scope="module")
def pair():
    """Alice is keyed with Bob; of his neighbour nobody knows, and a third is named a gateway that is not there."""
    pair = Pair(class_a=PARANOID)
    daemon = pair.a.daemon
    daemon.discovery = Discovery(CountedResolver(pair.resolver, daemon.statistics, pair.clock.seconds),
                                 DnssecPolicy.PREFER, lambda: 0.5)
    pair.publish_delegation(SILENT + 1, SG_A + 100, pair.b.key)
    for host in (BOB, SILENT, SILENT + 1):
        daemon.acquired(Flow(ALICE, host))
    pair.run(10.0)
    daemon.statistics.released(ForwardingPolicy.ENCRYPT, 0.03)
    return pair


@pytest.fixture(scope="module")
def ring(tmp_path_factory):
    """A key that was made at 1000."""
    file = tmp_path_factory.mktemp("keys") / "gateway.pem"
    key_pair.generate(file)
    os.utime(file, (1000, 1000))
    return KeyRing(file)


NO_KEYS = KeyRing(Path("/nowhere/gateway.pem"))


def site(gateway, points=POINTS, keys=NO_KEYS):
    return MetricsSite(Collector(gateway.daemon, lambda: points, lambda: 0.0, keys))


def answer(factory, request=b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"):
    """Status line and headers, and the body of what comes back for a request."""
    transport = StringTransport(peerAddress=IPv4Address("TCP", "127.0.0.1", 4711))
    protocol = factory.buildProtocol(None)
    protocol.makeConnection(transport)
    protocol.dataReceived(request)
    head, _, body = transport.value().partition(b"\r\n\r\n")
    return head.decode(), body.decode()


def samples(text):
    """By name and the values of the labels, which are in alphabetical order."""
    return {(sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text) for sample in family.samples}


@pytest.fixture(scope="module")
def told(pair, ring):
    return answer(site(pair.a, keys=ring))[1]


def test_scrape_over_http_tells_the_state_of_the_daemon(pair, told):
    head, _ = answer(site(pair.a))
    assert head.startswith("HTTP/1.1 200") and "text/plain; version=0.0.4" in head
    found = samples(told)
    assert found["oegw_flows", "oe-paranoid", "keyed"] == 1 and found["oegw_flows", "oe-paranoid", "deny"] == 2
    assert found["oegw_flows_by_reason", "tunnel-stands"] == 1 and found["oegw_flows_by_reason", "peer-silent"] == 1
    assert found["oegw_connection_events_total", "acquired"] == 3
    assert found["oegw_handshakes_total", "channel"] == found["oegw_handshakes_total", "tunnel"] == 1
    assert found["oegw_keying_failures_total", "tunnel", "peer-silent"] == 1
    assert found["oegw_keying_failures_total", "tunnel", "wrong-signature"] == 0
    assert found["oegw_tunnels",] == found["oegw_keying_channels",] == 1
    assert found["oegw_dns_lookups_total", "data", "secure"] == 2
    assert found["oegw_dns_lookups_total", "nxdomain", "secure"] == 4
    assert found["oegw_held_datagrams",] == 1
    assert found["oegw_budget_limit", "max-half-open"] == 1000 and found["oegw_budget_used", "max-tunnels"] == 1
    assert found["oegw_trust_anchor_keys", "valid"] == 1
    assert found["oegw_trust_anchor_refreshed_timestamp_seconds",] == 1000
    assert found["process_resident_memory_bytes",] > 0


def test_scrape_asks_the_kernel_what_was_sent_and_why():
    gateway = Pair().a
    factory = site(gateway)
    gateway.daemon.plane.counted = {
        Verdict(ForwardingPolicy.ENCRYPT): Amount(7, 7000), Verdict(ForwardingPolicy.PASS, "OWN"): Amount(1, 100),
        Verdict(ForwardingPolicy.PASS, "PEER_LOST"): Amount(4, 400),
        Verdict(ForwardingPolicy.DENY, "NOT_OE_CAPABLE"): Amount(2, 200)}
    found = samples(answer(factory)[1])
    assert found["oegw_encrypted_bytes_total",] == 7000 and found["oegw_encrypted_packets_total",] == 7
    assert found["oegw_clear_bytes_total", "own"] == 100 and found["oegw_clear_packets_total", "own"] == 1
    assert found["oegw_dropped_bytes_total", "not-oe-capable"] == 200
    assert found["oegw_clear_bytes_total", "not-oe-capable"] == 0
    assert found["oegw_clear_bytes_total", "peer-lost"] == 400, "not usual, but it was"


def test_who_has_gone_before_the_kernel_answers_is_not_answered():
    gateway, asked = Pair().a, Deferred()
    gateway.daemon.plane.account = lambda: asked
    transport = StringTransport(peerAddress=IPv4Address("TCP", "127.0.0.1", 4711))
    protocol = site(gateway).buildProtocol(None)
    protocol.makeConnection(transport)
    protocol.dataReceived(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    protocol.connectionLost(Failure(ConnectionDone()))
    asked.callback({})
    assert transport.value() == b""


def test_responder_tells_of_what_was_proposed_to_it(pair):
    found = samples(answer(site(pair.b))[1])
    assert found["oegw_tunnels_proposed_total",] == found["oegw_first_messages_total",] == 1


def test_histogram_has_the_buckets_of_the_parser(told):
    found = samples(told)
    buckets = {key[1]: value for key, value in found.items()
               if key[::2] == ("oegw_first_datagram_delay_seconds_bucket", "encrypt")}
    assert list(map(float, buckets)) == [*DELAYS, float("inf")]
    assert (buckets["0.025"], buckets["0.05"], buckets["+Inf"]) == (0, 1, 1)
    assert found["oegw_first_datagram_delay_seconds_sum", "encrypt"] == 0.03


def test_no_label_names_anybody_and_all_series_are_there_from_the_start(pair, told, ring):
    fresh = answer(site(Pair().a, keys=ring))[1]
    assert set(samples(fresh)) == set(samples(told)) and len(samples(told)) < 350
    assert not re.search(r"192\.|10\.in-addr|TXT", told)


def test_budgets_are_called_as_their_options(told):
    budgets = {key[1] for key in samples(told) if key[0] == "oegw_budget_used"}
    assert budgets <= {option for _, option in OPTIONS}
    assert {option for _, option in OPTIONS if option.startswith(("max-", "new-", "look-ups"))} - {
        "look-ups-per-client"} <= budgets | {"max-held"}


def test_times_of_the_roll_over_are_told_and_reading_them_writes_nothing(pair, ring):
    def found():
        told = samples(answer(site(pair.a, keys=ring))[1])
        return ([key[1] for key, value in told.items() if key[0] == "oegw_key_rollover" and value],
                told["oegw_key_rollover_due_timestamp_seconds",], told["oegw_key_made_timestamp_seconds",])
    files = ring.in_use.parent
    assert found() == ([], 0, 1000)
    ring.begin(5000.0)
    assert found() == (["publishing"], 5000, 1000)
    ring.seen(5100.0, 3600, 60)
    assert found() == (["waiting"], 8600, 1000)
    ring.use(8600.0)
    stage, due, made = found()
    assert (stage, due) == (["retiring"], 12200) and made > 1000
    (files / "gateway.roll.json").unlink()
    before = sorted(files.iterdir())
    assert found()[0] == ["retiring"] and sorted(files.iterdir()) == before
    ring.retire()
    assert found() == ([], 0, made)


def test_without_a_key_there_are_no_times_of_it(pair):
    assert not any(key[0].startswith("oegw_key_") for key in samples(answer(site(pair.a))[1]))


def test_without_anchors_there_is_no_time_of_theirs(pair):
    assert not any(key[0].startswith("oegw_trust_anchor_refreshed") for key in samples(answer(site(pair.a, ()))[1]))


@pytest.mark.parametrize("request_line, status", [
    (b"GET / HTTP/1.1", "404"), (b"GET /metrics/x HTTP/1.1", "200"), (b"POST /metrics HTTP/1.1", "405"),
    (b"HEAD /metrics HTTP/1.1", "200")])
def test_other_requests_harm_nobody(pair, request_line, status):
    head, _ = answer(site(pair.a), request_line + b"\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc")
    assert head.startswith(f"HTTP/1.1 {status}")


def test_body_of_a_request_is_not_kept(pair):
    factory, requests = site(pair.a), []
    protocol = factory.buildProtocol(None)
    protocol.makeConnection(StringTransport(peerAddress=IPv4Address("TCP", "127.0.0.1", 4711)))
    protocol.dataReceived(b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n")
    requests += getattr(protocol, "_channel", protocol).requests
    for _ in range(9):
        protocol.dataReceived(bytes(100_000))
    assert requests[0].content.getvalue() == b""
    protocol.connectionLost(None)


@pytest.fixture
def service(tmp_path):
    """A gateway that is not started, with `metrics` as it is to be."""
    def make(where):
        (tmp_path / "policies").mkdir()
        key_pair.generate(tmp_path / "key.pem")
        file = tmp_path / "oegw.conf"
        file.write_text(f"[gateway]\naddress = 192.0.2.1\nmetrics = {where}\n[ike]\nprivate-key = {tmp_path}/key.pem\n"
                        f"[dns]\nservers = 127.0.0.1\n[paths]\npolicies = {tmp_path}/policies\nstate = {tmp_path}\n")
        return GatewayService(load(file), MemoryReactorClock())
    return make


def test_gateway_serves_them_at_a_loopback_port_where_it_is_told_to(service):
    gateway = service("127.0.0.1:9722")
    gateway._listen_for_metrics()
    (port, factory, _, interface), = gateway._reactor.tcpServers
    assert (port, interface) == (9722, "127.0.0.1")
    found = samples(answer(factory)[1])
    assert found["oegw_budget_limit", "look-ups-per-client"] == 250
    assert found["oegw_budget_limit", "max-held"] == 20000 and found["oegw_trust_anchor_keys", "valid"] == 0


def test_gateway_serves_them_at_a_socket(service, tmp_path):
    gateway = service(f"{tmp_path}/metrics")
    gateway._listen_for_metrics()
    (address, factory, _, mode, _), = gateway._reactor.unixServers
    assert (address, mode) == (f"{tmp_path}/metrics", 0o660) and "oegw_flows" in answer(factory)[1]


def test_gateway_serves_them_nowhere_unless_told(service):
    gateway = service("")
    gateway._listen_for_metrics()
    assert not (gateway._reactor.tcpServers or gateway._reactor.unixServers)


def test_gateway_without_its_port_works_all_the_same(service):
    gateway = service("127.0.0.1:9722")

    def taken(*arguments, **options):
        raise CannotListenError("127.0.0.1", 9722, OSError("Address already in use"))

    gateway._reactor.listenTCP = taken
    gateway._listen_for_metrics()
    assert gateway._listening == []


def queries():
    rules = yaml.safe_load((EXAMPLES / "oegw.rules.yml").read_text())
    yield from (rule["expr"] for group in rules["groups"] for rule in group["rules"])
    dashboard = json.loads((EXAMPLES / "oegw-dashboard.json").read_text())
    yield from (target["expr"] for panel in dashboard["panels"] for target in panel["targets"])


@pytest.mark.parametrize("query", sorted(set(queries())))
def test_dashboard_and_alerts_ask_for_what_there_is(query, told):
    series = {(sample.name, *sorted(sample.labels.items()))
              for family in text_string_to_metric_families(told) for sample in family.samples}
    asked = re.findall(r"\b((?:oegw|process)_\w+)(?:\{([^}]*)\})?", query)
    assert asked or query.startswith("up{")
    for name, matchers in asked:
        there = [dict(labels) for known, *labels in series if known == name]
        assert there, f"nothing is called {name}"
        for label, operator, value in re.findall(r'(\w+)(=~|!=|=)"([^"]*)"', matchers):
            values = {one.get(label) for one in there}
            assert label == "instance" or (operator == "=~" and set(value.split("|")) <= values) or value in values


def test_manual_describes_every_metric_and_no_other(told):
    section = (EXAMPLES.parents[1] / "docs/man/oegw.8").read_text().partition(".Sh METRICS")[2].partition(".Sh ")[0]
    described = set(re.findall(r"\boegw_\w+", section))
    assert described == {re.sub("_(bucket|sum|count|created)$", "", key[0]) for key in samples(told)
                         if key[0].startswith("oegw_")}


def test_every_alert_says_what_it_means():
    rules = yaml.safe_load((EXAMPLES / "oegw.rules.yml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            assert rule["alert"].startswith("Oegw") and rule["annotations"]["summary"] and rule["labels"]["severity"]
