"""What a DNS answer authorizes: RFC 4322 sections 3.2.4, 3.3.3 and 5."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from oesvc.dns.answer import Answer, AnswerKind, SecurityStatus
from oesvc.ipsec.flow import Address
from oesvc.ipsec.rsa_key import RsaPublicKey
from oesvc.oe import events as ev
from oesvc.oe.delegation import (
    Delegation,
    ForeignRecordError,
    MalformedRecordError,
    parse_delegation,
    parse_key_record,
)
from oesvc.oe.ipseckey import parse_ipseckey


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
    status: SecurityStatus = SecurityStatus.INDETERMINATE
    "How far the answer can be believed."


class Standing(Enum):
    """What a record is worth here."""

    USED = "used"
    SKIPPED = "not used"
    MALFORMED = "malformed"
    FOREIGN = "another application's"


@dataclass(frozen=True, slots=True)
class Reading:
    """One record as it is understood."""

    standing: Standing
    delegation: Delegation | None = None
    objection: str = ""
    "Why it is not used."

    def __str__(self) -> str:
        return ": ".join(part for part in (str(self.delegation or ""), self.objection) if part)


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


TXT, IPSECKEY = 16, 45
DELEGATION_READERS: dict[int, Callable[[bytes, Address | str], Delegation | None]] = {
    TXT: lambda rdata, host: parse_delegation(read_txt(rdata)),
    IPSECKEY: parse_ipseckey,
}
"By record type: RDATA, and the host at whose name it stands, to a delegation; None for other applications' records."


def read_delegations(answer: Answer, host: Address | str, policy: DnssecPolicy,
                     calling: bool = True) -> list[Reading]:
    """Every TXT or IPSECKEY record of an answer about `host`, with what it is worth."""
    read = DELEGATION_READERS[answer.rdtype]

    def reading(rdata: bytes) -> Reading:
        try:
            delegation = read(rdata, host)
        except MalformedRecordError as error:
            return Reading(Standing.MALFORMED, objection=str(error))
        except ForeignRecordError as error:
            return Reading(Standing.SKIPPED, objection=str(error))
        if delegation is None:
            return Reading(Standing.FOREIGN)
        why_not = _why_not_usable(delegation, answer.status, host, policy, calling)
        return Reading(Standing.SKIPPED if why_not else Standing.USED, delegation, why_not or "")

    return [reading(rdata) for rdata in answer.rdatas]


def judge(answers: Sequence[Answer], host: Address | str, policy: DnssecPolicy, calling: bool = True) -> ev.Answered:
    """What the answers to TXT and IPSECKEY questions at a host's name mean for a connection with that host (3.2.4).

    The records of all count together, and a forged answer spoils all. Calling, we need a gateway with an address;
    called (`calling` is False), one known by name will do (5.3).
    """
    refused = [unusable(answer, policy) for answer in answers]
    for refusal in refused:
        if isinstance(refusal, ev.DelegationBad):
            return refusal
    believed = [answer for answer, refusal in zip(answers, refused, strict=True) if refusal is None]
    readings = [(answer, reading) for answer in believed for reading in read_delegations(answer, host, policy, calling)]
    used = [(answer, reading.delegation) for answer, reading in readings
            if reading.standing is Standing.USED and reading.delegation is not None]
    unused = [str(reading) for _, reading in readings if reading.standing in (Standing.SKIPPED, Standing.MALFORMED)]
    failed = [refusal for refusal in refused if isinstance(refusal, ev.LookUpFailed)]
    if used:
        return _found(used, [*unused, *(failure.detail for failure in failed)], calling)
    expires = min(answer.expires for answer in answers)
    said = "; ".join(unused) or "; ".join(dict.fromkeys(
        refusal.detail if refusal else _absence(answer) for answer, refusal in zip(answers, refused, strict=True)))
    if any(reading.standing is Standing.MALFORMED for _, reading in readings):
        return ev.DelegationBad(said, expires)
    return ev.LookUpFailed(said, expires) if failed else ev.DelegationAbsent(said, expires)


def judge_keys(answer: Answer, policy: DnssecPolicy) -> Keys:
    """The keys in the answer to a KEY question at a gateway's name (5.1); each that is there may be in use (5.4)."""
    refused = unusable(answer, policy)
    if refused is not None:
        return Keys((), answer.expires, refused.detail, refused)
    keys, bad = [], []
    for rdata in answer.rdatas:
        try:
            keys.append(parse_key_record(rdata))
        except MalformedRecordError as error:
            bad.append(str(error))
    if keys:
        return Keys(tuple(keys), answer.expires, f"{len(keys)} keys, {answer.status.value}: {answer.reason}",
                    status=answer.status)
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


def unusable(answer: Answer, policy: DnssecPolicy) -> ev.Answered | None:
    """What an answer that cannot be believed at all means for a connection."""
    if answer.status is SecurityStatus.BOGUS:
        return ev.DelegationBad(f"DNSSEC validation failed: {answer.reason}", answer.expires)
    if answer.kind is AnswerKind.NONE:
        return ev.LookUpFailed(answer.reason, answer.expires)
    if answer.status is SecurityStatus.INDETERMINATE and policy is not DnssecPolicy.OFF:
        return ev.LookUpFailed(f"it cannot be told whether the answer is genuine: {answer.reason}", answer.expires)
    if answer.status is SecurityStatus.INSECURE and policy is DnssecPolicy.REQUIRE:
        return ev.DelegationAbsent(f"unsigned records do not count here: {answer.reason}", answer.expires)
    return None


def _found(used: Sequence[tuple[Answer, Delegation]], beside: Sequence[str], calling: bool) -> ev.DelegationFound:
    """`beside` is what was not used, for people."""
    (source, first), delegations = used[0], [delegation for _, delegation in used]
    remarks = [f"{delegation}: {remark}" for delegation in delegations for remark in delegation.remarks]
    detail = f"{first}, {source.status.value}: {source.reason}"
    detail += f" (not used: {'; '.join(beside)})" if beside else ""
    detail += f" (to be mended: {'; '.join(remarks)})" if remarks else ""
    expires = min(answer.expires for answer, _ in used)
    # Called, every record speaks for itself: one without a key lets any key of its gateway's do.
    return ev.DelegationFound(detail, expires, by_gateway(delegations) if calling else tuple(delegations),
                              SecurityStatus.of_all(answer.status for answer, _ in used))


def _why_not_usable(delegation: Delegation, status: SecurityStatus, host: Address | str,
                    policy: DnssecPolicy, calling: bool) -> str | None:
    if calling and isinstance(delegation.gateway, str):
        return "a gateway known by name only can be answered, not called"
    self_only = policy is DnssecPolicy.PREFER and status is not SecurityStatus.SECURE
    if self_only and delegation.gateway != host:
        return "an unsigned record may only delegate to its own address"
    return None


def _absence(answer: Answer) -> str:
    what = "none of the records there is meant for us" if answer.kind is AnswerKind.DATA else answer.kind.value
    return f"{what}, {answer.status.value}: {answer.reason}"
