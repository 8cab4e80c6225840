"""Metrics for Prometheus: the daemon's own state and counts, read when they are asked for; no label names anybody."""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from io import BytesIO
from itertools import product
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from twisted.internet.defer import Deferred
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from oesvc import __version__
from oesvc.daemon import KeyingDaemon
from oesvc.dns.answer import AnswerKind, SecurityStatus
from oesvc.dns.rollover import KeyState, TrustPoint
from oesvc.ike import events as ike
from oesvc.ike.failures import KeyingFailure
from oesvc.ipsec.account import Account
from oesvc.ipsec.policy import ForwardingPolicy
from oesvc.keys.rollover import KeyRing, Stage
from oesvc.oe.classes import ConnectionClass
from oesvc.oe.configured import TunnelState
from oesvc.oe.machine import TRANSITIONS, State
from oesvc.oe.reasons import Because
from oesvc.operator.report import bounds
from oesvc.operator.sent import by_reason, encrypted, label
from oesvc.statistics import Histogram

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

STOOD: Mapping[type[ike.IkeEvent], str] = {ike.ChannelUp: "channel", ike.TunnelUp: "tunnel"}
FAILED: Mapping[type[ike.IkeEvent], str] = {ike.ChannelFailed: "channel", ike.TunnelFailed: "tunnel"}
ENDED: Mapping[type[ike.IkeEvent], str] = {ike.TunnelDeleted: "deleted-by-peer", ike.TunnelLost: "peer-lost",
                                           ike.TunnelGone: "closed"}
TOLD = sorted({event for _, event in TRANSITIONS}, key=lambda event: event.__name__)

Values = Mapping[tuple[str, ...], float]


