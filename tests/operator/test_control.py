"""The control socket and the `oegw` command, over a real UNIX socket."""

import json
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from functools import partial
from ipaddress import ip_address

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from oesvc.discovery import IPSECKEY, TXT, Discovery
from oesvc.dns.answer import Answer, AnswerKind, SecurityStatus
from oesvc.dns.name import reverse_name
from oesvc.ike import events as ike
from oesvc.ike.failures import KeyingFailure
from oesvc.ike.identity import AddressIdentity
from oesvc.ipsec.account import Amount, Aside, Verdict
from oesvc.ipsec.flow import Flow
from oesvc.ipsec.policy import ForwardingPolicy
from oesvc.keys.key_pair import KeyPairError
from oesvc.oe.authorization import DnssecPolicy
from oesvc.oe.reasons import Because
from oesvc.operator import main, text
from oesvc.operator.control import ControlFactory
from oesvc.operator.sent import SENTENCES
from tests.oe.parts import ALICE, BOB, KEY, SG_A, SG_B
from tests.oe.test_authorization import strings
from tests.test_daemon import FLOW, IN, OUT


def talk(world, line):
    """One line to the daemon's control protocol, its reply decoded."""
    transport = connected(world, SlowInspector())
    transport.protocol.dataReceived(line + b"\n")
    return json.loads(transport.value())


def connected(world, inspector):
    transport = StringTransport()
    factory = ControlFactory(world.daemon, inspector, world.clock.seconds, partial(use_key, world), None,
                             getattr(world, "translations", ()))
    transport.protocol = factory.buildProtocol(None)
    transport.protocol.makeConnection(transport)
    return transport


def use_key(world):
    if getattr(world, "key", "") is None:
        raise KeyPairError("gateway.pem: there is no such file")
    return "RSA-2048 new"


def ask(world, **question):
    return talk(world, json.dumps(question).encode())["answer"]


@pytest.mark.parametrize("line, complaint", [
    (b"hello", "not JSON"), (b"[]", "one of status, flows, why, timeline, sas, peers, drop"),
    (b'{"command": "rm"}', "one of status"),
    (b'{"command": "why"}', "no flow: 'None'"), (b'{"command": "why", "source": "::1", "destination": "1.2.3.4"}',
                                                 "different address families"), (b"\xff", "not JSON")])
def test_bad_question_gets_one_clear_error(world, line, complaint):
    assert complaint in talk(world, line)["error"]


@pytest.mark.parametrize("question, complaint", [
    ({"subject": "192.2.0..66"}, "a label has 1 to 63 octets"), ({"subject": "gw.ex\u00e4mple"}, "in ASCII"),
    ({"subject": "192.2.0.66", "types": ["MX"]}, "'MX' is none of TXT"),
    ({"subject": "192.2.0.66", "types": "A"}, "'A' is none of TXT")])
def test_bad_subject_gets_one_clear_error(world, question, complaint):
    assert complaint in talk(world, json.dumps({"command": "dns", **question}).encode())["error"]


class SlowInspector:
    """Answers when it is told to."""

    def __init__(self):
        self.waiting = []

    async def inspect(self, inquiry):
        self.waiting.append(Deferred())
        return await self.waiting[-1]


def test_answers_that_take_time_come_in_the_order_of_the_questions(world):
    inspector = SlowInspector()
    transport = connected(world, inspector)
    transport.protocol.dataReceived(b'{"command": "dns", "subject": "192.2.0.66"}\n{"command": "status"}\n')
    assert transport.value() == b""
    inspector.waiting[0].callback({"found": True})
    first, second = map(json.loads, transport.value().splitlines())
    assert first == {"answer": {"found": True}} and "flows" in second["answer"]


def test_error_of_ours_is_told_and_the_next_question_answered(world, captured_failures):
    inspector = SlowInspector()
    transport = connected(world, inspector)
    transport.protocol.dataReceived(b'{"command": "dns", "subject": "192.2.0.66"}\n{"command": "status"}\n')
    inspector.waiting[0].errback(ZeroDivisionError("oops"))
    first, second = map(json.loads, transport.value().splitlines())
    assert first == {"error": "an error in oegw itself: oops"} and "answer" in second
    assert [str(failure.value) for failure in captured_failures] == ["oops"]


