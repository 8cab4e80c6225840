"""Pictures as SVG text: a time line of section 11.2, and the map of a gateway's tunnels. Values in, markup out."""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

ROW, TOP, LEFT = 22, 46, 74
COLUMN = 130
COLUMNS = ("source", "gateway", "DNS", "peer", "destination")
INKS = {"-": "#888888", "~": "#c77700", "#": "#1a5fb4", "=": "#26803d"}
"Clear, IKE in clear, encrypted IKE, ESP: the symbols of RFC 4322 section 11.2."
INK_NAMES = {"-": "clear", "~": "IKE in clear", "#": "encrypted IKE", "=": "ESP"}
TRUSTED, DOUBTED = "#26803d", "#c77700"
PROVED = frozenset({"proved by DNSSEC", "configured"})
"Levels of trust that nobody on the way can undermine."
FONT = 'font-family="sans-serif" font-size="12"'


def document(width: float, height: float, parts: Sequence[str], title: str) -> str:
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
                      f'width="{width:.0f}" height="{height:.0f}" {FONT} role="img">',
                      f"<title>{escape(title)}</title>", *parts, "</svg>"])


def text(x: float, y: float, what: str, anchor: str = "start", **attributes: str) -> str:
    more = "".join(f' {name.replace("_", "-")}="{escape(value)}"' for name, value in attributes.items())
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(what)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1.5) -> str:
    return (f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
            f'stroke-width="{width:g}"/>')


def timeline(answer: dict[str, Any]) -> str:
    """The answer to `timeline` as a sequence diagram, the initiator's side left; the figure's steps in brackets."""
    entries = answer["entries"]
    columns = COLUMNS if any(entry["step"] == "5B" for entry in entries) else COLUMNS[::-1]
    at = {name: LEFT + 40 + COLUMN * place for place, name in enumerate(columns)}
    words = max(at.values()) + 70
    height = TOP + ROW * (len(entries) + 1)
    parts = [text(x, 20, name, "middle", font_weight="bold") for name, x in at.items()]
    parts += [line(x, 28, x, height - 10, "#dddddd", 1) for x in at.values()]
    for row, entry in enumerate(entries):
        y = TOP + ROW * row
        parts.append(text(LEFT - 14, y + 4, f"{entry['at'] - entries[0]['at']:.3f} s", "end", fill="#666666"))
        if entry["ink"]:
            parts += _arrow(at[entry["from"]], at[entry["to"]], y, entry)
        parts.append(text(words, y + 4, entry["text"]))
    longest = max((len(entry["text"]) for entry in entries), default=0)
    return document(words + 7 * longest + 20, height, parts,
                    f"{answer['source']} to {answer['destination']}")


def _arrow(begin: float, end: float, y: float, entry: dict[str, Any]) -> list[str]:
    colour, tip = INKS[entry["ink"]], -7 if end > begin else 7
    parts = [line(begin, y, end + tip, y, colour, 3 if entry["ink"] == "=" else 1.5),
             f'<polygon points="{end:.1f},{y:.1f} {end + tip:.1f},{y - 4:.1f} {end + tip:.1f},{y + 4:.1f}" '
             f'fill="{colour}"/>']
    if entry["step"]:
        parts.append(text((begin + end) / 2, y - 4, f"({entry['step']})", "middle", fill=colour, font_size="10"))
    return parts


def legend() -> str:
    """What the colours of arrows mean."""
    parts = [part for place, (ink, colour) in enumerate(INKS.items()) for part in (
        line(10 + 150 * place, 12, 40 + 150 * place, 12, colour, 3), text(46 + 150 * place, 16, INK_NAMES[ink]))]
    return document(620, 24, parts, "legend")


def tunnel_map(peers: Sequence[dict[str, Any]], here: str) -> str:
    """This gateway in the middle, its peers around: the thicker the more tunnels, green where DNSSEC proves them."""
    size = 360 + 6 * len(peers)
    centre, radius = size / 2 + 120, size / 2 - 50
    parts, middle = [], size / 2
    places = [(centre + radius * math.cos(angle), middle + radius * math.sin(angle)) for angle in (
        2 * math.pi * place / max(len(peers), 1) - math.pi / 2 for place in range(len(peers)))]
    for (x, y), peer in zip(places, peers, strict=True):
        colour = TRUSTED if set(peer["trust"]) <= PROVED else DOUBTED
        parts.append(line(centre, middle, x, y, colour, 1.5 + math.log2(1 + peer["tunnels"])))
    for (x, y), peer in zip(places, peers, strict=True):
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="9" fill="#1a5fb4"/>',
                  text(x, y - 14, peer["peer"], "middle"),
                  text(x, y + 24, f"{peer['tunnels']} tunnels" if peer["tunnels"] != 1 else "1 tunnel", "middle",
                       fill="#666666", font_size="10")]
    parts += [f'<circle cx="{centre:.1f}" cy="{middle:.1f}" r="14" fill="#222222"/>',
              text(centre, middle + 32, here, "middle", font_weight="bold")]
    return document(size + 240, size, parts, "tunnels of this gateway")
