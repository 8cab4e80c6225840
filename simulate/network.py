"""What lies between the gateways: datagrams are late, lost, doubled, overtaken, damaged; parts are cut off."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from oesvc.ike.datagram import Datagram
from oesvc.ipsec.flow import Address
from simulate.clock import HeapClock


@dataclass(frozen=True, slots=True)
class Weather:
    """Shares of datagrams, and seconds."""

    loss: float = 0.03
    doubled: float = 0.01
    damaged: float = 0.002
    replayed: float = 0.001
    "Seen again after up to two minutes."
    jitter: float = 0.02
    "Mean of what is added to the path's delay, of an exponential distribution: so datagrams overtake each other."


class Network:
    """Delivers between addresses; who is not known to it is silent."""

    def __init__(self, clock: HeapClock, random: Random, weather: Weather) -> None:
        self._clock, self._random, self._weather = clock, random, weather
        self._cut_off: Counter[Address] = Counter()
        self.receivers: dict[Address, Callable[[Datagram], None]] = {}
        self.counts: Counter[str] = Counter()

    def cut_off(self, addresses: list[Address], seconds: float) -> None:
        """These reach nobody, not even each other."""
        self._cut_off.update(addresses)
        self._clock.callLater(seconds, self._cut_off.subtract, addresses)

    def is_cut(self, one: Address, other: Address) -> bool:
        return self._cut_off[one] > 0 or self._cut_off[other] > 0

    def delay(self, one: Address, other: Address) -> float:
        """5 to 150 ms by the path, and what the moment adds."""
        base = 0.005 + (int(one) * 2654435761 + int(other) * 40503) % 1000 / 1000 * 0.145
        return base + self._random.expovariate(1 / self._weather.jitter)

    def passes(self, one: Address, other: Address) -> bool:
        """Whether a datagram gets through at all."""
        return not self.is_cut(one, other) and self._random.random() >= self._weather.loss

    def send(self, datagram: Datagram) -> None:
        """One datagram of IKE."""
        one, other = datagram.local.address, datagram.peer.address
        self.counts["sent"] += 1
        if not self.passes(one, other):
            self.counts["lost"] += 1
            return
        arrived = Datagram(datagram.data, datagram.peer, datagram.local)
        chance = self._random.random()
        if chance < self._weather.damaged:
            self.counts["damaged"] += 1
            arrived = Datagram(self._damage(datagram.data), datagram.peer, datagram.local)
        elif chance < self._weather.damaged + self._weather.doubled:
            self.counts["doubled"] += 1
            self._deliver(arrived, self.delay(one, other))
        elif chance < self._weather.damaged + self._weather.doubled + self._weather.replayed:
            self.counts["replayed"] += 1
            self._deliver(arrived, self._random.uniform(1, 120))
        self._deliver(arrived, self.delay(one, other))

    def _deliver(self, arrived: Datagram, delay: float) -> None:
        self._clock.callLater(delay, self._arrive, arrived)

    def _arrive(self, datagram: Datagram) -> None:
        receiver = self.receivers.get(datagram.local.address)
        if receiver:
            self.counts["delivered"] += 1
            receiver(datagram)

    def _damage(self, data: bytes) -> bytes:
        at = self._random.randrange(len(data))
        return data[:at] + bytes([data[at] ^ 1 << self._random.randrange(8)]) + data[at + 1:]
