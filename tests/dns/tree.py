"""The tree of zones that the tests of the resolver look up: some right, some broken in one way each."""

import re
from collections.abc import Callable

from tests.zones import DelegationSigner, Zone, txt

OE = "X-IPsec-Server(10)=192.2.0.1 AQOF8tZ2m"
LONG = "X-IPsec-Server(10)=192.2.0.1 " + "AQNJjkKlIk9" * 500


# No resolver answers for these names, addresses and networks by itself; `test.` and 2001:db8::/32 are such.
NAME_SERVER, SLOW, LAME = "ns.example.", "slow.example.", "lame.example."


def without(pattern: str) -> Callable[[str], str]:
    """Cut the lines of a signed zone that match."""
    return lambda text: "\n".join(line for line in text.splitlines() if not re.search(pattern, line)) + "\n"


def replaced(pattern: str, by: str) -> Callable[[str], str]:
    return lambda text: re.sub(pattern, by, text)


HOSTS = f"""
1 IN TXT {txt(OE)}
1 IN KEY 16896 4 1 AQOF8tZ2mSxS
2 IN TXT {txt(LONG)}
3 IN A 192.0.2.3
4.9 IN TXT {txt("below an empty non-terminal")}
*.wild IN TXT {txt("from a wildcard")}
alias IN CNAME 1
loop IN CNAME pool
pool IN CNAME loop
"""

