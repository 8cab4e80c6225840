"""The order in which the plane does things: a flow that is to be encrypted or held never has a moment of its own."""

import struct
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from oesvc.interfaces import PlaneError
from oesvc.ipsec.account import Verdict
from oesvc.ipsec.flow import Flow
from oesvc.ipsec.policy import ForwardingPolicy
from oesvc.ipsec.sa import Encryption, EspTransform, IpsecSa, Lifetime, UdpPorts
from oesvc.ipsec.subnets import Subnets
from oesvc.kernel import service
from oesvc.kernel.constants import FLOW_REQIDS, Priority, XfrmMessage
from oesvc.kernel.exemptions import traps
from oesvc.kernel.hold import Datagram
from oesvc.kernel.netlink import HEADER, ExistsError, Message, Request
from oesvc.kernel.notifications import Acquire, SaExpired
from oesvc.kernel.plane_config import PlaneConfig
from oesvc.kernel.sad import add_sa
from oesvc.kernel.service import TRAP, LinuxForwardingPlane
from oesvc.kernel.spd import Selector
from oesvc.kernel.standing import SETTINGS

HOLD, PASS, DENY, ENCRYPT = ForwardingPolicy
FLOW = Flow(ip_address("192.1.0.65"), ip_address("192.2.0.66"))
GATEWAYS = Flow(ip_address("192.1.1.4"), ip_address("192.1.1.5"))
GCM = EspTransform(Encryption.AES_GCM_16, 128, None)
INBOUND = IpsecSa(0x111, GATEWAYS.destination, GATEWAYS.source, FLOW.reversed(), GCM, bytes(20), b"", Lifetime(3600))
OUTBOUND = IpsecSa(0x222, GATEWAYS.source, GATEWAYS.destination, FLOW, GCM, bytes(20), b"", Lifetime(3600))


class Kernel:
    """XFRM, the sets and the queue in one, with a diary. What it refuses is named by a word of the request."""

    def __init__(self) -> None:
        self.diary: list[str] = []
        self.refuses = ""
        self.refusal: type[PlaneError] = PlaneError
        self.sas: list[Message] = []
        "What is answered to those who ask for an SA."

    def request(self, *requests: Request) -> "Deferred[list[Any]]":
        found = self.sas if requests[0].kind == XfrmMessage.GETSA else []
        return self._ask(*(request.asks for request in requests)).addCallback(lambda _: found)

    def change(self, flow: Flow, before: Verdict | None, after: Verdict | None) -> "Deferred[list[Any]]":
        return self._ask("known: {} to {}".format(*(one and ", ".join(filter(None, (one.policy.name, one.because)))
                                                    for one in (before, after))))

    def delete_table(self) -> "Deferred[list[Any]]":
        return self._ask("delete the table")

    def load(self, text: str) -> "Deferred[list[Any]]":
        return self._ask("load the rules")

    def bind(self) -> "Deferred[list[Any]]":
        return self._ask("take the queue")

    def _ask(self, *asks: str) -> "Deferred[list[Any]]":
        self.diary += asks
        if self.refuses and any(self.refuses in each for each in asks):
            return fail(self.refusal(f"{self.refuses}: refused"))
        return succeed([])

    def close(self) -> None:
        self.diary.append("close")

    def accept(self, *datagrams: Datagram) -> None:
        self.diary += [f"accept {one.number}" for one in datagrams]

    def drop(self, *datagrams: Datagram) -> None:
        self.diary += [f"drop {one.number}" for one in datagrams]


