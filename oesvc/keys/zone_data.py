"""Records at the servers of their zones: put there (RFC 2136, RFC 8945), and looked for at each of them."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.resolver
import dns.rrset
import dns.tsig
import dns.update

from oesvc.ipsec.flow import Address
from oesvc.keys.records import PublishedRecord
from oesvc.set_up import SetUpError

SECONDS = 5.0
"For the answer to one question."
BATCH = 40
"Records in one update: one of a key of 4,096 bits takes 700 octets."
KEY_WANTED = (dns.rcode.REFUSED, dns.rcode.NOTAUTH)
TSIG_FILE = re.compile(
    r'key\s+"?(?P<name>[\w.-]+)"?\s*\{(?=[^}]*algorithm\s+"?(?P<algorithm>[\w-]+)"?\s*;)'
    r'(?=[^}]*secret\s+"(?P<secret>[A-Za-z0-9+/=]+)"\s*;)[^}]*\}')
"As `tsig-keygen` writes it."


class ZoneError(SetUpError):
    """The DNS could not be asked or changed; the text says who said what."""


@dataclass(frozen=True, slots=True)
class Server:
    """One address of an authoritative server."""

    name: str
    address: str

    def __str__(self) -> str:
        return f"{self.name} ({self.address})"


@dataclass(frozen=True, slots=True)
class Zone:
    """A zone, who serves it, and how long the absence of a record is remembered (SOA MINIMUM, in seconds)."""

    name: dns.name.Name
    primary: str
    servers: tuple[Server, ...]
    minimum: int


@dataclass(frozen=True, slots=True)
class Sighting:
    """Whether one server has one record, or what went wrong when it was asked."""

    record: PublishedRecord
    server: Server
    there: bool
    problem: str = ""
    ttl: int = 0


def read_tsig(file: Path) -> tuple[dns.tsig.Key, ...]:
    """The key by which updates are signed. Raises ZoneError; the secret is never in the text."""
    try:
        text, mode = file.read_text(), file.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        raise ZoneError(f"{file}: {getattr(error, 'strerror', None) or 'no text'}") from None
    if mode & 0o007:
        raise ZoneError(f"{file}: everybody may touch it (mode {mode & 0o777:04o}); say `chmod o= {file}`")
    found = TSIG_FILE.search(text)
    if found is None:
        raise ZoneError(f"{file}: this is no key of the form that `tsig-keygen NAME` prints")
    try:
        return (dns.tsig.Key(found["name"], found["secret"], found["algorithm"]),)
    except (ValueError, dns.exception.DNSException) as error:
        raise ZoneError(f"{file}: {error}") from None


class ZoneData:
    """What the DNS holds for us, at its authoritative servers."""

    def __init__(self, resolvers: Sequence[tuple[Address, int]], primary: str | None = None, port: int = 53,
                 tsig: Sequence[dns.tsig.Key] = ()) -> None:
        """`resolvers` find zones and servers; none: those of /etc/resolv.conf. `primary` takes updates; None: the one
        that the zone's SOA names. `port` is that of all authoritative servers.
        """
        self._resolver = dns.resolver.Resolver(configure=not resolvers)
        self._resolver.lifetime = SECONDS * 3
        if resolvers:
            self._resolver.nameservers = [str(address) for address, _ in resolvers]
            self._resolver.port = resolvers[0][1]
        self._primary, self._port, self._tsig = primary, port, tuple(tsig)
        self._zones: dict[dns.name.Name, Zone] = {}
        self._places: dict[str, tuple[dns.name.Name, Zone]] = {}

    def place(self, owner: str) -> tuple[dns.name.Name, Zone]:
        """Where a name's records really stand: behind aliases (RFC 2317), in which zone. Raises ZoneError."""
        if owner not in self._places:
            try:
                name = self._resolver.canonical_name(owner)
                zone = dns.resolver.zone_for_name(name, resolver=self._resolver)
                self._places[owner] = name, self._zone(zone)
            except dns.exception.DNSException as error:
                raise ZoneError(f"{owner}: its zone is not found: {error}") from None
        return self._places[owner]

    def followed(self, records: Iterable[PublishedRecord]) -> Iterator[PublishedRecord]:
        """The same at the names where they really stand. Raises ZoneError."""
        return (PublishedRecord(" ".join((str(self.place(one.owner)[0]), "IN", one.rdtype, one.rdata)))
                for one in records)

    def zones(self, records: Iterable[PublishedRecord]) -> set[Zone]:
        return {self.place(record.owner)[1] for record in records}

    def _zone(self, name: dns.name.Name) -> Zone:
        if name not in self._zones:
            soa = self._resolver.resolve(name, "SOA")[0]
            servers = tuple(Server(str(target), address) for target in sorted(
                entry.target for entry in self._resolver.resolve(name, "NS"))
                for address in self._addresses(target))
            primary = self._primary or next(iter(self._addresses(soa.mname)), None) or servers[0].address
            self._zones[name] = Zone(name, primary, servers, soa.minimum)
        return self._zones[name]

    def _addresses(self, host: dns.name.Name) -> Iterator[str]:
        for rdtype in ("A", "AAAA"):
            try:
                yield from (entry.address for entry in self._resolver.resolve(host, rdtype))
            except (dns.resolver.NoAnswer, dns.resolver.NXDOMAIN):
                continue

    def change(self, records: Iterable[PublishedRecord], ttl: int | None) -> int:
        """Add records with a TTL, or with None remove just these; returns how many. Raises ZoneError.

        Whatever else stands at their names stays; to do it twice is to do it once (RFC 2136 section 3.4.2).
        """
        by_zone: dict[Zone, list[tuple[dns.name.Name, PublishedRecord]]] = defaultdict(list)
        for record in records:
            name, zone = self.place(record.owner)
            by_zone[zone].append((name, record))
        for zone, wanted in by_zone.items():
            for first in range(0, len(wanted), BATCH):
                self._update(zone, wanted[first:first + BATCH], ttl)
        return sum(map(len, by_zone.values()))

    def _update(self, zone: Zone, wanted: Iterable[tuple[dns.name.Name, PublishedRecord]], ttl: int | None) -> None:
        keyring = {key.name: key for key in self._tsig} or None
        update = dns.update.UpdateMessage(zone.name, keyring=keyring)
        for name, record in wanted:
            if ttl is None:
                update.delete(name, _rdata(record))
            else:
                update.add(name, dns.rdataset.from_rdata(ttl, _rdata(record)))
        try:
            said = dns.query.tcp(update, zone.primary, SECONDS * 2, port=self._port).rcode()
        except (OSError, EOFError, dns.exception.DNSException) as error:
            remedy = "; it has another key (tsig-key)" if isinstance(error, dns.tsig.PeerError) else ""
            why = str(error) or type(error).__name__
            raise ZoneError(f"{zone.name}: the update at {zone.primary} failed: {why}{remedy}") from None
        if said is not dns.rcode.NOERROR:
            remedy = "; it wants a key (tsig-key), or another one" if said in KEY_WANTED else ""
            raise ZoneError(f"{zone.name}: {zone.primary} refused the update with {dns.rcode.to_text(said)}{remedy}")

    def look(self, records: Iterable[PublishedRecord]) -> Iterator[Sighting]:
        """Each record at each server of its zone. Raises ZoneError where a zone is not found."""
        answers: dict[tuple[dns.name.Name, str, Server], dns.rrset.RRset | str | None] = {}
        for record in records:
            name, zone = self.place(record.owner)
            for server in zone.servers:
                key = name, record.rdtype, server
                if key not in answers:
                    answers[key] = self._ask(*key)
                found = answers[key]
                if isinstance(found, str):
                    yield Sighting(record, server, False, found)
                else:
                    there = found is not None and _rdata(record) in found
                    yield Sighting(record, server, there, ttl=found.ttl if found is not None else zone.minimum)

    def _ask(self, name: dns.name.Name, rdtype: str, server: Server) -> dns.rrset.RRset | str | None:
        """The RRset, None where there is none, or what went wrong."""
        query = dns.message.make_query(name, rdtype, use_edns=0, payload=1232)
        query.flags &= ~dns.flags.RD
        try:
            reply, _ = dns.query.udp_with_fallback(query, server.address, SECONDS, port=self._port)
        except (OSError, EOFError, dns.exception.DNSException) as error:
            return str(error) or type(error).__name__
        if reply.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            return dns.rcode.to_text(reply.rcode())
        if not reply.flags & dns.flags.AA:
            return "it does not serve the zone"
        return reply.get_rrset(reply.answer, name, dns.rdataclass.IN, dns.rdatatype.from_text(rdtype))


def _rdata(record: PublishedRecord) -> dns.rdata.Rdata:
    if record.rdtype == "KEY":  # which dnspython does not know in words
        return dns.rdata.from_wire(dns.rdataclass.IN, dns.rdatatype.KEY, record.wire, 0, len(record.wire))
    return dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.from_text(record.rdtype), record.rdata)
