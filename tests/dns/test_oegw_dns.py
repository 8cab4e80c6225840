"""`oegw dns` on the tree: what it tells of each way of being right or wrong, with the daemon's resolver or its own."""

import json
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import datetime

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults

from oesvc.discovery import Discovery
from oesvc.dns.anchors import read_anchors
from oesvc.dns.name import parse_name, reverse_name
from oesvc.dns.records import RecordType
from oesvc.dns.resolver import DnsConfig, Mode, ValidatingResolver
from oesvc.dns.wire import RRset
from oesvc.dns.zone_cut import kept_to_show
from oesvc.oe.authorization import DnssecPolicy
from oesvc.operator import dns_text
from oesvc.operator.control import ControlFactory
from oesvc.operator.dns_report import Inspector
from oesvc.operator.inquiry import Inquiry
from tests.dns.conftest import await_result
from tests.dns.tree import questions
from tests.oe.parts import BOB, PARANOID
from tests.oe.test_connections import table


class Desk:
    """An inspector with the resolver that it shares with a daemon."""

    def __init__(self, servers, endpoint=None, **values):
        dns = DnsConfig((endpoint or servers.plain,), read_anchors([servers.anchor]), **values)
        self.queries = []
        self.resolver = ValidatingResolver(dns, reactor, observer=lambda *event: self.queries.append(event))
        self.discovery = Discovery(self.resolver, DnssecPolicy.PREFER, lambda: 0.5)
        self.inspector = Inspector(self.resolver, self.discovery, table(("40.0.0.0/8", PARANOID)), time.time)

    def inspect(self, subject, *types, fresh=False):
        inquiry = Inquiry.parse(subject, types, fresh)
        return await_result(Deferred.fromCoroutine(self.inspector.inspect(inquiry)))

    def look_up(self, subject, rdtype="TXT", fresh=False):
        """The one look-up of one type."""
        (found,) = self.inspect(subject, rdtype, fresh=fresh)["lookups"]
        return found


@pytest.fixture
def desk(servers):
    desk = Desk(servers)
    yield desk
    await_result(desk.resolver.close())


def links(look_up, kind):
    return [link for link in look_up["chain"] if link["link"] == kind]


def timeless(look_up):
    """The chain without what changes from one look-up to the next."""
    return [{key: value for key, value in link.items() if key not in ("remembered", "ttl", "records")}
            for link in look_up["chain"]]


def shown(look_up):
    """What the records of denial show, all proofs together."""
    return "\n".join(record["shows"] for proof in links(look_up, "absence") for record in proof["records"])


def test_a_chain_is_told_link_by_link_from_the_anchor_to_the_record(desk):
    look_up = desk.look_up("192.2.0.66")
    assert (look_up["status"], look_up["kind"]) == ("secure", "data")
    assert [link["zone"] for link in links(look_up, "anchor")] == ["."]
    checked = links(look_up, "records")
    zones = ["arpa.", "in-addr.arpa.", "2.192.in-addr.arpa."]
    assert [(link["type"], link["name"]) for link in checked] == [
        ("DNSKEY", "."), *((rdtype, zone) for zone in zones for rdtype in ("DS", "DNSKEY")),
        ("TXT", "66.0.2.192.in-addr.arpa.")]
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    for link in checked:
        assert link["problem"] is None and not link["remembered"]
        for signature in link["signatures"]:
            assert signature["problem"] is None and signature["algorithm"] == "ECDSAP256SHA256"
            assert signature["inception"] < now < signature["expiration"]
            assert datetime.fromisoformat(signature["expiration"])
        for key in (record for record in link["records"] if link["type"] == "DNSKEY"):
            assert key["trusted"] is bool(key["flags"] & 1)
    signed_by = {(link["type"], link["name"]): link["signatures"][0]["signer"] for link in checked}
    assert signed_by["DS", "2.192.in-addr.arpa."] == "in-addr.arpa."
    assert len(look_up["questions"]) == 8 and {one["outcome"] for one in look_up["questions"]} == {"NOERROR"}


@pytest.mark.parametrize("name, problem", [
    ("1.1.30.in-addr.arpa", "expired on "), ("1.2.30.in-addr.arpa", "is not valid before "),
    ("1.7.30.in-addr.arpa", "of 7.30.in-addr.arpa. does not verify"),
])
def test_the_signature_that_fails_says_why(desk, name, problem):
    look_up = desk.look_up(name)
    assert look_up["status"] == "bogus" and look_up["records"] == []
    (failed,) = [link for link in links(look_up, "records") if link["problem"]]
    assert all(problem in signature["problem"] for signature in failed["signatures"])
    assert problem in look_up["reason"]
    assert problem in dns_text.dns(desk.inspect(name, "TXT"))


