"""Our record of what the kernel holds for each flow."""

from ipaddress import ip_address

from twisted.internet.defer import Deferred

from oesvc.ipsec.flow import Flow
from oesvc.kernel.constants import FLOW_REQIDS
from oesvc.kernel.flows import FlowEntry, FlowTable


def flow(number: int) -> Flow:
    return Flow(ip_address("192.1.0.65"), ip_address("192.2.0.0") + number)


def keep(entry: FlowEntry) -> "Deferred[FlowEntry]":
    entry.outbound_policy = True
    done: Deferred[FlowEntry] = Deferred()
    done.callback(entry)
    return done


def entry_of(table: FlowTable, wanted: Flow) -> FlowEntry:
    results: list[FlowEntry] = []
    table.run(wanted, keep).addCallback(results.append)
    return results[0]


def test_each_flow_has_a_reqid_of_its_own_from_the_range_of_opportunistic_tunnels() -> None:
    table = FlowTable()
    reqids = [entry_of(table, flow(number)).reqid for number in range(100)]
    assert len({*reqids}) == 100
    assert all(reqid in FLOW_REQIDS for reqid in reqids)
    assert min(reqids) > 0xE0000000
    assert table.by_reqid(reqids[3]) is table.get(flow(3))


def test_the_jobs_of_a_flow_are_done_one_after_the_other_and_those_of_another_meanwhile() -> None:
    table = FlowTable()
    diary: list[str] = []
    waits: list[Deferred[None]] = []

    def job(entry: FlowEntry, name: str) -> "Deferred[None]":
        diary.append(name)
        waits.append(Deferred())
        return waits[-1]

    table.run(flow(1), job, "first")
    table.run(flow(1), job, "second")
    table.run(flow(2), job, "other")
    assert diary == ["first", "other"]
    waits[0].callback(None)
    assert diary == ["first", "other", "second"]


def test_a_flow_with_nothing_in_the_kernel_is_forgotten_also_after_a_failure() -> None:
    table = FlowTable()
    failures: list[object] = []

    def fail(entry: FlowEntry) -> "Deferred[None]":
        raise ValueError("no")

    table.run(flow(1), fail).addErrback(failures.append)
    assert len(failures) == 1
    assert table.get(flow(1)) is None
    assert table.by_reqid(FLOW_REQIDS.start) is None


def test_a_reqid_that_was_given_back_is_not_soon_used_again() -> None:
    table = FlowTable()

    def nothing(entry: FlowEntry) -> "Deferred[int]":
        done: Deferred[int] = Deferred()
        done.callback(entry.reqid)
        return done

    reqids: list[int] = []
    for _ in range(3):
        table.run(flow(1), nothing).addCallback(reqids.append)
    assert len({*reqids}) == 3
