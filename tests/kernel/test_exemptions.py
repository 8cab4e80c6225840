"""What is caught and what is spared, in the SPD and in the hooks."""

import subprocess
import sys
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from oesvc.interfaces import PlaneError
from oesvc.ipsec.ports import Ports
from oesvc.ipsec.subnets import Subnets
from oesvc.kernel import ruleset
from oesvc.kernel.constants import XFRM_POLICY_ALLOW, XFRM_POLICY_BLOCK, Direction, Priority
from oesvc.kernel.exemptions import LONGEST, remaining_policies, standing_policies, traps
from oesvc.kernel.plane_config import PlaneConfig
from oesvc.kernel.spd import Policy, Selector, Template
from oesvc.kernel.standing import set_kernel

TRAP = Template(0xE0000000, None)
CLOSE = (ip_network("0.0.0.0/1"),)
CONFIG = PlaneConfig(clients=(ip_network("192.1.0.0/24"), ip_network("2001:db8:1::/64")),
                     own=(ip_address("192.1.1.4"),), inside=("lan0", "lan1"),
                     never_clear=(ip_network("203.0.113.0/24"),),
                     resolver_sources=(ip_network("192.1.0.53/32"),))


def verdict(policies: list[Policy], source: str, destination: str, protocol: int = 6, source_port: int = 0,
            destination_port: int = 80) -> tuple[int, int] | None:
    """What the SPD does with an outgoing datagram: the policy of the lowest priority number that fits it."""
    fitting = [policy for policy in policies if policy.direction == Direction.OUT
               and ip_address(source) in policy.selector.source
               and ip_address(destination) in policy.selector.destination
               and policy.selector.protocol in (0, protocol)
               and policy.selector.source_port in (0, source_port)
               and policy.selector.destination_port in (0, destination_port)]
    best = min(fitting, key=lambda policy: policy.priority, default=None)
    return (best.priority, best.action) if best else None


@pytest.mark.parametrize(("datagram", "expected"), [
    (("192.1.0.65", "192.2.0.66"), (Priority.TRAP, XFRM_POLICY_ALLOW)),
    (("192.1.1.4", "192.2.0.66"), (Priority.TRAP, XFRM_POLICY_ALLOW)),
    (("2001:db8:1::65", "2001:db8:2::66"), (Priority.TRAP, XFRM_POLICY_ALLOW)),
    (("192.1.0.65", "192.1.0.66"), (Priority.EXEMPT, XFRM_POLICY_ALLOW)),
    (("192.1.1.4", "192.1.0.65"), (Priority.EXEMPT, XFRM_POLICY_ALLOW)),
    (("192.1.0.65", "224.0.0.251"), (Priority.EXEMPT, XFRM_POLICY_ALLOW)),
    (("2001:db8:1::65", "ff02::1"), (Priority.EXEMPT, XFRM_POLICY_ALLOW)),
    (("192.2.0.66", "192.2.0.67"), None),
    (("192.1.0.53", "198.51.100.1", 17, 5353, 53), (Priority.RESOLVER, XFRM_POLICY_ALLOW)),
    (("192.1.0.53", "198.51.100.1", 6, 5353, 853), (Priority.RESOLVER, XFRM_POLICY_ALLOW)),
    (("192.1.0.53", "198.51.100.1", 17, 53, 5353), (Priority.TRAP, XFRM_POLICY_ALLOW)),
    (("192.1.0.54", "198.51.100.1", 17, 5353, 53), (Priority.TRAP, XFRM_POLICY_ALLOW)),
    (("2001:db8:1::1", "2001:db8:2::66", 58, 135, 0), (Priority.EXEMPT, XFRM_POLICY_ALLOW)),
    (("192.1.1.4", "198.51.100.1", 1, 3, 1), (Priority.ICMP_ERROR, XFRM_POLICY_ALLOW)),
    (("192.1.1.4", "198.51.100.1", 1, 8, 0), (Priority.TRAP, XFRM_POLICY_ALLOW)),
    (("192.1.1.4", "203.0.113.9", 1, 3, 1), (Priority.ICMP_BLOCK + LONGEST - 24, XFRM_POLICY_BLOCK)),
    (("192.1.1.4", "203.0.113.9", 1, 8, 0), (Priority.TRAP, XFRM_POLICY_ALLOW)),
    (("192.1.0.65", "198.51.100.1", 1, 3, 1), (Priority.TRAP, XFRM_POLICY_ALLOW)),
    (("192.1.0.65", "198.51.100.1", 50, 0, 0), (Priority.CLIENT_KEYING + LONGEST, XFRM_POLICY_ALLOW)),
    (("2001:db8:1::65", "2001:db8:2::66", 17, 500, 500), (Priority.CLIENT_KEYING + LONGEST, XFRM_POLICY_ALLOW)),
    (("192.1.0.65", "203.0.113.9", 17, 500, 4500), (Priority.CLIENT_KEYING + LONGEST - 24, XFRM_POLICY_ALLOW)),
    (("192.1.1.4", "198.51.100.1", 50, 0, 0), (Priority.TRAP, XFRM_POLICY_ALLOW)),
])
def test_traps_catch_all_but_what_is_exempt(
        datagram: tuple[str, str], expected: tuple[Priority, int] | None) -> None:
    assert verdict(standing_policies(CONFIG, TRAP), *datagram) == expected