@pytest.mark.parametrize("name, told", [
    ("1.3.30.in-addr.arpa", "none of the keys of 3.30.in-addr.arpa. is the one in the DS record at its parent"),
    ("1.4.30.in-addr.arpa", "the TXT records of 1.4.30.in-addr.arpa. are not signed"),
    ("77.9.30.in-addr.arpa", "the absence of TXT at 77.9.30.in-addr.arpa. is not signed"),
])
def test_what_is_missing_from_the_chain_is_told(desk, name, told):
    answer = desk.inspect(name, "TXT")
    assert answer["lookups"][0]["status"] == "bogus"
    assert told in dns_text.dns(answer)


@pytest.mark.parametrize("name, status, kind, said", [
    ("77.2.192.in-addr.arpa", "secure", "no such name",
     ["77.2.192.in-addr.arpa. does not exist", "there is no wildcard *.2.192.in-addr.arpa."]),
    ("77.3.192.in-addr.arpa", "secure", "no such name",
     ["3.192.in-addr.arpa. exists", "77.3.192.in-addr.arpa. does not exist",
      "there is no wildcard *.3.192.in-addr.arpa."]),
    ("77.4.192.in-addr.arpa", "insecure", "no such name",
     ["77.4.192.in-addr.arpa. does not exist, or is an unsigned delegation left out (opt-out)"]),
    ("3.2.192.in-addr.arpa", "secure", "no such record", ["3.2.192.in-addr.arpa. exists with A RRSIG NSEC only"]),
    ("3.3.192.in-addr.arpa", "secure", "no such record", ["3.3.192.in-addr.arpa. exists with A RRSIG only"]),
    ("9.2.192.in-addr.arpa", "secure", "no such record",
     ["9.2.192.in-addr.arpa. has no record of its own, only names below it"]),
    ("9.3.192.in-addr.arpa", "secure", "no such record", ["9.3.192.in-addr.arpa. exists with no type only"]),
    ("1.1.40.in-addr.arpa", "insecure", "data", ["exists with NS RRSIG NSEC only, so it is delegated"]),
    ("x.wild.2.192.in-addr.arpa", "secure", "data",
     ["x.wild.2.192.in-addr.arpa. does not exist; the wildcard *.wild.2.192.in-addr.arpa. exists with TXT RRSIG NSEC"]),
    ("y.x.wild.3.192.in-addr.arpa", "secure", "data", ["x.wild.3.192.in-addr.arpa. does not exist"]),
])
def test_each_proof_of_absence_is_told_in_words(desk, name, status, kind, said):
    look_up = desk.look_up(name)
    assert (look_up["status"], look_up["kind"]) == (status, kind)
    assert [part for part in said if part not in shown(look_up)] == []
    assert all(link["problem"] is None for link in links(look_up, "absence"))


def test_an_absence_that_is_not_proven_shows_nothing_of_the_name(servers, desk):
    """The proof of one absence in the place of another's."""
    true = await_result(desk.resolver.trace(parse_name("77.2.192.in-addr.arpa"), RecordType.TXT))
    assert true.answer.status.value == "secure"
    fetch = desk.resolver._judge._fetch
    other = parse_name("1.2.192.in-addr.arpa")
    desk.resolver._judge._fetch = lambda name, rdtype: fetch(
        parse_name("77.2.192.in-addr.arpa") if name == other else name, rdtype)
    look_up = desk.look_up("1.2.192.in-addr.arpa")
    assert look_up["status"] == "bogus"
    (proof,) = links(look_up, "absence")
    assert "do not prove that 1.2.192.in-addr.arpa. does not exist" in proof["problem"]
    assert "does not exist" not in shown(look_up)


def test_an_unsigned_delegation_is_told_with_its_proof(desk):
    look_up = desk.look_up("40.0.0.1")
    (proof,) = links(look_up, "absence")
    assert (proof["type"], proof["name"], proof["by"]) == ("DS", "40.in-addr.arpa.", "NSEC")
    assert links(look_up, "conclusion")[-1]["reason"] == look_up["reason"]