def test_client_that_goes_away_before_its_answer_harms_nobody(world):
    inspector = SlowInspector()
    transport = connected(world, inspector)
    transport.protocol.dataReceived(b'{"command": "dns", "subject": "192.2.0.66"}\n')
    transport.protocol.connectionLost(Failure(ConnectionDone()))
    inspector.waiting[0].callback({})


@pytest.fixture
def captured_failures():
    failures = []

    def observe(event):
        if "log_failure" in event:
            failures.append(event["log_failure"])

    globalLogPublisher.addObserver(observe)
    yield failures
    globalLogPublisher.removeObserver(observe)


def test_status_counts_flows_by_state(world):
    world.keyed()
    answer = ask(world, command="status")
    assert (answer["flows"], answer["tunnels"]) == ({"keyed": 1}, 1)
    assert "1 keyed" in text.status(answer)


def test_status_tells_of_budgets_that_are_nearly_used_or_did_not_suffice_and_of_no_others(world):
    quiet = text.status(ask(world, command="status"))
    assert "budget" not in quiet
    world.engine.bounds = lambda now: {"max-tunnels": (79, 100, 0), "max-channels": (80, 100, 0),
                                       "max-half-open": (3, 1000, 17)}
    answer = ask(world, command="status")
    assert text.status(answer).splitlines()[4:] == [
        "budget:  80 of max-channels = 100 are used",
        "budget:  3 of max-half-open = 1000 are used, and that was not enough 17 times"]
    assert answer["budgets"]["max-tunnels"] == {"used": 79, "limit": 100, "refused": 0}
    assert set(answer["budgets"]) == {
        "max-tunnels", "max-channels", "max-half-open", "look-ups", "max-held", "max-flows"}


@pytest.mark.conformance("C-11.2-02")
def test_why_tells_the_policy_the_dns_and_the_keys(world):
    world.keyed()
    told = text.why(ask(world, command="why", source=str(ALICE), destination=str(BOB)))
    for part in ("192.1.0.65 -> 192.2.0.66 is encrypted", "192.2.0.0/24 is OE-paranoid (test:0)",
                 "TXT 66.0.2.192.in-addr.arpa.: data, secure: because", "keyed", "looked at again in 60 s"):
        assert part in told


def test_why_tells_of_records_that_were_not_used_or_are_to_be_mended(world):
    name = reverse_name(BOB)
    near_misses = (strings(f"X-IPsec-Server(10)={SG_B} 0s{KEY.to_base64()}"), strings("X-IPsec-Gateway(10)=192.1.1.5"))
    for rdtype, rdatas in ((TXT, near_misses), (IPSECKEY, (b"\x0a\0\3key",))):
        world.resolver.answers[name, rdtype] = Answer(name, rdtype, AnswerKind.DATA, SecurityStatus.SECURE, "because",
                                                      rdatas, expires=3600.0)
    world.daemon.acquired(FLOW)
    told = text.why(ask(world, command="why", source=str(ALICE), destination=str(BOB)))
    for part in ("the attribute is called X-IPsec-Server", "algorithm 3 (ECDSA)", "the prefix 0s"):
        assert part in told


def test_why_of_a_flow_never_seen_says_what_the_policy_would_be(world):
    told = text.why(ask(world, command="why", source=str(ALICE), destination="192.2.0.9"))
    assert "has no state" in told and "OE-paranoid" in told


def test_why_after_the_end_still_tells_the_history(world):
    world.keyed()
    world.clock.advance(60.0)
    told = text.why(ask(world, command="why", source=str(ALICE), destination=str(BOB)))
    assert "has no state" in told and "nothing used it lately" in told


def test_timeline_is_drawn(world):
    world.keyed()
    told = text.timeline(ask(world, command="timeline", source=str(ALICE), destination=str(BOB)))
    assert "(5B)" in told and "=(6)=" in told
    assert "nothing is known" in text.timeline(
        ask(world, command="timeline", source=str(BOB), destination=str(ALICE)))


def test_flows_are_listed(world):
    world.daemon.acquired(FLOW)
    told = text.flows(ask(world, command="flows"))
    assert told.splitlines()[0].split() == ["SOURCE", "DESTINATION", "STATE", "BECAUSE"]
    assert "pending OE" in told


