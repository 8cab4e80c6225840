"""The nftables table `inet oegw`: hooks that send datagrams of undecided flows to the packet queue.

At prerouting, because the SPD is looked up before the forward hook: what is held there keeps its old route.
"""

import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import groupby

from oesvc.interfaces import PlaneError
from oesvc.ipsec.ports import Ports
from oesvc.kernel.constants import ICMP_ERRORS, ICMPV6_ERRORS, IKE_PORT, NAT_TRAVERSAL_PORT, NEIGHBOUR_DISCOVERY
from oesvc.kernel.counters import all_verdicts, counter_name
from oesvc.kernel.exemptions import DNS_PORTS, exempt_destinations, protected
from oesvc.kernel.plane_config import PlaneConfig
from oesvc.kernel.spd import Network

TABLE = "oegw"
NFT_PATH = "/usr/sbin:/sbin:/usr/local/sbin:/usr/bin"
NFT_SECONDS = 30
PAIRS = 262_144

ANEW = f"add table inet {TABLE}\ndelete table inet {TABLE}\n"
"The table is made from nothing: no flow is known."

REVISED = f"flush table inet {TABLE}\n" + "".join(
    f"flush set inet {TABLE} {name}{version}\n"
    for name in ("sources", "exempt", "resolvers", "translated") for version in (4, 6))
"All rules go, and what the configuration says; which flows are known stays."

CLOSED = """\
table inet {table} {{
  # How much leaves in clear or encrypted, or does not leave, and why.
  {counters}
  {sources}
  {exempt}
  {resolvers}
  # Sources that the firewall translates into such as are protected.
  {translated}

  chain spare {{
    ip daddr @exempt4 accept
    ip6 daddr @exempt6 accept
    fib daddr type {{ local, broadcast, multicast, anycast }} accept
    ip saddr @resolvers4 {dns} counter name pass_resolver accept
    ip6 saddr @resolvers6 {dns} counter name pass_resolver accept
    icmpv6 type {{ {discovery} }} accept
    {port_rules}
  }}
  # For datagrams of this host from an address that is no source, which has no trap in the SPD: one that came later.
  chain closed {{
    {to_inside}
    # A configured tunnel takes these.
    rt ipsec exists return
    jump spare
    {never_clear}
  }}
  chain output {{
    type filter hook output priority raw; policy accept;
    meta l4proto {{ esp, ah }} accept
    # Of the daemon, or ESP (within UDP too, where IKE has four octets of 0) about what was held; not to this host.
    meta mark & {mark:#x} == {mark:#x} udp sport {nat_traversal} @th,64,32 != 0 accept
    meta mark & {mark:#x} == {mark:#x} oifname != "lo" counter name pass_own
    meta mark & {mark:#x} == {mark:#x} accept
    ip saddr != @sources4 jump closed
    ip6 saddr != @sources6 jump closed
  }}
  # What the firewall should have translated, and has not.
  chain postrouting {{
    type filter hook postrouting priority srcnat + 1; policy accept;
    ip saddr @translated4 jump closed
    ip6 saddr @translated6 jump closed
    {became_no_source}
  }}
}}
"""

HOLDING = """\
table inet {table} {{
  # Flows that are decided, source and destination: what is done with them, and why.
  map known4 {{ type ipv4_addr . ipv4_addr : counter; size {pairs}; }}
  map known6 {{ type ipv6_addr . ipv6_addr : counter; size {pairs}; }}
  # Those that are denied.
  set denied4 {{ type ipv4_addr . ipv4_addr; size {pairs}; }}
  set denied6 {{ type ipv6_addr . ipv6_addr; size {pairs}; }}
  # Addresses in datagrams out of a tunnel, as an ICMP error about them quotes them.
  set quoted4 {{ typeof @th,160,64; size {pairs}; }}
  set quoted6 {{ typeof @th,128,256; size {pairs}; }}

  chain denied {{
    {icmp_on_deny}
  }}
  # What is no matter of flows.
  chain beside {{
    # What belongs to configured tunnels: the SPD has it encrypted, or blocked.
    {configured}
    jump spare
  }}
  chain hold {{
    jump beside
    # Where no daemon listens, the traps in the SPD decide.
    queue flags bypass to {queue}
  }}
  # Hosts behind us that protect themselves; for destinations to which nothing may go in clear we do it.
  chain keying {{
    meta l4proto != {{ esp, udp }} return
    udp dport != {{ {ike_ports} }} return
    {keying}
    counter name pass_self_protected accept
  }}
  chain icmp_error {{
    {icmp_error}
    counter name pass_icmp_error accept
  }}
{of_sources}
  chain prerouting {{
    type filter hook prerouting priority raw; policy accept;
    {inside}ip saddr @sources4 goto arriving4
    {inside}ip6 saddr @sources6 goto arriving6
    {inside}ip saddr @translated4 goto inner4
    {inside}ip6 saddr @translated6 goto inner6
  }}
  chain output {{
    # No datagram of an encrypted flow leaves in clear, nor inside an error message about it.
    {icmp4_errors} @th,160,64 @quoted4 counter name deny_icmp_error drop
    {icmp6_errors} @th,128,256 @quoted6 counter name deny_icmp_error drop
    # Whatever comes from this port meets the traps in the SPD.
    udp sport {nat_traversal} accept
    ip saddr @sources4 goto leaving4
    ip6 saddr @sources6 goto leaving6
  }}
}}
"""

