"""What came of it: counts, delays, and how the days went, in words and as plots of text."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from oesvc.ike import events as ike
from oesvc.ike.failures import KeyingFailure
from oesvc.ipsec.flow import Flow
from oesvc.ipsec.policy import ForwardingPolicy
from oesvc.oe import events as oe
from simulate.clock import HeapClock

if TYPE_CHECKING:
    from simulate.gateway import Process
    from simulate.world import World

WIDTH, HEIGHT = 84, 10
"Characters of a plot."
BLOCKS = " ▁▂▃▄▅▆▇█"
DELAYS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 16.0, 32.0, 90.0)
"Seconds: upper ends of the histogram's classes."


class Tally:
    """Counted as it happens."""

    def __init__(self, clock: HeapClock) -> None:
        self._clock = clock
        self.delays: dict[ForwardingPolicy, list[float]] = {
            policy: [] for policy in ForwardingPolicy if policy is not ForwardingPolicy.HOLD}
        "Seconds from a flow's first held datagram to its policy, by policy."
        self.outages: list[tuple[float, float, Flow]] = []
        "Seconds without an answer, when they ended, and of which flow; shorter ones than a second are not noted."
        self.answers = 0
        self.streams = 0
        self.faults: Counter[str] = Counter()
        self.datagrams: Counter[str] = Counter()
        self.keying: Counter[type] = Counter()
        self.told: Counter[type] = Counter()
        self.failures: Counter[KeyingFailure] = Counter()
        self.hours: list[tuple[int, int, int]] = []
        "At the end of each: connections, tunnels, decisions so far."

    def decided(self, policy: ForwardingPolicy, seconds: float) -> None:
        self.delays[policy].append(seconds)

    def answered(self, flow: Flow, seconds: float) -> None:
        self.answers += 1
        if seconds > 1.0:
            self.outages.append((seconds, self._clock.seconds(), flow))

    def add_process(self, process: "Process") -> None:
        """It has ended."""
        statistics = process.daemon.statistics
        self.keying += statistics.keying
        self.told += statistics.connections
        for (_, failure), number in statistics.failures.items():
            self.failures[failure] += number

    def hour(self, world: "World") -> None:
        """Another one is over."""
        processes = [gateway.process for gateway in world.gateways if gateway.process]
        self.hours.append((sum(len(one.daemon.connections) for one in processes),
                           sum(len(one.daemon.tunnels) for one in processes),
                           sum(map(len, self.delays.values()))))


def quantiles(values: Sequence[float]) -> str:
    """The half, all but one in a hundred, and the greatest."""
    if not values:
        return "none"
    ordered = sorted(values)
    return ", ".join(f"{name} {ordered[min(len(ordered) - 1, int(share * len(ordered)))]:,.3f} s"
                     for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)))


def listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in sorted(counts.items(), key=lambda pair: -pair[1]))


def report(world: "World") -> str:
    """All of it."""
    return "\n".join(_lines(world))


def _lines(world: "World") -> Iterator[str]:
    tally, size, laws = world.tally, world.size, world.laws
    yield (f"seed {world.seed}: {size.gateways:,} gateways, {size.days:g} days and {world.quiet_hours:g} quiet hours, "
           f"{tally.streams:,} flows begun, {world.clock.done:,} events")
    yield f"gateways' records in the DNS: {listed(Counter(world.published.values()))}"
    yield f"faults: {listed(tally.faults)}"
    yield ""
    yield "flows decided, and for how long their first datagram was held:"
    for policy, delays in tally.delays.items():
        yield f"  {policy.value:<13} {len(delays):>8,}   {quantiles(delays)}"
    yield ""
    told, keying = tally.told, tally.keying
    yield (f"tunnels: {told[oe.TunnelNegotiated]:,} came to stand at one end or the other, "
           f"{told[oe.SoftLifetimeReached]:,} times a rekey was begun, {keying[ike.TunnelDeleted]:,} deleted by the "
           f"peer, {keying[ike.TunnelGone]:,} by us, {keying[ike.TunnelLost]:,} lost with a silent peer, "
           f"{keying[ike.TunnelFailed]:,} came to nothing")
    yield f"why: {listed({failure.name: number for failure, number in tally.failures.items()})}"
    yield (f"keying channels: {keying[ike.ChannelUp]:,} ends came to stand, "
           f"{keying[ike.ChannelFailed]:,} strangers failed")
    yield f"messages of IKE: {listed(world.network.counts)}; refused {keying[ike.DatagramRefused]:,}"
    yield f"hosts' datagrams: {listed(tally.datagrams)}; dropped by kernels: {listed(world.drops())}"
    outages = [seconds for seconds, _, _ in tally.outages]
    yield (f"of {tally.answers:,} answers {len(outages):,} came late: {quantiles(outages)} after the first datagram "
           "that was not answered")
    yield ""
    yield "invariants, and how often they were checked:"
    yield from (f"  {number:>12,}  {law}" for law, number in sorted(laws.checked.items(), key=lambda pair: -pair[1]))
    yield f"the most state of one gateway: {listed(laws.most)}"
    yield ""
    yield "seconds that first datagrams were held, by policy (share of each):"
    yield from histogram(tally.delays)
    connections, tunnels, decisions = zip(*tally.hours, strict=True)
    for name, values in (("connections", connections), ("tunnels", tunnels), ("decisions an hour", _steps(decisions))):
        yield ""
        yield f"{name}, of all gateways, hour by hour:"
        yield from plot(values)


def _steps(totals: Sequence[int]) -> list[int]:
    return [after - before for before, after in zip([0, *totals], totals, strict=False)]


def plot(values: Sequence[int], width: int = WIDTH, height: int = HEIGHT) -> Iterator[str]:
    """Columns from left to right; several values that share one are represented by their mean."""
    if not values:
        return
    columns = min(width, len(values))
    means = [_mean(values[at * len(values) // columns:(at + 1) * len(values) // columns]) for at in range(columns)]
    top = max(*means, 1.0)
    for row in range(height - 1, -1, -1):
        cells = [max(0, min(8, round((mean / top * height - row) * 8))) for mean in means]
        label = f"{top:>8,.0f}" if row == height - 1 else " " * 8
        yield f"{label} |{''.join(BLOCKS[cell] for cell in cells)}"
    yield f"{0:>8} +{'-' * columns}"


def _mean(values: Sequence[int]) -> float:
    return sum(values) / max(len(values), 1)


def histogram(delays: Mapping[ForwardingPolicy, Sequence[float]], bars: int = 24) -> Iterator[str]:
    """One row for each class of seconds, one column for each policy."""
    yield f"{'':>10}" + "".join(f" {policy.value:<{bars + 6}}" for policy in delays)
    for least, most in zip((0.0, *DELAYS[:-1]), DELAYS, strict=True):
        yield f"  <= {most:<6g}" + "".join(_bar(values, least, most, bars) for values in delays.values())


def _bar(values: Iterable[float], least: float, most: float, bars: int) -> str:
    numbers = list(values)
    share = sum(least < value <= most for value in numbers) / max(len(numbers), 1)
    return f" {'█' * round(share * bars):<{bars}} {share:5.1%}"
