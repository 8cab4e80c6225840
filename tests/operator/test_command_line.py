"""The command line: what is read where, and what a command loads that only asks."""

import json
import socket
import subprocess
import sys
from argparse import _SubParsersAction
from functools import partial
from importlib import import_module
from threading import Thread

import pytest

from oesvc.keys import key_pair, records
from oesvc.operator import command_line, completion, inquiry, main

SLOW = ("twisted", "pyroute2", "ldns", "cryptography", "dns", "oesvc.config", "oesvc.oe", "oesvc.ike", "oesvc.dns")
"What takes long to load."
ANSWERS = {
    "status": {"version": "1", "flows": {}, "tunnels": 0, "peers": 0, "configured": [], "trust": {}, "clear": {},
               "budgets": {}},
    "flows": {"flows": []}, "sas": {"sas": []}, "peers": {"peers": []},
    "why": {"source": "192.0.2.1", "destination": "192.0.2.2", "policy": "default", "state": "nonexistent",
            "history": []},
    "timeline": {"source": "192.0.2.1", "destination": "192.0.2.2", "text": "a line", "entries": []},
    "drop": {"source": "192.0.2.1", "destination": "192.0.2.2", "dropped": True},
    "keylog": {"on": True, "directory": "/tmp"}}
LOADED = ("import sys; from oesvc.operator import main; code = main.main(sys.argv[1:]); "
          "print(*sys.modules, file=sys.stderr); sys.exit(code)")
ENDS = ("192.0.2.1", "192.0.2.2")


@pytest.fixture
def answering(tmp_path):
    """A control socket that answers whatever it is asked with what the command wants to hear."""
    path = tmp_path / "control"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def answer():
            asking, _ = listening.accept()
            with asking, asking.makefile("rb") as questions:
                command = json.loads(questions.readline())["command"]
                asking.sendall(json.dumps({"answer": ANSWERS[command]}).encode() + b"\n")

        thread = Thread(target=answer, daemon=True)
        thread.start()
        yield path


def loaded_by(*words):
    done = subprocess.run([sys.executable, "-c", LOADED, *words], capture_output=True, text=True, check=False,
                          timeout=60)
    assert done.returncode == 0, done.stderr
    return slow(done.stderr.split())


def slow(modules):
    return {module for module in modules if any(f"{module}.".startswith(f"{one}.") for one in SLOW)}


@pytest.mark.parametrize("words", [
    ("status",), ("flows",), ("sas",), ("peers",), ("why", *ENDS), ("timeline", *ENDS), ("timeline", "--svg", *ENDS),
    ("drop", *ENDS), ("debug", "keylog")], ids=" ".join)
def test_command_that_asks_the_daemon_loads_nothing_else(answering, tmp_path, words):
    config = tmp_path / "oegw.conf"
    config.write_text(f"[paths]\ncontrol-socket = {answering}\n")
    assert loaded_by(*words, "--config", str(config)) == set()


@pytest.mark.parametrize("shell", command_line.SHELLS)
def test_completion_loads_nothing_that_other_commands_need(shell):
    assert loaded_by("completion", shell) == set()


def test_help_loads_nothing_that_commands_need():
    done = subprocess.run([sys.executable, "-X", "importtime", "-m", "oesvc.operator.main", "--help"],
                          capture_output=True, text=True, check=True, timeout=60)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "oesvc.operator.command_line" in loaded
    assert slow(loaded) == set()


def places(parser):
    """Everything of the command line that is imported later."""
    for action in parser._actions:
        if isinstance(action, _SubParsersAction):
            for one in set(action.choices.values()):
                yield from places(one)
        elif isinstance(action.type, partial):
            yield action.type.args[0]
    if "carry_out" in parser._defaults:
        yield parser._defaults["carry_out"].args[0]


def test_everything_that_is_imported_later_is_there():
    found = set(places(command_line.parser()))
    assert len(found) > 15
    for place in found:
        module, _, name = place.partition(":")
        assert callable(getattr(import_module(f"oesvc.{module}"), name)), place


def test_choices_are_those_of_what_carries_them_out():
    assert records.TYPES == command_line.RECORD_TYPES
    assert tuple(inquiry.TYPES) == command_line.LOOK_UP_TYPES
    assert tuple(completion.SHELLS) == command_line.SHELLS
    assert key_pair.BITS == command_line.USUAL_BITS


@pytest.mark.parametrize("text, says", [
    ("control-socket = /x\n", "oegw.conf:1: a line stands before the first [section]"),
    ("[paths]\ncontrol-socket = run/control\n", "oegw.conf:2: control-socket: 'run/control' is no absolute path"),
    (None, "No such file or directory")])
def test_configuration_that_does_not_tell_the_socket_is_explained(tmp_path, capsys, text, says):
    file = tmp_path / "oegw.conf"
    if text is not None:
        file.write_text(text)
    assert main.main(["status", "--config", str(file)]) == 2
    assert says in capsys.readouterr().err


def test_daemon_is_asked_though_the_configuration_has_an_error_elsewhere(answering, tmp_path, capsys):
    """Who is about to mend it wants to know what the daemon does meanwhile."""
    file = tmp_path / "oegw.conf"
    file.write_text(f"[gateway]\nclients = nonsense\n[paths]\ncontrol-socket = {answering}  # there\n")
    assert main.main(["status", "--config", str(file)]) == 0
    assert "oegw 1 runs" in capsys.readouterr().out


@pytest.mark.parametrize("words, says", [
    (("why", "here", "192.0.2.2"), "'here' is no IP address"),
    (("status", "--watch", "0"), "'0' is no number of seconds from 0.1 to 3600"),
    (("policy", "test", *ENDS, "tcp/x"), "'x' is no port"),
    (("records", "show", "--gateway", "@-"), "argument --gateway"),
    (("keys", "gen", "--bits", "512"), "argument --bits: invalid choice")])
def test_word_that_cannot_be_read_is_named(capsys, words, says):
    with pytest.raises(SystemExit) as ended:
        main.main(list(words))
    assert ended.value.code == 2
    assert says in capsys.readouterr().err
