"""A world from its seed: gateways and their hosts, what is published for them, what goes wrong, and how it ends."""

from collections import Counter
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address, ip_network
from random import Random
from typing import Any

from twisted.logger import globalLogPublisher

from oesvc.dns.answer import SecurityStatus
from oesvc.dns.name import reverse_name
from oesvc.ipsec.flow import Address, Flow
from oesvc.ipsec.sa import IpsecSa
from oesvc.keys.key_pair import public_key
from oesvc.oe.authorization import DnssecPolicy
from oesvc.oe.classes import ClassTable, ConnectionClass, PolicyLine
from simulate.clock import HeapClock
from simulate.gateway import EPOCH, KEY_POOL, Gateway, pooled_key
from simulate.kernel import Packet
from simulate.laws import Laws
from simulate.names import Zones, delegation_text
from simulate.network import Network, Weather
from simulate.report import Tally
from simulate.traffic import Stream, Streets, habit, pareto

DAY = 86400.0
QUIET = 16 * 3600.0
"Seconds without traffic and faults, after which nothing may be left: the normal lifespan, then the longest channel."
LONGEST_TTL = 14400.0
"Seconds, of what gateways publish."
PLAIN_HOSTS = 200
"Hosts without any gateway."
CLASSES = ((ConnectionClass.OE_PERMISSIVE, 74), (ConnectionClass.OE_PARANOID, 20),
           (ConnectionClass.ALWAYS_CLEAR_TEXT, 4), (ConnectionClass.DENY, 2))
"By default, in per cent of the gateways."

FAULTS = (("restart", 1.0), ("crash", 1.0), ("power failure", 1.0), ("key rolled over", 0.5), ("key replaced", 0.5),
          ("DNS outage", 1.0), ("cut off", 1.0))
