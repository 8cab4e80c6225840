"""What stands in the kernel for configured tunnels: never nothing, and never the same as for an opportunistic flow."""

import subprocess
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from twisted.internet.defer import succeed

from oesvc.interfaces import PlaneError
from oesvc.ipsec.flow import Flow
from oesvc.ipsec.policy import ForwardingPolicy
from oesvc.ipsec.sa import IpsecSa, Lifetime
from oesvc.ipsec.subnets import Subnets
from oesvc.kernel import ruleset
from oesvc.kernel.constants import (
    CONFIGURED_PRIORITIES,
    FLOW_REQIDS,
    OUR_PRIORITIES,
    OUR_REQIDS,
    TRAP_REQID,
    XFRM_POLICY_ALLOW,
    XFRM_POLICY_BLOCK,
    Direction,
    Priority,
)
from oesvc.kernel.exemptions import remaining_policies, standing_policies
from oesvc.kernel.netlink import Message
from oesvc.kernel.notifications import Acquire, SaExpired, _acquire
from oesvc.kernel.plane_config import PlaneConfig
from oesvc.kernel.sad import add_sa
from oesvc.kernel.spd import Policy, Selector, Template, put_policy
from oesvc.kernel.standing import replace_policies
from oesvc.kernel.structs import SaMessage
from tests.kernel.test_exemptions import verdict
from tests.kernel.test_service import GATEWAYS, GCM, Plane, done, netlink_message

HOLD, ENCRYPT = ForwardingPolicy.HOLD, ForwardingPolicy.ENCRYPT
HERE, THERE = ip_network("10.1.0.0/16"), ip_network("10.2.0.0/16")
SITE = Subnets.between(HERE, THERE)
REQID = 0xF0000010
CONFIG = PlaneConfig(clients=(HERE,), own=(ip_address("192.1.1.4"),), never_clear=(THERE,), configured={SITE: REQID},
                     resolver_sources=(ip_network("10.1.0.53/32"),))
INBOUND = IpsecSa(0x111, GATEWAYS.destination, GATEWAYS.source, SITE.reversed(), GCM, bytes(20), b"", Lifetime(3600))
OUTBOUND = IpsecSa(0x222, GATEWAYS.source, GATEWAYS.destination, SITE, GCM, bytes(20), b"", Lifetime(3600))
TRAP = Template(TRAP_REQID, None)
ALICE, BOB = "10.1.0.65", "10.2.0.66"


def ingress(policies: list[Policy]) -> set[tuple[Direction, str, int]]:
    return {(policy.direction, str(policy.selector), policy.action) for policy in policies
            if policy.direction is not Direction.OUT}


@pytest.mark.conformance("C-1.2-07")
def test_its_policies_stand_before_there_is_a_tunnel_and_after_the_daemon_has_stopped() -> None:
    """The trap is a policy that wants an SA which nobody has made: what meets it is dropped and announced."""
    running, stopped = standing_policies(CONFIG, TRAP), remaining_policies(CONFIG)
    priority, action = verdict(running, ALICE, BOB)
    assert priority in CONFIGURED_PRIORITIES and action == XFRM_POLICY_ALLOW
    out = {policy.selector: policy for policy in running if policy.direction is Direction.OUT}
    assert out[Selector(HERE, THERE)].template == Template(REQID, None)
    assert verdict(stopped, ALICE, BOB) == (priority, XFRM_POLICY_BLOCK)
    blocked = {(way, f"{THERE} -> {HERE}", XFRM_POLICY_BLOCK) for way in (Direction.IN, Direction.FWD)}
    assert ingress(running) == ingress(stopped) == blocked


@pytest.mark.parametrize("datagram", [
    ("10.1.0.53", BOB, 17, 5353, 53), ("10.1.0.53", BOB, 6, 5353, 853),
    ("192.1.1.4", BOB, 1, 3, 1),  # an ICMP error
])
def test_what_is_exempt_elsewhere_does_not_go_to_its_networks_in_clear(datagram) -> None:
    for policies in standing_policies(CONFIG, TRAP), remaining_policies(CONFIG):
        priority, action = verdict(policies, *datagram)
        assert action == XFRM_POLICY_BLOCK or priority in CONFIGURED_PRIORITIES


def test_a_tunnel_that_leads_everywhere_takes_everything_but_the_lan() -> None:
    everywhere = ip_network("0.0.0.0/0")
    config = replace(CONFIG, configured={Subnets.between(HERE, everywhere): REQID}, never_clear=(everywhere,))
    for policies in standing_policies(config, TRAP), remaining_policies(config):
        by_selector = {(policy.direction, policy.selector): policy for policy in policies}
        left = list(by_selector.values())
        assert verdict(left, ALICE, "198.51.100.1")[0] in CONFIGURED_PRIORITIES
        assert verdict(left, ALICE, "10.1.0.66") == verdict(left, ALICE, "224.0.0.251") == (
            Priority.EXEMPT, XFRM_POLICY_ALLOW)


def test_of_two_tunnels_the_one_to_the_smaller_network_counts() -> None:
    smaller = Subnets.between(HERE, ip_network("10.2.3.0/24"))
    policies = standing_policies(replace(CONFIG, configured={SITE: REQID, smaller: REQID + 1}), TRAP)
    assert verdict(policies, ALICE, "10.2.3.4")[0] < verdict(policies, ALICE, "10.2.4.4")[0]