class SlowKernel(Kernel):
    """Does at once what it is asked for, as the kernel does, and answers later, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.unanswered: list[tuple[Deferred[list[Any]], Any]] = []

    def _ask(self, *asks: str) -> "Deferred[list[Any]]":
        answered: Deferred[list[Any]] = Deferred()
        super()._ask(*asks).addBoth(lambda result: self.unanswered.append((answered, result)))
        return answered

    def answer(self) -> None:
        """Until there is nothing more to answer."""
        while self.unanswered:
            deferred, result = self.unanswered.pop(0)
            deferred.callback(result)


class Listener:
    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def acquired(self, flow: Flow) -> None:
        self.heard.append(("acquired", flow))

    def sa_expired(self, flow: Flow, spi: int, hard: bool) -> None:
        self.heard.append(("SA expired", flow, spi, hard))


class Plane(LinuxForwardingPlane):
    """A plane that has been started on such a kernel."""

    def __init__(self, config: PlaneConfig | None = None, kernel: Kernel | None = None) -> None:
        self.clock = Clock()
        self.released: list[tuple[ForwardingPolicy, float]] = []
        super().__init__(self.clock, config or PlaneConfig(), lambda *told: self.released.append(told))
        self.kernel = self._xfrm = self._sets = self._queue = kernel or Kernel()
        self.listener = self._listener = Listener()

    def _open_sockets(self) -> None:
        self._open.append(self.kernel)

    def arrive(self, number: int) -> None:
        self._datagram_arrived(Datagram(number, FLOW, 0, 0))

    def said(self) -> list[str]:
        """The diary since it was last read."""
        entries, self.kernel.diary = self.kernel.diary, []
        return entries


def netlink_message(kind: int, body: bytes) -> bytes:
    return HEADER.pack(HEADER.size + len(body), kind, 0, 0, 0) + body


def done(deferred: "Deferred[Any]") -> Any:
    results: list[Any] = []
    deferred.addBoth(results.append)
    assert len(results) == 1
    return results[0]


def test_a_flow_is_known_only_when_its_policy_stands_and_only_then_released() -> None:
    plane = Plane()
    plane.arrive(1)
    plane.arrive(2)
    plane.arrive(3)
    assert plane.listener.heard == [("acquired", FLOW)]
    assert done(plane.install_policy(FLOW, ENCRYPT, GATEWAYS)) is None
    assert plane.said() == [
        "drop 2", "put a policy (out, protect) for 192.1.0.65/32 -> 192.2.0.66/32", "known: None to ENCRYPT",
        "accept 1", "accept 3"]


def test_how_long_the_first_datagram_was_held_is_told_once() -> None:
    plane = Plane()
    plane.arrive(1)
    plane.clock.advance(0.25)
    plane.arrive(2)
    assert plane.bounds() == {"max-held": (2, 20_000, 0)}
    for _ in range(2):
        plane.install_policy(FLOW, ENCRYPT, GATEWAYS)
    assert plane.released == [(ENCRYPT, 0.25)] and plane.bounds() == {"max-held": (0, 20_000, 0)}


@pytest.mark.parametrize(("policy", "verdict"), [(PASS, "accept"), (DENY, "drop")])
def test_what_was_still_on_its_way_when_the_flow_became_known_is_judged_at_once(
        policy: ForwardingPolicy, verdict: str) -> None:
    plane = Plane()
    plane.install_policy(FLOW, policy)
    plane.said()
    plane.arrive(9)
    assert plane.said() == [f"{verdict} 9"]
    assert plane.listener.heard == []


@pytest.mark.parametrize("withdraw", [
    lambda plane: plane.install_policy(FLOW, HOLD), lambda plane: plane.forget(FLOW)])
def test_a_flow_is_held_again_before_its_policy_goes(withdraw: Callable[[Plane], "Deferred[None]"]) -> None:
    plane = Plane()
    plane.install_policy(FLOW, ENCRYPT, GATEWAYS)
    plane.said()
    assert done(withdraw(plane)) is None
    assert plane.said() == ["known: ENCRYPT to None", "delete the policy (out) for 192.1.0.65/32 -> 192.2.0.66/32"]
    plane.arrive(1)
    assert plane.listener.heard == [("acquired", FLOW)]


def test_what_is_held_of_a_forgotten_flow_is_dropped_and_of_a_held_one_kept() -> None:
    plane = Plane()
    plane.arrive(1)
    plane.install_policy(FLOW, HOLD)
    plane.arrive(2)
    assert "drop" not in " ".join(plane.said())
    plane.forget(FLOW)
    assert plane.said()[:2] == ["drop 1", "drop 2"]


def test_the_same_policy_again_changes_nothing() -> None:
    plane = Plane()
    plane.install_policy(FLOW, ENCRYPT, GATEWAYS)
    plane.said()
    assert done(plane.install_policy(FLOW, ENCRYPT, GATEWAYS)) is None
    assert plane.said() == []


@pytest.mark.conformance("C-3.1.5-04")
def test_any_state_is_reached_from_any_other_by_command() -> None:
    for before in ForwardingPolicy:
        for after in ForwardingPolicy:
            plane = Plane()
            done(plane.install_policy(FLOW, before, GATEWAYS))
            assert done(plane.install_policy(FLOW, after, GATEWAYS)) is None
            plane.said()
            plane.arrive(1)
            assert plane.said() == {HOLD: [], DENY: ["drop 1"]}.get(after, ["accept 1"])


def test_a_policy_that_the_kernel_refuses_leaves_the_flow_held() -> None:
    plane = Plane()
    plane.arrive(1)
    plane.kernel.refuses = "put a policy"
    assert done(plane.install_policy(FLOW, PASS)).check(PlaneError)
    assert not any(entry.startswith(("known", "accept")) for entry in plane.said())
    plane.kernel.refuses = ""
    done(plane.install_policy(FLOW, PASS))
    assert plane.said()[-1] == "accept 1"


def test_encryption_without_gateways_is_refused() -> None:
    plane = Plane()
    assert "the gateways are missing" in done(plane.install_policy(FLOW, ENCRYPT)).getErrorMessage()
    assert plane.said() == []


def test_an_inbound_sa_brings_its_ingress_policies_and_the_last_one_takes_them_along() -> None:
    plane = Plane()
    done(plane.add_sas(FLOW, [INBOUND, OUTBOUND]))
    back = "192.2.0.66/32 -> 192.1.0.65/32"
    said = plane.said()
    assert [entry.partition(" SA ")[0] for entry in said] == [
        "add the inbound", f"put a policy (fwd, protect) for {back}", f"put a policy (in, protect) for {back}",
        "add the outbound"]
    done(plane.remove_sas(FLOW, [OUTBOUND]))
    assert plane.said() == ["delete the SA 0x00000222 to 192.1.1.5"]
    done(plane.remove_sas(FLOW, [INBOUND, OUTBOUND]))
    assert plane.said() == ["delete the SA 0x00000111 to 192.1.1.4", f"delete the policy (fwd) for {back}",
                            f"delete the policy (in) for {back}"]
    assert done(plane.remove_sas(FLOW, [INBOUND, OUTBOUND])) is None
    assert plane.said() == []


def test_of_sas_that_the_kernel_refuses_nothing_remains() -> None:
    plane = Plane()
    plane.kernel.refuses = "add the outbound"
    assert done(plane.add_sas(FLOW, [INBOUND, OUTBOUND])).check(PlaneError)
    assert plane.said()[-3:] == ["delete the SA 0x00000111 to 192.1.1.4",
                                 "delete the policy (fwd) for 192.2.0.66/32 -> 192.1.0.65/32",
                                 "delete the policy (in) for 192.2.0.66/32 -> 192.1.0.65/32"]


@pytest.mark.parametrize("way", ["fwd", "in"])
def test_of_an_sa_whose_ingress_policies_belong_to_another_program_nothing_remains_but_those(way: str) -> None:
    plane = Plane()
    plane.kernel.refuses = f"put a policy ({way}"
    assert done(plane.add_sas(FLOW, [INBOUND, OUTBOUND])).check(PlaneError)
    taken_back = [entry for entry in plane.said() if entry.startswith("delete")]
    forward = ["delete the policy (fwd) for 192.2.0.66/32 -> 192.1.0.65/32"] if way == "in" else []
    assert taken_back == ["delete the SA 0x00000111 to 192.1.1.4", *forward]
    assert plane._flows.get(FLOW) is None


def test_an_sa_that_is_not_ours_is_never_deleted() -> None:
    """A peer may choose the SPI of an SA that somebody else has with it."""
    plane = Plane()
    plane.kernel.refuses = "add the outbound"
    done(plane.add_sas(FLOW, [OUTBOUND]))
    done(plane.remove_sas(FLOW, [OUTBOUND]))
    assert [entry for entry in plane.said() if entry.startswith("delete")] == []


def test_lifetimes_of_sas_that_stand_are_changed_each_in_its_direction() -> None:
    plane = Plane()
    done(plane.add_sas(FLOW, [INBOUND, OUTBOUND]))
    plane.said()
    absent = replace(OUTBOUND, spi=0x333)
    shorter = [replace(sa, lifetime=Lifetime(900)) for sa in (INBOUND, OUTBOUND, absent)]
    assert done(plane.change_sas(FLOW, shorter)) is None
    assert [entry.partition(" from ")[0] for entry in plane.said()] == [
        "change the inbound SA 0x00000111", "change the outbound SA 0x00000222"]


MOVED = Flow(GATEWAYS.source, ip_address("198.51.100.9"))


def moved(sa: IpsecSa, gateways: Flow) -> IpsecSa:
    return sa.moved(FLOW, gateways, UdpPorts(4500, 32002))


def kernels_own(sa: IpsecSa) -> Message:
    """As the kernel answers: what it was asked to add, and its sequence numbers."""
    body = add_sa(sa, FLOW_REQIDS.start, inbound=False).body + struct.pack("=HHIII", 16, 10, 77, 0, 0)
    return Message(XfrmMessage.NEWSA, netlink_message(XfrmMessage.NEWSA, body))


def test_sas_of_a_peer_with_another_port_stay_where_they_are() -> None:
    plane = Plane()
    done(plane.add_sas(FLOW, [INBOUND, OUTBOUND]))
    done(plane.install_policy(FLOW, ENCRYPT, GATEWAYS))
    plane.said()
    assert done(plane.change_sas(FLOW, [moved(sa, GATEWAYS) for sa in (INBOUND, OUTBOUND)])) is None
    assert [entry.partition(" from ")[0] for entry in plane.said()] == [
        "change the inbound SA 0x00000111", "change the outbound SA 0x00000222"]


def test_to_another_address_the_new_outbound_sa_is_there_first_then_the_policy_then_the_old_one_goes() -> None:
    plane = Plane()
    done(plane.add_sas(FLOW, [INBOUND, OUTBOUND]))
    done(plane.install_policy(FLOW, ENCRYPT, GATEWAYS))
    plane.kernel.sas = [kernels_own(OUTBOUND)]
    plane.said()
    assert done(plane.change_sas(FLOW, [moved(sa, MOVED) for sa in (INBOUND, OUTBOUND)])) is None
    assert [entry.partition(" (")[0] for entry in plane.said()] == [
        "change the inbound SA 0x00000111 from 198.51.100.9 to 192.1.1.4", "get the SA 0x00000222 to 192.1.1.5",
        "move the outbound SA 0x00000222 from 192.1.1.4 to 198.51.100.9", "put a policy",
        "delete the SA 0x00000222 to 192.1.1.5"]
    assert done(plane.install_policy(FLOW, ENCRYPT, MOVED)) is None
    assert plane.said() == []
    done(plane.remove_sas(FLOW, [moved(sa, MOVED) for sa in (INBOUND, OUTBOUND)]))
    assert "delete the SA 0x00000222 to 198.51.100.9" in plane.said()


def test_policy_that_goes_by_another_gateway_stays_there() -> None:
    plane, elsewhere = Plane(), Flow(GATEWAYS.source, ip_address("192.1.1.6"))
    done(plane.add_sas(FLOW, [OUTBOUND]))
    done(plane.install_policy(FLOW, ENCRYPT, elsewhere))
    plane.kernel.sas = [kernels_own(OUTBOUND)]
    plane.said()
    done(plane.change_sas(FLOW, [moved(OUTBOUND, MOVED)]))
    assert not any("policy" in entry for entry in plane.said())


def test_an_outbound_sa_that_has_expired_is_not_made_anew_elsewhere() -> None:
    plane = Plane()
    done(plane.add_sas(FLOW, [OUTBOUND]))
    plane.said()
    assert done(plane.change_sas(FLOW, [moved(OUTBOUND, MOVED)])) is None
    assert plane.said() == ["get the SA 0x00000222 to 192.1.1.5", "delete the SA 0x00000222 to 192.1.1.5"]


def test_an_sa_of_another_flow_is_refused() -> None:
    plane = Plane()
    other = IpsecSa(1, GATEWAYS.source, GATEWAYS.destination, GATEWAYS, GCM, bytes(20), b"", Lifetime(1))
    assert "another flow" in done(plane.add_sas(FLOW, [other])).getErrorMessage()
    assert plane.said() == []


def test_at_the_hard_end_of_its_last_outbound_sa_a_flow_is_held_and_then_the_daemon_told() -> None:
    plane = Plane()
    done(plane.add_sas(FLOW, [INBOUND, OUTBOUND]))
    done(plane.install_policy(FLOW, ENCRYPT, GATEWAYS))
    plane.said()
    plane._event(SaExpired(OUTBOUND.spi, OUTBOUND.destination, FLOW_REQIDS.start, False))
    assert plane.said() == []
    plane._event(SaExpired(OUTBOUND.spi, OUTBOUND.destination, FLOW_REQIDS.start, True))
    assert plane.said()[0] == "known: ENCRYPT to None"
    assert plane.listener.heard == [("SA expired", FLOW, 0x222, False), ("SA expired", FLOW, 0x222, True)]


def test_the_end_of_an_old_sa_does_not_hurt_a_flow_that_has_a_new_one() -> None:
    plane = Plane()
    newer = IpsecSa(0x333, OUTBOUND.source, OUTBOUND.destination, FLOW, GCM, bytes(20), b"", Lifetime(3600))
    done(plane.add_sas(FLOW, [INBOUND, OUTBOUND, newer]))
    done(plane.install_policy(FLOW, ENCRYPT, GATEWAYS))
    plane.said()
    plane._event(SaExpired(OUTBOUND.spi, OUTBOUND.destination, FLOW_REQIDS.start, True))
    assert plane.said() == []


def test_expiries_of_strangers_are_not_passed_on() -> None:
    plane = Plane()
    plane._event(SaExpired(5, OUTBOUND.destination, 17, True))
    assert plane.listener.heard == []


@pytest.mark.parametrize(("policy", "priority", "heard"), [
    (None, Priority.TRAP, 1), (HOLD, Priority.TRAP, 1), (PASS, Priority.TRAP, 0), (DENY, Priority.TRAP, 0),
    (ENCRYPT, Priority.TRAP, 0), (ENCRYPT, Priority.FLOW, 1), (None, 7, 0)])
def test_a_trap_announces_what_nobody_has_decided_and_a_tunnel_that_has_lost_its_sa(
        policy: ForwardingPolicy | None, priority: int, heard: int) -> None:
    plane = Plane()
    if policy:
        done(plane.install_policy(FLOW, policy, GATEWAYS))
    for _ in range(3):
        plane._event(Acquire(FLOW, priority))
    assert plane.listener.heard == [("acquired", FLOW)] * heard


def test_a_flow_whose_sas_went_without_a_word_is_held_and_the_daemon_told_of_their_end() -> None:
    """As when the kernel's word was lost, or after `ip xfrm state flush`."""
    plane = Plane()
    done(plane.add_sas(FLOW, [INBOUND, OUTBOUND]))
    done(plane.install_policy(FLOW, ENCRYPT, GATEWAYS))
    plane.said()
    for _ in range(3):
        plane._event(Acquire(FLOW, Priority.FLOW))
    assert plane.listener.heard == [("SA expired", FLOW, OUTBOUND.spi, True)]
    assert [entry for entry in plane.said() if not entry.startswith("get")] == [
        "known: ENCRYPT to None", "delete the policy (out) for 192.1.0.65/32 -> 192.2.0.66/32"]
    plane.arrive(1)
    assert plane.listener.heard[1:] == [("acquired", FLOW)]


