"""What a DNS answer authorizes: RFC 4322 sections 3.2.4, 3.3.3 and 5."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeVar

from oesvc.dns.answer import Answer, AnswerKind, SecurityStatus
from oesvc.ipsec.flow import Address
from oesvc.ipsec.rsa_key import RsaPublicKey
from oesvc.oe import events as ev
from oesvc.oe.delegation import Delegation, MalformedRecordError, parse_delegation, parse_key_record

T = TypeVar("T")


class DnssecPolicy(Enum):
    """How much of the DNS has to be signed (decisions.md 1C.2)."""

    REQUIRE = "require"
    "Only secure records count."
    PREFER = "prefer"
    "Unsigned records count too, but may delegate only to their own address (section 3.2.4.1)."
    OFF = "off"
    "Unsigned records count like signed ones."


@dataclass(frozen=True, slots=True)
class Keys:
    """The public keys that the DNS has for a gateway, or why there are none to rely on."""

    keys: tuple[RsaPublicKey, ...]
    expires: float
    detail: str
    refused: ev.Answered | None = None
    "What a connection is to be told where there are no keys."


def read_txt(rdata: bytes) -> str:
    """Join the character-strings of one TXT record (section 5.2.1). Raises MalformedRecordError."""
    joined, rest = b"", rdata
    while rest:
        length = rest[0]
        if len(rest) <= length:
            raise MalformedRecordError("a TXT record's character-string is cut short")
        joined += rest[1:1 + length]
        rest = rest[1 + length:]
    return joined.decode("ascii", "replace")


def judge(answer: Answer, host: Address, policy: DnssecPolicy, calling: bool = True) -> ev.Answered:
    """What the answer to a TXT question at a host's reverse name means for a connection with that host (3.2.4).

    Calling, we need a gateway with an address; called (`calling` is False), one known by name will do (5.3).
    """
    refused = _unusable(answer, policy)
    if refused is not None:
        return refused
    good, bad = _read_all(answer.rdatas, lambda rdata: parse_delegation(read_txt(rdata)))
    usable, skipped = [], list(bad)
    for delegation in good:
        why_not = _why_not_usable(delegation, answer.status, host, policy, calling)
        if why_not is None:
            usable.append(delegation)
        else:
            skipped.append(f"{delegation}: {why_not}")
    said = "; ".join(skipped)
    if usable:
        detail = f"{usable[0]}, {answer.status.value}: {answer.reason}" + (f" (not used: {said})" if said else "")
        return ev.DelegationFound(detail, answer.expires, by_gateway(usable))
    if bad:
        return ev.DelegationBad(said, answer.expires)
    return ev.DelegationAbsent(said or _absence(answer), answer.expires)


def judge_keys(answer: Answer, policy: DnssecPolicy) -> Keys:
    """The keys in the answer to a KEY question at a gateway's name (5.1); each that is there may be in use (5.4)."""
    refused = _unusable(answer, policy)
    if refused is not None:
        return Keys((), answer.expires, refused.detail, refused)
    keys, bad = _read_all(answer.rdatas, parse_key_record)
    if keys:
        return Keys(tuple(keys), answer.expires, f"{len(keys)} keys, {answer.status.value}: {answer.reason}")
    detail = "; ".join(bad) or _absence(answer)
    return Keys((), answer.expires, detail, ev.LookUpFailed(detail, answer.expires))


def by_gateway(delegations: Iterable[Delegation]) -> tuple[Delegation, ...]:
    """Records of one gateway taken together, each with all its keys; the strongest precedence of each counts."""
    merged: dict[Address | str, Delegation] = {}
    for delegation in sorted(delegations, key=lambda d: d.precedence):
        first = merged.setdefault(delegation.gateway, delegation)
        keys = tuple(dict.fromkeys(first.keys + delegation.keys))
        merged[delegation.gateway] = replace(first, keys=keys)
    return tuple(merged.values())


def speaks_for(delegation: Delegation, gateway: Address | str, key: RsaPublicKey) -> bool:
    """Whether a delegation authorizes the gateway that proved to be `gateway` by `key` (3.3.3)."""
    return delegation.gateway == gateway and (not delegation.keys or key in delegation.keys)


def _unusable(answer: Answer, policy: DnssecPolicy) -> ev.Answered | None:
    if answer.status is SecurityStatus.BOGUS:
        return ev.DelegationBad(f"DNSSEC validation failed: {answer.reason}", answer.expires)
    if answer.kind is AnswerKind.NONE:
        return ev.LookUpFailed(answer.reason, answer.expires)
    if answer.status is SecurityStatus.INDETERMINATE and policy is not DnssecPolicy.OFF:
        return ev.LookUpFailed(f"it cannot be told whether the answer is genuine: {answer.reason}", answer.expires)
    if answer.status is SecurityStatus.INSECURE and policy is DnssecPolicy.REQUIRE:
        return ev.DelegationAbsent(f"unsigned records do not count here: {answer.reason}", answer.expires)
    return None


def _why_not_usable(delegation: Delegation, status: SecurityStatus, host: Address,
                    policy: DnssecPolicy, calling: bool) -> str | None:
    if calling and isinstance(delegation.gateway, str):
        return "a gateway known by name only can be answered, not called"
    self_only = policy is DnssecPolicy.PREFER and status is not SecurityStatus.SECURE
    if self_only and delegation.gateway != host:
        return "an unsigned record may only delegate to its own address"
    return None


def _read_all(rdatas: Sequence[bytes], read: Callable[[bytes], T | None]) -> tuple[list[T], list[str]]:
    good: list[T] = []
    bad: list[str] = []
    for rdata in rdatas:
        try:
            found = read(rdata)
        except MalformedRecordError as error:
            bad.append(str(error))
            continue
        if found is not None:
            good.append(found)
    return good, bad


def _absence(answer: Answer) -> str:
    what = "none of the records there is meant for us" if answer.kind is AnswerKind.DATA else answer.kind.value
    return f"{what}, {answer.status.value}: {answer.reason}"
