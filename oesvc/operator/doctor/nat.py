"""NAT on this gateway (RFC 4322 section 6.1): rules of its firewall that take OE's datagrams elsewhere, or its sources.

What is encrypted is known by the source that it leaves with, so firewall and configuration must say the same.
"""

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

from oesvc.ipsec.flow import Address, Network
from oesvc.ipsec.translation import Translation
from oesvc.operator.doctor.facts import Facts, Finding, Interface, Severity
from oesvc.operator.doctor.firewall import KEYING, keying_packet, matched, named, outside_interface
from oesvc.operator.doctor.ruleset import FAMILY, Applied, Packet, Ruleset, UndecidedError

PROBLEM = Severity.PROBLEM
STRANGERS = {4: ip_address("198.41.0.4"), 6: ip_address("2001:503:ba3e::2:30")}
"Somebody on the Internet, whom no rule of a firewall means in particular: a root name server."


def translations(facts: Facts) -> Iterator[Finding]:
    """Causes first: who takes the keying away, then who changes the sources of whom."""
    outside = outside_interface(facts)
    if facts.settings is None or outside is None:
        return
    rules = Ruleset(facts.ruleset)
    yield from _of_keying(facts, rules, outside)
    for rule in facts.settings.translated:
        yield from _foreseen(facts, rules, outside, rule)
    for client in facts.settings.clients:
        if not any(rule.inside.version == client.version and rule.inside.overlaps(client)
                   for rule in facts.settings.translated):
            yield from _unforeseen(facts, rules, outside, client)


def _of_keying(facts: Facts, rules: Ruleset, outside: Interface) -> Iterator[Finding]:
    """Incoming IKE and ESP that another host gets, and outgoing that leaves from an address that is not ours."""
    for own in facts.addresses:
        for protocol, port in KEYING:
            for hook, field in (("prerouting", "daddr"), ("postrouting", "saddr")):
                packet = keying_packet(hook, outside.name, protocol, port, own.version, {field: own})
                applied = _applied(rules, packet)
                to = _becomes(applied, own, outside) if isinstance(applied, Applied) else own
                if not isinstance(applied, Applied) or to is None or (to == own and applied.verdict != "redirect"):
                    continue
                does = "hands incoming {} on to" if hook == "prerouting" else "lets outgoing {} leave from"
                where = "another port" if to == own else to
                yield Finding(PROBLEM, f"the firewall {does.format(named(protocol, port))} {where}, not {own}: "
                                       f"{applied}",
                              applied.before_it(f"{FAMILY[own.version]} {field} {own} {matched(port)} accept"))


def _foreseen(facts: Facts, rules: Ruleset, outside: Interface, rule: Translation) -> Iterator[Finding]:
    """Whether the firewall does what [gateway] translated says."""
    source = _one_of(rule.inside)
    applied = _applied(rules, _from(source, facts, outside))
    if isinstance(applied, UndecidedError) or (applied is None and facts.hidden_rules):
        return
    if applied is None:
        into = f"snat to {rule.outside[0]}" if rule.outside and rule.outside.num_addresses == 1 else "masquerade"
        yield Finding(PROBLEM, f"[gateway] translated: no rule of this host's firewall translates {rule.inside}: "
                               "its datagrams leave as they are: in clear, or not at all",
                      masquerading(rule.inside, outside.name, into))
        return
    to = _becomes(applied, source, outside)
    right = _expected(rule, source, facts, outside)
    if to is not None and to not in right:
        yield Finding(PROBLEM, f"[gateway] translated: {rule} is not what the firewall does: it translates {source} "
                               f"into {to}, not into {' or '.join(map(str, sorted(right, key=str)))}: {applied}",
                      f"translated = {rule.inside}={to}; systemctl restart oegw")


def _unforeseen(facts: Facts, rules: Ruleset, outside: Interface, client: Network) -> Iterator[Finding]:
    """Whether clients leave with a source of which the configuration does not know."""
    assert facts.settings
    source = _one_of(client)
    applied = _applied(rules, _from(source, facts, outside))
    to = _becomes(applied, source, outside) if isinstance(applied, Applied) else source
    if to in (None, source) or not isinstance(applied, Applied):
        return
    ours = to in facts.addresses or any(to in network for network in facts.settings.clients)
    what = ("so their own records serve nobody, and the first datagram of each flow is lost" if ours else
            "whom this gateway does not protect: it leaves in clear")
    yield Finding(PROBLEM, f"the firewall translates what comes from the clients {client} into "
                           f"{to}, {what}: {applied}",
                  applied.before_it(f"{FAMILY[client.version]} saddr {client} accept")
                  + f"; or, if it is to be: translated = {client}{'' if ours else f'={to}'} in place "
                    "of clients")


def masquerading(inside: Network, outside: str, into: str = "masquerade") -> str:
    """The command that has a firewall translate what comes from a network."""
    family = FAMILY[inside.version]
    return (f"nft 'table {family} nat {{ chain postrouting {{ type nat hook postrouting priority srcnat; oifname "
            f"\"{outside}\" {family} saddr {inside} {into}; }}; }}', and the same in your firewall's configuration")


def _from(source: Address, facts: Facts, outside: Interface) -> Packet:
    """The first packet of a client's connection with somebody, on its way out."""
    assert facts.settings
    inside = dict.fromkeys(("iif", "iifname"), facts.settings.inside[0]) if facts.settings.inside else {}
    meta: dict[str, Any] = {"l4proto": "tcp", "nfproto": f"ipv{source.version}", "protocol": FAMILY[source.version],
                            "state": "new", "oif": outside.name, "oifname": outside.name, **inside}
    return Packet("postrouting", source.version, meta,
                  {"protocol": "tcp", "nexthdr": "tcp", "version": source.version, "saddr": source,
                   "daddr": STRANGERS[source.version]})


def _applied(rules: Ruleset, packet: Packet) -> Applied | UndecidedError | None:
    try:
        return rules.translates(packet)
    except UndecidedError as error:
        return error


def _becomes(applied: Applied, address: Address, outside: Interface) -> Address | None:
    """What an address is translated into; None where that is not known."""
    if applied.verdict in ("masquerade", "redirect"):
        return next((one.ip for one in outside.networks if one.version == address.version), None)
    to = (applied.statement or {}).get("addr")
    try:
        return ip_address(to) if isinstance(to, str) else None
    except ValueError:
        return None


def _expected(rule: Translation, source: Address, facts: Facts, outside: Interface) -> set[Address]:
    if rule.outside is None:
        return {address for address in (*facts.addresses, *(one.ip for one in outside.networks))
                if address.version == source.version}
    number = int(source) - int(rule.inside.network_address) if rule.outside.num_addresses > 1 else 0
    return {rule.outside[number]}


def _one_of(network: Network) -> Address:
    """A host in it, not the first: that is often a router."""
    return network[min(2, network.num_addresses - 1)]
