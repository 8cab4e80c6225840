"""`python3 -m tests.lab.interop_page`: docs/interop.md, from what test_interop.py has shown in a whole run."""

import json
import sys
from collections.abc import Iterable, Mapping

from tests.lab.network import OUT, ROOT

RESULTS = OUT / "interop.jsonl"
PAGE = ROOT / "docs/interop.md"
HEAD = """# Interoperation

Written by `make interop`; do not edit.

On SG-B runs the peer, Debian's package, with a static tunnel and raw RSA keys that accepts exactly one suite; on SG-A
oegw, which finds SG-B's key in the DNS and knows nothing else of it. Main mode, quick mode with perfect forward secrecy
by the same group, /32 to /32. A row passes when

- the side named under "begun by" sent the first message of main mode,
- pings pass, and the octet counters of both gateways' SAs count them, both ways,
- so they do after each quick mode, begun by the sides named under "rekeyed by", that replaces the keys,
- after a delete by the side named under "deleted by" neither gateway has an SA left,
- the side named under "asked by" asked in silence whether the other is there (RFC 3706) and was answered; oegw, when a
  peer was killed, gave up its tunnels and came to new ones with the next, and
- on the Internet nothing of Alice's was to be seen but ESP, nor of Bob's since he first answered through the tunnel.

libreswan as responder installs its outbound SA only after it has read quick mode 3: what Bob answers within these
milliseconds leaves SG-B in clear, and SG-A drops it.
strongSwan as responder installs its SAs only then, too: what SG-A sends by a new SA within these milliseconds is lost.
"""


def page(rows: Iterable[Mapping[str, str]]) -> str:
    rows = list(rows)
    passed = [row for row in rows if row["result"] == "passes"]
    return "\n".join([
        HEAD, f"{len(passed)} of {len(rows)} pass.", "",
        "| peer | begun by | phase 1 | ESP | rekeyed by | deleted by | asked by | |", "|---" * 8 + "|",
        *(f"| {row['peer']} | {begun_by(row)} | {' | '.join(row['suite'].split(' / '))} | {row['rekey']} "
          f"| {row['delete']} | {row['liveness']} | {row['result']} |" for row in rows), ""])


def begun_by(row: Mapping[str, str]) -> str:
    return "oegw" if row["role"] == "initiator" else row["peer"].partition(" ")[0]


def main() -> int:
    if not RESULTS.exists():
        print(f"there is no {RESULTS}; the tests write it", file=sys.stderr)
        return 1
    PAGE.write_text(page(json.loads(line) for line in RESULTS.read_text().splitlines()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
