"""The policy is changed while flows go on: all or nothing, and never clear between."""

from functools import partial

import pytest
from twisted.internet.defer import fail, succeed
from twisted.logger import capturedLogs, formatEvent

from oesvc.config import ConfigError, load
from oesvc.ike import events as ike
from oesvc.ike.failures import KeyingFailure
from oesvc.ike.identity import AddressIdentity
from oesvc.interfaces import PlaneError
from oesvc.ipsec.flow import Flow
from oesvc.oe.authorization import DnssecPolicy
from oesvc.oe.machine import State
from oesvc.running_policy import RunningPolicy
from tests.configuration import write_configuration
from tests.kernel.test_service import done
from tests.oe.parts import ALICE, BOB, KEY, SG_B
from tests.test_daemon import FLOW, IN, OUT, THERE, World

PERMISSIVE = {"private_or_clear": "0.0.0.0/0\n::/0\n"}


class Office:
    """A daemon among fakes, whose policy is in files; Bob's record is in the DNS, his neighbours have none."""

    def __init__(self, folder, text="", **policies):
        self.write = partial(write_configuration, folder)
        config = load(self.write(text, **PERMISSIVE | policies))
        self.world = World(config.class_table())
        self.told = []
        self.refuses = None
        self.policy = RunningPolicy(config, self.world.daemon, self.reconfigure)

    def reconfigure(self, config):
        if self.refuses:
            return fail(PlaneError(self.refuses))
        self.world.diary.append(("reconfigure", len(config.policies)))
        return succeed(None)

    def neighbour(self, number):
        """A flow in clear, for there is no record."""
        flow = Flow(ALICE, BOB + number)
        self.world.daemon.acquired(flow)
        return flow

    def reload(self):
        self.world.since()
        return done(self.policy.reload())


@pytest.fixture
def office(tmp_path):
    return Office(tmp_path)


def test_flow_that_may_not_be_in_clear_any_more_is_held_before_the_reload_is_answered(office):
    flow = office.neighbour(1)
    office.write(private="192.2.0.67/32\n")
    change = office.reload()
    assert [(one.flow, one.goes_on) for one in change.flows] == [(flow, False)]
    assert [entry[0] for entry in office.world.since()][:2] == ["reconfigure", "forget"]
    assert office.world.daemon.connections.get(flow) is None
    office.world.daemon.acquired(flow)
    assert ("deny", str(flow)) in office.world.since()


def test_many_flows_end_some_at_a_time_and_first_those_that_may_not_be_in_clear_any_more(office):
    flows = [str(office.neighbour(number)) for number in range(1, 101)]
    office.write("[dns]\ndnssec = require", private="192.2.0.160/27\n")
    assert [one.goes_on for one in office.reload().flows] == [False] * 100
    ended = [entry[1] for entry in office.world.since() if entry[0] == "forget"]
    assert ended[:7] == flows[-7:]
    assert ended[:64] == ended[64:128] and ended[128:164] == ended[164:] and set(ended) == set(flows)


class Forgetful:
    """Answers of the kernel that are lost: of `times` orders to forget each flow that is named."""

    def __init__(self, office, times, *flows):
        self.forget, self.left = office.world.plane.forget, dict.fromkeys(flows, times)
        office.world.plane.forget = self

    def __call__(self, flow):
        done(self.forget(flow))
        if not self.left.get(flow):
            return succeed(None)
        self.left[flow] -= 1
        return fail(PlaneError("the kernel's answer was lost"))


def test_answer_of_the_kernel_that_is_lost_keeps_no_other_flow_in_clear_and_is_asked_for_again(office):
    flows = [office.neighbour(number) for number in range(1, 101)]
    Forgetful(office, 3, flows[0], flows[70])
    office.write(private="0.0.0.0/0\n", private_or_clear="")
    answered = []
    office.policy.reload().addBoth(answered.append)
    assert len(office.world.daemon.connections) == 0 and answered == []
    office.world.since()
    office.world.clock.advance(0)
    assert office.world.since() == [("forget", str(flow)) for flow in (flows[0], flows[70])] and answered == []
    office.world.daemon.acquired(flows[70])
    office.world.since()
    office.world.clock.advance(1)
    assert office.world.since() == [("forget", str(flows[0]))], "the other has a connection of its own again"
    assert len(answered[0].flows) == 100


