"""The journal's native protocol over a real datagram socket; the catalog as systemd compiles it."""

import socket
import subprocess

import pytest
from twisted.logger import Logger, LogLevel

from oesvc.discovery import TXT
from oesvc.dns.answer import Answer, AnswerKind, SecurityStatus
from oesvc.dns.name import reverse_name
from oesvc.oe.events import Dropped
from oesvc.oe.reasons import Because
from oesvc.operator.catalog import SUPPRESSED, catalog, message_id
from oesvc.operator.journald import BURST, WINDOW, Journald, Limit, encode, fields, observer
from tests.oe.parts import BOB
from tests.oe.test_authorization import strings
from tests.oe.test_connections import table
from tests.test_daemon import FLOW, World


@pytest.fixture
def journal(tmp_path, monkeypatch):
    """A socket like journald's, and the observer that writes there."""
    path = tmp_path / "socket"
    monkeypatch.setenv("JOURNAL_STREAM", "8:4322")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(path))
        listening.settimeout(5)
        yield listening, observer(path)


def event(**values):
    return {"log_format": "{flow}: {text}", "log_level": LogLevel.info, "log_namespace": "oesvc.daemon",
            "log_time": 0.0, "flow": "a -> b", "text": "keyed", **values}


def test_outcome_is_written_with_fields_and_the_message_id_of_its_cause(journal):
    listening, write = journal
    write(event(because="TUNNEL_STANDS", state="keyed"))
    lines = listening.recv(65536).decode().splitlines()
    assert set(lines) == {
        "MESSAGE=a -> b: keyed", "PRIORITY=6", "SYSLOG_IDENTIFIER=oegw", "OEGW_SOURCE=oesvc.daemon", "OEGW_FLOW=a -> b",
        "OEGW_STATE=keyed", "OEGW_BECAUSE=TUNNEL_STANDS", f"MESSAGE_ID={message_id('TUNNEL_STANDS')}"}


def test_text_of_several_lines_is_written_with_its_length():
    assert encode({"MESSAGE": "one\ntwo", "PRIORITY": "3"}) == b"MESSAGE\n\7\0\0\0\0\0\0\0one\ntwo\nPRIORITY=3\n"


def test_failure_brings_its_traceback_and_its_level(journal):
    listening, write = journal
    try:
        raise ZeroDivisionError("oops")
    except ZeroDivisionError:
        Logger(namespace="test", observer=write).failure("stopping")
    datagram = listening.recv(65536)
    assert b"PRIORITY=2\n" in datagram and b"ZeroDivisionError: oops" in datagram


def test_daemons_own_outcomes_have_their_cause():
    seen = []
    world = World(table())
    world.daemon.log = Logger(namespace="oesvc.daemon", observer=seen.append)
    world.keyed()
    outcomes = [fields(one) for one in seen if "because" in one]
    assert [(one["OEGW_BECAUSE"], one["OEGW_STATE"], one["OEGW_FLOW"]) for one in outcomes][-1] == (
        "TUNNEL_STANDS", "keyed", str(FLOW))


@pytest.mark.conformance("C-3.2.4-11")
def test_line_about_a_bad_record_names_the_record_the_reason_and_the_denial():
    seen = []
    world = World(table())
    world.daemon.log = Logger(namespace="oesvc.daemon", observer=seen.append)
    name = reverse_name(BOB)
    for rdatas, status, named in (
            ((strings("X-IPsec-Gateway(10)=192.1.1.5"),), SecurityStatus.SECURE, "X-IPsec-Gateway(10)=192.1.1.5"),
            ((), SecurityStatus.BOGUS, "DNSSEC validation failed: the TXT records of 66.0.2.192.in-addr.arpa.")):
        world.resolver.answers[name, TXT] = Answer(
            name, TXT, AnswerKind.DATA, status, "the TXT records of 66.0.2.192.in-addr.arpa.: no signature", rdatas)
        world.daemon.acquired(FLOW)
        line = fields([one for one in seen if one.get("because") == "RECORD_BAD"].pop())["MESSAGE"]
        assert line.startswith(f"{FLOW}: deny: the destination's delegation record cannot be used: ") and named in line
        world.daemon.tell(world.connection(), Dropped())


def test_what_repeats_too_often_is_counted_instead():
    sent = []
    write = Journald(sent.append, Limit())
    for _ in range(BURST + 17):
        write(event(because="PEER_SILENT"))
    assert len(sent) == BURST
    write(event(because="TUNNEL_STANDS"))
    assert len(sent) == BURST + 1
    write(event(because="PEER_SILENT", log_time=WINDOW))
    told, again = sent[-2:]
    assert b"MESSAGE=17 more lines like this were not written: PEER_SILENT\n" in told
    assert b"OEGW_SUPPRESSED=17\n" in told and message_id(SUPPRESSED).encode() in told
    assert b"OEGW_BECAUSE=PEER_SILENT\n" in again


def test_limit_keeps_no_more_kinds_than_it_may():
    limit = Limit()
    assert sum(limit.admits(f"kind {number}", 0.0) for number in range(5000)) == 1000
    assert limit.over(WINDOW) == {} and limit.admits("kind 4999", WINDOW)


def test_journal_that_takes_nothing_stops_nobody(journal, capsys):
    listening, write = journal
    listening.close()
    write(event())
    assert "the journal does not take a line" in capsys.readouterr().err


def test_without_a_journal_lines_go_to_standard_output(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    observer(tmp_path / "none")(event())
    assert "a -> b: keyed" in capsys.readouterr().out


def test_catalog_explains_every_outcome_as_systemd_compiles_it(tmp_path):
    folder = tmp_path / "usr/lib/systemd/catalog"
    folder.mkdir(parents=True)
    (tmp_path / "var/lib/systemd/catalog").mkdir(parents=True)
    (folder / "oegw.catalog").write_text(catalog())
    subprocess.run(["journalctl", "--update-catalog", f"--root={tmp_path}"], check=True, capture_output=True)
    ids = [message_id(name) for name in (*(because.name for because in Because), SUPPRESSED)]
    assert len(set(ids)) == len(ids)
    listed = subprocess.run(["journalctl", f"--root={tmp_path}", "--list-catalog"], capture_output=True, text=True,
                            check=False).stdout
    assert all(one in listed for one in ids)
