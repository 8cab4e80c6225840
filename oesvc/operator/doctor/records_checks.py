"""Checks of the DNS: the resolvers, the trust in them, and this gateway's own records."""

import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import Any

from oesvc.config import DnsMode
from oesvc.ike.identity import FqdnIdentity
from oesvc.keys.records import delegation_record, ipseckey_record, key_record
from oesvc.oe.classes import ConnectionClass
from oesvc.operator.doctor.facts import Facts, Finding, Severity, Subject

PROBLEM, WARNING = Severity.PROBLEM, Severity.WARNING
Said = Mapping[str, Any]
NO_DNSSEC = re.compile("knows no DNSSEC|no DNSSEC signatures")
BY_DATE = re.compile(r"(expired on|not valid before) (\S+ \S+ UTC)")


def resolvers(facts: Facts) -> Iterator[Finding]:
    """Whether the DNS answers at all, and DNSSEC comes through."""
    if facts.settings is None:
        return
    if facts.settings.dns_mode is DnsMode.OFF:
        yield Finding(WARNING, "[dns] mode = off: nobody checks whether answers of the DNS are authentic",
                      "mode = validate")
    if facts.dns_complaint:
        yield Finding(PROBLEM, f"the DNS cannot be asked: {facts.dns_complaint}",
                      "mend [dns] in the configuration; then: systemctl restart oegw")
    reasons = [look_up["reason"] for look_up in _look_ups(facts) if look_up["status"] == "indeterminate"]
    if not reasons:
        return
    servers = ", ".join(map(str, facts.settings.dns_servers)) or "those of /etc/resolv.conf"
    if any(NO_DNSSEC.search(reason) for reason in reasons):
        yield Finding(PROBLEM, f"the resolver ({servers}) hands on no DNSSEC signatures, so nothing can be believed",
                      "apt install unbound; [dns] servers = 127.0.0.1; systemctl restart oegw")
    else:
        classes = {facts.settings.default_class, *(line.connection_class for line in facts.settings.policies)}
        then = "what is of the class `private` cannot be reached, the rest goes in clear" if \
            ConnectionClass.OE_PARANOID in classes else "everything goes in clear"
        yield Finding(PROBLEM, f"the DNS does not answer, so nothing can be encrypted: {reasons[0]}; {then}",
                      f"dig @{next(iter(facts.settings.dns_servers), '127.0.0.1')} . DNSKEY +dnssec; mend that "
                      "resolver, or name another in [dns] servers")


def trust(facts: Facts) -> Iterator[Finding]:
    """What spoils every chain: the clock, or the anchor."""
    for look_up in _look_ups(facts):
        anchored = {link["zone"] for link in look_up["chain"] if link["link"] == "anchor"}
        for link in look_up["chain"]:
            if link["link"] != "records" or link["type"] != "DNSKEY" or link["zone"] not in anchored:
                continue
            dated = BY_DATE.search(link["problem"] or "")
            if dated:
                behind = dated[1] == "not valid before"
                yield Finding(PROBLEM, f"the clock of this host is {'behind' if behind else 'ahead'}, or its time zone "
                                       f"is wrong: the keys of the zone {link['zone']} itself are signed "
                                       f"{'from' if behind else 'until'} {dated[2]}",
                              "timedatectl set-ntp true (or: date -u -s '...'); then: systemctl restart oegw")
                return
            if link["problem"] and "trust anchor" in link["problem"]:
                files = " ".join(map(str, facts.settings.trust_anchors)) if facts.settings else ""
                yield Finding(PROBLEM, f"the trust anchor is wrong: {link['problem']} ({files})",
                              "apt install --reinstall dns-root-data; [dns] trust-anchors = /usr/share/dns/root.key; "
                              "rm -f /var/lib/oegw/trust-anchors; systemctl restart oegw")
                return


def records(facts: Facts) -> Iterator[Finding]:
    """Those of the gateway itself, then those of the hosts behind it."""
    if facts.settings is None or facts.key is None:
        return
    for subject, said in facts.dns.items():
        if any(_spoilt(look_up) for look_up in said["lookups"]):
            yield from _unbelievable(said)
        elif subject in facts.addresses or isinstance(subject, str):
            yield from _of_gateway(facts, subject, said)
        else:
            yield from _of_host(facts, subject, said)


def _unbelievable(said: Said) -> Iterator[Finding]:
    look_up = next(one for one in said["lookups"] if _spoilt(one))
    if look_up["status"] != "bogus":
        return  # the resolvers are to blame
    zone = next((link["zone"] for link in look_up["chain"] if link["link"] == "records" and link["problem"]),
                look_up["name"])
    yield Finding(PROBLEM, f"the {look_up['type']} record of {said['subject']} cannot be believed: {look_up['reason']}",
                  f"sign the zone {zone} anew (BIND: rndc sign {zone.rstrip('.')}), and see that its DS at the parent "
                  "is that of a key in it; peers deny everything to you until then")