@pytest.mark.conformance("C-12.1-01")
def test_its_numbers_are_apart_from_those_of_opportunistic_flows() -> None:
    assert REQID not in FLOW_REQIDS and REQID in OUR_REQIDS
    assert set(CONFIGURED_PRIORITIES) <= set(OUR_PRIORITIES)
    assert CONFIGURED_PRIORITIES[0] > Priority.EXEMPT and CONFIGURED_PRIORITIES[128] < Priority.FLOW


@pytest.mark.conformance("C-1.2-07")
def test_a_tunnel_that_comes_and_goes_only_replaces_its_policies() -> None:
    plane = Plane(CONFIG)
    done(plane.add_sas(SITE, (INBOUND, OUTBOUND)))
    done(plane.install_policy(SITE, ENCRYPT, GATEWAYS))
    up = plane.said()
    assert [line for line in up if "policy" in line] == [
        "put a policy (fwd, protect) for 10.2.0.0/16 -> 10.1.0.0/16",
        "put a policy (in, protect) for 10.2.0.0/16 -> 10.1.0.0/16",
        "put a policy (out, protect) for 10.1.0.0/16 -> 10.2.0.0/16"]
    done(plane.install_policy(SITE, HOLD))
    done(plane.remove_sas(SITE, (INBOUND, OUTBOUND)))
    down = plane.said()
    assert [line for line in down if "policy" in line] == [
        "put a policy (out, protect) for 10.1.0.0/16 -> 10.2.0.0/16",
        "put a policy (fwd, block) for 10.2.0.0/16 -> 10.1.0.0/16",
        "put a policy (in, block) for 10.2.0.0/16 -> 10.1.0.0/16"]
    assert not any("delete the policy" in line for line in up + down)
    done(plane.add_sas(SITE, (INBOUND, OUTBOUND)))
    assert "put a policy (in, protect) for 10.2.0.0/16 -> 10.1.0.0/16" in plane.said()


def test_its_reqid_is_the_one_of_the_configuration() -> None:
    plane = Plane(CONFIG)
    done(plane.add_sas(SITE, (INBOUND, OUTBOUND)))
    assert plane._flows.by_reqid(REQID).flow == SITE
    done(plane.add_sas(Flow(ip_address(ALICE), ip_address("192.0.2.9")), ()))


def test_hard_end_of_its_last_sa_closes_it_before_anybody_is_told() -> None:
    plane = Plane(CONFIG)
    done(plane.add_sas(SITE, (INBOUND, OUTBOUND)))
    done(plane.install_policy(SITE, ENCRYPT, GATEWAYS))
    plane.said()
    plane._event(SaExpired(OUTBOUND.spi, OUTBOUND.destination, REQID, hard=True))
    assert plane.said() == ["known: ENCRYPT to None", "put a policy (out, protect) for 10.1.0.0/16 -> 10.2.0.0/16"]
    assert plane.listener.heard == [("SA expired", SITE, OUTBOUND.spi, True)]


def test_a_datagram_that_meets_its_trap_is_announced_as_its() -> None:
    """By the selector of the policy: the datagram itself is of some two hosts."""
    policy = standing_policies(CONFIG, TRAP)
    (trap,) = (one for one in policy if one.template == Template(REQID, None))
    fields = trap.selector.fields() | {"priority": trap.priority} | {
        f"wanted_{name}": value for name, value in Selector.of_flow(Flow(ip_address(ALICE), ip_address(BOB))
                                                                    ).fields().items()}
    assert _acquire(fields) == Acquire(SITE, trap.priority)
    plane = Plane(CONFIG)
    for _ in range(3):
        plane._event(Acquire(SITE, trap.priority))
    assert plane.listener.heard == [("acquired", SITE)]


def test_its_sas_are_for_the_networks_and_no_others() -> None:
    request = add_sa(OUTBOUND, REQID, inbound=False)
    state = SaMessage(netlink_message(request.kind, request.body))
    state.decode()
    assert Selector.read(state) == Selector(HERE, THERE) and state["reqid"] == REQID


def test_another_programs_policy_in_its_place_is_an_error_at_the_start() -> None:
    """It cannot give way, for then what it is to encrypt would go as the other policy says."""
    theirs = put_policy(Policy(Direction.OUT, Selector(HERE, THERE), 7))

    class Spd:
        def request(self, *requests):
            listing = requests[0].asks == "list the policies"
            return succeed([Message(theirs.kind, netlink_message(theirs.kind, theirs.body))]
                           if listing else [])

    refused = done(replace_policies(Spd(), standing_policies(CONFIG, TRAP)))
    assert refused.check(PlaneError) and "10.1.0.0/16 -> 10.2.0.0/16 is already there" in refused.getErrorMessage()


def test_the_hooks_leave_it_to_the_spd(tmp_path) -> None:
    """Nothing of it is held; nft takes the rules as they are written."""
    config = replace(CONFIG, configured={SITE: REQID, Subnets.between(
        ip_network("2001:db8:1::/64"), ip_network("2001:db8:2::/48")): REQID + 1})
    text = ruleset.ruleset(config)
    assert "chain hold {\n    jump beside\n" in text
    chain = text.partition("chain beside {")[2].partition("\n  }")[0]
    assert chain.index("ip saddr 10.1.0.0/16 ip daddr 10.2.0.0/16 accept") < chain.index("jump spare")
    # Not every kernel that runs this test has the queue.
    (tmp_path / "rules").write_text(text.replace(f"queue flags bypass to {config.queue_number}", "drop"))
    done = subprocess.run(["unshare", "-rn", "nft", "-c", "-f", str(tmp_path / "rules")], capture_output=True,
                          text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