def test_kernel_that_never_acknowledges_the_end_of_a_flow_is_told_of_and_not_asked_for_ever(office):
    flow = office.neighbour(1)
    Forgetful(office, 1000, flow)
    office.write(private="0.0.0.0/0\n", private_or_clear="")
    answered = []
    with capturedLogs() as logs:
        office.policy.reload().addBoth(answered.append)
        office.world.clock.pump([0, 1, 5])
    office.world.since()
    office.world.clock.advance(60)
    assert office.world.since() == [] and len(answered[0].flows) == 1
    told = formatEvent(logs[-2])
    assert told.startswith("1 flows may go on as the former policy let them") and told.endswith(str(flow))


def test_encrypted_flow_goes_on_where_it_may_and_its_tunnel_is_deleted_where_not(office):
    connection = office.world.keyed()
    office.write(private="192.2.0.66/32\n")
    assert [one.goes_on for one in office.reload().flows] == [True]
    assert office.world.connection() is connection and connection.state is State.KEYED
    assert [entry for entry in office.world.since() if entry[0] != "reconfigure"] == []
    office.write(private="", clear="192.2.0.66/32\n")
    office.reload()
    assert office.world.since()[1:3] == [("forget", THERE), ("delete_tunnel", 1)]
    office.world.daemon.acquired(FLOW)
    assert office.world.since() == [("pass-through", THERE)]


def test_flow_whose_treatment_is_the_same_keeps_its_state_and_hears_of_its_line(office):
    office.neighbour(1)
    connection = office.world.keyed()
    office.write("[lifespans]\nused = 77", private_or_clear="192.2.0.0/16\n0.0.0.0/0\n::/0\n")
    assert office.reload().flows == ()
    assert [entry for entry in office.world.since() if entry[0] != "reconfigure"] == []
    assert str(connection.line.network) == "192.2.0.0/16"
    assert connection.lifespans.used == 77.0


def test_error_in_a_file_changes_nothing_and_says_where(office):
    flow = office.neighbour(1)
    office.write(private="192.2.0.67/32\n192.2.0.67/33\n")
    error = done(office.policy.reload())
    assert error.check(ConfigError) and "policies/private:2: '192.2.0.67/33' is no network prefix" in str(error.value)
    assert office.world.daemon.connections.get(flow).state is State.CLEAR_TEXT
    assert str(office.policy.classes.find(flow.destination).network) == "0.0.0.0/0"


def test_kernel_that_refuses_changes_nothing(office):
    flow = office.neighbour(1)
    office.write(private="192.2.0.67/32\n")
    office.refuses = "load the nftables rules: no"
    assert done(office.policy.reload()).check(PlaneError)
    assert office.world.daemon.connections.get(flow).state is State.CLEAR_TEXT
    office.refuses = None
    assert len(office.reload().flows) == 1


def test_difference_tells_beforehand_and_changes_nothing(office):
    office.neighbour(1)
    office.world.keyed()
    office.write("[ike]\nkeying-time = 5\n[dns]\nclock-skew = 9\n[gateway]\nicmp-on-deny = yes",
                 block="192.2.0.64/26\n", clear="10.0.0.0/8 tcp 0 22\n")
    for change in (office.policy.difference(), office.policy.difference(), office.reload()):
        assert [(str(one.before.network), one.after.class_name) for one in change.lines] == [("0.0.0.0/0", "deny")]
        assert [str(one.ports) for one in change.ports_new] == ["tcp to port 22"]
        assert [one.goes_on for one in change.flows] == [False, False]
        assert change.options == ("[gateway] icmp-on-deny",)
        assert change.restart == ("[dns] clock-skew", "[ike] keying-time")
    left = office.policy.difference()
    assert (left.lines, left.flows, left.options, left.ports_new) == ((), (), (), ())
    assert left.restart == ("[dns] clock-skew", "[ike] keying-time") and not left.nothing


def test_stricter_dnssec_asks_anew_what_a_tunnels_keys_are_worth(office):
    office.world.keyed()
    office.write("[dns]\ndnssec = require")
    office.reload()
    assert ("delete_tunnel", 1) in office.world.since()
    assert office.world.daemon.discovery.policy is DnssecPolicy.REQUIRE


def test_answer_that_comes_after_a_reload_is_not_for_the_flow_of_before(office):
    office.world.resolver.waiting = []
    office.world.daemon.acquired(FLOW)
    office.write(clear="192.2.0.66/32\n")
    office.reload()
    office.world.daemon.acquired(FLOW)
    office.world.since()
    for deferred, answer in office.world.resolver.waiting:
        deferred.callback(answer)
    assert office.world.since() == []
    assert office.world.connection().state is State.CLEAR_TEXT


