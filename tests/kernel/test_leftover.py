"""What is left in the kernel without a daemon, in words (RFC 4322 section 12)."""

import subprocess
import sys
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from oesvc.ipsec.flow import Flow
from oesvc.ipsec.policy import ForwardingPolicy
from oesvc.kernel.constants import Direction, Priority
from oesvc.kernel.exemptions import remaining_policies, standing_policies
from oesvc.kernel.leftover import Leftover, leftover
from oesvc.kernel.netlink import HEADER, Message
from oesvc.kernel.plane_config import PlaneConfig
from oesvc.kernel.spd import (
    ACTIONS,
    Policy,
    Selector,
    Template,
    flow_policy,
    ingress_policies,
    put_policy,
    read_policies,
)

HOLD, PASS, DENY, ENCRYPT = ForwardingPolicy
FLOW, GATEWAYS = (Flow(ip_address(f"192.0.2.{number}"), ip_address("198.51.100.1")) for number in (1, 2))
TRAP = Template(0xE0000000, None)
CONFIG = PlaneConfig(own=(FLOW.source,), never_clear=(ip_network("203.0.113.0/24"),))
FLOWS = [flow_policy(FLOW, ACTIONS[policy], Template(1, GATEWAYS) if policy is ENCRYPT else None)
         for policy in (PASS, DENY, ENCRYPT)]


def listed(policies):
    """As the kernel lists them."""
    for policy in policies:
        request = put_policy(policy)
        head = HEADER.pack(HEADER.size + len(request.body), request.kind, 0, 0, 0)
        yield from read_policies([Message(request.kind, head + request.body)])


def left(*policies):
    return leftover(listed(policies))


def test_flows_are_counted_once_by_what_became_of_them():
    found = left(*standing_policies(CONFIG, TRAP), *FLOWS, *ingress_policies(FLOW, Template(1, GATEWAYS)))
    assert found.flows == {PASS: 1, DENY: 1, ENCRYPT: 1}
    assert found.of_a_crash and found.trapped and found.blocked
    assert str(found) == (
        "flows: 1 encrypted as long as their keys last, 1 in clear, 1 denied; all others stopped, for half a minute at "
        "most, but destinations of the deny and OE-paranoid classes blocked")


def test_when_the_traps_have_ended_what_is_not_blocked_is_in_clear():
    policies = [policy for policy in standing_policies(CONFIG, TRAP) if not policy.lives]
    assert "all others in clear, but destinations" in str(left(*policies, *FLOWS))


@pytest.mark.parametrize(("config", "words"), [
    (CONFIG, "all flows in clear, but destinations of the deny and OE-paranoid classes blocked"),
    (PlaneConfig(own=CONFIG.own), "all flows in clear")])
def test_an_end_in_order_is_told_from_a_crash(config, words):
    found = left(*remaining_policies(config))
    assert (found.of_a_crash, str(found)) == (False, words)


def test_policies_of_others_are_not_ours():
    assert left(*(Policy(Direction.OUT, Selector.of_flow(FLOW), each) for each in (1000, 0xFFFFFFFF))) == Leftover()


def test_the_program_that_tells_it_tells_it_or_nothing():
    done = subprocess.run([sys.executable, "-m", "oesvc.operator.left"], cwd=Path(__file__).parents[2], text=True,
                          capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "" or done.stdout.startswith("the kernel goes on without it, with ")
    assert Priority.REMAINS > Priority.TRAP