def test_error_messages_go_where_clear_text_may_though_it_lies_within_what_must_not() -> None:
    """Path MTU discovery of a host there would fail without."""
    policies = standing_policies(PlaneConfig(
        own=CONFIG.own, never_clear=(ip_network("0.0.0.0/0"), ip_network("203.0.113.128/32")),
        spared=(ip_network("203.0.113.0/24"),)), TRAP)
    found = {address: verdict(policies, "192.1.1.4", address, 1, 3, 4) for address in
             ("203.0.113.9", "203.0.113.128", "198.51.100.1")}
    assert {address: action for address, (_, action) in found.items()} == {
        "203.0.113.9": XFRM_POLICY_ALLOW, "203.0.113.128": XFRM_POLICY_BLOCK, "198.51.100.1": XFRM_POLICY_BLOCK}
    assert verdict(policies, "192.1.1.4", "203.0.113.9", 1, 8) != (Priority.ICMP_ERROR, XFRM_POLICY_ALLOW)


SEND = """
import socket, sys
for source, destination in zip(sys.argv[1::2], sys.argv[2::2]):
    with socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET, socket.SOCK_DGRAM) as sending:
        sending.bind((source, 0))
        try:
            sending.sendto(b"", (destination, 9))
            print("sent")
        except PermissionError:
            print("dropped")
"""


def test_from_an_address_that_is_no_source_nothing_goes_where_clear_text_must_not(tmp_path) -> None:
    """As from one that came after the start: asked of this kernel's nftables, in a network namespace."""
    rules = tmp_path / "rules"
    rules.write_text(ruleset.closed_ruleset(PlaneConfig(
        clients=(ip_network("192.1.0.0/24"),), own=CONFIG.own, inside=("lan0",),
        never_clear=(ip_network("192.2.0.0/16"), ip_network("192.2.3.4/32"), ip_network("::/0"), ip_network("::/0")),
        spared=(ip_network("192.2.3.0/24"), ip_network("2001:db8:5::/48")))))
    later, six = "192.1.1.77", "2001:db8::77"
    expected = {(later, "192.2.0.66"): "dropped", (later, "192.2.3.9"): "sent", (later, "192.2.3.4"): "dropped",
                (later, "198.51.100.1"): "sent", (later, "192.1.0.65"): "sent", (later, "224.0.0.251"): "sent",
                (six, "2001:db8:7::1"): "dropped", (six, "2001:db8:5::1"): "sent",
                ("192.1.1.4", "192.2.0.66"): "sent"}
    addresses = [address for pair in expected for address in pair]
    done = subprocess.run(["unshare", "-rn", "sh", "-ec", f"""
        ip link set lo up
        for address in 192.1.1.4/32 {later}/32 {six}/128; do ip address add $address dev lo; done
        ip route add default dev lo; ip -6 route add default dev lo
        nft -f {rules}
        exec {sys.executable} -c '{SEND}' {' '.join(addresses)}"""], capture_output=True, text=True, check=False)
    assert dict(zip(expected, done.stdout.split(), strict=True)) == expected, done.stderr