def test_a_late_word_that_an_sa_is_missing_does_not_hurt_the_one_that_is_there_by_now() -> None:
    plane = Plane()
    done(plane.add_sas(FLOW, [INBOUND, OUTBOUND]))
    done(plane.install_policy(FLOW, ENCRYPT, GATEWAYS))
    plane.said()
    plane.kernel.sas = [Message(XfrmMessage.NEWSA, b"")]
    plane._event(Acquire(FLOW, Priority.FLOW))
    assert plane.said() == ["get the SA 0x00000222 to 192.1.1.5"] and plane.listener.heard == []


def test_a_flow_that_is_to_be_encrypted_without_any_sa_is_held() -> None:
    plane = Plane()
    done(plane.install_policy(FLOW, ENCRYPT, GATEWAYS))
    plane._event(Acquire(FLOW, Priority.FLOW))
    assert plane.said()[-2] == "known: ENCRYPT to None"
    assert plane.listener.heard == [("acquired", FLOW)]


def test_a_flow_that_the_hooks_do_not_let_go_meets_the_trap_and_is_decided_anew() -> None:
    plane = Plane()
    done(plane.install_policy(FLOW, PASS))
    plane.said()
    plane.kernel.refuses = "known: PASS to None"
    assert done(plane.forget(FLOW)) is None
    assert plane.said()[1:] == ["delete the policy (out) for 192.1.0.65/32 -> 192.2.0.66/32"]
    plane._event(Acquire(FLOW, Priority.TRAP))
    assert plane.listener.heard == [("acquired", FLOW)]


