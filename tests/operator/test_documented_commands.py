"""Every `oegw` command that the documentation tells people to type, or explains, is carried out on its own gateway,
192.0.2.1 for 198.51.100.0/24, with a real name server that signs and takes updates. Only the kernel is missing.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
from ipaddress import ip_address

import pytest

from oesvc.keys import key_pair
from oesvc.keys.records import delegation_record, key_record
from oesvc.operator import command_line, main
from tests.dns.conftest import free_address, start, wait_until_answering
from tests.test_documentation import IN_MANUAL, NAMED, ROOT, TO_TYPE, found, is_command, spelled_out
from tests.test_manual import commands_described, paths

ALICE, BOB, SG_B = "198.51.100.7", "203.0.113.9", "203.0.113.1"
CARRIED_OUT = {
    # What the tutorial begins with.
    "keys list": (0, "in use  RSA-2048"),
    "records show": (0, "198.in-addr.arpa. IN TXT \"X-IPsec-Server"),
    "records show 198.51.100.7": (0, "7.100.51.198.in-addr.arpa. IN IPSECKEY"),
    "records show --type KEY --type TXT 198.51.100.7": (0, "1.2.0.192.in-addr.arpa. IN KEY"),
    "records show --follow": (0, "7.100.51.198.in-addr.arpa. IN TXT"),
    "records show --nsupdate 198.51.100.7": (0, "update add 7.100.51.198.in-addr.arpa."),
    "records show --gateway 192.0.2.1 198.51.100.7": (0, "1.2.0.192.in-addr.arpa. IN KEY"),
    "records show --gateway 192.0.2.1 198.51.100.7 198.51.100.8": (0, "8.100.51.198.in-addr.arpa. IN TXT"),
    "records show --gateway @gw.example.com": (0, "gw.example.com. IN KEY"),
    "records show --gateway @gateway.example.com": (0, "gateway.example.com. IN KEY"),
    "records check": (1, "`oegw records publish` puts them there"),
    "records publish": (0, "records are at every server"),
    "records check --type TXT": (0, "records are at every server"),
    # The daemon.
    "status": (0, "oegw "),
    "probe 203.0.113.9 --from 198.51.100.7": (0, "ok  result      is encrypted"),
    "probe --from 198.51.100.7 203.0.113.9": (0, "a tunnel stands already"),
    "probe 203.0.113.9": (0, "the keying channel with it stood before"),
    "why 198.51.100.7 203.0.113.9": (0, "198.51.100.7 -> 203.0.113.9 is encrypted"),
    "timeline 198.51.100.7 203.0.113.9": (0, "(5B)"),
    "status --json": (0, '"trust": {'),
    "flows": (0, "SOURCE"),
    "sas": (0, "proved by DNSSEC"),
    "peers": (0, SG_B),
    "dns 203.0.113.9": (0, "a flow to 203.0.113.9 is keyed with its gateway"),
    "doctor": (1, "problem: "),
    "doctor 198.51.100.7": (1, "records of 192.0.2.1, 198.51.100.7"),
    "policy show": (0, "all other destinations: private-or-clear"),
    "policy diff": (1, "203.0.113.0/24"),
    "policy reload": (0, "203.0.113.0/24"),
    "policy test 198.51.100.7 203.0.113.9": (0, "is encrypted, or denied"),
    "debug keylog": (0, "keys are written to "),
    "machine": (0, "digraph"),
    "report": (0, '"doctor"'),
    "report -o report.json": (0, ""),
    "completion bash": (0, "complete -o filenames -F _oegw oegw"),
    "drop 198.51.100.7 203.0.113.9": (0, "is forgotten"),
    # The key.
    "keys roll --older-than 30": (0, "nothing to do"),
    "keys roll": (0, "caches may still hold"),
    "keys retire": (0, "is gone, and so are its records"),
}
"Each command, in an order in which they work, with its status and something that it prints."
ON_A_NEW_GATEWAY = {"keys gen": (0, "oegw records show"), "keys import /tmp/file": (0, "oegw records show")}
UNTIL_INTERRUPTED = ("monitor", "status --watch")


def named_conf(directory, address, tsig):
    zone = (f'zone "." {{ type primary; file "{directory}/root.zone"; allow-update {{ key oegw; }}; '
            f'dnssec-policy once; inline-signing yes; key-directory "{directory}"; notify no; }};')
    policy = "dnssec-policy once { keys { csk lifetime unlimited algorithm 13; }; };"
    return (f'{tsig}\n{policy}\noptions {{ directory "{directory}"; pid-file none; listen-on port 53 {{ {address}; }}; '
            f'listen-on-v6 {{ none; }}; recursion no; session-keyfile "{directory}/session.key"; }};\ncontrols {{ }};\n'
            f'{zone}\n')


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """The configuration of a gateway in service."""
    folder = tmp_path_factory.mktemp("gateway")
    address, _ = free_address()
    peer = key_pair.public_key(key_pair.generate(folder / "peer.pem"))
    key_pair.generate(folder / "private/gateway.pem")
    tsig = subprocess.run(["tsig-keygen", "oegw"], capture_output=True, text=True, check=True, timeout=20).stdout
    (folder / "tsig.key").write_text(tsig)
    (folder / "tsig.key").chmod(0o600)
    theirs = [key_record(ip_address(SG_B), peer), delegation_record(ip_address(BOB), ip_address(SG_B), peer)]
    (folder / "root.zone").write_text("\n".join((
        "$TTL 2", ". SOA ns1.test. host.test. 1 1 1 3600 2", ". NS ns1.test.", f"ns1.test. A {address}", *theirs, "")))
    subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True, timeout=20)
    processes = []
    try:
        processes.append(start(folder, "named", named_conf(folder, address, tsig)))
        wait_until_answering(processes[0], (address, 53))
        (key,) = folder.glob("K.+013+*.key")
        (folder / "root.key").write_text("\n".join(line for line in key.read_text().splitlines() if line[0] != ";"))
        file = configured(folder, address)
        serving = [sys.executable, "-m", "tests.operator.documented_gateway", file, folder / "peer.pem"]
        daemon = subprocess.Popen(serving, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        processes.append(daemon)
        assert daemon.stdout.readline() == "ready\n"
        # What the tutorial changes last.
        (folder / "policies/private").write_text("203.0.113.0/24\n")
        yield file
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(20)
        subprocess.run(["ip", "address", "delete", f"{address}/32", "dev", "lo"], check=False, timeout=20)


def configured(folder, resolver):
    (folder / "policies").mkdir(parents=True)
    file = folder / "oegw.conf"
    file.write_text(f"[gateway]\naddress = 192.0.2.1\nclients = 198.51.100.0/24\ninside = lo\n"
                    f"[ike]\nprivate-key = {folder}/private/gateway.pem\n"
                    f"[dns]\nservers = {resolver}\ntrust-anchors = {folder}/root.key\n"
                    f"[publish]\nhosts = 198.51.100.7 198.51.100.8\nttl = 1\ntsig-key = {folder}/tsig.key\n"
                    f"[paths]\npolicies = {folder}/policies\ncontrol-socket = {folder}/control\nstate = {folder}\n")
    return file


def typed(words, file):
    return [*words, *(["--config", str(file)] if words[0] != "completion" else [])]


def test_every_documented_command_does_what_it_should(gateway, capfd, monkeypatch):
    monkeypatch.chdir(gateway.parent)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    failed = {}
    for line, (expected, said) in CARRIED_OUT.items():
        status = main.main(typed(shlex.split(line), gateway))
        printed = capfd.readouterr()
        if status != expected or said not in printed.out + printed.err:
            failed[line] = status, printed
    for line, (status, printed) in failed.items():
        print("FAILED", line, status, printed.out[-700:], "ERR", printed.err[-400:])
    assert failed == {}


def test_every_command_answers_in_json_with_the_version_of_its_form(gateway, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    key_pair.generate(tmp_path / "file")
    without = {}
    for path in sorted(paths(command_line.parser()) - {"completion", "monitor"}):
        row = next(row for row in (*CARRIED_OUT, *ON_A_NEW_GATEWAY) if f"{row} ".startswith(f"{path} "))
        file = configured(tmp_path / path.replace(" ", "-"), "127.0.0.1") if row in ON_A_NEW_GATEWAY else gateway
        words = [str(tmp_path / "file") if word == "/tmp/file" else word for word in shlex.split(row)]
        status = main.main(typed([*words, "--json"], file))
        printed = capfd.readouterr()
        if status not in (0, 1) or json.loads(printed.out or "{}").get("schema") != 1:
            without[path] = status, printed
    assert without == {}


@pytest.mark.parametrize("line", ON_A_NEW_GATEWAY)
def test_documented_command_makes_or_takes_a_key(tmp_path, line, capfd):
    key_pair.generate(tmp_path / "file")
    expected, said = ON_A_NEW_GATEWAY[line]
    words = [str(tmp_path / "file") if word == "/tmp/file" else word for word in line.split()]
    assert main.main(typed(words, configured(tmp_path, "127.0.0.1"))) == expected
    assert said in capfd.readouterr().out and (tmp_path / "private/gateway.pem").exists()


def test_reader_that_has_read_enough_is_no_error():
    """As with `oegw completion bash | head -n 1`."""
    process = subprocess.Popen([sys.executable, "-m", "oesvc.operator.main", "completion", "bash"], cwd=ROOT, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert (process.stderr.read(), process.wait(30)) == ("", 0)


@pytest.mark.parametrize("line", UNTIL_INTERRUPTED)
def test_documented_command_goes_on_until_it_is_interrupted(gateway, line):
    process = subprocess.Popen([sys.executable, "-m", "oesvc.operator.main", *typed(line.split(), gateway)],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
                               env=os.environ | {"PYTHONUNBUFFERED": "1"})
    if line == "monitor":
        main.main(typed(["probe", "203.0.113.77", "--from", ALICE], gateway))
    assert process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130


def test_no_documented_command_is_forgotten():
    """Neither one to type, nor one that is named with its arguments, nor one that a manual page describes."""
    rows = [shlex.split(row) for row in (*CARRIED_OUT, *ON_A_NEW_GATEWAY, *UNTIL_INTERRUPTED)]
    written = [line for pattern in (TO_TYPE, NAMED, IN_MANUAL) for _, line in found(pattern)]
    for words in [words for line in (*written, *commands_described()) for words in spelled_out(line)]:
        assert words in rows or (is_command(words) and any(row[:len(words)] == words for row in rows))
