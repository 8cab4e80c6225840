"""What opportunistic encryption leaves alone, for the SPD and for the hooks alike."""

from collections.abc import Collection, Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network

from oesvc.kernel.configured import closed, trapped
from oesvc.kernel.constants import (
    ICMP_ERRORS,
    ICMPV6_ERRORS,
    IKE_PORT,
    IPPROTO_ESP,
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPPROTO_TCP,
    IPPROTO_UDP,
    NAT_TRAVERSAL_PORT,
    NEIGHBOUR_DISCOVERY,
    XFRM_POLICY_ALLOW,
    XFRM_POLICY_BLOCK,
    Direction,
    Priority,
)
from oesvc.kernel.plane_config import PlaneConfig
from oesvc.kernel.spd import EVERYWHERE, INGRESS, LONGEST, Network, Policy, Selector, Template

NEVER_FORWARDED: tuple[Network, ...] = (
    IPv4Network("0.0.0.0/8"), IPv4Network("127.0.0.0/8"), IPv4Network("169.254.0.0/16"), IPv4Network("224.0.0.0/4"),
    IPv4Network("255.255.255.255/32"), IPv6Network("::1/128"), IPv6Network("fe80::/10"), IPv6Network("ff00::/8"),
)
"This host, the link, multicast and broadcast (RFC 6890)."

DNS_PORTS = (53, 853)

KEYING = ((IPPROTO_ESP, 0), (IPPROTO_UDP, IKE_PORT), (IPPROTO_UDP, NAT_TRAVERSAL_PORT))
"Protocol and destination port."

REMAINS_TAG = 1
"Of policies that stand beneath those of single flows."

ICMP = {4: (IPPROTO_ICMP, ICMP_ERRORS), 6: (IPPROTO_ICMPV6, ICMPV6_ERRORS)}


def protected(config: PlaneConfig) -> list[Network]:
    """The sources whose datagrams are subject to opportunistic encryption."""
    outside = (rule.outside for rule in config.translated if rule.outside)
    return list(dict.fromkeys((*config.clients, *(ip_network(one) for one in config.own), *outside)))


def exempt_destinations(config: PlaneConfig) -> list[Network]:
    return [*config.clients, *(rule.inside for rule in config.translated), *NEVER_FORWARDED]


def exempt_policies(config: PlaneConfig) -> Iterator[Policy]:
    """What passes whatever else is decided; the resolver's questions, unless they belong to a configured tunnel."""
    for network in exempt_destinations(config):
        yield Policy(Direction.OUT, Selector(EVERYWHERE[network.version], network), Priority.EXEMPT)
    for kind in NEIGHBOUR_DISCOVERY:
        yield Policy(Direction.OUT, Selector(EVERYWHERE[6], EVERYWHERE[6], IPPROTO_ICMPV6, kind), Priority.EXEMPT)
    for source in config.resolver_sources:
        for protocol in (IPPROTO_UDP, IPPROTO_TCP):
            for port in DNS_PORTS:
                questions = Selector(source, EVERYWHERE[source.version], protocol, 0, port)
                yield Policy(Direction.OUT, questions, Priority.RESOLVER)


def port_policies(config: PlaneConfig) -> Iterator[Policy]:
    """Ports that are no matter of opportunistic encryption; their answers may come by a tunnel or by none."""
    either = Template(0, None, optional=True)
    for network, ports, dropped in config.port_rules:
        priority = Priority.PORTS - bool(ports.source) - bool(ports.destination)
        for source in (one for one in protected(config) if one.version == network.version):
            there = Selector(source, network, ports.protocol, ports.source, ports.destination)
            back = Selector(network, source, ports.protocol, ports.destination, ports.source)
            yield Policy(Direction.OUT, there, priority, XFRM_POLICY_BLOCK if dropped else XFRM_POLICY_ALLOW)
            yield from (Policy(way, back, priority, template=either) for way in INGRESS if not dropped)


