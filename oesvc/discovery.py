"""What the DNS says about hosts and their gateways: RFC 4322 sections 2.3, 3.2.4, 3.3.1 and 3.3.3."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address

from twisted.internet.defer import Deferred, gatherResults

from oesvc.dns.answer import Answer, Name, SecurityStatus
from oesvc.dns.name import name_text, parse_name, reverse_name
from oesvc.dns.records import RecordType
from oesvc.ike.identity import AddressIdentity, Identity
from oesvc.interfaces import Bounds, Resolver
from oesvc.ipsec.flow import Address
from oesvc.ipsec.rsa_key import RsaPublicKey
from oesvc.oe import events as ev
from oesvc.oe.authorization import DnssecPolicy, Keys, judge, judge_keys, read_delegations
from oesvc.oe.delegation import Delegation

TXT, KEY, IPSECKEY = RecordType.TXT, RecordType.KEY, RecordType.IPSECKEY
DELEGATING = (TXT, IPSECKEY)
"What may delegate at a reverse name. TXT is RFC 4322's; IPSECKEY came with RFC 4025 (decisions.md 1C.12)."
MAX_GATEWAYS = 8
"That are called for one host; each may cost its flow the keying time, and third parties our datagrams."

MAX_SILENT = 256
"Of the gateways that did not answer, that are remembered."


@dataclass(frozen=True, slots=True)
class Asked:
    """A question went to the DNS."""

    rdtype: RecordType
    name: Name

    def about(self, name: str) -> str:
        """In words, with its name in these."""
        return f"{self.rdtype.name} {name}?"

    def __str__(self) -> str:
        return self.about(name_text(self.name))


@dataclass(frozen=True, slots=True)
class Replied:
    """It was answered, or given up."""

    rdtype: RecordType
    name: Name
    verdict: str

    def about(self, name: str) -> str:
        """In words, with its name in these."""
        return f"{self.rdtype.name} {name}: {self.verdict}"

    def __str__(self) -> str:
        return self.about(name_text(self.name))


Note = Callable[[Asked | Replied], None]
"Told what is asked and answered, for the journal."


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a peer's gateway may act for a host, and why (3.3.3)."""

    authorized: bool
    detail: str
    status: SecurityStatus = SecurityStatus.INDETERMINATE
    "How far the weakest of the answers that say so can be believed."