def test_a_flow_for_which_there_is_no_room_among_the_known_ones_stays_held_and_is_tried_again() -> None:
    plane = Plane()
    plane.kernel.refuses = "known: None to PASS"
    plane.arrive(1)
    assert "refused" in done(plane.install_policy(FLOW, PASS)).getErrorMessage()
    plane.clock.advance(2)
    plane.arrive(2)
    assert plane.listener.heard == [("acquired", FLOW)] * 2
    plane.kernel.refuses = ""
    done(plane.install_policy(FLOW, PASS))
    assert plane.said()[-2:] == ["accept 1", "accept 2"]


def test_a_held_flow_is_announced_again_when_the_daemon_was_silent_for_a_second() -> None:
    plane = Plane()
    for number in range(25):
        plane.arrive(number)
        plane.clock.advance(0.1)
    assert plane.listener.heard == [("acquired", FLOW)] * 3


def test_a_plane_that_has_stopped_takes_no_orders_that_would_leave_something_behind() -> None:
    plane = Plane()
    plane._open.append(plane.kernel)
    plane.stop()
    plane.said()
    for late in (plane.install_policy(FLOW, PASS), plane.add_sas(FLOW, [INBOUND])):
        assert "not running" in done(late).getErrorMessage()
    assert plane.said() == []