def test_after_a_stop_only_what_may_never_go_in_clear_is_blocked_and_the_lan_is_spared() -> None:
    left = remaining_policies(PlaneConfig(clients=CONFIG.clients, own=CONFIG.own,
                                          never_clear=(ip_network("0.0.0.0/0"),)))
    last = Priority.REMAINS + LONGEST
    assert verdict(left, "192.1.0.65", "203.0.113.9") == (last, XFRM_POLICY_BLOCK)
    assert verdict(left, "192.1.1.4", "203.0.113.9", 1, 3) == (last, XFRM_POLICY_BLOCK)
    assert verdict(left, "192.1.1.4", "192.1.0.65") == (Priority.EXEMPT, XFRM_POLICY_ALLOW)
    assert verdict(left, "2001:db8:1::65", "2001:db8:2::66") is None


def test_after_a_stop_the_longest_prefix_decides() -> None:
    left = remaining_policies(PlaneConfig(
        clients=CONFIG.clients, never_clear=(ip_network("203.0.113.0/24"), ip_network("203.0.113.128/32")),
        spared=(ip_network("203.0.113.128/25"),)))
    actions = {address: verdict(left, "192.1.0.65", address) for address in
               ("203.0.113.9", "203.0.113.129", "203.0.113.128", "198.51.100.1")}
    assert {address: found and found[1] for address, found in actions.items()} == {
        "203.0.113.9": XFRM_POLICY_BLOCK, "203.0.113.129": XFRM_POLICY_ALLOW, "203.0.113.128": XFRM_POLICY_BLOCK,
        "198.51.100.1": None}


def test_without_such_prefixes_nothing_remains() -> None:
    assert remaining_policies(PlaneConfig(clients=CONFIG.clients, own=CONFIG.own)) == []


def test_a_configured_tunnel_wins_over_all_that_we_put_there() -> None:
    assert min(Priority) > 2_000_000


PARANOID = PlaneConfig(clients=CONFIG.clients, own=CONFIG.own, spared=(ip_network("203.0.113.0/25"), *CLOSE),
                       never_clear=(ip_network("0.0.0.0/0"), ip_network("::/0"), ip_network("203.0.113.0/24")))
"All by default, with two exceptions; one of them is half of the Internet."


@pytest.mark.parametrize("config", [CONFIG, PARANOID])
def test_no_two_standing_policies_have_the_same_selector(config: PlaneConfig) -> None:
    selectors: list[Selector] = [policy.selector for policy in standing_policies(config, TRAP)]
    assert len({*selectors}) == len(selectors)


def test_putting_the_traps_again_touches_no_configured_tunnel_though_it_leads_everywhere() -> None:
    everywhere = Subnets.between(CONFIG.clients[0], ip_network("0.0.0.0/0"))
    config = replace(CONFIG, configured={everywhere: 0xF0000010})
    again = {policy.selector for policy in traps(config, TRAP)}
    assert Selector.of_flow(everywhere) not in again
    caught = [policy for policy in standing_policies(config, TRAP) if policy.selector in again]
    assert verdict(caught, "192.1.1.4", "198.51.100.1") == (Priority.TRAP, XFRM_POLICY_ALLOW)