def test_tunnel_that_comes_to_stand_after_a_reload_to_clear_is_deleted(office):
    office.world.daemon.acquired(FLOW)
    office.write(clear="192.2.0.66/32\n")
    office.reload()
    office.world.daemon.acquired(FLOW)
    office.world.since()
    office.world.says(ike.SasReady(1, FLOW, (IN, OUT)), ike.TunnelUp(1, FLOW, ALICE, SG_B, AddressIdentity(SG_B)))
    assert ("delete_tunnel", 1) in office.world.since()
    assert office.world.connection().state is State.CLEAR_TEXT


def stands(office, number):
    office.world.says(ike.SasReady(number, FLOW, (IN, OUT)))
    office.world.since()
    office.world.says(ike.TunnelUp(number, FLOW, ALICE, SG_B, AddressIdentity(SG_B)))
    return office.world.since()


def test_tunnel_by_keys_that_a_reload_believes_no_more_is_deleted_and_the_new_answer_counts(office):
    office.world.daemon.acquired(FLOW)
    office.write("[dns]\ndnssec = require")
    office.reload()
    office.world.resolver.waiting = []
    office.world.daemon.acquired(FLOW)
    assert stands(office, 1) == [("delete_tunnel", 1)]
    assert office.world.connection().state is State.POTENTIAL_OE
    for deferred, answer in office.world.resolver.waiting:
        deferred.callback(answer)
    assert [entry[0] for entry in office.world.since()] == ["initiate"]
    assert stands(office, 2) == [("encrypt", THERE)]


def test_tunnel_that_was_authorized_by_records_that_a_reload_believes_no_more_is_deleted(office):
    office.world.says(ike.TunnelProposed(7, FLOW, SG_B, AddressIdentity(SG_B), KEY))
    assert ("accept_tunnel", 7) in office.world.since()
    office.write("[dns]\ndnssec = require")
    office.reload()
    office.world.says(ike.TunnelProposed(8, FLOW, SG_B, AddressIdentity(SG_B), KEY))
    office.world.says(ike.TunnelFailed(8, FLOW, SG_B, KeyingFailure.PHASE2_SILENT, "silence"))
    assert office.world.connection().state is State.POTENTIAL_OE, "the other proposal may still come to something"
    assert stands(office, 7) == [("delete_tunnel", 7), ("forget", THERE)]
    assert office.world.connection() is None


def test_tunnel_that_was_begun_before_a_reload_of_another_matter_is_used(office):
    office.world.daemon.acquired(FLOW)
    office.write(private="192.2.0.66/32\n")
    office.reload()
    office.world.daemon.acquired(FLOW)
    assert ("encrypt", THERE) in stands(office, 1)


@pytest.mark.parametrize("before, after", [("192.2.0.66/32\n", ""), ("", "192.2.0.66/32\n")])
def test_failure_of_an_attempt_that_a_reload_overtook_is_none_of_the_flow_of_now(tmp_path, before, after):
    """Neither is it let go in clear too early, nor denied, while the attempt of its own goes on."""
    office = Office(tmp_path, private=before)
    office.world.daemon.acquired(FLOW)
    office.write(private=after)
    assert len(office.reload().flows) == 1
    office.world.daemon.acquired(FLOW)
    office.world.since()
    office.world.says(ike.TunnelFailed(1, FLOW, SG_B, KeyingFailure.PEER_SILENT, "no answer"))
    assert office.world.connection().state is State.PENDING_OE
    assert not {"pass", "deny"} & {entry[0] for entry in office.world.since()}
    assert ("encrypt", THERE) in stands(office, 2)


def test_proposal_that_a_reload_overtakes_is_refused(office):
    office.world.resolver.waiting = []
    office.world.says(ike.TunnelProposed(7, FLOW, SG_B, AddressIdentity(SG_B), KEY))
    office.write(block="192.2.0.66/32\n")
    office.reload()
    for deferred, answer in list(office.world.resolver.waiting):
        deferred.callback(answer)
    refused = [entry for entry in office.world.since() if entry[0] == "refuse_tunnel"]
    assert len(refused) == 1 and "192.2.0.66/32 is deny" in refused[0][2]


def test_failure_of_a_reload_by_sighup_that_nobody_expects_is_logged(office):
    office.policy._reconfigure = lambda config: fail(ZeroDivisionError("unexpected"))
    with capturedLogs() as logs:
        office.policy.hang_up()
    assert [formatEvent(event) for event in logs] == ["reloading the policy"]


def test_sighup_reloads_and_a_mistake_is_only_logged(office):
    office.write(private="nonsense\n")
    office.policy.hang_up()
    office.write(private="192.2.0.67/32\n")
    office.policy.hang_up()
    assert office.policy.classes.find(BOB + 1).class_name == "OE-paranoid"
