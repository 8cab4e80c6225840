"""Peers, tunnels and their SAs as plain values for JSON: with whom, how well proved, how protected, how much."""

from collections import Counter
from typing import Any

from oesvc.daemon import KeyingDaemon
from oesvc.interfaces import Traffic
from oesvc.ipsec.flow import Address
from oesvc.ipsec.sa import IpsecSa
from oesvc.operator.report import SCHEMA
from oesvc.operator.trust import trust
from oesvc.tunnels import TunnelRecord


async def sas(daemon: KeyingDaemon) -> dict[str, Any]:
    """Every SA of ours, and how much it has carried."""
    tunnels = list(daemon.tunnels)
    traffic = await daemon.plane.traffic([sa for tunnel in tunnels for sa in tunnel.sas])
    return {"schema": SCHEMA, "sas": [_sa(daemon, tunnel, sa, traffic) for tunnel in tunnels for sa in tunnel.sas]}


def _sa(daemon: KeyingDaemon, tunnel: TunnelRecord, sa: IpsecSa, traffic: Traffic) -> dict[str, Any]:
    octets, datagrams = traffic.get((sa.spi, sa.destination), (None, None))
    source, destination = sa.flow.ends
    return {"spi": f"{sa.spi:#010x}", "way": "out" if sa.flow == tunnel.flow else "in",
            "source": source, "destination": destination,
            "from": str(sa.source), "to": str(sa.destination), "protection": tunnel.protection,
            "lifetime": {"seconds": sa.lifetime.seconds, "kilobytes": sa.lifetime.kilobytes},
            "trust": trust(daemon, tunnel), "octets": octets, "datagrams": datagrams}


def peers(daemon: KeyingDaemon) -> dict[str, Any]:
    """The gateways that we have tunnels with, or are negotiating with."""
    by_peer: dict[Address, list[TunnelRecord]] = {}
    for tunnel in daemon.tunnels:
        by_peer.setdefault(tunnel.peer, []).append(tunnel)
    return {"schema": SCHEMA, "peers": [_peer(daemon, peer, tunnels) for peer, tunnels in by_peer.items()]}


def _peer(daemon: KeyingDaemon, peer: Address, tunnels: list[TunnelRecord]) -> dict[str, Any]:
    standing = [tunnel for tunnel in tunnels if tunnel.identity is not None]
    levels = Counter(level for tunnel in standing if (level := trust(daemon, tunnel)))
    return {"peer": str(peer), "identities": sorted({str(tunnel.identity) for tunnel in standing}),
            "tunnels": len(standing), "negotiating": len(tunnels) - len(standing), "trust": dict(levels),
            "begun_here": sum(tunnel.begun_here for tunnel in standing),
            "protection": sorted({tunnel.protection for tunnel in standing}),
            "flows": [dict(zip(("source", "destination"), tunnel.flow.ends, strict=True)) for tunnel in standing]}
