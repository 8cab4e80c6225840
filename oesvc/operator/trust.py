"""How well the peers of standing tunnels are proved."""

from collections import Counter

from oesvc.daemon import KeyingDaemon
from oesvc.dns.answer import SecurityStatus
from oesvc.oe.configured import ConfiguredTunnel
from oesvc.tunnels import TunnelRecord

LEVELS = {
    SecurityStatus.SECURE: "proved by DNSSEC",
    SecurityStatus.INSECURE: "unsigned DNS",
    SecurityStatus.INDETERMINATE: "unproved DNS",
}
"""By the records that led to a tunnel (RFC 4322 section 10.1): all but the first are safe from mere listeners only.
Nothing is built on BOGUS ones."""

CONFIGURED = "configured"
"Of a tunnel that an administrator has arranged: no record of the DNS led to it (section 2.2)."


def trust(daemon: KeyingDaemon, tunnel: TunnelRecord) -> str | None:
    """Of the peer of a standing tunnel; None of one that serves no flow (any more)."""
    connection = daemon.connections.get(tunnel.flow)
    if connection is None or connection.tunnel != tunnel.id:
        return None
    return CONFIGURED if isinstance(connection, ConfiguredTunnel) else LEVELS[connection.vouched]


def trust_levels(daemon: KeyingDaemon) -> dict[str, int]:
    """How many standing tunnels there are of each level."""
    return dict(Counter(level for tunnel in daemon.tunnels if (level := trust(daemon, tunnel))))
