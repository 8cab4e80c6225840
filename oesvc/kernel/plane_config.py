"""What the forwarding plane has to know of its gateway."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from oesvc.ipsec.flow import Address, Flow
from oesvc.ipsec.ports import Ports
from oesvc.ipsec.subnets import Subnets
from oesvc.ipsec.translation import Translation
from oesvc.kernel.constants import SEQUENCE_NUMBERS
from oesvc.kernel.spd import Network

GRACE = 10
"Seconds that a flow's policies outlive its keys: the daemon, where it lives, is faster."


@dataclass(frozen=True, slots=True)
class PlaneConfig:
    """Whose datagrams are protected, and what is left alone."""

    clients: tuple[Network, ...] = ()
    "Networks behind this gateway. What they send to each other is not touched."
    own: tuple[Address, ...] = ()
    "This host's outside addresses: its own datagrams from there are subject to opportunistic encryption too."
    inside: tuple[str, ...] = ()
    "Interfaces on which clients' datagrams come in; empty for any."
    translated: tuple[Translation, ...] = ()
    "Networks behind this gateway whose sources its firewall translates: known by what they become (section 6.1)."
    never_clear: tuple[Network, ...] = ()
    "Destinations of the deny and OE-paranoid classes: blocked also while no daemon runs."
    spared: tuple[Network, ...] = ()
    "Destinations of the other classes that lie within those; the longest prefix decides."
    port_rules: tuple[tuple[Network, Ports, bool], ...] = ()
    "Datagrams to these prefixes that are let pass in clear, or (True) dropped, whatever becomes of their flow."
    configured: Mapping[Subnets, int] = field(default_factory=dict)
    "What configured tunnels protect, each with its reqid: blocked, also while no daemon runs, unless it is encrypted."
    resolver_sources: tuple[Network, ...] = ()
    "Their DNS queries (ports 53 and 853) are left alone: the look-ups for a held flow must not wait for it."
    trap_seconds: int = 30
    """After the daemon has died, undecided flows are stopped for so long yet. Then they go in clear, unless to
    never_clear: they are reached as if there were no daemon."""
    keys_last: int = 0
    "Seconds, at most; 0 for ever. What may go in clear does when the keys of a dead daemon's tunnel have ended."
    tunnel_packets: int = SEQUENCE_NUMBERS
    "Datagrams that an SA carries before new keys are asked for."
    icmp_on_deny: bool = False
    "Answer denied datagrams of clients with an ICMP error (RFC 4322 section 3.1.4)."
    icmp_rules: tuple[tuple[Network, bool], ...] = ()
    "Destinations for which that is decided by themselves; the longest prefix counts."
    reasons: tuple[str, ...] = ()
    "Why flows may go in clear, or be denied: what leaves is counted by them."
    queue_number: int = 4322
    "Of NFQUEUE, 0 to 65535."
    queue_length: int = 20_000
    "Datagrams held at most, first and last of all pairs together; what comes above is lost."
    mark: int = 0x0400_0000
    "A bit of the packet mark: set on datagrams of this host that are not, or no longer, to be held."

    def ends(self, flow: Flow) -> int:
        """Seconds that the policies of an encrypted flow stand, unless they are put again; 0 for ever.

        A living daemon puts them with all new keys; a dead one's keys end, and the flow is on its own.
        """
        lines = [(network, True) for network in self.never_clear] + [(network, False) for network in self.spared]
        fitting = [(network.prefixlen, never) for network, never in lines if flow.destination in network]
        never_clear = bool(fitting) and max(fitting)[1]
        return 0 if never_clear or not self.keys_last or isinstance(flow, Subnets) else self.keys_last + GRACE