def test_an_alias_leads_through_both_zones(desk):
    look_up = desk.look_up("5.0.20.in-addr.arpa")
    assert look_up["canonical"] == "5.0/26.0.20.in-addr.arpa."
    assert [link["name"] for link in links(look_up, "records") if link["type"] in ("CNAME", "TXT")] == [
        "5.0.20.in-addr.arpa.", "5.0/26.0.20.in-addr.arpa."]


def test_what_is_remembered_says_so_and_is_the_same_chain(desk):
    cold = desk.look_up("192.2.0.66")
    assert cold["remembered"] is None
    await_result(desk.resolver.look_up(parse_name("66.0.2.192.in-addr.arpa"), RecordType.TXT))
    warm = desk.look_up("192.2.0.66")
    assert len(warm["questions"]) == 1 and warm["remembered"]["status"] == "secure"
    assert timeless(warm) == timeless(cold)
    assert [link["remembered"] for link in links(warm, "records")] == [True] * 7 + [False]
    assert "(remembered)" in dns_text.dns(desk.inspect("192.2.0.66", "TXT"))
    fresh = desk.look_up("192.2.0.66", fresh=True)
    assert timeless(fresh) == timeless(cold) and len(fresh["questions"]) == 8
    assert not any(link["remembered"] for link in links(fresh, "records"))


def test_what_is_too_large_to_be_shown_again_is_not_remembered_for_it(desk):
    large = RRset((), RecordType.DNSKEY, 60, (bytes(2000),), (bytes(2000), bytes(97)))
    assert kept_to_show(large) is None and kept_to_show(replace(large, signatures=())) is not None
    desk.look_up("192.2.0.66")
    zones, zone = desk.resolver._judge._zones, parse_name("2.192.in-addr.arpa")
    zones.put(zone, replace(zones.get(zone), shown=None), time.time() + 60)
    warm = desk.look_up("192.2.0.66")
    assert warm["status"] == "secure"
    assert [link["reason"] for link in links(warm, "conclusion")] == ["its keys were proven"]


def test_failures_that_are_remembered_say_so(desk):
    desk.look_up("1.1.30.in-addr.arpa")
    (again,) = links(desk.look_up("2.1.30.in-addr.arpa"), "conclusion")
    assert again["remembered"] and "expired on" in again["reason"]


def test_watching_changes_no_verdict_and_every_chain_can_be_told(servers, desk):
    unwatched = ValidatingResolver(DnsConfig((servers.plain,), read_anchors([servers.anchor])), reactor)
    names = questions()[::4]
    for name in names:
        answer = desk.inspect(name, "TXT")
        expected = await_result(unwatched.look_up(parse_name(name), RecordType.TXT))
        (look_up,) = answer["lookups"]
        assert (look_up["status"], look_up["kind"]) == (expected.status.value, expected.kind.value), name
        assert json.loads(json.dumps(answer)) == answer
        assert look_up["reason"] in dns_text.dns(answer)
    await_result(unwatched.close())


def test_a_silent_server_is_told_with_the_question_that_it_did_not_answer(servers):
    desk = Desk(servers, ("127.0.0.1", 9), tries=(0.2,), patience=1.0)
    look_up = desk.look_up("192.2.0.66")
    assert look_up["status"] == "indeterminate" and look_up["chain"] == []
    assert "127.0.0.1" in dns_text.dns(desk.inspect("192.2.0.66", "TXT"))


@pytest.mark.parametrize("mode, subject, status, outcome", [
    (Mode.TRUST_AD, "192.2.0.66", "secure", "NOERROR AD"), (Mode.TRUST_AD, "1.7.30.in-addr.arpa", "bogus", "SERVFAIL"),
    (Mode.OFF, "192.2.0.66", "insecure", "NOERROR")])
def test_the_resolvers_word_is_told_where_it_is_believed(servers, mode, subject, status, outcome):
    look_up = Desk(servers, servers.oracle, mode=mode).look_up(subject)
    assert look_up["status"] == status
    assert look_up["questions"][0]["outcome"].startswith(outcome)


def test_the_decision_is_the_one_of_the_daemon(desk):
    answer = desk.inspect("40.0.0.1")
    assert [look_up["type"] for look_up in answer["lookups"]] == ["TXT", "IPSECKEY", "KEY"]
    assert answer["decision"]["class"] == "OE-paranoid" and answer["decision"]["outcome"] == "is denied"
    assert "a flow to 40.0.0.1 is denied" in dns_text.dns(answer)
    (record,) = desk.look_up("192.2.0.66")["records"]
    assert (record["standing"], record["delegation"]) == ("malformed", None) and "base64" in record["objection"]
    named = desk.inspect("host.example")
    assert named["decision"] is None
    assert "a gateway that says it is host.example can prove it by no key" in dns_text.dns(named)