"What happens to a gateway, and how often in so many days as `calm_days` says."


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is of everything."""

    gateways: int = 1000
    days: float = 7.0
    flows: float = 0.7
    "That a gateway's hosts begin in a day, the least; the mean is some two times as much."
    calm_days: float = 10.0
    loss: float = 0.03


PUBLISHED = (("as it should be", 70), ("nothing", 5), ("forged", 3), ("misformatted", 3), ("another key", 4),
             ("no KEY of the gateway", 3), ("unsigned", 3), ("no key in TXT", 5), ("a dead gateway first", 4))
"What the DNS says of a gateway and its hosts, in per cent."


class World(Streets):
    """All of it."""

    def __init__(self, seed: int, size: Size) -> None:
        self.seed, self.size = seed, size
        self.random = Random(f"{seed} world")
        self.clock = HeapClock()
        self.network = Network(self.clock, Random(f"{seed} network"), Weather(loss=size.loss))
        self.zones = Zones()
        self.tally = Tally(self.clock)
        self.laws = Laws(self)
        self.quiet_hours = QUIET / 3600
        self.plain = [IPv4Address("80.0.0.5") + 256 * number for number in range(PLAIN_HOSTS)]
        self.homes: dict[Address, list[Gateway]] = {}
        "By host: the gateways that it may leave by, the first that is on."
        self.by_address: dict[Address, Gateway] = {}
        self.gateways = [self._gateway(number) for number in range(size.gateways)]
        self.published: dict[Gateway, str] = {}
        self._ends = size.days * DAY
        self._talkers = [self.random.paretovariate(1.1) for _ in self.gateways]
        "How much is asked of each gateway's hosts."

    def unix_time(self) -> float:
        return EPOCH + self.clock.seconds()

    # Building

    def _gateway(self, number: int) -> Gateway:
        random = self.random
        address = IPv4Address("46.0.0.1") + 256 * number
        clients: list[Address] = [IPv4Address("45.0.0.10") + 256 * number + n for n in range(random.randint(1, 3))]
        options: dict[str, Any] = {"dpd_idle": random.choice((0.0, 120.0, 300.0, 600.0, 900.0))}
        dnssec = random.choices((DnssecPolicy.PREFER, DnssecPolicy.REQUIRE, DnssecPolicy.OFF), (80, 15, 5))[0]
        gateway = Gateway(self, number, address, clients, self._classes(number), options, dnssec,
                          random.choice((12, 200_000, 200_000, 200_000)))
        for host in (address, *clients):
            self.homes.setdefault(host, []).append(gateway)
        self.by_address[address] = gateway
        return gateway

    def _classes(self, number: int) -> ClassTable:
        """A default, and some neighbours and strangers of other classes."""
        random, lines = self.random, []
        kinds, weights = zip(*CLASSES, strict=True)
        for line in range(random.randint(0, 4)):
            base = random.choice(("45.0.0.0", "46.0.0.0"))
            network = ip_network(f"{ip_address(base) + 256 * random.randrange(self.size.gateways)}/24")
            lines.append(PolicyLine(network, random.choice(kinds), f"gateway {number}:{line}"))
        for line in range(random.randint(0, 2)):
            network = ip_network(f"{ip_address('80.0.0.0') + 256 * random.randrange(PLAIN_HOSTS)}/24")
            lines.append(PolicyLine(network, random.choice(kinds), f"gateway {number}:{line + 10}"))
        return ClassTable(lines, random.choices(kinds, weights)[0])

    def publish(self, gateway: Gateway, *numbers: int) -> None:
        """What the DNS is to say of a gateway with these keys."""
        random = self.random
        kind = self.published.get(gateway)
        if kind is None:
            kinds, weights = zip(*PUBLISHED, strict=True)
            kind = self.published[gateway] = random.choices(kinds, weights)[0]
            backup = self.gateways[(gateway.number + 1) % len(self.gateways)]
            if kind == "as it should be" and random.random() < 0.1 and backup is not gateway:
                self.published[gateway] = kind = "two gateways"
                for client in gateway.clients:
                    backup.ours.add(client)
                    self.homes[client].append(backup)
        keys = [public_key(pooled_key(number)) for number in numbers]
        ttl = random.choice((300.0, 3600.0, LONGEST_TTL))
        if kind != "nothing" and kind != "no KEY of the gateway":
            self.zones.publish_keys(gateway.address, keys, ttl)
        status = {"forged": SecurityStatus.BOGUS, "unsigned": SecurityStatus.INSECURE}.get(kind, SecurityStatus.SECURE)
        for host in (gateway.address, *gateway.clients):
            texts = [delegation_text(gateway.address, key) for key in keys]
            if kind == "nothing":
                texts = []
            elif kind == "misformatted":
                texts = [f"X-IPsec-Server=(10){gateway.address} {keys[0].to_base64()}"]
            elif kind == "another key":
                texts = [delegation_text(gateway.address, public_key(pooled_key((numbers[0] + 7) % KEY_POOL)))]
            elif kind == "no key in TXT":
                texts = [f"X-IPsec-Server(10)={gateway.address}"]
            elif kind == "a dead gateway first":
                texts.append(delegation_text(IPv4Address("47.0.0.1") + 256 * gateway.number, keys[0], 5))
            elif kind == "two gateways" and host in gateway.clients:
                backup = self.gateways[(gateway.number + 1) % len(self.gateways)]
                texts.append(f"X-IPsec-Server(20)={backup.address}")
            if kind == "unsigned":
                self.zones.signed[reverse_name(host)] = status
            self.zones.publish_delegations(host, texts, ttl, status)

    # What hosts send

    def leave_host(self, packet: Packet) -> None:
        gateways = self.homes.get(packet.flow.source)
        if gateways is None:
            self.leaves(None, packet, None)
        else:
            next((gateway for gateway in gateways if not gateway.is_off), gateways[0]).kernel.send(packet)

    def leaves(self, gateway: Gateway | None, packet: Packet, sa: IpsecSa | None) -> None:
        """It is on its way between the gateways."""
        here = gateway.address if gateway else packet.flow.source
        self.tally.datagrams["ESP" if sa else "clear"] += 1
        if sa is not None:
            receiver = self.by_address.get(sa.destination)
        else:
            homes = self.homes.get(packet.flow.destination, ())
            receiver = next((one for one in homes if not one.is_off), None)
        there = receiver.address if receiver else packet.flow.destination
        if self.network.passes(here, there):
            self.clock.callLater(self.network.delay(here, there), self._arrives, receiver, packet, sa)

    def _arrives(self, receiver: Gateway | None, packet: Packet, sa: IpsecSa | None) -> None:
        if receiver is None:
            if packet.flow.destination not in self.homes:
                packet.answered(packet)
        elif receiver.kernel.arrived(packet, sa):
            packet.answered(packet)

    def answered_after(self, flow: Flow, seconds: float) -> None:
        self.tally.answered(flow, seconds)


    def _begin_flows(self, gateway: Gateway) -> None:
        """The flows of one day."""
        random = self.random
        for _ in range(int(pareto(random, self.size.flows, 1.3, 60 * self.size.flows))):
            self.clock.callLater(random.uniform(0, DAY), self._begin_flow, gateway)

    def _begin_flow(self, gateway: Gateway) -> None:
        if self.clock.seconds() >= self._ends:
            return
        random = self.random
        source = random.choice((gateway.address, *gateway.clients, *gateway.clients))
        if random.random() < 0.35:
            destination: Address = random.choice(self.plain)
        else:
            other = random.choices(self.gateways, cum_weights=self._cumulative)[0]
            if other is gateway:
                return
            destination = random.choice((other.address, *other.clients, *other.clients))
        self.tally.streams += 1
        Stream(self, self.clock, Flow(source, destination), habit(random), self._ends)

    def drops(self) -> Counter[str]:
        """What kernels have dropped, and why."""
        return sum((gateway.kernel.drops for gateway in self.gateways), Counter())

    # What goes wrong

    def _plan_fault(self, gateway: Gateway) -> None:
        often = sum(weight for _, weight in FAULTS) / (self.size.calm_days * DAY)
        self.clock.callLater(self.random.expovariate(often), self._fault, gateway)

    def _fault(self, gateway: Gateway) -> None:
        if self.clock.seconds() >= self._ends:
            return
        random = self.random
        kinds, weights = zip(*FAULTS, strict=True)
        kind = random.choices(kinds, weights)[0]
        self.tally.faults[kind] += 1
        later = self.clock.callLater
        if kind == "restart":
            gateway.stop()
            later(random.uniform(0.5, 300), gateway.start)
        elif kind == "crash":
            gateway.kill()
            later(random.uniform(0.5, 30), gateway.start)
        elif kind == "power failure":
            gateway.switch_off()
            later(pareto(random, 20, 1.0, 7200), gateway.start)
        elif kind == "key rolled over":
            self._roll_over(gateway)
        elif kind == "key replaced":
            # At once: for a TTL, caches still have the old one.
            gateway.mistaken_until = self.clock.seconds() + LONGEST_TTL + 3600
            gateway.key_number = (gateway.key_number + 1) % KEY_POOL
            self.publish(gateway, gateway.key_number)
            gateway.stop()
            later(1.0, gateway.start)
        elif kind == "DNS outage":
            gateway.resolver.silent += 1
            later(pareto(random, 30, 1.0, 7200), self._dns_is_back, gateway)
        else:
            neighbours = random.sample(self.gateways, min(len(self.gateways), random.choice((1, 1, 5))))
            self.network.cut_off([one.address for one in {gateway, *neighbours}], pareto(random, 10, 0.8, 7200))
        self._plan_fault(gateway)

    def _dns_is_back(self, gateway: Gateway) -> None:
        gateway.resolver.silent -= 1

    def _roll_over(self, gateway: Gateway) -> None:
        """As RFC 4322 section 5.4 wants it: both keys are in the DNS while the new one comes into use."""
        old, new = gateway.key_number, (gateway.key_number + 1) % KEY_POOL
        def use() -> None:
            if gateway.key_number == old:
                gateway.key_number = new
                gateway.stop()
                self.clock.callLater(1.0, gateway.start)

        def withdraw() -> None:
            if gateway.key_number == new:
                self.publish(gateway, new)

        self.publish(gateway, old, new)
        self.clock.callLater(LONGEST_TTL + 60, use)
        self.clock.callLater(2 * (LONGEST_TTL + 60), withdraw)

    def note_end(self, gateway: Gateway) -> None:
        """Its process ends."""
        if gateway.process is not None:
            self.tally.add_process(gateway.process)
            self.laws.forget(gateway.process)

    # Running

    def run(self, progress: Any = lambda hours: None) -> None:
        """The days, then the quiet. Raises BrokenLawError."""
        globalLogPublisher.addObserver(self.laws.heard)
        try:
            self._run(progress)
        finally:
            globalLogPublisher.removeObserver(self.laws.heard)

    def open(self) -> None:
        """Records are published, all gateways are started."""
        total, self._cumulative = 0.0, []
        for weight in self._talkers:
            total += weight
            self._cumulative.append(total)
        for gateway in self.gateways:
            self.publish(gateway, gateway.key_number)
        for gateway in self.gateways:
            gateway.start()
            self._plan_fault(gateway)

    def _run(self, progress: Any) -> None:
        self.open()
        for hour in range(int(self._ends // 3600)):
            if hour % 24 == 0:
                for gateway in self.gateways:
                    self._begin_flows(gateway)
            self.clock.run((hour + 1) * 3600.0, self.laws.step)
            self.tally.hour(self)
            progress(hour + 1)
        self._be_quiet()

    def _be_quiet(self) -> None:
        """Everything that was begun has time to end."""
        self.clock.run(self._ends + QUIET, self.laws.step)
        for gateway in self.gateways:
            self.laws.check_quiet(gateway)
            gateway.kill()