ZONES = (
    Zone(".", "host.example. IN TXT \"in the root zone\"\n"),
    Zone("arpa."),
    Zone("in-addr.arpa."),
    Zone("ip6.arpa.", minimum=60),
    # 192/8: one branch a way of being right
    Zone("2.192.in-addr.arpa.", f"66.0 IN TXT {txt(OE)}\n" + HOSTS),
    Zone("1.192.in-addr.arpa.", HOSTS, algorithm="RSASHA256", key_bits=2048),
    Zone("3.192.in-addr.arpa.", HOSTS, nsec3="aabbccdd", iterations=5),
    Zone("4.192.in-addr.arpa.", HOSTS, nsec3="-", opt_out=True),
    Zone("5.192.in-addr.arpa.", HOSTS, algorithm="ED25519"),
    Zone("6.192.in-addr.arpa.", HOSTS, algorithm="ECDSAP384SHA384"),
    Zone("7.192.in-addr.arpa.", HOSTS, algorithm="RSASHA512"),
    Zone("8.192.in-addr.arpa.", HOSTS, algorithm="ED448"),
    # 50/8: rarer ways of being right
    Zone("50.in-addr.arpa."),
    Zone("1.50.in-addr.arpa.", HOSTS, more_algorithms=("ED25519", "RSASHA256")),
    Zone("2.50.in-addr.arpa.", HOSTS, delegation_signer=DelegationSigner.OF_UNKNOWN_DIGEST),
    Zone("3.50.in-addr.arpa.", HOSTS, delegation_signer=DelegationSigner.OF_UNKNOWN_ALGORITHM),
    Zone("4.50.in-addr.arpa.", HOSTS, nsec3="aabb", iterations=200),
    Zone("5.50.in-addr.arpa.", HOSTS, nsec3="-", iterations=150),
    Zone("6.50.in-addr.arpa.", HOSTS, name_server=SLOW),
    Zone("7.50.in-addr.arpa.", f"1 IN TXT {txt(OE)}\n*.n IN CNAME 1\n*.k IN KEY 16896 4 1 AQOF8tZ2mSxS\n"
                               "d IN DNAME 4.192.in-addr.arpa.\nu IN CNAME 1.40.in-addr.arpa.\n"
                               "MixedCase IN TXT case\nmixed-alias IN CNAME MIXEDcase\n"),
    # 40/8: unsigned, and below
    Zone("40.in-addr.arpa.", HOSTS + "5 IN CNAME 5.0/26\n", signed=False),
    Zone("1.40.in-addr.arpa.", HOSTS, delegation_signer=DelegationSigner.ABSENT),
    Zone("0/26.40.in-addr.arpa.", f"5 IN TXT {txt(OE)}", signed=False),
    Zone("7.4.192.in-addr.arpa.", HOSTS, signed=False),
    Zone("8.4.192.in-addr.arpa.", HOSTS),
    # RFC 2317, and aliases out of the reverse map
    Zone("0.20.in-addr.arpa.", "5 IN CNAME 5.0/26\n6 IN CNAME 6.0/26\n7 IN CNAME 7.u\n9 IN CNAME 9.b\n"
                               "8 IN CNAME nowhere\nx IN DNAME 2.192.in-addr.arpa."),
    Zone("0/26.0.20.in-addr.arpa.", f"5 IN TXT {txt(OE)}\n5 IN KEY 16896 4 1 AQOF8tZ2mSxS"),
    Zone("u.0.20.in-addr.arpa.", f"7 IN TXT {txt(OE)}", signed=False),
    Zone("b.0.20.in-addr.arpa.", f"9 IN TXT {txt(OE)}", inception="now-30d", expiration="now-2d"),
    # 30/8: broken, one way each; dates by more than the day that resolvers may allow for clocks
    Zone("1.30.in-addr.arpa.", HOSTS, inception="now-30d", expiration="now-2d"),
    Zone("2.30.in-addr.arpa.", HOSTS, inception="now+3d"),
    Zone("3.30.in-addr.arpa.", HOSTS, delegation_signer=DelegationSigner.FORGED),
    Zone("4.30.in-addr.arpa.", HOSTS, edit=without(r"RRSIG\s+TXT ")),
    Zone("5.30.in-addr.arpa.", HOSTS, edit=without(r"RRSIG\s+DNSKEY ")),
    Zone("6.30.in-addr.arpa.", HOSTS, edit=without(r"\sDNSKEY\s+257|RRSIG\s+DNSKEY ")),
    Zone("7.30.in-addr.arpa.", HOSTS, edit=replaced("AQOF8tZ2m\"", "AQOF8tZ2n\"")),
    Zone("8.30.in-addr.arpa.", HOSTS, edit=without(r"RRSIG|\sNSEC\s|DNSKEY")),
    Zone("9.30.in-addr.arpa.", HOSTS, edit=without(r"\sNSEC\s|RRSIG\s+NSEC ")),
    Zone("10.30.in-addr.arpa.", HOSTS, edit=without(r"^3\.10\.30\S+\s.*(\sNSEC\s|RRSIG\s+NSEC )")),
    Zone("11.30.in-addr.arpa.", HOSTS, name_server=LAME),
    Zone("12.30.in-addr.arpa.", HOSTS, name_server=LAME, signed=False),
    Zone("13.30.in-addr.arpa.", HOSTS, edit=without(r"RRSIG\s+NSEC ")),
    Zone("30.in-addr.arpa."),
    # IPv6
    Zone("8.b.d.0.f.f.f.3.ip6.arpa.", f"1{'.0' * 23} IN TXT {txt(OE)}"),
)


def questions() -> list[str]:
    """Names to look up: in every zone some that are there and some that are not, and all aliases."""
    labels = ("1", "2", "3", "9", "4.9", "77", "5.77", "x.wild", "y.x.wild", "alias", "loop", "")
    names = [f"{label}.{zone.name}".strip(".") + "." for zone in ZONES
             for label in (labels if not zone.name_server else ("1", "77"))]
    names += [f"{label}.7.50.in-addr.arpa." for label in (
        "n", "x.n", "x.k", "1.d", "77.d", "u", "mixedcase", "MIXED-alias", "mix")]
    aliases = [f"{host}.0.20.in-addr.arpa." for host in ("5", "6", "7", "8", "9", "1.x", "77.x", "x")]
    ipv6 = [f"{host}{'.0' * 23}.8.b.d.0.f.f.f.3.ip6.arpa." for host in "12"]
    return [*names, *aliases, *ipv6, "66.0.2.192.in-addr.arpa.", "5.40.in-addr.arpa.", "host.example.", "none.example."]