def test_colours_are_for_terminals(desk):
    answer = desk.inspect("192.2.0.66", "TXT")
    plain, coloured = dns_text.dns(answer), dns_text.dns(answer, colour=True)
    assert "\x1b" not in plain and "\x1b[32msecure\x1b[0m" in coloured


def test_txt_and_ipseckey_together_cost_one_query_more_than_txt_alone(servers):
    alone, together = Desk(servers), Desk(servers)
    await_result(alone.resolver.look_up(reverse_name(BOB), RecordType.TXT))
    await_result(Deferred.fromCoroutine(together.discovery.delegations(BOB, lambda note: None)))
    asked = [sum(what.startswith("query") for _, _, what in desk.queries) for desk in (alone, together)]
    assert asked == [8, 9]


@pytest.fixture
def configured(servers, tmp_path):
    """A configuration that asks the tree's resolver."""
    (tmp_path / "policies").mkdir()
    address, port = servers.plain
    file = tmp_path / "oegw.conf"
    file.write_text(f"[dns]\nservers = {address}@{port}\ntrust-anchors = {servers.anchor}\n"
                    f"[paths]\npolicies = {tmp_path}/policies\ncontrol-socket = {tmp_path}/control\n"
                    f"state = {tmp_path}/state\n")
    return file


def oegw(*arguments):
    return subprocess.run([sys.executable, "-m", "oesvc.operator.main", "dns", *map(str, arguments)],
                          capture_output=True, text=True, timeout=60, check=False)


def beside_the_reactor(job, *arguments):
    """The reactor's own threads would keep this process alive."""
    done = Deferred()
    threading.Thread(target=lambda: reactor.callFromThread(done.callback, job(*arguments)), daemon=True).start()
    return done


def test_command_asks_the_resolvers_itself_when_there_is_no_daemon(configured):
    for option in ([], ["--no-daemon"]):
        done = oegw("--config", configured, *option, "192.3.0.77")
        assert done.returncode == 0, done.stderr
        assert "there is no wildcard *.3.192.in-addr.arpa." in done.stdout
        assert "a flow to 192.3.0.77 goes in clear" in done.stdout and "\x1b" not in done.stdout
        assert ("no daemon answers" in done.stderr) is (option == [])
    bogus = oegw("--config", configured, "--json", "--type", "TXT", "--type", "KEY", "1.1.30.in-addr.arpa")
    assert bogus.returncode == 1 and bogus.stderr == ""
    assert [look_up["status"] for look_up in json.loads(bogus.stdout)["lookups"]] == ["bogus", "bogus"]
    assert "192.3.0.." in oegw("--config", configured, "192.3.0..").stderr
    configured.write_text("[dns]\ntrust-anchors = /nowhere\n[paths]\npolicies = /nowhere\n")
    unusable = oegw("--no-daemon", "--config", configured, "192.3.0.77")
    assert unusable.returncode == 2 and "oegw: /nowhere: " in unusable.stderr and "Traceback" not in unusable.stderr


def test_command_asks_the_daemon_where_one_runs(desk, configured, tmp_path):
    """Several clients at once, who see what it remembers."""
    factory = ControlFactory(None, desk.inspector, reactor.seconds, None, None, ())
    listening = reactor.listenUNIX(str(tmp_path / "control"), factory)
    await_result(desk.resolver.prime())
    commands = [("--config", configured, "--json", "192.2.0.66"), ("--control", tmp_path / "control", "192.2.0.66"),
                ("--config", configured, "--type", "TXT", "1.1.30.in-addr.arpa")]
    answers = await_result(gatherResults([beside_the_reactor(oegw, *command) for command in commands]))
    await_result(listening.stopListening())
    assert [done.returncode for done in answers] == [0, 0, 1], [done.stderr for done in answers]
    remembered = [link["remembered"] for link in links(json.loads(answers[0].stdout)["lookups"][0], "records")]
    assert remembered[:5] == [True] * 5
    assert "66.0.2.192.in-addr.arpa." in answers[1].stdout and "expired on" in answers[2].stdout
