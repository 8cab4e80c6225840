"""The counters of the table `inet oegw`: how much the hooks let go, encrypted or not, and how much not, and why."""

import struct
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from oesvc.ipsec.account import ASIDE, Account, Amount, Verdict
from oesvc.ipsec.policy import ForwardingPolicy
from oesvc.kernel.constants import NFNL_SUBSYS_NFTABLES, NFT_MSG_NEWOBJ, NLA_TYPE_MASK
from oesvc.kernel.hold import Datagram
from oesvc.kernel.netlink import Message, attributes
from oesvc.kernel.queue import NFGEN

# Attributes of linux/netfilter/nf_tables.h.
NFTA_OBJ_TABLE = 1
NFTA_OBJ_NAME = 2
NFTA_OBJ_DATA = 4
NFTA_COUNTER_BYTES = 1
NFTA_COUNTER_PACKETS = 2

ONE_REASON = (Verdict(ForwardingPolicy.ENCRYPT), Verdict(ForwardingPolicy.PASS), Verdict(ForwardingPolicy.DENY))
"Encrypted is encrypted; the others are for whoever says no reason."


@lru_cache(maxsize=1024)
def counter_name(verdict: Verdict) -> str:
    return "_".join(filter(None, (verdict.policy.name, verdict.because))).lower()


def all_verdicts(reasons: Iterable[str]) -> list[Verdict]:
    """Those of flows, for such reasons, and those beside all flows."""
    return [*ONE_REASON, *(Verdict(policy, because) for policy in (ForwardingPolicy.PASS, ForwardingPolicy.DENY)
                           for because in reasons), *ASIDE]


def read_counters(messages: Iterable[Message]) -> dict[str, Amount]:
    """By name, what the kernel tells of objects."""
    found = {}
    for message in messages:
        if message.kind == (NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_NEWOBJ:
            told = parts(message.body[NFGEN.size:])
            counted = parts(told[NFTA_OBJ_DATA])
            found[told[NFTA_OBJ_NAME].rstrip(b"\0").decode("ascii")] = Amount(
                *(struct.unpack("!Q", counted[kind])[0] for kind in (NFTA_COUNTER_PACKETS, NFTA_COUNTER_BYTES)))
    return found


def parts(data: bytes) -> Mapping[int, bytes]:
    return {kind & NLA_TYPE_MASK: value for kind, value in attributes(data)}


class Tally:
    """Totals that never fall: what the kernel's counters say, what they said before their table was made anew, and
    what was let go, or dropped, out of the queue, which no counter sees."""

    def __init__(self, reasons: Iterable[str]) -> None:
        self._verdicts = {counter_name(verdict): verdict for verdict in all_verdicts(reasons)}
        self._told: dict[str, Amount] = {}
        self._settled: dict[str, Amount] = {}

    def judged(self, verdict: Verdict, datagrams: Sequence[Datagram]) -> None:
        """They were held, and this is what became of them."""
        if datagrams:
            self._settle(counter_name(verdict), Amount(len(datagrams), sum(one.octets for one in datagrams)))

    def heard(self, counters: Mapping[str, Amount]) -> Account:
        """What the kernel's counters are now; while their table is gone, none."""
        self._told |= counters
        return self.account()

    def begin_anew(self) -> None:
        """The table is gone, and so are its counters; the next ones begin at 0."""
        for name, amount in self._told.items():
            self._settle(name, amount)
        self._told = {}

    def account(self) -> Account:
        """As far as it is known without asking."""
        return {verdict: self._told.get(name, Amount()).plus(self._settled.get(name, Amount()))
                for name, verdict in self._verdicts.items()}

    def _settle(self, name: str, amount: Amount) -> None:
        self._settled[name] = self._settled.get(name, Amount()).plus(amount)