def test_a_flow_being_forgotten_when_the_plane_stops_does_not_take_a_block_of_its_own_addresses_with_it() -> None:
    kernel = SlowKernel()
    plane = Plane(PlaneConfig(own=(FLOW.source,), never_clear=(ip_network(FLOW.destination),)), kernel)
    plane._open_sockets()
    plane.install_policy(FLOW, ENCRYPT, GATEWAYS)
    kernel.answer()
    plane.forget(FLOW)
    plane.stop()
    kernel.unanswered.reverse()
    kernel.answer()
    of_flow = [entry for entry in plane.said() if "(out" in entry and entry.endswith(f"for {Selector.of_flow(FLOW)}")]
    assert of_flow[-1].startswith("put a policy (out, block)")


def test_after_a_stop_the_hooks_stay_closed_for_what_must_never_go_in_clear_and_else_are_gone() -> None:
    for never_clear, last in (((ip_network("0.0.0.0/0"),), "load the rules"), ((), "delete the table")):
        plane = Plane(PlaneConfig(own=(FLOW.source,), never_clear=never_clear))
        plane._open_sockets()
        assert done(plane.stop()) is None
        assert plane.said()[-2:] == [last, "close"]


def test_ingress_policies_are_not_put_once_the_plane_stops() -> None:
    plane = Plane(kernel=(kernel := SlowKernel()))
    plane._open_sockets()
    refused = plane.add_sas(FLOW, [INBOUND])
    plane.stop()
    kernel.answer()
    assert "not running" in done(refused).getErrorMessage()
    assert not any(entry.startswith("put a policy") for entry in plane.said())


