"""Pictures and pages: well-formed, complete, and whole in a real browser that fetches nothing."""

import json
import subprocess
import threading
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, HTTPServer
from xml.etree import ElementTree

import pytest

from oesvc.ipsec.account import Amount, Verdict
from oesvc.ipsec.policy import ForwardingPolicy
from oesvc.oe.machine import TRANSITIONS, State
from oesvc.operator import main, report, svg
from oesvc.operator.page import page
from oesvc.operator.redaction import Redactor
from oesvc.operator.state_graph import dot, edges
from tests.oe.parts import ALICE, BOB, SG_B
from tests.operator.test_control import ask
from tests.test_daemon import FLOW

SVG = "{http://www.w3.org/2000/svg}"
NASTY = "<script>document.title = 'stolen'</script>\"&'"


def texts(picture):
    return [element.text for element in ElementTree.fromstring(picture).iter(f"{SVG}text")]


def timeline_of(world):
    world.keyed()
    return ask(world, command="timeline", source=str(ALICE), destination=str(BOB))


def test_timeline_is_a_picture_with_each_step_and_its_words(world):
    answer = timeline_of(world)
    shown = texts(svg.timeline(answer))
    assert shown[:5] == ["source", "gateway", "DNS", "peer", "destination"]
    assert "(5B)" in shown and "(6)" in shown and "0.000 s" in shown
    assert set(shown) >= {entry["text"] for entry in answer["entries"]}


def test_responder_sees_the_initiators_side_left(world):
    answer = timeline_of(world)
    answer["entries"] = [entry for entry in answer["entries"] if entry["step"] != "5B"]
    assert texts(svg.timeline(answer))[:5] == ["destination", "peer", "DNS", "gateway", "source"]


def test_words_of_others_are_never_markup(world):
    answer = timeline_of(world)
    answer["entries"][0]["text"] = NASTY
    picture = svg.timeline(answer)
    assert NASTY in texts(picture) and "<script" not in picture


def test_timeline_command_draws(served, world, capsys):
    world.keyed()
    assert main.main(["timeline", "--svg", "--control", str(served), str(ALICE), str(BOB)]) == 0
    assert "(5B)" in texts(capsys.readouterr().out)


def test_every_change_of_state_in_the_table_is_an_arrow_of_the_graph():
    drawn = {(begin, event) for begin, _, event, _ in edges()}
    assert {begin for begin, _ in drawn} == {state for state, _ in TRANSITIONS}
    ends = {(begin.value, end.value) for begin, end, _, _ in edges()}
    assert {("potential OE", "clear-text"), ("potential OE", "deny"), ("pending OE", "keyed"), ("keyed", "expiring"),
            ("expiring", "expired"), ("expiring", "keyed")} <= ends
    assert ("deny", "clear-text") not in ends


def test_graph_is_drawn_by_graphviz_with_the_flows_that_there_are(served, world, capsys):
    world.daemon.acquired(FLOW)
    assert main.main(["machine", "--svg", "--control", str(served)]) == 0
    shown = texts(capsys.readouterr().out)
    assert "1 flows" in shown and set(shown) >= {state.value for state in State}


def test_graph_without_a_daemon_has_no_numbers(tmp_path, capsys):
    assert main.main(["machine", "--control", str(tmp_path / "none")]) == 0
    shown = capsys.readouterr().out
    assert shown == dot() and "flows" not in shown


def test_addresses_and_names_are_replaced_each_by_one_stand_in():
    redactor = Redactor()
    redacted = redactor.redact({"192.0.2.1": ["192.0.2.1 -> 2001:db8::7 via gw.example.net.", 3, None],
                                "name": "66.0.2.192.in-addr.arpa. at 2001:DB8::7", "left": "127.0.0.1 at 12:30:01.5"})
    assert redacted == {"<ipv4 1>": ["<ipv4 1> -> <ipv6 2> via <name 3>", 3, None],
                        "name": "<reverse name 4> at <ipv6 2>", "left": "127.0.0.1 at 12:30:01.5"}