def test_command_prints_text_or_json(served, world, capsys):
    world.keyed()
    assert main.main(["why", "--control", str(served), "--json", str(ALICE), str(BOB)]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "keyed"


def test_error_of_the_daemon_is_an_error_of_the_command(served, capsys):
    assert main.main(["why", "--control", str(served), str(ALICE), "::1"]) == 2
    assert "different address families" in capsys.readouterr().err


def test_no_daemon_is_one_clear_error(tmp_path, capsys):
    assert main.main(["status", "--control", str(tmp_path / "none")]) == 2
    assert "no daemon answers" in capsys.readouterr().err


def test_command_line_is_explained():
    shown = subprocess.run([sys.executable, "-m", "oesvc.operator.main", "--help"], capture_output=True, text=True,
                           check=True, timeout=60).stdout
    for command in ("status", "flows", "why", "timeline", "dns", "keys", "records"):
        assert command in shown


def test_keys_and_records_on_an_empty_machine(tmp_path, capfd):
    (tmp_path / "policies").mkdir()
    file = tmp_path / "oegw.conf"
    file.write_text(f"[gateway]\naddress = 192.1.1.4\n[ike]\nprivate-key = {tmp_path}/private/key.pem\n"
                    f"[paths]\npolicies = {tmp_path}/policies\n")
    assert main.main(["records", "show", "--config", str(file)]) == 2
    assert "oegw keys gen" in capfd.readouterr().err
    for said in ("made", "is there and is left as it is"):
        assert main.main(["keys", "gen", "--config", str(file)]) == 0
        assert said in capfd.readouterr().out
    assert main.main(["records", "show", "--config", str(file), "192.1.0.65"]) == 0
    shown = capfd.readouterr().out
    assert shown.count("X-IPsec-Server(10)=192.1.1.4") == 2 and shown.count(" KEY 16896 4 1 ") == 1
    assert shown.count(" IPSECKEY 10 0 2 . ") == shown.count(" IPSECKEY 10 1 2 192.1.1.4 ") == 1
    assert main.main(["records", "show", "--config", str(file), "--gateway", "@GW.example.com", "--type", "KEY"]) == 0
    assert capfd.readouterr().out.startswith("gw.example.com. IN KEY 16896 4 1 ")
    with pytest.raises(SystemExit):
        main.main(["records", "show", "--config", str(file), "--gateway", "@gw"])
    assert "no @FQDN" in capfd.readouterr().err


def test_key_on_the_disk_is_used_on_request_and_a_bad_one_is_one_clear_error(world):
    assert ask(world, command="use-key")["key"] == "RSA-2048 new"
    world.key = None
    assert "gateway.pem: there is no such file" in talk(world, b'{"command": "use-key"}')["error"]


def test_status_tells_the_trust_of_tunnels_and_why_flows_are_clear(world):
    world.keyed()
    world.resolver.answers.clear()
    world.daemon.acquired(Flow(ALICE, ip_address("192.3.0.1")))
    answer = ask(world, command="status")
    assert (answer["peers"], answer["trust"]) == (1, {"proved by DNSSEC": 1})
    assert answer["clear"] == {"the destination publishes no delegation record": 1}
    assert "1 proved by DNSSEC" in text.status(answer)
    assert "clear:   1 flows now, 0 octets so far because the destination publishes" in text.status(answer)


def test_status_tells_how_much_was_sent_in_clear_and_why_the_most_first(world):
    world.keyed()
    clear, dropped = ForwardingPolicy.PASS, ForwardingPolicy.DENY
    world.plane.counted = {
        Verdict(ForwardingPolicy.ENCRYPT): Amount(7, 7000), Verdict(clear, "NOT_OE_CAPABLE"): Amount(1, 100),
        Verdict(clear, "PORTS"): Amount(2, 2500), Verdict(clear, "DNS_FAILED"): Amount(),
        Verdict(dropped, "PEER_SILENT"): Amount(3, 300)}
    answer = ask(world, command="status")["sent"]
    assert answer["since"] == world.daemon.began and answer["encrypted"] == {"datagrams": 7, "octets": 7000}
    assert [(one["reason"], one["datagrams"], one["octets"]) for one in answer["clear"]] == [
        ("ports", 2, 2500), ("not-oe-capable", 1, 100)]
    assert answer["dropped"] == [{"reason": "peer-silent", "because": "no gateway of the destination answered",
                                  "datagrams": 3, "octets": 300}]
    lines = text.status(ask(world, command="status")).splitlines()
    assert [line for line in lines if line.startswith("sent:    7.0 kB encrypted, 2.6 kB in clear, 300 octets dropped")]
    assert "clear:   2.5 kB so far because the policy decides about its protocol and ports" in lines
    assert "dropped: 300 octets so far because no gateway of the destination answered" in lines


def test_each_reason_has_one_sentence():
    assert len(SENTENCES) == len(Because) + len(Aside)


@pytest.mark.conformance("C-5.2-02")
@pytest.mark.conformance("C-5.2-02")
def test_tunnel_by_an_unsigned_record_is_not_called_proved(world):
    name = reverse_name(BOB)
    world.resolver.answers[name, TXT] = replace(world.resolver.answers[name, TXT], status=SecurityStatus.INSECURE)
    world.daemon.discovery = Discovery(world.resolver, DnssecPolicy.OFF, lambda: 0.5)
    world.keyed()
    assert ask(world, command="status")["trust"] == {"unsigned DNS": 1}
    (peer,) = ask(world, command="peers")["peers"]
    assert peer["trust"] == {"unsigned DNS": 1}


def test_sas_and_peers_are_listed(world):
    world.keyed()
    told = text.sas(ask(world, command="sas")).splitlines()
    assert told[0].split() == ["SPI", "WAY", "SOURCE", "DESTINATION", "FROM", "TO", "CARRIED", "PROTECTION",
                               "TRUST"]
    assert told[1].split()[:2] == ["0x00002000", "in"] and "8.2 MB" in told[1] and "aes-gcm-128" in told[1]
    assert told[2].split()[:2] == ["0x00001000", "out"]
    (peer,) = ask(world, command="peers")["peers"]
    assert (peer["peer"], peer["identities"], peer["tunnels"]) == (str(SG_B), [str(SG_B)], 1)
    assert "1 proved by DNSSEC" in text.peers({"peers": [peer]})


def test_dropped_flow_is_decided_anew(world):
    world.keyed()
    world.since()
    flow = {"source": str(ALICE), "destination": str(BOB)}
    answer = ask(world, command="drop", **flow)
    assert answer["dropped"] and "decided anew" in text.drop(answer)
    assert world.since() == [("forget", str(FLOW)), ("delete_tunnel", 1)]
    assert not ask(world, command="drop", **flow)["dropped"]
    world.daemon.acquired(FLOW)
    assert world.connection().state.value == "pending OE"


def probed(world, **question):
    """The answer to a probe, the keying done as soon as it begins."""
    inspector = SlowInspector()
    transport = connected(world, inspector)
    transport.protocol.dataReceived(json.dumps({"command": "probe", **question}).encode() + b"\n")
    if inspector.waiting:
        decision = {"class": "OE-paranoid", "policy": "192.2.0.0/24 is OE-paranoid", "reason": "found", "gateways": [
            {"gateway": str(SG_B), "precedence": 10, "keys": []}]}
        inspector.waiting[0].callback({"decision": decision, "lookups": [
            {"type": "TXT", "kind": "data", "status": "secure", "reason": "because"}]})
    return transport


def test_probe_tries_now_and_tells_each_step(world):
    transport = probed(world, destination=str(BOB), source=str(ALICE))
    assert transport.value() == b"" and world.connection().state.value == "pending OE"
    world.says(ike.MessageSeen(ike.Way.SENT, "main mode 1", SG_A, SG_B, FLOW, False))
    world.says(ike.MessageSeen(ike.Way.SENT, "quick mode 1", SG_A, SG_B, FLOW, True))
    world.says(ike.SasReady(1, FLOW, (IN, OUT)), ike.TunnelUp(1, FLOW, SG_A, SG_B, AddressIdentity(SG_B)))
    answer = json.loads(transport.value())["answer"]
    assert [(one["step"], one["well"]) for one in answer["steps"]] == [
        (step, True) for step in ("policy", "DNS", "DNSSEC", "delegation", "phase 1", "phase 2", "result")]
    assert "quick mode, messages 1 of 3" in text.probe(answer)
    assert not world.daemon.journal.listeners
    assert "a tunnel stands already" in text.probe(json.loads(probed(
        world, destination=str(BOB), source=str(ALICE)).value())["answer"])


def test_probe_shows_where_it_failed_and_decides_anew_the_next_time(world):
    transport = probed(world, destination=str(BOB), source=str(ALICE))
    world.says(ike.TunnelFailed(1, FLOW, SG_B, KeyingFailure.PEER_SILENT, "no answer in 8 s"))
    answer = json.loads(transport.value())["answer"]
    assert [one["well"] for one in answer["steps"]][4:] == [False, None, False]
    assert "is denied: no gateway of the destination answered" in text.probe(answer)
    transport = probed(world, destination=str(BOB), source=str(ALICE))
    assert transport.value() == b"" and world.connection().state.value == "pending OE"


@pytest.mark.parametrize("question, complaint", [
    ({"destination": "nobody"}, "nothing to try"), ({"destination": str(BOB), "source": "192.9.9.9"}, "nor among"),
    ({"destination": str(ALICE), "source": str(ALICE)}, "on this side")])
def test_probe_of_what_is_not_ours_is_refused(world, question, complaint):
    assert complaint in json.loads(probed(world, **question).value())["error"]


def test_monitor_tells_what_happens_until_the_client_goes(world):
    transport = connected(world, SlowInspector())
    transport.protocol.dataReceived(b'{"command": "monitor"}\n')
    world.daemon.acquired(FLOW)
    told = [json.loads(line)["answer"]["text"] for line in transport.value().splitlines()]
    assert told[0] == "a datagram of a flow without policy is held" and told[-1].startswith("pending OE")
    transport.clear()
    transport.producer.pauseProducing()
    world.says(ike.MessageSeen(ike.Way.SENT, "main mode 1", SG_A, SG_B, FLOW, False))
    transport.producer.resumeProducing()
    world.says(ike.MessageSeen(ike.Way.RECEIVED, "main mode 2", SG_A, SG_B, FLOW, False))
    answer = json.loads(transport.value())["answer"]
    assert (answer["text"], answer["missed"]) == ("received main mode 2", 1)
    assert "1 things happened too fast" in text.happened(answer)
    transport.producer.stopProducing()
    assert not world.daemon.journal.listeners


@pytest.mark.parametrize("octets, written", [
    (0, "0 octets"), (999, "999 octets"), (1000, "1.0 kB"), (1234567, "1.2 MB"), (None, "?"),
    (5 * 10**15, "5000.0 TB")])
def test_amounts_are_easily_read(octets, written):
    assert text.amount(octets) == written


def test_colours_are_for_terminals_only(world, served, capsys):
    assert "\x1b[" in text.status(ask(world, command="status"), True)
    assert main.main(["status", "--control", str(served)]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_status_is_shown_again_and_again_until_it_is_interrupted(served):
    watching = subprocess.Popen([sys.executable, "-m", "oesvc.operator.main", "status", "--watch", "0.1", "--control",
                                 str(served)], stdout=subprocess.PIPE, text=True)
    shown = [watching.stdout.readline() for _ in range(7)]
    watching.send_signal(signal.SIGINT)
    assert watching.wait(30) == 130
    assert sum("runs" in line for line in shown) >= 2
    watching.stdout.close()


def test_monitor_writes_what_happens_until_the_daemon_ends(tmp_path, capsys):
    told = {"schema": 1, "at": 0.0, "source": str(ALICE), "destination": str(BOB), "state": "keyed", "step": "",
            "text": "keyed: a tunnel stands", "missed": 0}
    path = tmp_path / "control"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve():
            client, _ = listening.accept()
            with client:
                client.recv(4096)
                client.sendall((json.dumps({"answer": told}) + "\n").encode() * 2)

        threading.Thread(target=serve, daemon=True).start()
        assert main.main(["monitor", "--control", str(path)]) == 2
    shown = capsys.readouterr()
    assert shown.out.count(f"{ALICE} -> {BOB}: keyed: a tunnel stands") == 2
    assert "gave no answer" in shown.err
