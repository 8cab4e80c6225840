"""Each signature of an RRset by itself, for reports: `signatures.verify` is content with the first good one."""

from dataclasses import dataclass, replace

from oesvc.dns.budget import Budget
from oesvc.dns.failures import Bogus, Indeterminate, MalformedData
from oesvc.dns.name import name_text
from oesvc.dns.records import RecordType, Rrsig, parse_dnskey, type_text
from oesvc.dns.signatures import parse_signatures, verify
from oesvc.dns.trace import Checked


@dataclass(frozen=True, slots=True)
class Examined:
    """One signature, and what is to be said against it."""

    signature: Rrsig
    problem: str
    "Empty: it is good."


def examine(link: Checked, now: float, clock_skew: int, budget: Budget) -> list[Examined]:
    """What each signature is worth; those that `budget` has no room for say so."""
    rrset, keys = link.rrset, link.keys
    if rrset.rdtype == RecordType.DNSKEY:
        keys = tuple(parse_dnskey(rdata) for rdata in rrset.rdatas if len(rdata) >= 4)
    what = f"the {type_text(rrset.rdtype)} records of {name_text(rrset.owner)}"
    found = []
    for signature in parse_signatures(rrset):
        problem = ""
        try:
            verify(replace(rrset, signatures=(signature.rdata,)), link.zone, keys, now, budget, clock_skew)
        except (Bogus, MalformedData) as failure:
            problem = str(failure).removeprefix(f"{what}: ").removeprefix(f"{signature} ")
        except Indeterminate:
            problem = "was not checked: there are too many signatures"
        found.append(Examined(signature, problem))
    return found