OF_SOURCES = """\
  chain arriving{version} {{
    {excepted}
    counter name {name} saddr . {name} daddr map @known{version} goto denied
    jump keying
    goto hold
  }}
  chain inner{version} {{
    {excepted}
    counter name {name} saddr . {name} daddr map @known{version} goto denied
    goto hold
  }}
  chain leaving{version} {{
    {excepted}
    counter name {name} saddr . {name} daddr map @known{version} accept
    {icmp_errors} goto icmp_error
    goto hold
  }}"""
"What comes from clients, from such as are translated, and from this host. One look-up decides, and counts."

ICMP_ERROR_TYPES = {4: f"icmp type {{ {', '.join(map(str, ICMP_ERRORS))} }}",
                    6: f"icmpv6 type {{ {', '.join(map(str, ICMPV6_ERRORS))} }}"}
"By IP version."
DNS = f"meta l4proto {{ tcp, udp }} th dport {{ {', '.join(map(str, DNS_PORTS))} }}"

ICMP_ON_DENY = {
    4: "ip saddr . ip daddr @denied4 limit rate 10/second reject with icmp type admin-prohibited",
    6: "ip6 saddr . ip6 daddr @denied6 limit rate 10/second reject with icmpv6 type admin-prohibited",
}
"By IP version."

FAMILY_NAME = {4: "ip", 6: "ip6"}


def network_sets(name: str, networks: Iterable[Network]) -> str:
    """Two sets of networks, one for each address family."""
    lines = []
    for version in (4, 6):
        elements = ", ".join(str(one) for one in networks if one.version == version)
        members = f" elements = {{ {elements} }};" if elements else ""
        lines.append(f"set {name}{version} {{ type ipv{version}_addr; flags interval; auto-merge;{members} }}")
    return "\n  ".join(lines)


def ruleset(config: PlaneConfig) -> str:
    """The table while the daemon runs, as `nft -f` reads it; it replaces a former one in one step."""
    return ANEW + _ruleset(config)


def revised_ruleset(config: PlaneConfig) -> str:
    """The same where the table is in force and only the configuration is another: in one step too."""
    return REVISED + _ruleset(config)


def _ruleset(config: PlaneConfig) -> str:
    inside = interfaces(config)
    return _closed_ruleset(config) + HOLDING.format(
        table=TABLE, pairs=PAIRS, queue=config.queue_number, nat_traversal=NAT_TRAVERSAL_PORT,
        inside=f"iifname {inside} " if inside else "", icmp_on_deny="\n    ".join(icmp_on_deny(config)),
        of_sources="\n".join(of_sources(config)), icmp_error="\n    ".join(icmp_error(config)),
        configured="\n    ".join(configured(config)),
        ike_ports=numbers((IKE_PORT, NAT_TRAVERSAL_PORT)), keying="\n    ".join(keying(config)),
        icmp4_errors=ICMP_ERROR_TYPES[4], icmp6_errors=ICMP_ERROR_TYPES[6])


def closed_ruleset(config: PlaneConfig) -> str:
    """What of it remains after a stop where there are destinations that nothing may go to in clear."""
    return ANEW + _closed_ruleset(replace(config, reasons=()))


def _closed_ruleset(config: PlaneConfig) -> str:
    inside = interfaces(config)
    return CLOSED.format(
        table=TABLE, mark=config.mark, nat_traversal=NAT_TRAVERSAL_PORT, dns=DNS,
        counters="\n  ".join(f"counter {counter_name(one)} {{ }}" for one in all_verdicts(config.reasons)),
        sources=network_sets("sources", protected(config)),
        exempt=network_sets("exempt", exempt_destinations(config)),
        resolvers=network_sets("resolvers", config.resolver_sources),
        translated=network_sets("translated", [rule.inside for rule in config.translated]),
        to_inside=f"oifname {inside} return" if inside else "", never_clear="\n    ".join(never_clear(config)),
        became_no_source="\n    ".join(became_no_source(config)),
        discovery=numbers(NEIGHBOUR_DISCOVERY),
        port_rules="\n    ".join(port_rules(config)))


def interfaces(config: PlaneConfig) -> str:
    """Those that lead to clients, as a set."""
    return f"{{ {', '.join(map(quoted, config.inside))} }}" if config.inside else ""


