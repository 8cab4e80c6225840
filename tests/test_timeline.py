"""The journal and the time line drawn from it."""

import pytest

from oesvc.discovery import Asked, Replied
from oesvc.dns.name import name_text, reverse_name
from oesvc.dns.records import RecordType
from oesvc.ike.events import MessageSeen, Way
from oesvc.ipsec.flow import Flow
from oesvc.journal import (
    ENTRIES_PER_FLOW,
    LIVE_OCTETS,
    OTHER_FLOWS,
    OWN_NAME,
    PEERS,
    WORDS,
    Arrow,
    Entry,
    Ink,
    Journal,
    Party,
)
from oesvc.timeline import arrow_of_message, arrow_of_question, render
from tests.oe.parts import ALICE, BOB, FLOW, SG_A, SG_B

NAMES = {Party.HERE: "Alice", Party.GATEWAY: "SG-A", Party.DNS: "DNS", Party.PEER: "SG-B", Party.THERE: "Bob"}


def message(way, name, encrypted):
    return MessageSeen(way, name, SG_A, SG_B, FLOW, encrypted)


@pytest.mark.conformance("C-11.2-02")
def test_initiators_time_line_has_the_shape_of_the_rfc():
    entries = [
        Entry(100.0, "held", Arrow("5", Ink.CLEAR, Party.HERE, Party.GATEWAY)),
        Entry(100.25, "asked", arrow_of_question(Asked(RecordType.TXT, (b"x",)), False)),
        Entry(100.5, "answered", arrow_of_question(Replied(RecordType.TXT, (b"x",), "fine"), False)),
        Entry(100.75, "sent", arrow_of_message(message(Way.SENT, "main mode 1", False))),
        Entry(101.0, "received", arrow_of_message(message(Way.RECEIVED, "main mode 6", True))),
        Entry(101.25, "keyed"),
    ]
    assert render(entries, NAMES).splitlines() == [
        "  seconds Alice         SG-A        DNS       SG-B           Bob",
        "    0.000   -----(5)----->                                            held",
        "    0.250                 ---(5B)--->                                 asked",
        "    0.500                 <--(5C)----                                 answered",
        "    0.750                 ~~~~~~~~~(5D)~~~~~~~~>                      sent",
        "    1.000                 <########(5K)#########                      received",
        "    1.250                                                             keyed",
    ]


def test_responders_time_line_is_its_mirror():
    drawn = render([Entry(0.0, "got", arrow_of_message(message(Way.RECEIVED, "main mode 1", False)))], NAMES)
    assert drawn.splitlines()[0].split() == ["seconds", "Bob", "SG-B", "DNS", "SG-A", "Alice"]
    assert "~(5D)~" in drawn and drawn.rstrip().endswith("got") and "~>" in drawn


def test_entries_of_a_flow_are_bounded_and_outlive_it():
    journal = Journal()
    journal.begin(FLOW)
    for number in range(ENTRIES_PER_FLOW + 5):
        journal.note(FLOW, Entry(float(number), ""))
    journal.end(FLOW)
    assert [entry.at for entry in journal.entries(FLOW)] == [float(n) for n in range(5, ENTRIES_PER_FLOW + 5)]
    for number in range(OTHER_FLOWS):
        other = Flow(ALICE, BOB + 1 + number)
        journal.begin(other)
        journal.note(other, Entry(0.0, ""))
        journal.end(other)
    assert journal.entries(FLOW) == ()


def test_flows_without_a_connection_push_out_each_other_and_none_that_has_one():
    journal = Journal()
    journal.begin(FLOW)
    for number in range(OTHER_FLOWS + 5):
        journal.note(FLOW, Entry(0.0, ""))
        journal.note(Flow(ALICE, BOB + 1 + number), Entry(0.0, ""))
    assert len(journal._others) == OTHER_FLOWS and len(journal.entries(FLOW)) == ENTRIES_PER_FLOW


def test_a_flow_that_comes_back_goes_on_with_its_entries():
    journal = Journal()
    journal.note(FLOW, Entry(1.0, ""))
    journal.begin(FLOW)
    journal.end(FLOW)
    journal.end(FLOW)
    journal.note(FLOW, Entry(2.0, ""))
    journal.begin(FLOW)
    journal.begin(FLOW)
    assert [entry.at for entry in journal.entries(FLOW)] == [1.0, 2.0]


def test_what_a_peer_did_is_adopted_by_the_flow_it_turns_out_to_be_for():
    journal = Journal()
    journal.note_peer(SG_B, Entry(1.0, "main mode 1"))
    for number in range(PEERS - 1):
        journal.note_peer(BOB + number, Entry(0.0, ""))
    journal.adopt(FLOW, SG_B)
    journal.adopt(FLOW, SG_B)
    journal.adopt(Flow(ALICE, SG_B), SG_B)
    assert [entry.text for entry in journal.entries(FLOW)] == ["main mode 1"]


def test_the_stories_of_flows_with_a_connection_share_so_much_memory_and_the_one_told_last_stays():
    journal = Journal()
    text = f"{{}}{'x' * 100_000}"
    flows = [Flow(ALICE, BOB + number) for number in range(2 * LIVE_OCTETS // len(text))]
    for number, flow in enumerate(flows):
        journal.begin(flow)
        journal.note(flow, Entry(float(number), text.format(number)))
        journal.note(flows[0], Entry(float(number), ""))
    kept = [flow for flow in flows if journal.entries(flow)]
    assert LIVE_OCTETS * 0.9 < (len(kept) - 1) * len(text) < LIVE_OCTETS
    assert kept == [flows[0], *flows[1 - len(kept):]]
    for flow in flows:
        journal.end(flow)
    assert journal._octets == 0


def test_what_is_said_of_many_flows_is_kept_once_with_the_name_of_each_where_it_is_read():
    journal, heard = Journal(), []
    journal.listeners.append(lambda flow, entry: heard.append(entry.text))
    arrow, other = Arrow("5B", Ink.CLEAR, Party.GATEWAY, Party.DNS), Arrow("5M", Ink.CLEAR, Party.GATEWAY, Party.DNS)
    flows = [Flow(ALICE, BOB + number) for number in range(3)]
    for flow, drawn in zip(flows, (arrow, arrow, other), strict=True):
        journal.begin(flow)
        journal.note(flow, Entry(1.0, "".join(("TXT ", OWN_NAME, "?")), drawn))
    texts = [f"TXT {name_text(reverse_name(flow.destination))}?" for flow in flows]
    assert [entry.text for flow in flows for entry in journal.entries(flow)] == heard == texts
    assert [entry.arrow for flow in flows for entry in journal.entries(flow)] == [arrow, arrow, other]
    first, second, third = (journal._live[flow][-1] for flow in flows)
    assert first is second and third is not first


def test_what_happened_within_half_a_millisecond_happened_at_once_and_stays_in_its_order():
    journal = Journal()
    for at in (5.0, 5.0004, 5.0006, 5.0009, 4.0):
        journal.note(FLOW, Entry(at, str(at)))
    assert [(entry.at, entry.text) for entry in journal.entries(FLOW)] == [
        (5.0, "5.0"), (5.0, "5.0004"), (5.0006, "5.0006"), (5.0006, "5.0009"), (4.0, "4.0")]


def test_words_that_others_said_are_forgotten_once_there_are_very_many():
    journal = Journal()
    for number in range(10 * WORDS):
        journal.note(FLOW, Entry(float(number), str(number)))
    assert len(journal._words) <= WORDS
