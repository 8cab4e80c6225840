"""How much has left this gateway in clear and encrypted, or has not left, and why: one table for all who show it."""

from collections.abc import Iterator, Mapping
from typing import Any

from oesvc.daemon import KeyingDaemon
from oesvc.ipsec.account import DOES_NOT_LEAVE, LEAVES_IN_CLEAR, Account, Amount, Aside, Verdict
from oesvc.ipsec.policy import ForwardingPolicy
from oesvc.oe.reasons import Because

FAILURES = (Because.NOT_OE_CAPABLE, Because.DNS_FAILED, Because.RECORD_BAD, Because.PEER_SILENT, Because.PEER_REFUSED,
            Because.PEER_NOT_AUTHENTIC, Because.SAS_REFUSED, Because.KEYS_EXPIRED)
USUAL: Mapping[ForwardingPolicy, tuple[Because | Aside, ...]] = {
    ForwardingPolicy.PASS: (Because.CLASS_IS_CLEAR, Because.CLASS_IS_PASSIVE, *FAILURES, *LEAVES_IN_CLEAR),
    ForwardingPolicy.DENY: (Because.CLASS_IS_DENY, Because.CLASS_IS_CONFIGURED, *FAILURES, *DOES_NOT_LEAVE)}
"What is told of although nothing was sent for it; other reasons are told of once something was."

SENTENCES = {reason.name: reason.value for reason in (*Because, *Aside)}
WORDS = {ForwardingPolicy.PASS: "clear", ForwardingPolicy.DENY: "dropped"}


def label(name: str) -> str:
    """Of a reason, where no sentence has room."""
    return name.lower().replace("_", "-")


def by_reason(account: Account, policy: ForwardingPolicy) -> Iterator[tuple[str, Amount]]:
    """Each reason's name and how much; the usual ones always."""
    names = dict.fromkeys((*(reason.name for reason in USUAL[policy]), *(verdict.because for verdict in account)))
    for name in filter(None, names):
        amount = account.get(Verdict(policy, name), Amount())
        if amount.datagrams or any(name == reason.name for reason in USUAL[policy]):
            yield name, amount


def encrypted(account: Account) -> Amount:
    return account.get(Verdict(ForwardingPolicy.ENCRYPT), Amount())


async def sent(daemon: KeyingDaemon) -> dict[str, Any]:
    """The kernel is asked. Of each fate the reasons with anything to tell, the most octets first."""
    account = await daemon.plane.account()
    return {"since": daemon.began, "encrypted": encrypted(account)._asdict()} | {
        word: sorted(({"reason": label(name), "because": SENTENCES[name]} | amount._asdict()
                      for name, amount in by_reason(account, policy) if amount.datagrams),
                     key=lambda told: -told["octets"]) for policy, word in WORDS.items()}