class Discovery:
    """The questions that keying asks of the DNS. Nothing here fails: silence and forgery are answers too.

    `client` is whose traffic makes us ask, of ours or of a peer's.
    """

    def __init__(self, resolver: Resolver, policy: DnssecPolicy, random: Callable[[], float],
                 hosts_by_name: bool = True) -> None:
        """`policy` is for classes without one; `random` gives numbers of [0, 1): gateways of one precedence are tried
        in random order (5.2); `hosts_by_name` is whether one known by name may speak for where it calls from (5.3).
        """
        self._hosts_by_name = hosts_by_name
        self.policy = policy
        self._resolver = resolver
        self._random = random
        self._silent: dict[Address | str, None] = {}
        "Gateways that did not answer when they were last called, the latest last."

    def most_lenient(self, policies: Iterable[DnssecPolicy | None]) -> DnssecPolicy:
        """For what is not for a class yet: whether a key does for a class is seen when a tunnel is proposed."""
        return max((policy or self.policy for policy in policies), key=list(DnssecPolicy).index)

    async def delegations(self, destination: Address, note: Note, client: Address | None = None,
                          policy: DnssecPolicy | None = None) -> ev.Answered:
        """Who may be keyed with for a host: one event for its connection, all look-ups done (3.2.4)."""
        answers = await self._look_up_all(reverse_name(destination), DELEGATING, note, client)
        judged = judge(answers, destination, policy or self.policy)
        if not isinstance(judged, ev.DelegationFound):
            return judged
        missing = [d for d in judged.delegations if not d.keys]
        found = await gatherResults([Deferred.fromCoroutine(self.keys(_identity(d), note, client, policy))
                                     for d in missing])
        keys = dict(zip(missing, found, strict=True))
        complete = [replace(d, keys=keys[d].keys) if d in keys else d for d in judged.delegations]
        usable = sorted((d for d in complete if d.keys), key=self._turn)[:MAX_GATEWAYS]
        expires = min([judged.expires, *(k.expires for k in found)])
        if not usable:
            refused = found[0].refused or ev.LookUpFailed(found[0].detail, expires)
            return replace(refused, detail=f"{judged.detail}; its gateway's key: {refused.detail}", expires=expires)
        status = SecurityStatus.of_all([judged.status, *(keys[d].status for d in missing if keys[d].keys)])
        return ev.DelegationFound(judged.detail, expires, tuple(usable), status)

    def was_silent(self, gateway: Address) -> None:
        """A gateway is dead or out of reach: of several with one precedence it is called last (section 8)."""
        self._silent.pop(gateway, None)
        self._silent[gateway] = None
        if len(self._silent) > MAX_SILENT:
            del self._silent[next(iter(self._silent))]

    def has_answered(self, gateway: Address) -> None:
        self._silent.pop(gateway, None)

    def _turn(self, delegation: Delegation) -> tuple[int, bool, float]:
        return delegation.precedence, delegation.gateway in self._silent, self._random()

    async def keys(self, identity: Identity, note: Note, client: Address | None = None,
                   policy: DnssecPolicy | None = None) -> Keys:
        """A gateway's keys: KEY at its name (3.3.1); where it has none, those that its name delegates to itself.

        A TXT record delegates at reverse names only, IPSECKEY at any (RFC 4025 section 1.2).
        """
        name, itself = _name(identity), _gateway(identity)
        policy = policy or self.policy
        found = judge_keys(await self._look_up(name, KEY, note, client), policy)
        if found.keys or isinstance(found.refused, ev.DelegationBad):
            return found
        types = DELEGATING if isinstance(identity, AddressIdentity) else (IPSECKEY,)
        judged = judge(await self._look_up_all(name, types, note, client), itself, policy, calling=False)
        if isinstance(judged, ev.DelegationFound) and (own := [
                key for delegation in judged.delegations if delegation.gateway == itself for key in delegation.keys]):
            return Keys(tuple(dict.fromkeys(own)), judged.expires, judged.detail, status=judged.status)
        refused = judged if isinstance(judged, ev.DelegationBad) else found.refused
        asked = " and ".join(rdtype.name for rdtype in types)
        return replace(found, detail=f"KEY: {found.detail}; {asked}: {judged.detail}", refused=refused)

    async def addresses(self, name: str, note: Note) -> tuple[Address, ...]:
        """Of a peer that is known by name: where to call it. It need not be signed, for the peer proves who it is."""
        answers = await self._look_up_all(parse_name(name), (RecordType.A, RecordType.AAAA), note, None)
        return tuple(ip_address(rdata) for answer in answers if answer.status is not SecurityStatus.BOGUS
                     for rdata in answer.rdatas if len(rdata) in (4, 16))

    async def authorization(self, host: Address, identity: Identity, key: RsaPublicKey, note: Note,
                            client: Address | None = None, policy: DnssecPolicy | None = None,
                            calls_from_there: bool = False) -> Verdict:
        """Whether the gateway that proved to be `identity` by `key` may act for `host` (3.3.2, 3.3.3).

        One known by name that calls from `host` itself needs no delegation, for it only initiates (5.3, 7); but what
        the host's reverse name delegates counts more.
        """
        gateway = _gateway(identity)
        if gateway == host:
            return await self._own_key(identity, key, f"{host} speaks for itself", client, policy)
        answers = await self._look_up_all(reverse_name(host), DELEGATING, note, client)
        policy = policy or self.policy
        judged = judge(answers, host, policy, calling=False)
        delegates = any(reading.delegation for answer in answers
                        for reading in read_delegations(answer, host, policy, calling=False))
        absent = isinstance(judged, ev.DelegationAbsent) and not delegates
        if absent and calls_from_there and isinstance(gateway, str) and self._hosts_by_name:
            return await self._own_key(identity, key, f"{identity} calls from {host} and speaks for itself", client,
                                       policy)
        if not isinstance(judged, ev.DelegationFound):
            return Verdict(False, f"{host} names no gateway: {judged.detail}")
        if any(delegation.gateway == gateway and key in delegation.keys for delegation in judged.delegations):
            return Verdict(True, judged.detail, judged.status)
        if any(delegation.gateway == gateway and not delegation.keys for delegation in judged.delegations):
            return await self._own_key(identity, key, judged.detail, client, policy, judged.status)
        named = ", ".join(map(str, judged.delegations))
        return Verdict(False, f"{host} names {named}, not {identity} with key {key}")

    async def _own_key(self, identity: Identity, key: RsaPublicKey, detail: str, client: Address | None,
                       policy: DnssecPolicy | None, status: SecurityStatus = SecurityStatus.SECURE) -> Verdict:
        """Whether the DNS has this key for a gateway itself, not only in the record of a host that names it.

        On a channel that we began the peer has shown no more than the key in the record of the host that we called.
        """
        found = await self.keys(identity, lambda happened: None, client, policy)
        if key in found.keys:
            return Verdict(True, detail, SecurityStatus.of_all([status, found.status]))
        return Verdict(False, f"{identity} used key {key}, which is not its own in the DNS: {found.detail}")

    def bounds(self) -> Bounds:
        """Of the resolver's."""
        return self._resolver.bounds()

    async def _look_up_all(self, name: Name, rdtypes: Sequence[RecordType], note: Note,
                           client: Address | None) -> list[Answer]:
        """All at the same time."""
        asked = [self._look_up(name, rdtype, note, client) for rdtype in rdtypes]
        return [await each for each in asked]

    def _look_up(self, name: Name, rdtype: RecordType, note: Note, client: Address | None) -> "Deferred[Answer]":
        note(Asked(rdtype, name))

        def replied(answer: Answer) -> Answer:
            note(Replied(rdtype, name, f"{answer.kind.value}, {answer.status.value}: {answer.reason}"))
            return answer

        return self._resolver.look_up(name, rdtype, client).addCallback(replied)


def _name(identity: Identity) -> Name:
    return reverse_name(identity.address) if isinstance(identity, AddressIdentity) else parse_name(identity.fqdn)


def _gateway(identity: Identity) -> Address | str:
    return identity.address if isinstance(identity, AddressIdentity) else identity.fqdn


def _identity(delegation: Delegation) -> Identity:
    if isinstance(delegation.gateway, str):
        raise TypeError("a gateway known by name only cannot be called; `judge` does not let it through")
    return AddressIdentity(delegation.gateway)
