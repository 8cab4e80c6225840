"""The DNS as gateways see it: what is published now, what a cache still has, and silence."""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from twisted.internet.defer import Deferred, succeed

from oesvc.dns.answer import Answer, AnswerKind, Name, SecurityStatus
from oesvc.dns.name import reverse_name
from oesvc.interfaces import Bounds, Clock
from oesvc.ipsec.flow import Address
from oesvc.ipsec.rsa_key import RsaPublicKey

TXT, KEY = 16, 25
PATIENCE = 8.0
"Seconds until a question is given up."
ABSENCE_TTL = 900.0
SILENCE_TTL = 30.0


@dataclass(frozen=True, slots=True)
class RecordSet:
    """An RRset as it is published."""

    rdatas: tuple[bytes, ...]
    ttl: float
    status: SecurityStatus = SecurityStatus.SECURE


class Zones:
    """What all zones together say; whoever owns a name changes it when he likes."""

    def __init__(self) -> None:
        self._sets: dict[tuple[Name, int], RecordSet] = {}
        self.signed: dict[Name, SecurityStatus] = {}
        "Names whose absence of records is not proven."

    def publish_keys(self, gateway: Address, keys: Iterable[RsaPublicKey], ttl: float) -> None:
        """KEY records (5.1)."""
        rdatas = tuple(bytes.fromhex("42000401") + key.to_rfc3110() for key in keys)
        self.publish(reverse_name(gateway), KEY, RecordSet(rdatas, ttl))

    def publish_delegations(self, host: Address, texts: Iterable[str], ttl: float,
                            status: SecurityStatus = SecurityStatus.SECURE) -> None:
        """TXT records (5.2)."""
        self.publish(reverse_name(host), TXT, RecordSet(tuple(map(character_strings, texts)), ttl, status))

    def publish(self, name: Name, rdtype: int, records: RecordSet) -> None:
        self._sets[name, rdtype] = records

    def ask(self, name: Name, rdtype: int, unix_time: float) -> Answer:
        records = self._sets.get((name, rdtype))
        if records is None or not records.rdatas:
            status = self.signed.get(name, SecurityStatus.SECURE)
            return Answer(name, rdtype, AnswerKind.NXDOMAIN, status, "the zone says so", canonical=name,
                          expires=unix_time + ABSENCE_TTL)
        return Answer(name, rdtype, AnswerKind.DATA, records.status, "the zone says so", records.rdatas, name,
                      unix_time + records.ttl)


class CachingResolver:
    """The Resolver of one gateway: remembers answers for their TTL; while it is `silent` only those."""

    def __init__(self, zones: Zones, chance: random.Random, unix_time: Callable[[], float]) -> None:
        self._zones, self._random, self._unix_time = zones, chance, unix_time
        self._cache: dict[tuple[Name, int], Answer] = {}
        self._sweep_at = 0.0
        self.silent = 0
        "Outages under way."
        self.asked = 0

    def for_process(self, clock: Clock) -> "ProcessResolver":
        return ProcessResolver(self, clock)

    def look_up(self, name: Name, rdtype: int, clock: Clock) -> "Deferred[Answer]":
        now = self._unix_time()
        known = self._cache.get((name, rdtype))
        if known is not None and known.expires > now:
            return succeed(known)
        self.asked += 1
        waiting: Deferred[Answer] = Deferred()
        if self.silent or self._random.random() < 0.005:
            clock.callLater(PATIENCE, lambda: waiting.callback(self._silence(name, rdtype)))
        else:
            # Most names are asked for in 20 to 100 ms; some servers need a second try, or a third.
            delay = min(0.02 * self._random.paretovariate(1.3), PATIENCE - 1)
            clock.callLater(delay, lambda: waiting.callback(self._found(name, rdtype)))
        return waiting

    def _found(self, name: Name, rdtype: int) -> Answer:
        now = self._unix_time()
        answer = self._zones.ask(name, rdtype, now)
        self._cache[name, rdtype] = answer
        if now > self._sweep_at:
            self._cache = {key: kept for key, kept in self._cache.items() if kept.expires > now}
            self._sweep_at = now + 3600
        return answer

    def _silence(self, name: Name, rdtype: int) -> Answer:
        return Answer(name, rdtype, AnswerKind.NONE, SecurityStatus.INDETERMINATE, "no server answered", canonical=name,
                      expires=self._unix_time() + SILENCE_TTL)


class ProcessResolver:
    """The Resolver as one daemon sees it: a dead one gets no answers."""

    def __init__(self, resolver: CachingResolver, clock: Clock) -> None:
        self._resolver, self._clock = resolver, clock

    def look_up(self, name: Name, rdtype: int, client: Address | None = None) -> "Deferred[Answer]":
        """See oesvc.interfaces.Resolver."""
        return self._resolver.look_up(name, rdtype, self._clock)

    def bounds(self) -> Bounds:
        return {}


def delegation_text(gateway: Address, key: RsaPublicKey, precedence: int = 10) -> str:
    return f"X-IPsec-Server({precedence})={gateway} {key.to_base64()}"


def character_strings(text: str) -> bytes:
    """A TXT record's RDATA."""
    octets = text.encode("ascii")
    pieces = [octets[at:at + 255] for at in range(0, len(octets), 255)]
    return b"".join(bytes([len(piece)]) + piece for piece in pieces)


