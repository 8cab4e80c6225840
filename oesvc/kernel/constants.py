"""Numbers of the kernel's netlink interfaces, from its own headers, and below them those that are our choice."""

from enum import IntEnum

# From the protocol: linux/netlink.h

NETLINK_ROUTE = 0
NETLINK_XFRM = 6
NETLINK_NETFILTER = 12

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP = 0x300
NLM_F_CREATE = 0x400

NLM_F_ACK_TLVS = 0x200

NLMSG_ERROR = 2
NLMSG_DONE = 3
NLMSG_MIN_TYPE = 0x10

NLMSGERR_ATTR_MSG = 1

SOL_NETLINK = 270
NETLINK_ADD_MEMBERSHIP = 1
NETLINK_CAP_ACK = 10
NETLINK_EXT_ACK = 11

NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF

SO_RCVBUFFORCE = 33

# From the protocol: linux/rtnetlink.h, linux/if_addr.h

RTM_NEWADDR = 20
RTM_GETADDR = 22
RTNLGRP_IPV4_IFADDR = 5
RTNLGRP_IPV6_IFADDR = 9
RT_SCOPE_UNIVERSE = 0

IFA_ADDRESS = 1
IFA_LOCAL = 2
IFA_FLAGS = 8
IFA_F_TEMPORARY = 0x01
IFA_F_DADFAILED = 0x08
IFA_F_DEPRECATED = 0x20
IFA_F_TENTATIVE = 0x40

# From the protocol: linux/xfrm.h

XFRMNLGRP_ACQUIRE = 1
XFRMNLGRP_EXPIRE = 2

XFRM_INF = 0xFFFFFFFFFFFFFFFF
XFRM_MODE_TRANSPORT = 0
XFRM_MODE_TUNNEL = 1
XFRM_POLICY_ALLOW = 0
XFRM_POLICY_BLOCK = 1

IP_XFRM_POLICY = 17
IPV6_XFRM_POLICY = 35

# From the protocol: linux/udp.h

UDP_ENCAP = 100
UDP_ENCAP_ESPINUDP = 2

IKE_PORT = 500
NAT_TRAVERSAL_PORT = 4500
"Of ESP within UDP (RFC 3948 section 2.1)."


class XfrmMessage(IntEnum):
    """Types of messages, XFRM_MSG_*."""

    NEWSA = 0x10
    DELSA = 0x11
    GETSA = 0x12
    NEWPOLICY = 0x13
    DELPOLICY = 0x14
    GETPOLICY = 0x15
    ACQUIRE = 0x17
    EXPIRE = 0x18
    UPDPOLICY = 0x19
    UPDSA = 0x1A


class Direction(IntEnum):
    """XFRM_POLICY_*: which way a policy looks. The policies of single sockets are listed under higher numbers."""

    IN = 0
    OUT = 1
    FWD = 2


# From the protocol: linux/netfilter/nfnetlink.h, nfnetlink_queue.h, nfnetlink_log.h, nf_tables.h, netfilter.h

NFNL_SUBSYS_QUEUE = 3
NFNL_SUBSYS_ULOG = 4
NFNL_SUBSYS_NFTABLES = 10
NFNL_MSG_BATCH_BEGIN = 0x10
NFNL_MSG_BATCH_END = 0x11

NFPROTO_INET = 1

NFQNL_MSG_PACKET = 0
NFQNL_MSG_VERDICT = 1
NFQNL_MSG_CONFIG = 2

NFQA_PACKET_HDR = 1
NFQA_VERDICT_HDR = 2
NFQA_MARK = 3
NFQA_PAYLOAD = 10
NFQA_CAP_LEN = 13

NFQA_CFG_CMD = 1
NFQA_CFG_PARAMS = 2
NFQA_CFG_QUEUE_MAXLEN = 3
NFQA_CFG_MASK = 4
NFQA_CFG_FLAGS = 5
NFQA_CFG_F_GSO = 4
NFQNL_CFG_CMD_BIND = 1
NFQNL_COPY_PACKET = 2

NFULNL_MSG_PACKET = 0
NFULNL_MSG_CONFIG = 1
NFULA_PAYLOAD = 9
NFULA_CFG_CMD = 1
NFULNL_CFG_CMD_BIND = 1

