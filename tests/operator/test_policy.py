"""`oegw policy`: what is in force, what becomes of a flow, what the files would change; with a daemon and without."""

import json

import pytest
from twisted.internet.testing import StringTransport

from oesvc.operator import main, policy_text
from oesvc.operator.control import ControlFactory
from tests.oe.parts import ALICE, BOB
from tests.test_running_policy import Office

OWN = """
[class bank]
base = private-or-clear
dnssec = require
on-dns-failure = deny
"""


@pytest.fixture
def office(tmp_path):
    return Office(tmp_path, OWN, bank="192.2.0.66/32\n", private="203.0.113.0/24\n",
                  clear="203.0.113.0/24 tcp 0 22\n")


def talk(office, **question):
    transport = StringTransport()
    factory = ControlFactory(office.world.daemon, None, office.world.clock.seconds, None, office.policy, ())
    protocol = factory.buildProtocol(None)
    protocol.makeConnection(transport)
    protocol.dataReceived(json.dumps(question).encode() + b"\n")
    return json.loads(transport.value())


def outcome_of(office, destination, **more):
    return talk(office, command="policy test", source=str(ALICE), destination=destination, **more)["answer"]


@pytest.mark.conformance("C-3.2-06")
def test_show_tells_each_class_with_its_options_and_where_each_prefix_is_written(office):
    shown = policy_text.show(talk(office, command="policy show")["answer"], False)
    assert "bank (OE-permissive): dnssec = require; on-dns-failure = deny\n  192.2.0.66/32  " in shown
    assert "policies/bank:1" in shown and "policies/clear:1" in shown
    assert "203.0.113.0/24  tcp to port 22  is in clear" in shown
    assert shown.endswith("all other destinations: private-or-clear (OE-permissive): dnssec = prefer")


@pytest.mark.parametrize("destination, ports, outcome", [
    ("192.2.0.66", None, "is encrypted where the other side's gateway can be found"),
    ("203.0.113.9", None, "is encrypted, or denied"), ("203.0.113.9", "tcp/22", "goes in clear, whatever becomes"),
    ("203.0.113.9", "tcp/23", "is encrypted, or denied"), ("203.0.113.9", "udp/22", "is encrypted, or denied"),
    (str(ALICE), None, f"is left alone: {ALICE} is on this side")])
def test_test_tells_what_becomes_of_a_flow_that_is_not_there(office, destination, ports, outcome):
    answer = outcome_of(office, destination, ports=ports)
    assert answer["outcome"].startswith(outcome) and answer["state"] is None
    assert policy_text.test(answer, False).startswith(f"{ALICE} -> {destination} {outcome}")


def test_test_tells_of_the_live_flow_and_what_the_files_would_make_of_it(office):
    office.world.keyed()
    assert outcome_of(office, str(BOB))["state"] == "keyed"
    assert "files" not in policy_text.test(outcome_of(office, str(BOB)), False)
    office.write(OWN, bank="", block="192.2.0.66/32\n")
    assert "files    say otherwise: 192.2.0.66/32 is deny" in policy_text.test(outcome_of(office, str(BOB)), False)
    office.write(OWN, bank="nonsense\n")
    assert "policies/bank:1: 'nonsense' is no network prefix" in policy_text.test(outcome_of(office, str(BOB)), False)


def test_diff_and_reload_tell_the_same_of_prefixes_flows_and_options(office):
    office.world.keyed()
    assert policy_text.diff(talk(office, command="policy diff")["answer"], False) == "the files say what is in force"
    office.write(f"{OWN}[ike]\nkeying-time = 9", bank="", clear="192.2.0.66/32\n")
    before = talk(office, command="policy diff")["answer"]
    said = policy_text.diff(before, False)
    assert "- 192.2.0.66/32 bank (OE-permissive) (" in said and "+ 192.2.0.66/32 always-clear-text (" in said
    assert "- 203.0.113.0/24 tcp to port 22 is in clear" in said
    assert f"{ALICE} -> {BOB} (keyed) would be decided anew" in said
    assert said.endswith("! a restart is needed for [ike] keying-time") and before["differs"]
    assert talk(office, command="policy reload")["answer"] == before
    assert policy_text.diff(talk(office, command="policy diff")["answer"], False) == \
        "! a restart is needed for [ike] keying-time"


@pytest.mark.parametrize("command", ["policy diff", "policy reload"])
def test_file_with_an_error_is_one_clear_answer(office, command):
    office.write(OWN, bank="nonsense\n")
    assert "policies/bank:1: 'nonsense' is no network prefix" in talk(office, command=command)["error"]


def test_wrong_port_is_one_clear_answer(office):
    assert "'tpc' is no protocol" in talk(office, command="policy test", source="1.2.3.4", destination="1.2.3.5",
                                          ports="tpc/1")["error"]


def alone(capsys, tmp_path, *words):
    """The command where no daemon runs: its status and what it writes."""
    status = main.main(["policy", words[0], "--config", str(tmp_path / "oegw.conf"), "--control",
                        str(tmp_path / "none"), *words[1:]])
    return status, capsys.readouterr()


def test_show_and_test_read_the_files_where_no_daemon_runs(office, capsys, tmp_path):
    status, said = alone(capsys, tmp_path, "show")
    assert status == 0 and "bank (OE-permissive)" in said.out and "no daemon answers" in said.err
    office.write(f"{OWN}[gateway]\naddress = 192.1.1.4\nclients = 192.1.0.0/24", bank="", private="192.2.0.0/16\n")
    status, said = alone(capsys, tmp_path, "test", "192.1.0.65", "192.2.0.66", "tcp/80")
    assert (status, said.out.splitlines()[0]) == (0, "192.1.0.65 -> 192.2.0.66 is encrypted, or denied")
    status, said = alone(capsys, tmp_path, "test", "--json", "192.1.9.9", "192.2.0.66")
    assert "neither this gateway nor among its clients" in json.loads(said.out)["outcome"] and not said.err


@pytest.mark.parametrize("words, complaint", [
    (("diff",), "no daemon answers"), (("reload",), "no daemon answers"),
    (("test", "192.1.0.65", "2001:db8::1"), "different address families")])
def test_what_cannot_be_done_has_status_2_and_one_line(office, capsys, tmp_path, words, complaint):
    status, said = alone(capsys, tmp_path, *words)
    assert status == 2 and complaint in said.err and said.err.count("\n") == 1
