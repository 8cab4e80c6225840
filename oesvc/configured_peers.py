"""The peers of configured tunnels: who they are is asked of the configuration before the DNS (RFC 4322 section 4.4)."""

from collections.abc import Iterable
from dataclasses import dataclass

from oesvc.config_tunnels import ConfiguredPeer
from oesvc.discovery import Discovery, Note, Verdict
from oesvc.ike.identity import Identity
from oesvc.ipsec.flow import Address, Flow
from oesvc.ipsec.rsa_key import RsaPublicKey
from oesvc.ipsec.subnets import Subnets
from oesvc.oe.authorization import DnssecPolicy, Keys

FOR_EVER = float("inf")


@dataclass(frozen=True, slots=True)
class Callee:
    """How the peer of a configured tunnel is reached, or why it cannot be."""

    addresses: tuple[Address, ...]
    identity: Identity
    keys: tuple[RsaPublicKey, ...]
    detail: str


class ConfiguredPeers:
    """Keys and authorization of all peers: of those that are configured by the configuration, of others by the DNS."""

    def __init__(self, peers: Iterable[ConfiguredPeer], discovery: Discovery) -> None:
        self._peers = tuple(peers)
        self._by_subnets = {subnets: peer for peer in self._peers for subnets in peer.subnets}
        self._discovery = discovery

    async def keys(self, identity: Identity, note: Note, client: Address | None = None,
                   policy: DnssecPolicy | None = None) -> Keys:
        """The keys of whoever calls: local configuration is examined first, and if it knows him nothing else is.

        Of a configured peer the DNS must prove the key, whatever `policy` says: by an unsigned one anybody could be it.
        """
        named = [peer for peer in self._peers if peer.identity == identity]
        if not named:
            return await self._discovery.keys(identity, note, client, policy)
        known = tuple(dict.fromkeys(key for peer in named for key in peer.keys))
        if known:
            return Keys(known, FOR_EVER, f"the configuration has the key of {identity} ({named[0].place})")
        return await self._discovery.keys(identity, note, client, DnssecPolicy.REQUIRE)

    async def authorization(self, flow: Flow, identity: Identity, key: RsaPublicKey, note: Note,
                            client: Address | None = None, policy: DnssecPolicy | None = None,
                            calls_from_there: bool = False) -> Verdict:
        """Whether the gateway that proved to be `identity` by `key` may have this tunnel."""
        peer = self._by_subnets.get(flow) if isinstance(flow, Subnets) else None
        if peer is None:
            return await self._discovery.authorization(flow.destination, identity, key, note, client, policy,
                                                       calls_from_there)
        if identity != peer.identity:
            return Verdict(False, f"tunnel {peer.name} is for {peer.identity}, not for {identity} ({peer.place})")
        if key not in (await self.keys(identity, note, client)).keys:
            return Verdict(False, f"{identity} used key {key}, which is not the one of tunnel {peer.name}")
        return Verdict(True, f"tunnel {peer.name} is configured ({peer.place})")

    async def callee(self, subnets: Subnets, note: Note) -> Callee:
        """How to begin a configured tunnel; without addresses or keys, `detail` says why not."""
        peer = self._by_subnets[subnets]
        found = await self.keys(peer.identity, note)
        if not found.keys:
            return Callee((), peer.identity, (), f"no key for {peer.identity}: {found.detail}")
        if isinstance(peer.address, str):
            addresses = await self._discovery.addresses(peer.address, note)
            return Callee(addresses, peer.identity, found.keys, f"the DNS has no address for {peer.address}")
        return Callee((peer.address,) if peer.address else (), peer.identity, found.keys, f"{peer.name} calls us")