def test_a_plane_that_is_to_stop_while_it_starts_stops_when_it_stands(tmp_path) -> None:
    for name in SETTINGS:
        (tmp_path / name).write_text("7\n")
    plane = Plane(PlaneConfig(own=(FLOW.source,)), kernel := SlowKernel())
    plane._core = tmp_path
    started, stopped = plane.start(plane.listener), plane.stop()
    kernel.answer()
    assert (done(started), done(stopped)) == (None, None)
    said = plane.said()
    assert said.index("load the rules") < said.index("delete the table") < said.index("close")
    assert {(tmp_path / name).read_text() for name in SETTINGS} == {"7\n"}
    assert plane._listener is None and plane._open == []


def test_a_plane_that_is_reconfigured_while_it_starts_starts_and_announces_what_it_holds(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(service, "NetlinkSocket", lambda *args: Kernel())
    for name in SETTINGS:
        (tmp_path / name).write_text("0\n")
    kernel = SlowKernel()
    plane = Plane(kernel=kernel)
    plane._core, plane._listener = tmp_path, None
    listener = Listener()
    starting = plane.start(listener)
    reconfigured = plane.reconfigure(PlaneConfig())
    plane.arrive(1)
    kernel.answer()
    done(starting)
    done(reconfigured)
    assert listener.heard == [("acquired", FLOW)]
    assert plane._listener is listener and plane._traps._keeping.running


def puts(plane: Plane) -> list[str]:
    return [entry.partition(" for ")[0] for entry in plane.said() if entry.startswith("put a policy")]


def test_policies_of_a_flow_that_may_go_in_clear_are_put_again_with_all_new_keys_to_end_with_the_last() -> None:
    plane = Plane(PlaneConfig(keys_last=600))
    for _ in range(2):
        plane.add_sas(FLOW, [INBOUND, OUTBOUND])
        plane.install_policy(FLOW, ENCRYPT, GATEWAYS)
        assert puts(plane) == ["put a policy (fwd, protect)", "put a policy (in, protect)",
                               "put a policy (out, protect)"]
    never = Plane(PlaneConfig(keys_last=600, never_clear=(ip_network("192.2.0.0/24"),)))
    for number in (3, 0):
        never.add_sas(FLOW, [INBOUND, OUTBOUND])
        never.install_policy(FLOW, ENCRYPT, GATEWAYS)
        assert len(puts(never)) == number


@pytest.mark.parametrize(("destination", "ends"), [
    ("203.0.113.1", 610), ("203.0.113.129", 0), ("203.0.113.200", 610), ("2001:db8::1", 0)])
def test_what_must_never_go_in_clear_has_policies_without_end(destination: str, ends: int) -> None:
    config = PlaneConfig(keys_last=600, never_clear=(ip_network("203.0.113.128/25"), ip_network("::/0")),
                         spared=(ip_network("203.0.113.192/26"),))
    source = "2001:db8::2" if ":" in destination else "192.0.2.1"
    assert config.ends(Flow(ip_address(source), ip_address(destination))) == ends
    assert config.ends(Subnets.between(ip_network(source), ip_network(destination))) == 0
    assert PlaneConfig().ends(FLOW) == 0


def test_an_encrypted_flow_whose_policy_has_ended_meets_the_trap_and_is_held_until_it_has_one_again() -> None:
    plane = Plane(PlaneConfig(keys_last=600))
    plane.add_sas(FLOW, [INBOUND, OUTBOUND])
    plane.install_policy(FLOW, ENCRYPT, GATEWAYS)
    plane.said()
    plane._event(Acquire(FLOW, Priority.TRAP))
    assert plane.listener.heard == [("acquired", FLOW)]
    assert plane.said()[1] == "known: ENCRYPT to None"


def test_the_traps_are_put_again_before_they_end_until_the_plane_stops() -> None:
    plane = Plane(PlaneConfig(own=(FLOW.source,), trap_seconds=30))
    plane._open_sockets()
    plane._traps.keep(lambda: traps(plane._config, TRAP), plane.kernel)
    for _ in range(4):
        plane.clock.advance(10.0)
        assert plane.said() == [f"put a policy (out, protect) for {FLOW.source}/32 -> 0.0.0.0/0"]
    plane.kernel.refuses = "protect"
    plane.clock.advance(10.0)
    plane.kernel.refuses = ""
    plane.clock.advance(10.0)
    assert len(plane.said()) == 2, "a refusal is not the end"
    plane.stop()
    plane.said()
    plane.clock.advance(60.0)
    assert plane.said() == []


def test_stopping_what_never_started_does_nothing() -> None:
    assert done(LinuxForwardingPlane(Clock(), PlaneConfig()).stop()) is None


@pytest.mark.parametrize("policy", [DENY, ENCRYPT])
def test_a_pair_with_another_programs_policy_is_held_if_it_must_not_go_in_clear(policy: ForwardingPolicy) -> None:
    plane = Plane()
    plane.arrive(1)
    plane.kernel.refuses, plane.kernel.refusal = "put a policy", ExistsError
    refused = done(plane.install_policy(FLOW, policy, GATEWAYS))
    assert refused.check(PlaneError) and "another program has a policy for this very pair" in refused.getErrorMessage()
    assert "accept 1" not in plane.said()


def test_a_pair_with_another_programs_policy_goes_to_it_if_it_may_go_in_clear() -> None:
    """And that policy is not ours to delete."""
    plane = Plane()
    plane.arrive(1)
    plane.kernel.refuses, plane.kernel.refusal = "put a policy", ExistsError
    done(plane.install_policy(FLOW, PASS))
    assert plane.said()[-2:] == ["known: None to PASS", "accept 1"]
    plane.kernel.refuses = ""
    done(plane.forget(FLOW))
    assert plane.said() == ["known: PASS to None"]


@pytest.mark.parametrize("count", [0, 1, 64, 200])
def test_traffic_is_asked_for_in_parts_that_the_kernel_takes(count):
    plane = Plane()
    sas = [replace(OUTBOUND, spi=0x1000 + number) for number in range(count)]
    plane.kernel.sas = [kernels_own(OUTBOUND)]
    assert done(plane.traffic(sas)) == ({(0x222, OUTBOUND.destination): (0, 0)} if count else {})
    assert len(plane.said()) == count
