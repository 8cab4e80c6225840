"""What is protected changes while the plane runs: nothing passes by meanwhile, and what was decided stays."""

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed

from oesvc.interfaces import PlaneError
from oesvc.ipsec.ports import Ports
from oesvc.kernel.constants import TRAP_REQID, Priority, XfrmMessage
from oesvc.kernel.exemptions import standing_policies
from oesvc.kernel.netlink import Message, Request
from oesvc.kernel.plane_config import PlaneConfig
from oesvc.kernel.spd import ACTIONS, Policy, Template, flow_policy, put_policy
from oesvc.kernel.structs import PolicyMessage
from tests.kernel.test_service import (
    ENCRYPT,
    FLOW,
    GATEWAYS,
    INBOUND,
    OUTBOUND,
    PASS,
    Kernel,
    Plane,
    done,
    netlink_message,
)

TRAP = Template(TRAP_REQID, None)
BEFORE, AFTER = ip_address("192.1.1.4"), ip_address("192.1.1.44")


class Spd(Kernel):
    """A kernel that can list policies."""

    def __init__(self, *policies: Policy) -> None:
        super().__init__()
        self.policies = [Message(XfrmMessage.NEWPOLICY, netlink_message(XfrmMessage.NEWPOLICY, put_policy(one).body))
                         for one in policies]

    def request(self, *requests: Request) -> "Deferred[list[Any]]":
        if requests[0].asks == "list the policies":
            return succeed(self.policies)
        return super().request(*requests)


def standing(config: PlaneConfig) -> list[Policy]:
    return standing_policies(config, TRAP)


def test_new_address_is_trapped_before_the_hooks_hear_of_it_and_an_old_one_as_long_as_they_know_it() -> None:
    before, after = PlaneConfig(own=(BEFORE,)), PlaneConfig(own=(AFTER,))
    plane = Plane(before, Spd(*standing(before)))
    done(plane.reconfigure(after))
    said = [entry for entry in plane.said() if "protocol" not in entry]
    assert [entry for entry in said if "/32 -> 0.0.0.0/0" in entry or "load" in entry] == [
        f"put a policy (out, protect) for {AFTER}/32 -> 0.0.0.0/0", "load the rules",
        f"delete the policy (out) for {BEFORE}/32 -> 0.0.0.0/0"]
    done(plane.reconfigure(after))
    assert plane.said() == ["load the rules"]


def test_what_flows_have_been_given_stays() -> None:
    plane = Plane(PlaneConfig(), Spd(flow_policy(FLOW, ACTIONS[PASS], None)))
    done(plane.reconfigure(PlaneConfig(clients=(ip_network("192.1.0.0/24"),))))
    assert not any("delete" in entry or str(FLOW.source) in entry for entry in plane.said())


def test_trap_that_another_programs_policy_keeps_out_is_an_error_and_nothing_changes() -> None:
    own = PlaneConfig(own=(AFTER,))
    theirs = next(policy for policy in standing(own) if policy.priority == Priority.TRAP)
    plane = Plane(PlaneConfig(), Spd(Policy(theirs.direction, theirs.selector, 1)))
    refused = done(plane.reconfigure(own))
    assert refused.check(PlaneError) and "already there, of another program" in refused.getErrorMessage()
    assert plane.said() == []


@pytest.mark.parametrize("refused", ["put a policy", "load the rules"])
def test_where_the_kernel_refuses_nothing_is_protected_less(refused: str) -> None:
    before = PlaneConfig(own=(BEFORE,))
    plane = Plane(before, Spd(*standing(before)))
    plane.kernel.refuses = refused
    assert done(plane.reconfigure(PlaneConfig(own=(AFTER,)))).check(PlaneError)
    assert not any("delete" in entry for entry in plane.said())
    plane.kernel.refuses = ""
    done(plane.reconfigure(PlaneConfig(own=(AFTER,))))
    assert f"delete the policy (out) for {BEFORE}/32 -> 0.0.0.0/0" in plane.said()


def test_plane_that_was_stopped_is_left_alone() -> None:
    plane = Plane(PlaneConfig(), Spd())
    done(plane.stop())
    plane.said()
    done(plane.reconfigure(PlaneConfig(own=(AFTER,))))
    assert plane.said() == []


