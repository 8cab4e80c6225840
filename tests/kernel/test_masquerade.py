"""What the firewall translates to the gateway's address: asked of this kernel's NAT, in network namespaces."""

import subprocess
import sys
from ipaddress import ip_address, ip_network

import pytest

from oesvc.ipsec.translation import Translation
from oesvc.kernel.plane_config import PlaneConfig
from oesvc.kernel.ruleset import closed_ruleset, ruleset

INSIDE = (ip_network("10.9.0.0/24"), ip_network("fd09::/64"))
GATEWAY = (ip_address("192.0.2.44"), ip_address("2001:db8:2::44"))
NEVER = ["203.0.113.1", "2001:db8:9::1"]
FREE = ["198.51.100.1", "2001:db8:8::1"]

NETWORK = """
    ip link set lo up
    unshare -n sleep 60 & inside=$!
    unshare -n sleep 60 & outside=$!
    trap 'kill $inside $outside' EXIT
    until [ $(readlink /proc/$inside/ns/net /proc/$outside/ns/net /proc/self/ns/net | sort -u | wc -l) = 3 ]
    do sleep 0.02; done
    ip link add lan0 type veth peer name eth0 netns $inside
    ip link add wan0 type veth peer name eth0 netns $outside
    ip address add 10.9.0.1/24 dev lan0; ip address add fd09::1/64 dev lan0 nodad
    ip address add 192.0.2.44/24 dev wan0; ip address add 2001:db8:2::44/64 dev wan0 nodad
    ip link set lan0 up; ip link set wan0 up
    nsenter -t $inside -n sh -ec 'ip address add 10.9.0.2/24 dev eth0; ip address add fd09::2/64 dev eth0 nodad
        ip link set eth0 up; ip route add default via 10.9.0.1; ip route add default via fd09::1'
    nsenter -t $outside -n sh -ec 'ip address add 192.0.2.5/24 dev eth0; ip address add 2001:db8:2::5/64 dev eth0 nodad
        ip link set eth0 up
        for one in 203.0.113.1/32 198.51.100.1/32; do ip address add $one dev eth0; done
        for one in 2001:db8:9::1/128 2001:db8:8::1/128; do ip address add $one dev eth0 nodad; done'
    ip route add default via 192.0.2.5; ip route add default via 2001:db8:2::5
    echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
    nft -f - <<END
table inet firewall {
  chain in { type nat hook prerouting priority dstnat;
    iifname wan0 meta nfproto ipv4 udp dport 7 dnat ip to 10.9.0.2
    iifname wan0 meta nfproto ipv6 udp dport 7 dnat ip6 to fd09::2
  }
  chain out { type nat hook postrouting priority srcnat;
    oifname wan0 masquerade
  }
}
END
"""

CLIENT = """
import select, socket, sys
asking, answering = ([socket.socket(family, socket.SOCK_DGRAM) for family in (socket.AF_INET, socket.AF_INET6)]
                     for _ in range(2))
for one, address in zip(answering, ("10.9.0.2", "fd09::2")):
    one.bind((address, 7))
while True:
    for address in sys.argv[1:]:
        asking[":" in address].sendto(b"asked", (address, 9))
    for one in select.select(answering, (), (), 0.1)[0]:
        one.sendto(b"answered", one.recvfrom(100)[1])
"""

SERVER = """
import select, socket, sys, time
sockets, arrived, end = {}, set(), time.monotonic() + 20
for address in sys.argv[1:]:
    one = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    one.bind((address, 9))
    sockets[one] = address
awaited = {(word, address) for word in ("asked", "answered") for address in sys.argv[-2:]}
rounds = 0
while time.monotonic() < end and rounds < 5:
    # The last two have come: now what is sent before them, a few times more.
    rounds += awaited <= arrived
    for one, address in sockets.items():
        one.sendto(b"", ("2001:db8:2::44" if ":" in address else "192.0.2.44", 7))
    time.sleep(0.1)
    for one in select.select(sockets, (), (), 0)[0]:
        while select.select((one,), (), (), 0)[0]:
            arrived.add((one.recv(100).decode(), sockets[one]))
for word, address in arrived:
    print(word, address)
"""


def config(own):
    return PlaneConfig(own=own, inside=("lan0",), translated=tuple(map(Translation, INSIDE)),
                       never_clear=(ip_network("203.0.113.0/24"), ip_network("2001:db8:9::/48")))


def arrives(rules):
    """What hosts outside hear of a client behind the NAT: what it asks them, and what it answers them."""
    done = subprocess.run(["unshare", "-rn", "sh", "-ec", f"""{NETWORK}
        printf %s "$1" | nft -f -; shift
        nsenter -t $inside -n {sys.executable} -c '{CLIENT}' "$@" & client=$!
        trap 'kill $client $inside $outside' EXIT
        nsenter -t $outside -n {sys.executable} -c '{SERVER}' "$@" """, "sh", rules, *NEVER, *FREE],
        capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return sorted(done.stdout.splitlines())


def said(addresses):
    return sorted(f"{word} {address}" for word in ("asked", "answered") for address in addresses)


@pytest.mark.parametrize("own", [(), (ip_address("192.0.2.45"), ip_address("2001:db8:2::45"))], ids=["none", "another"])
def test_what_the_firewall_translates_to_an_address_that_is_no_source_goes_nowhere_that_is_never_in_clear(own) -> None:
    assert arrives(closed_ruleset(config(own))) == said(FREE)


def test_what_it_translates_to_a_source_is_left_to_the_spd() -> None:
    assert arrives(closed_ruleset(config(GATEWAY))) == said([*NEVER, *FREE])


def test_conntrack_is_asked_only_where_something_is_translated_and_while_the_daemon_runs_too() -> None:
    assert "\n    ct " not in ruleset(PlaneConfig(own=GATEWAY))
    assert "ct original ip6 saddr @translated6 ip6 saddr != @sources6 jump closed" in ruleset(config(GATEWAY))
