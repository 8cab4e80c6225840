"""The arithmetic of signatures, by ldns. The only importer of ldns.

Records go in as RFC 3597 text, the one way that neither leaks nor crashes: ldns's wire parser hands Python
uninitialised pointers on bad input, and `thisown` tears its types down. ldns checks the cryptography of a signature
and nothing else; everything that RFC 4035 section 5.3.1 asks besides is in `signatures`.
"""

import warnings

from oesvc.dns.answer import Name
from oesvc.dns.name import name_text
from oesvc.dns.records import Dnskey, RecordType, Rrsig
from oesvc.dns.wire import RRset

with warnings.catch_warnings():
    # It would have every library's deprecations shown, in the administrator's log.
    import ldns

# RSASHA1, RSASHA1-NSEC3-SHA1, RSASHA256, RSASHA512, ECDSAP256SHA256, ECDSAP384SHA384, ED25519, ED448:
# what RFC 8624 section 3.1 wants of validators.
ALGORITHMS = frozenset(number for number in (5, 7, 8, 10, 13, 14, 15, 16) if ldns.ldns_key_algo_supported(number))


def signature_is_good(rrset: RRset, signature: Rrsig, key: Dnskey) -> bool:
    """Whether `key`, of the zone that the signature names, made it over `rrset`."""
    try:
        records, keys = ldns.ldns_rr_list(), ldns.ldns_rr_list()
        for rdata in rrset.rdatas:
            records.push_rr(_record(rrset.owner, rrset.rdtype, rrset.ttl, rdata))
        keys.push_rr(_record(signature.signer, RecordType.DNSKEY, rrset.ttl, key.rdata))
        rrsig = _record(rrset.owner, RecordType.RRSIG, rrset.ttl, signature.rdata)
        good = ldns.ldns_verify_rrsig_keylist_notime_status_only(records, rrsig, keys)
    except Exception:  # the binding's own errors have no type of their own; none of them makes a signature good
        return False
    # An empty list would crash the process, but `RRset` never is; the order of the checks keeps it so.
    return bool(good == ldns.LDNS_STATUS_OK)


def _record(owner: Name, rdtype: int, ttl: int, rdata: bytes) -> "ldns.ldns_rr":
    return ldns.ldns_rr.new_frm_str(f"{name_text(owner)} {ttl} IN TYPE{rdtype} \\# {len(rdata)} {rdata.hex()}")
