"""How much has left this gateway, by what was done with it and why."""

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

from oesvc.ipsec.policy import ForwardingPolicy


class Aside(Enum):
    """Why something leaves, or does not, whatever is decided about its flow; the value is the end of a sentence."""

    PORTS = "the policy decides about its protocol and ports"
    RESOLVER = "it is a question of this side's resolver to the DNS"
    OWN = "it is this gateway's own IKE or DNS"
    ICMP_ERROR = "it is an ICMP error message of this gateway's"
    SELF_PROTECTED = "its host protects it itself, by IKE and ESP of its own"
    NO_SOURCE = "its source address is not protected yet, and its destination must not be reached in clear"
    UNDECIDED = "nothing was decided yet, and of what waits the first and the last datagram are kept"


class Verdict(NamedTuple):
    """What is done with a datagram, and why: the name of a reason, where there are several."""

    policy: ForwardingPolicy
    because: str = ""


class Amount(NamedTuple):
    datagrams: int = 0
    octets: int = 0

    def plus(self, other: "Amount") -> "Amount":
        return Amount(self.datagrams + other.datagrams, self.octets + other.octets)


Account = Mapping[Verdict, Amount]
"""Datagrams as the kernel saw them when it looked: those of a stream that it had merged (GRO, GSO) are one. Octets with
the IP header, without that of a tunnel."""

LEAVES_IN_CLEAR = (Aside.PORTS, Aside.RESOLVER, Aside.OWN, Aside.ICMP_ERROR, Aside.SELF_PROTECTED)
DOES_NOT_LEAVE = (Aside.PORTS, Aside.ICMP_ERROR, Aside.NO_SOURCE, Aside.UNDECIDED)
ASIDE = (*(Verdict(ForwardingPolicy.PASS, one.name) for one in LEAVES_IN_CLEAR),
         *(Verdict(ForwardingPolicy.DENY, one.name) for one in DOES_NOT_LEAVE))
