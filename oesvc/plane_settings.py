"""What of the configuration the forwarding plane has to know."""

from collections.abc import Sequence
from ipaddress import ip_network

from oesvc.config import Config
from oesvc.dns.sockets import Endpoint
from oesvc.ipsec.flow import Address
from oesvc.kernel.plane_config import PlaneConfig
from oesvc.name_service import resolver_sources
from oesvc.oe.classes import Network
from oesvc.oe.reasons import Because

EVERYWHERE: tuple[Network, ...] = (ip_network("0.0.0.0/0"), ip_network("::/0"))


def plane_config(config: Config, own: tuple[Address, ...], servers: Sequence[Endpoint] = ()) -> PlaneConfig:
    """`own` are this host's outside addresses, as far as they are known; `servers` those of the DNS."""
    never_clear = tuple(line.network for line in config.policies if line.connection_class.never_clear)
    if config.default_class.never_clear:
        named = {line.network for line in config.policies}
        never_clear += tuple(network for network in EVERYWHERE if network not in named)
    spared = tuple(line.network for line in config.policies if not line.connection_class.never_clear
                   and any(_is_within(line.network, network) for network in never_clear))
    answered = [config.icmp_on_deny if options.icmp_on_deny is None else options.icmp_on_deny
                for options in (config.default_options, *(line.options for line in config.policies))]
    icmp_rules = tuple(zip((line.network for line in config.policies), answered[1:], strict=True))
    return PlaneConfig(clients=config.clients, own=own, inside=config.inside, never_clear=never_clear, spared=spared,
                       port_rules=tuple((rule.network, rule.ports, rule.dropped)
                                        for rule in config.class_table().port_rules()),
                       translated=config.translated,
                       icmp_rules=icmp_rules if len(set(answered)) > 1 else (),
                       resolver_sources=resolver_sources(servers, own, config.clients, config.translated),
                       configured=dict(pair for peer in config.tunnels for pair in peer.reqids().items()),
                       reasons=tuple(Because.__members__),
                       queue_length=config.max_held, keys_last=config.tunnel_lifetime,
                       tunnel_packets=config.tunnel_packets, icmp_on_deny=answered[0])


def _is_within(network: Network, other: Network) -> bool:
    return network.version == other.version and network.subnet_of(other)  # type: ignore[arg-type]
