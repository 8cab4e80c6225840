"""What the tests of the OE machine are made of: the people and addresses of the RFC."""

from ipaddress import ip_address, ip_network

from oesvc.ipsec.flow import Flow
from oesvc.ipsec.rsa_key import RsaPublicKey
from oesvc.oe import events as ev
from oesvc.oe.aging import Lifespans
from oesvc.oe.classes import AS_THE_RFC, ClassOptions, ConnectionClass, PolicyLine
from oesvc.oe.connection import Connection
from oesvc.oe.delegation import Delegation

ALICE, BOB = ip_address("192.1.0.65"), ip_address("192.2.0.66")
SG_A, SG_B = ip_address("192.1.1.4"), ip_address("192.1.1.5")
FLOW = Flow(ALICE, BOB)
OUTER = Flow(SG_A, SG_B)
KEY = RsaPublicKey(65537, (1 << 2047) + 1)
OTHER_KEY = RsaPublicKey(65537, (1 << 2047) + 3)
BY_SG_B = Delegation(10, SG_B, (KEY,))
BY_ANOTHER = Delegation(20, ip_address("192.1.1.7"), (KEY,))
LIFESPANS = Lifespans()

DENY, CLEAR, PASSIVE, PERMISSIVE, PARANOID, CONFIGURED = ConnectionClass


def line(of_class: ConnectionClass = PERMISSIVE, options: ClassOptions = AS_THE_RFC) -> PolicyLine:
    return PolicyLine(ip_network("0.0.0.0/0"), of_class, "policies/test:1", options)


def connection(of_class: ConnectionClass = PERMISSIVE, flow: Flow = FLOW,
               options: ClassOptions = AS_THE_RFC) -> Connection:
    return Connection(flow, line(of_class, options), LIFESPANS)


def found(*delegations: Delegation, expires: float = 3600.0) -> ev.DelegationFound:
    return ev.DelegationFound("", expires, delegations or (BY_SG_B,))


def negotiated(tunnel: int = 1, begun_here: bool = True) -> ev.TunnelNegotiated:
    return ev.TunnelNegotiated("", tunnel, OUTER, begun_here)


def keyed(of_class: ConnectionClass = PERMISSIVE, now: float = 0.0, *delegations: Delegation) -> Connection:
    made = connection(of_class)
    for event in (ev.Acquired(), found(*delegations), negotiated()):
        made.handle(event, now)
    return made