def quoted(name: str) -> str:
    return f'"{name}"'


def configured(config: PlaneConfig) -> Iterator[str]:
    """Rules for the networks of configured tunnels."""
    for source, destination in (subnets.networks for subnets in config.configured):
        name = FAMILY_NAME[source.version]
        yield f"{name} saddr {source} {name} daddr {destination} accept"


def never_clear(config: PlaneConfig) -> Iterator[str]:
    """Rules for what must not go in clear, from an address that is no source."""
    return by_destination(dict.fromkeys(config.never_clear, "counter name deny_no_source drop")
                          | dict.fromkeys(config.spared, "accept"))


def became_no_source(config: PlaneConfig) -> Iterator[str]:
    """Rules for what the firewall has translated to an address that has no trap in the SPD: none yet, or another's.

    It began the connection, or answers one that the firewall lets in. Without translation nothing asks conntrack.
    """
    for version in sorted({rule.inside.version for rule in config.translated}):
        name = FAMILY_NAME[version]
        for way in ("original", "reply"):
            yield f"ct {way} {name} saddr @translated{version} {name} saddr != @sources{version} jump closed"


def keying(config: PlaneConfig) -> Iterator[str]:
    """Rules for clients' own IKE and ESP."""
    return by_destination(dict.fromkeys(config.never_clear, "return")
                          | dict.fromkeys(config.spared, "counter name pass_self_protected accept"))


def of_sources(config: PlaneConfig) -> Iterator[str]:
    """The chains for what comes from sources. What is no matter of its flow is looked for where it can be any."""
    ports = {port_match(ports) for _, ports, _ in config.port_rules} | ({DNS} if config.resolver_sources else set())
    excepted = "\n    ".join(f"{match} jump beside" for match in sorted(ports))
    for version, name in FAMILY_NAME.items():
        yield OF_SOURCES.format(version=version, name=name, excepted=excepted, icmp_errors=ICMP_ERROR_TYPES[version])


def icmp_error(config: PlaneConfig) -> Iterator[str]:
    """Rules that count this host's error messages; it is the SPD that blocks them where nothing may go in clear."""
    yield from (f"{FAMILY_NAME[version]} daddr @exempt{version} accept" for version in FAMILY_NAME)
    yield from by_destination(dict.fromkeys(config.never_clear, "counter name deny_icmp_error accept")
                              | dict.fromkeys(config.spared, "counter name pass_icmp_error accept"))


def by_destination(verdicts: Mapping[Network, str]) -> Iterator[str]:
    """Rules, the longest prefix first."""
    of_length = sorted(verdicts, key=lambda network: (network.version, -network.prefixlen, verdicts[network]))
    for (version, _, verdict), networks in groupby(
            of_length, lambda network: (network.version, network.prefixlen, verdicts[network])):
        yield f"{FAMILY_NAME[version]} daddr {{ {', '.join(map(str, networks))} }} {verdict}"


def icmp_on_deny(config: PlaneConfig) -> Iterator[str]:
    """Rules that answer what is denied."""
    yield from by_destination({network: ICMP_ON_DENY[network.version] if answered else "return"
                               for network, answered in config.icmp_rules})
    if config.icmp_on_deny:
        yield from ICMP_ON_DENY.values()


def port_rules(config: PlaneConfig) -> Iterator[str]:
    """Rules for what is no matter of opportunistic encryption; those that say more of the ports come first."""
    for network, ports, dropped in sorted(config.port_rules, key=lambda rule: (not rule[1].source) +
                                          (not rule[1].destination)):
        verdict = "counter name deny_ports drop" if dropped else "counter name pass_ports accept"
        yield f"{FAMILY_NAME[network.version]} daddr {network} {port_match(ports)} {verdict}"


def port_match(ports: Ports) -> str:
    """What matches a protocol and ports."""
    ends = (("sport", ports.source), ("dport", ports.destination))
    return f"meta l4proto {ports.protocol}" + "".join(f" th {end} {port}" for end, port in ends if port)


def numbers(values: Iterable[int]) -> str:
    return ", ".join(map(str, values))


def load(text: str) -> None:
    """Hand a ruleset to `nft`, all or nothing. Blocks until it has ended, up to 30 s. Raises PlaneError."""
    program = shutil.which("nft", path=NFT_PATH)
    if program is None:
        raise PlaneError("load the nftables rules: there is no `nft`; install the package nftables")
    try:
        done = subprocess.run([program, "-f", "-"], input=text, text=True, capture_output=True, timeout=NFT_SECONDS,
                              check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PlaneError(f"load the nftables rules: {error}") from None
    if done.returncode:
        said = next((line for line in done.stderr.splitlines() if "Error" in line), done.stderr.strip())
        raise PlaneError(f"load the nftables rules: {said} (needed: kernel modules nf_tables, nft_queue, nft_fib_inet)")
