"""What the DNS says about hosts and their gateways: RFC 4322 sections 2.3, 3.2.4, 3.3.1 and 3.3.3."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from twisted.internet.defer import Deferred, gatherResults

from oesvc.dns.answer import Answer, Name
from oesvc.dns.name import name_text, parse_name, reverse_name
from oesvc.ike.identity import AddressIdentity, Identity
from oesvc.interfaces import Resolver
from oesvc.ipsec.flow import Address
from oesvc.ipsec.rsa_key import RsaPublicKey
from oesvc.oe import events as ev
from oesvc.oe.authorization import DnssecPolicy, Keys, judge, judge_keys, speaks_for
from oesvc.oe.delegation import Delegation

TXT, KEY = 16, 25
TYPE_NAMES = {TXT: "TXT", KEY: "KEY"}


@dataclass(frozen=True, slots=True)
class Asked:
    """A question went to the DNS."""

    question: str

    def __str__(self) -> str:
        return f"{self.question}?"


@dataclass(frozen=True, slots=True)
class Replied:
    """It was answered, or given up."""

    question: str
    verdict: str

    def __str__(self) -> str:
        return f"{self.question}: {self.verdict}"


Note = Callable[[Asked | Replied], None]
"Told what is asked and answered, for the journal."


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a peer's gateway may act for a host, and why (3.3.3)."""

    authorized: bool
    detail: str


class Discovery:
    """The questions that keying asks of the DNS. Nothing here fails: silence and forgery are answers too."""

    def __init__(self, resolver: Resolver, policy: DnssecPolicy, random: Callable[[], float]) -> None:
        """`random` gives numbers of [0, 1): gateways of one precedence are tried in random order (5.2)."""
        self._resolver = resolver
        self._policy = policy
        self._random = random

    async def delegations(self, destination: Address, note: Note) -> ev.Answered:
        """Who may be keyed with for a host: one event for its connection, all look-ups done (3.2.4)."""
        judged = judge(await self._look_up(reverse_name(destination), TXT, note), destination, self._policy)
        if not isinstance(judged, ev.DelegationFound):
            return judged
        missing = [d for d in judged.delegations if not d.keys]
        found = await gatherResults([Deferred.fromCoroutine(self.keys(_identity(d), note)) for d in missing])
        keys = dict(zip(missing, found, strict=True))
        complete = [replace(d, keys=keys[d].keys) if d in keys else d for d in judged.delegations]
        usable = sorted((d for d in complete if d.keys), key=lambda d: (d.precedence, self._random()))
        expires = min([judged.expires, *(k.expires for k in found)])
        if not usable:
            refused = found[0].refused or ev.LookUpFailed(found[0].detail, expires)
            return replace(refused, detail=f"{judged.detail}; its gateway's key: {refused.detail}", expires=expires)
        return ev.DelegationFound(judged.detail, expires, tuple(usable))

    async def keys(self, identity: Identity, note: Note) -> Keys:
        """A gateway's keys: KEY at its name (3.3.1); where it has none, those of its delegation to itself."""
        name = _name(identity)
        found = judge_keys(await self._look_up(name, KEY, note), self._policy)
        if found.keys or not isinstance(identity, AddressIdentity) or isinstance(found.refused, ev.DelegationBad):
            return found
        itself = judge(await self._look_up(name, TXT, note), identity.address, self._policy)
        if isinstance(itself, ev.DelegationFound):
            for delegation in itself.delegations:
                if delegation.gateway == identity.address and delegation.keys:
                    return Keys(delegation.keys, itself.expires, itself.detail)
        return replace(found, detail=f"KEY: {found.detail}; TXT: {itself.detail}")

    async def authorization(self, host: Address, identity: Identity, key: RsaPublicKey, note: Note) -> Verdict:
        """Whether the gateway that proved to be `identity` by `key` may act for `host` (3.3.2, 3.3.3)."""
        gateway = identity.address if isinstance(identity, AddressIdentity) else identity.fqdn
        if gateway == host:
            return Verdict(True, f"{host} speaks for itself")
        judged = judge(await self._look_up(reverse_name(host), TXT, note), host, self._policy, calling=False)
        if not isinstance(judged, ev.DelegationFound):
            return Verdict(False, f"{host} names no gateway: {judged.detail}")
        if any(speaks_for(delegation, gateway, key) for delegation in judged.delegations):
            return Verdict(True, judged.detail)
        named = ", ".join(map(str, judged.delegations))
        return Verdict(False, f"{host} names {named}, not {identity} with key {key}")

    async def _look_up(self, name: Name, rdtype: int, note: Note) -> Answer:
        question = f"{TYPE_NAMES[rdtype]} {name_text(name)}"
        note(Asked(question))
        answer = await self._resolver.look_up(name, rdtype)
        note(Replied(question, f"{answer.kind.value}, {answer.status.value}: {answer.reason}"))
        return answer


def _name(identity: Identity) -> Name:
    return reverse_name(identity.address) if isinstance(identity, AddressIdentity) else parse_name(identity.fqdn)


def _identity(delegation: Delegation) -> Identity:
    if isinstance(delegation.gateway, str):
        raise TypeError("a gateway known by name only cannot be called; `judge` does not let it through")
    return AddressIdentity(delegation.gateway)