def icmp_error_policies(config: PlaneConfig) -> Iterator[Policy]:
    """Error messages of this host pass, except where nothing may go in clear; the longest prefix decides.

    They quote the datagram that they are about; errors about encrypted flows are stopped by the output hook.
    """
    for own in map(ip_network, config.own):
        protocol, kinds = ICMP[own.version]
        everywhere = EVERYWHERE[own.version]
        for kind in kinds if everywhere not in config.never_clear else ():
            yield Policy(Direction.OUT, Selector(own, everywhere, protocol, kind), Priority.ICMP_ERROR)
        for networks, action in ((config.never_clear, XFRM_POLICY_BLOCK), (config.spared, XFRM_POLICY_ALLOW)):
            for network in (one for one in networks if one.version == own.version):
                priority = Priority.ICMP_BLOCK + LONGEST - network.prefixlen
                for kind in kinds:
                    yield Policy(Direction.OUT, Selector(own, network, protocol, kind), priority, action)


def client_keying_policies(config: PlaneConfig, trap: Template) -> Iterator[Policy]:
    """A host behind us may protect itself: its IKE and ESP pass as they are, unless its flow has a tunnel of ours.

    Not to where nothing may go in clear: who says in our stead that what uses these ports is encrypted?
    """
    for client in config.clients:
        templates = {EVERYWHERE[client.version]: None, **dict.fromkeys(config.spared),
                     **dict.fromkeys(config.never_clear, trap)}
        for network in (one for one in templates if one.version == client.version):
            priority = Priority.CLIENT_KEYING + LONGEST - network.prefixlen
            yield from (Policy(Direction.OUT, Selector(client, network, protocol, 0, port), priority,
                               template=templates[network]) for protocol, port in KEYING)


def apart(network: Network, others: Collection[Network]) -> Iterator[Network]:
    """A network in as few parts as make none of them one of the others: the SPD has one policy for each selector."""
    if network in others:
        for half in network.subnets():
            yield from apart(half, others)
    else:
        yield network


def traps(config: PlaneConfig, trap: Template) -> list[Policy]:
    """What catches whatever is not decided. The kernel removes them unless they are put again in time.

    So they end with the daemon, however it ends. Then the policies below them decide: OE-paranoid stays blocked, and
    what may go in clear does.
    """
    listed = {*config.never_clear, *config.spared,
              *(Selector.of_flow(subnets).destination for subnets in config.configured)}
    return [Policy(Direction.OUT, Selector(source, part), Priority.TRAP, XFRM_POLICY_ALLOW, trap,
                   lives=config.trap_seconds)
            for source in protected(config) for part in apart(EVERYWHERE[source.version], listed)]


def standing_policies(config: PlaneConfig, trap: Template) -> list[Policy]:
    """The SPD while the daemon runs, before any flow: what is exempt, the traps, and what remains without them."""
    return [
        *exempt_policies(config), *icmp_error_policies(config), *port_policies(config),
        *client_keying_policies(config, trap), *traps(config, trap), *blocks(config),
        # The last of one selector counts: this where a tunnel leads to what must never go in clear.
        *trapped(config.configured),
    ]


def remaining_policies(config: PlaneConfig) -> list[Policy]:
    """The SPD after the daemon has stopped: blocks, and what they must not hit; nothing if nothing is to be blocked."""
    blocked = {network.version for network in config.never_clear}
    return [
        *(policy for policy in exempt_policies(config) if policy.selector.destination.version in blocked),
        *(policy for policy in port_policies(config)
          if policy.direction is Direction.OUT and policy.selector.destination.version in blocked),
        *blocks(config),
        *closed(config.configured),
    ]


def blocks(config: PlaneConfig) -> list[Policy]:
    """What must never go in clear, and what of it is spared; the longest prefix decides."""
    return [
        Policy(Direction.OUT, beneath_flow(source, network), Priority.REMAINS + LONGEST - network.prefixlen, action)
        for networks, action in ((config.never_clear, XFRM_POLICY_BLOCK), (config.spared, XFRM_POLICY_ALLOW))
        for network in networks for source in protected(config) if source.version == network.version]


def beneath_flow(source: Network, network: Network) -> Selector:
    """Of two hosts it would be their flow's selector: that of what stands must be another.

    Else the one would replace the other, and what ends with the flow would leave nothing.
    """
    single = source.num_addresses == network.num_addresses == 1
    return Selector(source, network, tag=REMAINS_TAG if single else 0)
