"""`oegw report --html`: everything on one page that fetches nothing: no script, no picture from elsewhere."""

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

from oesvc.operator import svg
from oesvc.operator.text import amount

STYLE = """\
body { font: 15px/1.45 sans-serif; margin: 2em auto; max-width: 80em; padding: 0 1em; color: #222; }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; border-bottom: 1px solid #ccc; margin-top: 2em }
table { border-collapse: collapse; width: 100% } th, td { text-align: left; padding: .25em .8em .25em 0;
vertical-align: top; border-bottom: 1px solid #eee } .good { color: #26803d } .doubt { color: #a35f00 }
.bad { color: #b3261e } svg { max-width: 100%; height: auto } details { margin: .6em 0 }
summary { cursor: pointer } pre { white-space: pre-wrap } .number { text-align: right }
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"What a browser may fetch for this page: nothing."
OUTCOMES = {"is encrypted": "good", "goes in clear": "doubt", "is denied": "bad"}
SEVERITIES = {"problem": "bad", "warning": "doubt"}


def page(bundle: dict[str, Any]) -> str:
    """HTML of a bundle, as `oesvc.operator.bundle` collects it."""
    status, made = bundle["status"], datetime.fromtimestamp(bundle["made"], UTC)
    parts = [f"<h1>oegw on {escape(bundle['host'])}</h1>",
             f"<p>{made:%Y-%m-%d %H:%M:%S} UTC, oegw {escape(bundle['version'])}; "
             f"{escape(bundle['daemon'])}.</p>"]
    if status:
        parts += [*_doctor(bundle["doctor"]), *_accounting(bundle), *_map(bundle), *_flows(bundle["flows"]),
                  *_timelines(bundle["timelines"])]
    else:
        parts += _doctor(bundle["doctor"])
    return "\n".join([
        "<!DOCTYPE html>", '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<link rel="icon" href="data:,">', f"<title>oegw on {escape(bundle['host'])}</title>",
        f"<style>\n{STYLE}</style></head><body>", *parts, "</body></html>", ""])


def _doctor(examined: dict[str, Any]) -> list[str]:
    rows = [(_mark(one["severity"], SEVERITIES[one["severity"]]), escape(one["cause"]), escape(one["remedy"]))
            for one in examined["findings"]]
    return ["<h2>What the doctor says</h2>", _table(("", "Cause", "Mend it"), rows) if rows else
            f'<p class="good">All is well: {len(examined["checks"])} checks.</p>']


def _accounting(bundle: dict[str, Any]) -> list[str]:
    """How much goes encrypted, and why what does not."""
    carried = {way: sum(sa["octets"] or 0 for sa in bundle["sas"] if sa["way"] == way) for way in ("out", "in")}
    trust = bundle["status"]["trust"]
    rows = [(_mark(f"encrypted, {level}", "good" if level in svg.PROVED else "doubt"), str(n), "")
            for level, n in trust.items()]
    clear = bundle["status"]["clear"]
    rows += [(_mark("in clear", "doubt"), str(n), escape(why)) for why, n in clear.items()]
    denied = bundle["status"]["flows"].get("deny", 0)
    rows += [(_mark("denied", "bad"), str(denied), "")] if denied else []
    return ["<h2>Encrypted and in clear</h2>", _table(("Flows", "Number", "Because"), rows),
            f"<p>The tunnels that stand have carried {escape(amount(carried['out']))} out and "
            f"{escape(amount(carried['in']))} in.</p>", *_sent(bundle["status"]["sent"])]


def _sent(sent: dict[str, Any]) -> list[str]:
    """All that has left, or has not."""
    since = datetime.fromtimestamp(sent["since"], UTC)
    fates = [("encrypted", "good", [sent["encrypted"] | {"because": ""}]), ("in clear", "doubt", sent["clear"]),
             ("dropped", "bad", sent["dropped"])]
    rows = [(_mark(fate, kind), escape(amount(one["octets"])), str(one["datagrams"]), escape(one["because"]))
            for fate, kind, ones in fates for one in ones]
    return [f"<h2>Sent since {since:%Y-%m-%d %H:%M:%S} UTC</h2>",
            _table(("It was", "How much", "Datagrams", "Because"), rows)]


def _map(bundle: dict[str, Any]) -> list[str]:
    peers = [peer for peer in bundle["peers"] if peer["tunnels"]]
    rows = [(escape(peer["peer"]), escape(", ".join(peer["identities"])), str(peer["tunnels"]),
             escape(", ".join(peer["protection"])),
             ", ".join(_mark(f"{n} {level}", "good" if level in svg.PROVED else "doubt")
                       for level, n in peer["trust"].items())) for peer in peers]
    return ["<h2>Tunnels</h2>", svg.tunnel_map(peers, bundle["host"]) if peers else "<p>There are none.</p>",
            *([_table(("Peer", "Proved to be", "Tunnels", "Protection", "Trust"), rows)] if peers else [])]


def _flows(flows: Sequence[dict[str, Any]]) -> list[str]:
    rows = [(escape(flow["source"]), escape(flow["destination"]),
             _mark(flow["outcome"], OUTCOMES.get(flow["outcome"], "")), escape(flow["reason"])) for flow in flows]
    return ["<h2>Flows</h2>", _table(("Source", "Destination", "It", "Because"), rows)]


def _timelines(answers: Sequence[dict[str, Any]]) -> list[str]:
    drawn = [f"<details><summary>{escape(one['source'])} to {escape(one['destination'])}</summary>"
             f"{svg.timeline(one)}</details>" for one in answers if one["entries"]]
    return ["<h2>Time lines</h2>", svg.legend(), *drawn] if drawn else []


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are markup already."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"


def _mark(text: str, kind: str) -> str:
    return f'<span class="{kind}">{escape(text)}</span>'