NFNLGRP_NFTABLES = 7
NFT_MSG_GETTABLE = 1
NFT_MSG_DELTABLE = 2
NFT_MSG_NEWSETELEM = 12
NFT_MSG_DELSETELEM = 14
NFT_MSG_NEWOBJ = 18
NFT_MSG_GETOBJ = 19

NF_DROP = 0
NF_ACCEPT = 1
NF_INET_LOCAL_OUT = 3

IPPROTO_TCP = 6
IPPROTO_UDP = 17
IPPROTO_ICMP = 1
IPPROTO_ESP = 50
IPPROTO_ICMPV6 = 58

ICMP_ERRORS = (3, 4, 5, 11, 12)
"Destination unreachable, source quench, redirect, time exceeded, parameter problem."
ICMPV6_ERRORS = (1, 2, 3, 4)
"Destination unreachable, packet too big, time exceeded, parameter problem."
NEIGHBOUR_DISCOVERY = (130, 131, 132, 133, 134, 135, 136, 137, 143)
"ICMPv6 types of RFC 4861, and of the listener discovery (RFC 2710, 3810) that it rests on."

# Our choice


class Priority(IntEnum):
    """Priorities of our policies in the SPD; the lower number wins.

    Keying daemons give configured tunnels numbers far below (strongSwan, libreswan: below 2 000 000), so that a
    tunnel that somebody configured always wins over an opportunistic one (RFC 4322 section 12.1). By the whole
    range a restarted daemon knows what a former run left behind: that is why it cannot be configured.
    """

    EXEMPT = 0x0E000100
    "The LAN, multicast, neighbour discovery: never a matter of encryption."
    CONFIGURED = 0x0E000110
    "Configured tunnels of our own, the longest prefix of the peer's first: 129 numbers."
    RESOLVER = 0x0E0001A0
    "Its questions are no matter of opportunistic encryption."
    PORTS = 0x0E0001B0
    "Protocols and ports that an administrator has excepted; those that say more of the ports come before."
    FLOW = 0x0E000200
    "Policies of single flows."
    CLIENT_KEYING = 0x0E000240
    "IKE and ESP of hosts behind us, which protect themselves; the longest prefix decides."
    ICMP_BLOCK = 0x0E000300
    ICMP_ERROR = 0x0E000400
    "Error messages of this host are neither held nor the cause of keying, but stay inside when they must."
    TRAP = 0x0E000500
    "Whatever nobody has decided yet, as long as a daemon lives to decide it."
    REMAINS = 0x0E000600
    "What must never go in clear is blocked, whether a daemon lives or not."


CONFIGURED_PRIORITIES = range(Priority.CONFIGURED, Priority.RESOLVER)
OUR_PRIORITIES = range(0x0E000000, 0x0E001000)

TRAP_REQID = 0xE0000000
FLOW_REQIDS = range(TRAP_REQID + 1, 0xF0000000)
"Each flow's own; a firewall knows opportunistic tunnels by this range (`ipsec in reqid`, RFC 4322 section 12.1)."
CONFIGURED_REQIDS = range(0xF0000010, 0xF0010000)
"Sixteen for each configured tunnel, by its number."
CONFIGURED_MARK = 0x0800_0000
"A bit of the packet mark: set on what has come out of a configured tunnel, and on the ESP that goes into one."
OUR_REQIDS = range(TRAP_REQID, CONFIGURED_REQIDS.stop)

SEQUENCE_NUMBERS = 0xFFFFFFFF
"An SA is at its end before they would repeat (RFC 4303 section 3.3.3)."

REPLAY_WINDOW = 128
"Datagrams of an SA may overtake each other by so many; several CPUs and queues exceed the kernel's usual 32."

SOCKET_BUFFER = 8 << 20
"Octets: more than 10 000 notifications at once (the default holds 166)."

ACQUIRE_EXPIRES = 2
"Seconds for which the kernel keeps a trap's larval SA, and so does not ask again for the same pair."

REANNOUNCE_SECONDS = 1.0
"A held flow is announced again less often than this (RFC 4322 section 3.1.2)."