@pytest.mark.parametrize("config", [CONFIG, PARANOID])
@pytest.mark.parametrize("destination", ["203.0.113.9", "203.0.113.129", "198.51.100.1", "9.9.9.9", "2001:db8:2::66"])
def test_while_a_daemon_lives_the_traps_come_before_the_blocks_and_when_it_is_dead_these_decide_alone(
        config: PlaneConfig, destination: str) -> None:
    """It is the kernel that removes the traps (section 12: OE-paranoid never fails open, OE-permissive goes on)."""
    source = "192.1.0.65" if "." in destination else "2001:db8:1::65"
    standing = standing_policies(config, TRAP)
    assert verdict(standing, source, destination) == (Priority.TRAP, XFRM_POLICY_ALLOW)
    dead, stopped = [policy for policy in standing if not policy.lives], remaining_policies(config)
    assert {policy.priority for policy in standing if policy.lives} == {Priority.TRAP}
    assert verdict(dead, source, destination) == verdict(stopped, source, destination)
    found = verdict(dead, source, destination)
    blocked = (["203.0.113.9", "203.0.113.129"] if config is CONFIG
               else ["203.0.113.129", "198.51.100.1", "2001:db8:2::66"])
    assert (found is not None and found[1] == XFRM_POLICY_BLOCK) is (destination in blocked)


def test_the_hooks_look_where_the_configuration_says() -> None:
    text = ruleset.ruleset(CONFIG)
    assert 'iifname { "lan0", "lan1" } ip saddr @sources4' in text
    assert "elements = { 192.1.0.0/24, 192.1.1.4/32 }" in text
    assert "queue flags bypass to 4322" in text
    assert "reject" not in text
    assert "iifname" not in ruleset.ruleset(PlaneConfig())
    assert "reject with icmp type admin-prohibited" in ruleset.ruleset(PlaneConfig(icmp_on_deny=True))


def test_rules_that_the_kernel_or_nft_refuses_are_one_clear_error() -> None:
    with pytest.raises(PlaneError, match=r"load the nftables rules: .*Error"):
        ruleset.load("table inet oegw { nonsense }")


def test_a_setting_that_is_not_there_is_one_clear_error(tmp_path: object) -> None:
    with pytest.raises(PlaneError, match=r"set net.core.xfrm_larval_drop to 1: No such file .* a kernel with XFRM"):
        set_kernel({"xfrm_larval_drop": 1}, tmp_path)


def test_settings_are_written_and_their_former_values_returned(tmp_path) -> None:
    (tmp_path / "xfrm_acq_expires").write_text("30\n")
    assert set_kernel({"xfrm_acq_expires": 5}, tmp_path) == {"xfrm_acq_expires": 30}
    assert (tmp_path / "xfrm_acq_expires").read_text() == "5\n"


PORTS = replace(CONFIG, port_rules=(
    (ip_network("198.51.100.0/24"), Ports(6, 0, 80), False), (ip_network("198.51.100.0/24"), Ports(6), True),
    (ip_network("203.0.113.0/24"), Ports(6, 0, 22), False), (ip_network("2001:db8:7::/48"), Ports(17, 443, 0), False)))


@pytest.mark.conformance("C-3.2-05")
@pytest.mark.parametrize(("datagram", "action"), [
    (("192.1.0.65", "198.51.100.9", 6, 5000, 80), XFRM_POLICY_ALLOW),
    (("192.1.0.65", "198.51.100.9", 6, 80, 5000), XFRM_POLICY_BLOCK),
    (("192.1.1.4", "203.0.113.9", 6, 5000, 22), XFRM_POLICY_ALLOW),
    (("2001:db8:1::65", "2001:db8:7::9", 17, 443, 5000), XFRM_POLICY_ALLOW)])
def test_excepted_ports_are_decided_before_their_flow(datagram: tuple[str, str], action: int) -> None:
    found = verdict(standing_policies(PORTS, TRAP), *datagram)
    assert found and found[0] < Priority.FLOW and found[1] == action
    assert verdict(standing_policies(PORTS, TRAP), *datagram[:2], 17, 5000, 80) == (Priority.TRAP, XFRM_POLICY_ALLOW)


