"""`make demo-deb`: from `apt install ./oegw_*.deb` to an encrypted ping between two sites, as README.md tells to type.

    python3 -m tests.lab.demo_deb prepare PACKAGE   on this machine: two fresh bookworms, what is typed there, the zones
    python3 -m tests.lab.demo_deb ACT...            in the lab's kernel: both are booted in the RFC's network

Acts: `ping`, and `upgrade` (tests.lab.demo_upgrade). Ends with status 1 when anything that it claims is not so,
with the journal of what failed.
"""

import json
import re
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.lab.demo import ALICE, BOB, PINGS, SG_A, SG_B, Story, indented
from tests.lab.demo_stage import Stage, in_clear
from tests.lab.demo_upgrade import UPGRADE
from tests.lab.names import NAME_SERVER, serve_names, signed_zones
from tests.lab.network import Network, address_of
from tests.lab.quick_start import AT_MOST
from tests.lab.site import ROOTS, SITES, Site, Step, install, mount_control_groups, two_records
from tests.zones import ZoneTree, build_tree

PREPARED = ROOTS / "demo-deb.json"
ZONES = ROOTS / "zones"
CAPABILITIES = {"cap_net_bind_service": 10, "cap_net_admin": 12, "cap_net_raw": 13}


def prepare(package: Path) -> None:
    """What needs this machine's network or would be slow in an emulated kernel: the installation, the signing."""
    steps = {row.host: install(row, package) for row in SITES}
    lines = [line for row in SITES for line in two_records(row, steps[row.host][-1].output)]
    shutil.rmtree(ZONES, ignore_errors=True)
    tree = build_tree(ZONES, signed_zones(lines), NAME_SERVER, [address_of("dns")])
    PREPARED.write_text(json.dumps({
        "records": lines, "anchor": tree.anchor, "files": {name: str(file) for name, file in tree.files.items()},
        "steps": {host: [[step.command, step.output, step.seconds] for step in typed]
                  for host, typed in steps.items()}}))


def main(acts: list[str]) -> int:
    story = Story()
    prepared = json.loads(PREPARED.read_text())
    typed = {host: [Step(*step) for step in steps] for host, steps in prepared["steps"].items()}
    mount_control_groups()
    with Network() as net:
        tree = ZoneTree(prepared["anchor"], {name: Path(file) for name, file in prepared["files"].items()})
        serve_names(net, tree)
        a, b = (Site(net, row, net.folder / "root.key") for row in SITES)
        stage = Stage(story, net, a, b, typed, prepared["records"])
        try:
            boot(stage)
            for act in acts:
                for tell in ACTS[act]:
                    tell(stage)
        finally:
            # Also when an exception is on its way, which ends the demonstration after this.
            if story.failures or sys.exc_info()[0]:
                stage.tell_what_failed()
            for site in stage.sites:
                site.power_off()
        if story.failures:
            print(f"\nlogs and captures are kept in {net.keep('demo-deb')}")
    print(f"\n{len(story.failures)} of the claims above are not so" if story.failures else "\nAll of it is so.")
    return 1 if story.failures else 0


def boot(stage: Stage) -> None:
    """And type the last command at both, side by side, as soon as they listen."""
    stage.story.chapter("two fresh Debian 12, in which oegw has been installed, are booted in this kernel")
    for site in stage.sites:
        site.begin()
    for site in stage.sites:
        site.wait()
    stage.story.chapter("they listen")
    with ThreadPoolExecutor() as hands:
        for site, step in zip(stage.sites, hands.map(start, stage.sites), strict=True):
            stage.typed[site.row.host].append(step)


def start(site: Site) -> Step:
    return site.run(site.row.quick_start()[-1], limit=600)


def tell_commands(stage: Stage) -> None:
    for site in stage.sites:
        typed = stage.typed[site.row.host]
        stage.story.chapter(f"what was typed at {site.row.host}, as README.md says (the last here, while it booted)")
        for step in typed:
            print(f"    {step.seconds:6.1f} s  # {step.command}")
        shown = site.shown("ActiveState", "StatusText")
        print(indented(f"systemd: {shown['ActiveState']}; {shown['StatusText']}"))
        stage.story.claim("the daemon has said itself that it is ready", shown["ActiveState"] == "active"
                          and "flows encrypted" in shown["StatusText"])
        closed = site.run("systemctl show oegw-closed -p Result -p ActiveState --value").output.split()
        stage.story.claim("what must never go in clear was blocked before", closed == ["success", "active"])
        stage.story.claim(f"{len(typed)} commands, at most {AT_MOST}", len(typed) <= AT_MOST)


def tell_records(stage: Stage) -> None:
    stage.story.chapter("what is published in the reverse zones")
    for line in stage.records:
        print(f"    {line[:100]}...")
    stage.story.claim("two records for each site", len(stage.records) == 2 * len(stage.sites))


def tell_ping(stage: Stage) -> None:
    stage.story.chapter(f"Alice pings Bob ({BOB})")
    began = time.monotonic()
    with stage.net.capture("internet", name="internet") as tap:
        answered = stage.reach_bob()
        packets = tap.end()
    took = time.monotonic() - began
    print(indented(stage.a.why(ALICE, BOB)))
    stage.story.claim(f"{PINGS} of {PINGS} were answered", answered == PINGS)
    stage.story.claim("ESP between the gateways, both ways",
                      {packet.flow for packet in packets if packet.is_esp} == {(SG_A, SG_B), (SG_B, SG_A)})
    stage.story.claim("no datagram between Alice and Bob in clear", in_clear(packets, BOB) == 0)
    slowest = max(sum(step.seconds for step in steps) for steps in stage.typed.values())
    print(f"    {slowest + took:.0f} s from `apt install` to here at the slower site, the sites side by side")


def tell_privileges(stage: Stage) -> None:
    stage.story.chapter("what the service may do")
    status = stage.a.run("cat /proc/$(systemctl show -p MainPID --value oegw)/status").output
    effective = int(re.findall(r"CapEff:\s*(\w+)", status)[0], 16)
    names = [name for name, bit in CAPABILITIES.items() if effective >> bit & 1]
    print(indented("\n".join(re.findall(r"^(?:Uid|CapEff|CapBnd|NoNewPrivs|Seccomp):.*", status, re.MULTILINE))))
    claim = stage.story.claim
    claim(f"exactly {', '.join(names)}", effective == sum(1 << bit for bit in CAPABILITIES.values()))
    claim("it is not root", re.findall(r"Uid:\s*(\d+)", status)[0] != "0")
    claim("system calls are filtered", "Seccomp:\t2" in status)
    closed = stage.a.run("stat -c '%a %U' /var/lib/oegw /var/lib/oegw/private/gateway.pem").output.split()
    claim("the key is its own alone", closed == ["700", "oegw", "600", "oegw"])


ACTS: dict[str, tuple[Callable[[Stage], None], ...]] = {
    "ping": (tell_commands, tell_records, tell_ping, tell_privileges),
    "upgrade": UPGRADE,
}


if __name__ == "__main__":
    if sys.argv[1:2] == ["prepare"]:
        prepare(Path(sys.argv[2]).resolve())
    else:
        sys.exit(main(sys.argv[1:]))