def _of_gateway(facts: Facts, gateway: Subject, said: Said) -> Iterator[Finding]:
    assert facts.key
    published, ours = said["as_gateway"]["keys"], str(facts.key)
    to_publish = f"publish: {key_record(gateway, facts.key)}"
    if not published:
        yield Finding(PROBLEM, f"no key of this gateway is in the DNS: {_alias_or(said, 'there is no KEY record at')} "
                               f"{said['name']}", to_publish)
        return
    if ours not in published:
        yield Finding(PROBLEM, f"the key in the DNS is not this gateway's: {said['name']} has {', '.join(published)}, "
                               f"the private key here is {ours}", to_publish)
    if isinstance(gateway, str):
        return
    yield from _delegations(facts, gateway, gateway, said, WARNING)
    yield from _unsigned(said, WARNING, "peers believe them only as far as nobody interferes")


def _of_host(facts: Facts, host: Subject, said: Said) -> Iterator[Finding]:
    gateway = _own_gateway(facts, host)
    if gateway is None or isinstance(host, str):
        return
    yield from _delegations(facts, host, gateway, said, PROBLEM)
    if facts.settings and facts.settings.dnssec.value == "prefer":
        yield from _unsigned(said, PROBLEM, "an unsigned record may only delegate to its own address, not to a gateway")


def _delegations(facts: Facts, host: Any, gateway: Subject, said: Said, severity: Severity) -> Iterator[Finding]:
    """Whether TXT and IPSECKEY at a host's name let this gateway act for it, with its key."""
    assert facts.key
    to_publish = f"publish: {delegation_record(host, gateway, facts.key)}"
    found = [(look_up["type"], record) for look_up in said["lookups"] if look_up["type"] != "KEY"
             for record in look_up["records"]]
    for rdtype, record in found:
        if record["standing"] == "malformed":
            yield Finding(PROBLEM, f"a {rdtype} record of {host} cannot be read: {record['objection']}", to_publish)
            return
    named = [(rdtype, record["delegation"]) for rdtype, record in found if record["delegation"]]
    ours = {str(address) for address in facts.addresses} | ({gateway} if isinstance(gateway, str) else set())
    if not named:
        yield Finding(severity, f"no record lets this gateway act for {host}: "
                                f"{_alias_or(said, 'there is neither TXT nor IPSECKEY at')} {said['name']}", to_publish)
        return
    here = [(rdtype, one) for rdtype, one in named if one["gateway"] in ours]
    if not here:
        gateways = ", ".join(sorted({str(one["gateway"]) for _, one in named}))
        yield Finding(PROBLEM, f"the {named[0][0]} record of {host} names the gateway {gateways}, which is not this "
                               f"one ({', '.join(sorted(ours))})", to_publish)
        return
    for rdtype, one in here:
        if one["keys"] and str(facts.key) not in one["keys"]:
            line = to_publish if rdtype == "TXT" else f"publish: {ipseckey_record(host, gateway, facts.key)}"
            yield Finding(PROBLEM, f"the {rdtype} record of {host} has another key ({', '.join(one['keys'])}) than "
                                   f"this gateway ({facts.key})", line)


def _unsigned(said: Said, severity: Severity, why: str) -> Iterator[Finding]:
    unsigned = next((one for one in said["lookups"] if one["status"] == "insecure" and one["records"]), None)
    if unsigned is not None:
        yield Finding(severity, f"the records of {said['subject']} are not signed ({unsigned['reason']}): {why}",
                      f"sign the zone of {said['name']} with DNSSEC, and have its DS published by the parent")


def _alias_or(said: Said, otherwise: str) -> str:
    """Where the name is an alias that leads nowhere (RFC 2317), that is the cause."""
    for look_up in said["lookups"]:
        for link in look_up["chain"]:
            if link["link"] == "records" and link["type"] == "CNAME" and not look_up["records"]:
                return (f"the alias {link['name']} leads to {link['records'][0]['text']}, where there is none "
                        "(RFC 2317); looked up:")
    return otherwise


def _own_gateway(facts: Facts, host: Subject) -> Subject | None:
    """How this gateway is called in the records of its clients: by its address of the same family, or by its name."""
    identity = facts.settings.identity if facts.settings else None
    if isinstance(identity, FqdnIdentity):
        return identity.fqdn
    version = ip_address(str(host)).version
    return next((address for address in facts.addresses if address.version == version), None)


def _look_ups(facts: Facts) -> Iterator[Said]:
    for said in facts.dns.values():
        yield from said["lookups"]


def _spoilt(look_up: Said) -> bool:
    return look_up["status"] in ("bogus", "indeterminate")