def bundle(world):
    """As it is collected of a daemon with a tunnel, a flow in clear and one denied."""
    timeline = timeline_of(world)
    world.resolver.answers.clear()
    flows = ask(world, command="flows")["flows"]
    flows[0]["reason"] += NASTY
    world.plane.counted = {Verdict(ForwardingPolicy.ENCRYPT): Amount(7, 7000),
                           Verdict(ForwardingPolicy.DENY, "CLASS_IS_DENY"): Amount(2, 1234)}
    return {"made": 1_800_000_000.0, "version": "1", "host": "sg-a", "daemon": "the daemon runs",
            "status": ask(world, command="status") | {"clear": {"no record": 3}}, "flows": flows,
            "sas": ask(world, command="sas")["sas"], "peers": ask(world, command="peers")["peers"],
            "timelines": [timeline], "doctor": {"checks": ["one"], "findings": [
                {"check": "one", "severity": "problem", "cause": "it is broken", "remedy": "mend it"}]}}


class References(HTMLParser):
    """What a page names that a browser might fetch."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in ("src", "href", "data", "action", "srcset")]
        assert tag not in ("script", "iframe", "object", "embed", "base")


def test_page_names_nothing_to_be_fetched(world):
    references = References()
    references.feed(page(bundle(world)))
    assert references.found == ["data:,"]


def test_page_without_a_daemon_shows_what_the_doctor_says(world):
    without = bundle(world) | {"status": None, "daemon": "no daemon runs"}
    assert "no daemon runs" in page(without) and "it is broken" in page(without)


@pytest.fixture
def web(world):
    """A server with the page; what was asked of it; and a proxy to which all else would go."""
    asked, html = [], page(bundle(world)).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(html)

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/report.html", asked
    server.shutdown()
    server.server_close()


def chromium(tmp_path, *arguments):
    return subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile",
         "--disable-background-networking", "--disable-component-update", "--no-first-run",
         "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--enable-logging=stderr", "--v=0", *arguments],
        capture_output=True, text=True, timeout=120, check=True)


def test_browser_shows_the_whole_page_fetches_nothing_else_and_has_nothing_to_complain_of(web, tmp_path):
    url, asked = web
    shown = chromium(tmp_path, "--dump-dom", url)
    assert asked == ["/report.html"]
    assert "CONSOLE" not in shown.stderr
    for part in ("What the doctor says", "proved by DNSSEC", "Encrypted and in clear", "7.0 kB", "the policy says deny",
                 str(SG_B), "(5B)", "&lt;script&gt;"):
        assert part in shown.stdout
    assert "<title>oegw on sg-a</title>" in shown.stdout
    picture = tmp_path / "page.png"
    chromium(tmp_path, f"--screenshot={picture}", "--window-size=1200,1600", url)
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and picture.stat().st_size > 20_000


def test_report_of_a_running_daemon_has_its_tunnels_and_time_lines(served, world, tmp_path):
    world.keyed()
    written = {}
    for options in ((), ("--no-redact",), ("--html",), ("--html", "--redact")):
        output = tmp_path / f"report{len(written)}"
        assert main.main(["report", *options, "--config", str(tmp_path / "none"), "--control", str(served), "-o",
                          str(output)]) == 0
        written[options] = output.read_text()
    whole, redacted = json.loads(written["--no-redact",]), json.loads(written[()])
    assert whole["daemon"] == redacted["daemon"] == "the daemon runs"
    assert whole["peers"][0]["peer"] == str(SG_B) and len(whole["timelines"]) == 1 and len(whole["sas"]) == 2
    assert redacted["peers"][0]["peer"].startswith("<ipv4 ") and str(SG_B) not in written[()]
    assert "(5B)" in written["--html",] and str(SG_B) in written["--html",]
    assert "(5B)" in written["--html", "--redact"] and str(SG_B) not in written["--html", "--redact"]


def test_report_without_a_daemon_is_written_redacted(tmp_path, capsys):
    (tmp_path / "policies").mkdir()
    file = tmp_path / "oegw.conf"
    file.write_text(f"[gateway]\naddress = 203.0.113.77\n[paths]\npolicies = {tmp_path}/policies\n"
                    f"state = {tmp_path}\ncontrol-socket = {tmp_path}/control\n[ike]\nprivate-key = {tmp_path}/key\n"
                    "[dns]\nservers = 127.0.0.99\npatience = 1\ntries = 0.2\n")
    output = tmp_path / "report.json"
    assert main.main(["report", "--config", str(file), "-o", str(output)]) == 0
    written = json.loads(output.read_text())
    assert written["schema"] == report.SCHEMA and written["daemon"] == "no daemon runs"
    assert "203.0.113.77" not in output.read_text() and "<ipv4 " in output.read_text()
    assert main.main(["report", "--html", "--config", str(file)]) == 0
    assert "203.0.113.77" in capsys.readouterr().out