class Collector:
    """What prometheus_client asks for all metrics, in the reactor's thread."""

    def __init__(self, daemon: KeyingDaemon, trust_points: Callable[[], Sequence[TrustPoint]],
                 seconds: Callable[[], float], keys: KeyRing) -> None:
        """`seconds` is the daemon's clock."""
        self._keys = keys
        self._daemon, self._trust_points, self._seconds = daemon, trust_points, seconds
        self._account: Account = {}

    def refresh(self) -> "Deferred[None]":
        """What the kernel has to be asked is known as of now. Never fails."""
        def read(account: Account) -> None:
            self._account = account
        return self._daemon.plane.account().addCallback(read)

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily("oegw_build", "This version of oegw.", {"version": __version__})
        yield from self._flows()
        yield from self._sent()
        yield from self._keying()
        yield from self._holds()
        yield from self._dns()
        yield from self._key_times()
        yield from self._budgets()

    def _flows(self) -> Iterator[Metric]:
        by_state: Counter[tuple[State, ConnectionClass]] = Counter()
        by_reason: Counter[tuple[Because]] = Counter()
        for (state, of_class, because), number in Counter(
                (one.state, one.connection_class, one.reason.because) for one in self._daemon.connections).items():
            by_state[state, of_class] += number
            by_reason[because,] += number
        yield _gauge("oegw_flows", "Flows by state and class (RFC 4322 section 3.2).", ("state", "class"),
                     _all(by_state, State, ConnectionClass))
        yield _gauge("oegw_flows_by_reason", "Flows by what led to their state.", ("reason",), _all(by_reason, Because))
        configured = Counter((tunnel.state,) for tunnel in self._daemon.connections.configured.values())
        yield _gauge("oegw_configured_tunnels", "Configured tunnels by state.", ("state",),
                     _all(configured, TunnelState))
        told = self._daemon.statistics.connections
        yield _counter("oegw_connection_events", "What connections were told (RFC 4322 section 3.2).", ("event",),
                       {(_words(event.__name__),): told[event] for event in TOLD})

    def _sent(self) -> Iterator[Metric]:
        """With the IP header; datagrams that the kernel had merged are one packet."""
        for place, unit in enumerate(("packets", "bytes")):
            yield _counter(f"oegw_clear_{unit}", f"What left in clear, in {unit}, and why.", ("reason",),
                           self._by_reason(ForwardingPolicy.PASS, place))
            yield _counter(f"oegw_dropped_{unit}", f"What did not leave, in {unit}, and why.", ("reason",),
                           self._by_reason(ForwardingPolicy.DENY, place))
            yield _counter(f"oegw_encrypted_{unit}", f"What was given to opportunistic tunnels, in {unit}.", (),
                           {(): encrypted(self._account)[place]})

    def _by_reason(self, policy: ForwardingPolicy, place: int) -> Values:
        return {(label(name),): amount[place] for name, amount in by_reason(self._account, policy)}

    def _keying(self) -> Iterator[Metric]:
        count, said = self._daemon.engine.counters(), self._daemon.statistics
        yield GaugeMetricFamily("oegw_tunnels", "Tunnels, and attempts at them.", len(self._daemon.tunnels))
        yield GaugeMetricFamily("oegw_keying_channels", "Keying channels (phase 1 SAs), and attempts at them.",
                                count["channels"])
        yield GaugeMetricFamily("oegw_calculations", "Diffie-Hellman exchanges and signatures that are under way or "
                                "wait for a thread.", count["calculations"])
        yield CounterMetricFamily("oegw_first_messages", "Main mode 1 of strangers, answered without state.",
                                  count["first_messages"])
        yield CounterMetricFamily("oegw_datagrams_refused", "IKE datagrams that were dropped.", count["refused"])
        yield _counter("oegw_handshakes", "Keying channels and tunnels that came to stand.", ("kind",),
                       {(kind,): said.keying[event] for event, kind in STOOD.items()})
        yield _counter("oegw_keying_failures", "Tunnels (begun by either side), and keying channels begun by peers, "
                       "that came to nothing.", ("kind", "reason"),
                       {(kind, _label(why)): said.failures[event, why]
                        for (event, kind), why in product(FAILED.items(), KeyingFailure)})
        yield _counter("oegw_tunnels_proposed", "Tunnels that peers have proposed.", (),
                       {(): said.keying[ike.TunnelProposed]})
        yield _counter("oegw_tunnel_ends", "Ends of tunnels: by the peer, with the peer, by us.", ("how",),
                       {(how,): said.keying[event] for event, how in ENDED.items()})

    def _holds(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("oegw_held_datagrams", "Datagrams that wait for a decision about their flow.",
                                self._daemon.plane.bounds()["max-held"][0])
        yield _histograms("oegw_first_datagram_delay_seconds", "How long first datagrams of flows were held, by what "
                          "became of them.", ("outcome",),
                          {(_label(policy),): delays for policy, delays in self._daemon.statistics.delays.items()})

    def _dns(self) -> Iterator[Metric]:
        said = self._daemon.statistics
        yield _counter("oegw_dns_lookups", "Look-ups by result and DNSSEC status (RFC 4035 section 4.3).",
                       ("result", "status"), _all(said.answers, AnswerKind, SecurityStatus))
        yield _histograms("oegw_dns_lookup_seconds", "Durations of look-ups whose answer was not remembered.", (),
                          {(): said.look_ups})
        points = self._trust_points()
        yield _gauge("oegw_trust_anchor_keys", "Keys of trust anchors by state (RFC 5011 section 4).", ("state",),
                     _all(Counter((known.state,) for point in points for known in point.keys), KeyState))
        yield _gauge("oegw_trust_anchor_refreshed_timestamp_seconds", "UNIX time at which the keys of the trust anchor "
                     "that was longest not seen were seen; 0 for never.", (),
                     {(): min(point.refreshed for point in points)} if points else {})

    def _key_times(self) -> Iterator[Metric]:
        """Of the gateway's own key (RFC 4322 section 5.4): what `oegw keys roll` has left on the disk."""
        try:
            made, rolling = self._keys.made(), self._keys.glance(time.time())
        except OSError:
            return  # it is being replaced, or gone
        yield _gauge("oegw_key_made_timestamp_seconds", "UNIX time at which the key in use was made, as the last "
                     "roll-over began.", (), {(): made})
        yield _gauge("oegw_key_rollover", "Whether a roll-over of the key is at this stage.", ("stage",),
                     _all(Counter([(rolling.stage,)] if rolling else ()), Stage))
        yield _gauge("oegw_key_rollover_due_timestamp_seconds", "UNIX time from which `oegw keys roll` can go on; 0 "
                     "while there is no roll-over.", (), {(): rolling.due if rolling else 0})

    def _budgets(self) -> Iterator[Metric]:
        """By their options in oegw.conf."""
        of = bounds(self._daemon, self._seconds())
        for place, (name, what) in enumerate((("oegw_budget_used", "How much of a budget is used."),
                                              ("oegw_budget_limit", "How much of it there is."))):
            yield _gauge(name, what, ("budget",), {(budget,): bound[place] for budget, bound in of.items()})
        yield _counter("oegw_budget_refused", "How often a budget did not suffice.", ("budget",),
                       {(budget,): refused for budget, (_, _, refused) in of.items()})


class MetricsRequest(Request):
    """Nobody has anything to tell us: bodies of requests are not kept."""

    def gotLength(self, length: int | None) -> None:
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        pass


class MetricsPage(Resource):
    isLeaf = True

    def __init__(self, registry: CollectorRegistry, refresh: Callable[[], "Deferred[None]"]) -> None:
        """`refresh` is called before each scrape."""
        super().__init__()
        self._registry, self._refresh = registry, refresh

    def render_GET(self, request: Request) -> int:
        request.setHeader(b"Content-Type", CONTENT_TYPE)
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)

        def answer(_: None) -> None:
            if not gone:
                text = generate_latest(self._registry)
                request.setHeader(b"Content-Length", b"%d" % len(text))
                request.write(text)
                request.finish()
        self._refresh().addCallback(answer)
        return NOT_DONE_YET


class MetricsSite(Site):
    """`/metrics`, over HTTP. A scrape is not worth a line in the log."""

    noisy = False

    def __init__(self, collector: Collector) -> None:
        registry = CollectorRegistry()
        registry.register(collector)
        ProcessCollector(registry=registry)
        root: Any = Resource()
        root.putChild(b"metrics", MetricsPage(registry, collector.refresh))
        super().__init__(root, requestFactory=MetricsRequest)

    def log(self, request: Any) -> None:
        pass


def _gauge(name: str, what: str, labels: Sequence[str], values: Values) -> Metric:
    return _filled(GaugeMetricFamily(name, what, labels=labels), values)


def _counter(name: str, what: str, labels: Sequence[str], values: Values) -> Metric:
    return _filled(CounterMetricFamily(name, what, labels=labels), values)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, values: Values) -> Metric:
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _histograms(name: str, what: str, labels: Sequence[str], values: Mapping[tuple[str, ...], Histogram]) -> Metric:
    family = HistogramMetricFamily(name, what, labels=labels)
    for of, histogram in values.items():
        buckets = [("+Inf" if bound == float("inf") else str(bound), float(count))
                   for bound, count in histogram.cumulative()]
        family.add_metric(of, buckets, histogram.sum)
    return family


def _all(counts: Mapping[Any, int], *kinds: Iterable[Enum]) -> Values:
    """All combinations, those that did not happen too: a series that begins with its first event hides that event."""
    return {tuple(map(_label, members)): counts.get(members, 0) for members in product(*kinds)}


def _label(member: Enum) -> str:
    return label(member.name)


def _words(name: str) -> str:
    """Of a class's name."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()