def test_hooks_that_are_refused_leave_no_port_open_and_those_in_force_open_it_last() -> None:
    ports = PlaneConfig(own=(BEFORE,), port_rules=(
        (ip_network("192.2.0.0/24"), Ports(6, 0, 80), False), (ip_network("192.2.0.0/24"), Ports(6, 0, 25), True)))
    plane = Plane(PlaneConfig(own=(BEFORE,)), Spd(*standing(PlaneConfig(own=(BEFORE,)))))
    plane.kernel.refuses = "load the rules"
    assert done(plane.reconfigure(ports)).check(PlaneError)
    blocked = f"put a policy (out, block) for {BEFORE}/32 -> 192.2.0.0/24 protocol 6 ports 0-25"
    assert [entry for entry in plane.said() if "put" in entry] == [blocked]
    plane.kernel.refuses = ""
    done(plane.reconfigure(ports))
    said = plane.said()
    assert said.index(blocked) < said.index("load the rules") < said.index(
        f"put a policy (out, pass) for {BEFORE}/32 -> 192.2.0.0/24 protocol 6 ports 0-80")


@pytest.mark.parametrize("refused", ["put a policy", "load the rules"])
def test_block_that_a_trap_had_replaced_is_there_again_when_the_hooks_are_refused(refused: str) -> None:
    """By default all is private, then nothing is: trap and block have one selector, and a trap ends by itself."""
    private, permissive = PlaneConfig(own=(BEFORE,), never_clear=(ip_network("0.0.0.0/0"),)), PlaneConfig(own=(BEFORE,))
    plane = Plane(private, Spd(*standing(private)))
    plane.kernel.refuses = refused
    assert refused in done(plane.reconfigure(permissive)).getErrorMessage()
    everywhere = [entry for entry in plane.said() if entry.endswith(f" for {BEFORE}/32 -> 0.0.0.0/0")]
    assert everywhere == [f"put a policy (out, {deed}) for {BEFORE}/32 -> 0.0.0.0/0" for deed in ("protect", "block")]


class Lives(Spd):
    """Keeps of all policies that are put how long they live."""

    def __init__(self) -> None:
        super().__init__()
        self.put: list[tuple[int, int]] = []

    def request(self, *requests: Request) -> "Deferred[list[Any]]":
        for one in requests:
            if one.kind in (XfrmMessage.NEWPOLICY, XfrmMessage.UPDPOLICY) and f"{FLOW.destination}/32" in one.asks:
                message = PolicyMessage(netlink_message(one.kind, one.body))
                message.decode()
                self.put.append((message["dir"], message["hard_add_expires_seconds"]))
        return super().request(*requests)

    def lives(self) -> list[tuple[int, int]]:
        put, self.put = sorted(self.put), []
        return put


PERMISSIVE = PlaneConfig(keys_last=600)
PRIVATE = replace(PERMISSIVE, never_clear=(ip_network("192.2.0.0/24"),))


@pytest.mark.parametrize(("before", "after", "ends"), [
    (PERMISSIVE, PRIVATE, (610, 0)), (PRIVATE, PERMISSIVE, (0, 610))])
def test_policies_of_a_tunnel_that_goes_on_end_as_the_new_class_says(
        before: PlaneConfig, after: PlaneConfig, ends: tuple[int, int]) -> None:
    plane = Plane(before, kernel := Lives())
    done(plane.add_sas(FLOW, [INBOUND, OUTBOUND]))
    done(plane.install_policy(FLOW, ENCRYPT, GATEWAYS))
    assert kernel.lives() == [(way, ends[0]) for way in range(3)]
    done(plane.reconfigure(after))
    assert kernel.lives() == [(way, ends[1]) for way in range(3)]
    done(plane.reconfigure(after))
    assert kernel.lives() == []


def test_where_that_was_refused_the_next_keys_bring_it() -> None:
    plane = Plane(PERMISSIVE, kernel := Lives())
    done(plane.add_sas(FLOW, [INBOUND, OUTBOUND]))
    done(plane.install_policy(FLOW, ENCRYPT, GATEWAYS))
    kernel.refuses = f"{FLOW.destination}/32"
    done(plane.reconfigure(PRIVATE))
    kernel.refuses = ""
    kernel.lives()
    for expected in [(way, 0) for way in range(3)], []:
        done(plane.add_sas(FLOW, [INBOUND, OUTBOUND]))
        done(plane.install_policy(FLOW, ENCRYPT, GATEWAYS))
        assert kernel.lives() == expected
