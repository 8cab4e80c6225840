"""Slow arithmetic: what it costs, whose goes first, and how much of strangers' may wait (RFC 4322 section 12.3)."""

from enum import IntEnum

from oesvc.ike.crypto.groups import Group
from oesvc.ike.v1.prefixes import PerPrefix
from oesvc.ipsec.flow import Address

COSTS = {
    Group.MODP_1024: 1, Group.MODP_1536: 2, Group.MODP_2048: 3, Group.MODP_3072: 7, Group.MODP_4096: 15,
    Group.MODP_6144: 46, Group.MODP_8192: 103, Group.ECP_256: 1, Group.ECP_384: 3, Group.ECP_521: 2,
}
"Milliseconds that a processor of 2020 takes to make an ephemeral half and the secret; the peer chooses the group."
SIGNATURE_COST = 2
"Milliseconds to make one with RSA of 2048 bits, and to verify one."


class Whose(IntEnum):
    """On whose behalf something is calculated; the value is how many times as long as ours it seems to take.

    What is shortest goes first: nobody who chooses the dearest group delays those who have not.
    """

    OURS = 1
    PEERS = 4
    STRANGERS = 16


class Backlog:
    """The milliseconds of arithmetic for strangers that are not done yet."""

    def __init__(self) -> None:
        self._near = PerPrefix()
        self.waiting = 0

    def add(self, whose: Whose, peer: Address, cost: int) -> None:
        """Less, where the cost is negative."""
        if whose is Whose.STRANGERS:
            self.waiting += cost
            self._near.add(peer, cost)

    def near(self, peer: Address) -> int:
        return self._near.count(peer)

    def most_near(self) -> int:
        return self._near.most()
