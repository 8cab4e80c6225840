"""First and last: RFC 4322 sections 3.1.1 and 3.1.2."""

import itertools
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oesvc.ipsec.flow import Flow
from oesvc.kernel.hold import Datagram, HoldTable

FLOW = Flow(ip_address("192.1.0.65"), ip_address("192.2.0.66"))
OTHER = Flow(ip_address("192.1.0.65"), ip_address("192.1.1.67"))


def arrive(holds: HoldTable, number: int, now: float = 0.0, flow: Flow = FLOW) -> tuple[bool, int | None]:
    """Whether keying is asked for, and the number of the datagram that is discarded."""
    asking = holds.ask(flow, now)
    displaced = holds.keep(Datagram(number, flow, 0, 0))
    return asking, displaced.number if displaced else None


def numbers(datagrams: list[Datagram]) -> list[int]:
    return [datagram.number for datagram in datagrams]


@pytest.mark.conformance("C-3.1.2-04")
@given(st.integers(1, 50))
def test_the_first_stays_and_each_last_displaces_the_one_before(count: int) -> None:
    holds = HoldTable()
    displaced = [arrive(holds, number)[1] for number in range(count)]
    assert displaced == [None, None, *range(1, count - 1)][:count]
    assert numbers(holds.take(FLOW)) == [0, count - 1][:count]


@pytest.mark.conformance("C-3.1.2-07")
def test_a_single_datagram_comes_out_once() -> None:
    holds = HoldTable()
    arrive(holds, 7)
    assert numbers(holds.take(FLOW)) == [7]
    assert holds.take(FLOW) == []


@pytest.mark.conformance("C-3.1.2-01", "C-3.1.2-02")
def test_a_thousand_datagrams_in_ten_seconds_ask_at_most_ten_times() -> None:
    holds = HoldTable()
    asked = [number / 100 for number in range(1000) if arrive(holds, number, number / 100)[0]]
    assert len(asked) <= 10
    assert asked[0] == 0
    assert all(later - earlier > 1.0 for earlier, later in itertools.pairwise(asked))


def test_a_flow_whose_hold_has_ended_is_asked_for_at_once_when_it_is_held_again() -> None:
    holds = HoldTable()
    arrive(holds, 1, 0.0)
    holds.take(FLOW)
    assert arrive(holds, 2, 0.1) == (True, None)


def test_a_trap_and_the_queue_ask_only_once_for_the_same_flow() -> None:
    holds = HoldTable()
    assert holds.ask(FLOW, 0.0)
    assert arrive(holds, 1, 0.1) == (False, None)
    assert holds.flows() == [FLOW]


def test_a_hold_lasts_since_its_first_ask_and_counts_what_is_kept() -> None:
    holds = HoldTable()
    holds.ask(OTHER, 1.0)
    assert holds.since(OTHER) is None and holds.since(FLOW) is None
    for number in range(4):
        arrive(holds, number, 2.0 + number)
    assert (holds.since(FLOW), holds.datagrams()) == (2.0, 2)
    holds.take(FLOW)
    assert (holds.since(FLOW), holds.datagrams()) == (None, 0)


def test_flows_do_not_disturb_each_other() -> None:
    holds = HoldTable()
    assert arrive(holds, 1) == (True, None)
    assert arrive(holds, 2, flow=OTHER) == (True, None)
    assert numbers(holds.take(FLOW)) == [1]
    assert numbers(holds.take(OTHER)) == [2]
