"""Whether this host's nftables rules drop IKE or ESP, or give it other addresses.

Only what is certain is told: a rule with a condition that cannot be decided may accept, but is never said to drop.
"""

from collections.abc import Iterator
from typing import Any

from oesvc.ipsec.flow import Address
from oesvc.operator.doctor.facts import Facts, Finding, Interface, Severity
from oesvc.operator.doctor.ruleset import FAMILY, Packet, Ruleset

KEYING = (("esp", None), ("udp", 500), ("udp", 4500))
"What keying and tunnels live on: protocol and port."


def firewall(facts: Facts) -> Iterator[Finding]:
    """Rules that drop ESP or IKE, both ways over the interface that leads outside, of each IP version once."""
    rules, outside = Ruleset(facts.ruleset), outside_interface(facts)
    told = set()
    for version in sorted({address.version for address in facts.addresses} or {4}):
        for protocol, port in KEYING:
            for hook, way in (("input", "incoming"), ("output", "outgoing")):
                applied = rules.drops(keying_packet(hook, outside.name if outside else "eth0", protocol, port, version))
                what = f"the firewall drops {way} {named(protocol, port)}"
                if applied is not None and (what, str(applied)) not in told:
                    told.add((what, str(applied)))
                    yield Finding(Severity.PROBLEM, f"{what}: {applied}", applied.before_it(f"{matched(port)} accept"))


def named(protocol: str, port: int | None) -> str:
    return f"UDP port {port}" if port else protocol.upper()


def matched(port: int | None) -> str:
    """What a rule for it matches, in nft's words."""
    return "udp dport { 500, 4500 }" if port else "meta l4proto esp"


def keying_packet(hook: str, outside: str, protocol: str, port: int | None, version: int = 4,
                  addresses: dict[str, Address] | None = None) -> Packet:
    """The first one of a connection; `addresses` are its saddr or daddr."""
    interface = "iif" if hook in ("prerouting", "input") else "oif"
    meta: dict[str, Any] = {"l4proto": protocol, "nfproto": f"ipv{version}", "protocol": FAMILY[version],
                            "state": "new", interface: outside, f"{interface}name": outside}
    payload: dict[str, Any] = {"protocol": protocol, "nexthdr": protocol, "version": version, **(addresses or {})}
    return Packet(hook, version, meta, payload | ({"dport": port} if port else {}))


def outside_interface(facts: Facts) -> Interface | None:
    """The one that has an address that peers call."""
    return next((one for one in facts.interfaces if {each.ip for each in one.networks} & set(facts.addresses)), None)