def test_excepted_ports_of_what_stays_blocked_after_a_stop_stay_excepted() -> None:
    found = verdict(remaining_policies(PORTS), "192.1.0.65", "203.0.113.9", 6, 5000, 22)
    assert found and found[1] == XFRM_POLICY_ALLOW


def test_answers_of_excepted_ports_may_come_by_a_tunnel_or_by_none() -> None:
    back = [policy for policy in standing_policies(PORTS, TRAP) if policy.direction != Direction.OUT]
    assert {policy.direction for policy in back} == {Direction.IN, Direction.FWD}
    assert all(policy.template == Template(0, None, optional=True) for policy in back)
    assert "198.51.100.0/24 -> 192.1.0.0/24 protocol 6 ports 80-0" in {str(policy.selector) for policy in back}
    assert not [policy for policy in back if policy.selector == Selector(
        ip_network("198.51.100.0/24"), ip_network("192.1.0.0/24"), 6)], "what is dropped has no answers"


CONNECT = """
import socket, sys
for port in map(int, sys.argv[1:]):
    with socket.socket() as calling:
        calling.bind(("192.1.1.77", 0))
        calling.settimeout(1)
        try:
            calling.connect(("203.0.113.9", port))
        except ConnectionRefusedError:
            print("passed")
        except OSError:
            print("dropped")
"""


@pytest.mark.conformance("C-3.2-05")
def test_hooks_spare_excepted_ports_and_only_those(tmp_path) -> None:
    """Asked of this kernel's nftables: to a destination that is never in clear, from an address that is no source."""
    rules = tmp_path / "rules"
    rules.write_text(ruleset.ruleset(replace(PORTS, inside=(), icmp_rules=((ip_network("203.0.113.0/24"), True),))))
    done = subprocess.run(["unshare", "-rn", "sh", "-ec", f"""
        ip link set lo up
        for address in 192.1.1.77/32 203.0.113.9/32; do ip address add $address dev lo; done
        sed -i 's/fib daddr type.*//; s/queue flags.*/drop/' {rules}
        nft -f {rules}
        exec {sys.executable} -c '{CONNECT}' 22 23"""], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["passed", "dropped"], done.stderr


def test_denials_are_answered_by_the_longest_prefix_that_says_so() -> None:
    text = ruleset.ruleset(PlaneConfig(icmp_on_deny=True, icmp_rules=(
        (ip_network("203.0.113.0/24"), False), (ip_network("203.0.113.128/25"), True))))
    denied = text.partition("chain denied {")[2].partition("}\n  chain")[0]
    assert [line.strip().split(" }")[0] for line in denied.splitlines() if "203" in line] == [
        "ip daddr { 203.0.113.128/25", "ip daddr { 203.0.113.0/24"]
    assert denied.strip().splitlines()[1].endswith("return")


def test_ike_and_esp_of_clients_pass_but_are_trapped_where_nothing_may_go_in_clear() -> None:
    """The longest prefix decides, as for all else."""
    policies = standing_policies(PlaneConfig(
        clients=CONFIG.clients, never_clear=(ip_network("0.0.0.0/0"), ip_network("203.0.113.128/32")),
        spared=(ip_network("203.0.113.0/24"),)), TRAP)
    for protocol, port in ((50, 0), (17, 500), (17, 4500)):
        templates = {destination: min((one for one in policies if ip_address("192.1.0.65") in one.selector.source
                                       and ip_address(destination) in one.selector.destination
                                       and (one.selector.protocol, one.selector.destination_port) == (protocol, port)),
                                      key=lambda one: one.priority).template
                     for destination in ("203.0.113.9", "203.0.113.128", "198.51.100.1")}
        assert templates == {"203.0.113.9": None, "203.0.113.128": TRAP, "198.51.100.1": TRAP}
    assert max(one.priority for one in policies if one.selector.destination_port == 500) < Priority.ICMP_BLOCK
