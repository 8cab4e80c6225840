"""`make demo-deb`: from `apt install ./oegw_*.deb` to an encrypted ping between two sites.

    python3 -m tests.lab.demo_deb prepare PACKAGE   on this machine: two fresh bookworms, what is typed there, the zones
    python3 -m tests.lab.demo_deb                   in the lab's kernel: both are booted in the RFC's network

Ends with status 1 when anything that it claims is not so.
"""

import json
import re
import shutil
import sys
import time
from pathlib import Path

from tests.lab.demo import ALICE, BOB, FRANK, PINGS, SG_A, SG_B, Story, indented
from tests.lab.names import NAME_SERVER, serve_names, signed_zones
from tests.lab.network import Network, address_of
from tests.lab.site import ROOTS, SITES, Site, Step, install, mount_control_groups, two_records
from tests.zones import ZoneTree, build_tree

PREPARED = ROOTS / "demo-deb.json"
ZONES = ROOTS / "zones"
AT_MOST = 5
"Commands at each site."
CAPABILITIES = {"cap_net_bind_service": 10, "cap_net_admin": 12, "cap_net_raw": 13}
OTHER_DAEMON = "import socket, time; s = socket.socket(2, 2); s.bind(('', 500)); time.sleep(600)"


def prepare(package: Path) -> None:
    """What needs this machine's network or would be slow in an emulated kernel: the installation, the signing."""
    steps = {row.host: install(row, package) for row in SITES}
    lines = [line for row in SITES for line in two_records(row, steps[row.host][-1].output)]
    shutil.rmtree(ZONES, ignore_errors=True)
    tree = build_tree(ZONES, signed_zones(lines), NAME_SERVER, [address_of("dns")])
    PREPARED.write_text(json.dumps({
        "package": package.name, "records": lines, "anchor": tree.anchor,
        "files": {name: str(file) for name, file in tree.files.items()},
        "steps": {host: [[step.command, step.output, step.seconds] for step in typed]
                  for host, typed in steps.items()}}))


def main() -> int:
    story = Story()
    prepared = json.loads(PREPARED.read_text())
    typed = {host: [Step(*step) for step in steps] for host, steps in prepared["steps"].items()}
    mount_control_groups()
    with Network() as net:
        tree = ZoneTree(prepared["anchor"], {name: Path(file) for name, file in prepared["files"].items()})
        serve_names(net, tree)
        sites = [Site(net, row, net.folder / "root.key") for row in SITES]
        try:
            for site in sites:
                site.begin()
            for site in sites:
                site.wait()
            tell_commands(story, sites, typed)
            tell_records(story, prepared["records"])
            tell_ping(story, net, sites[0], typed)
            tell_privileges(story, sites[0])
            tell_upgrade(story, net, sites[0], prepared["package"])
            tell_other_daemon(story, sites[1])
            tell_purge(story, sites[0])
        finally:
            for site in sites:
                site.power_off()
        if story.failures:
            print(f"\nlogs and captures are kept in {net.keep('demo-deb')}")
    print(f"\n{len(story.failures)} of the claims above are not so" if story.failures else "\nAll of it is so.")
    return 1 if story.failures else 0


def tell_commands(story: Story, sites: list[Site], typed: dict[str, list[Step]]) -> None:
    for site in sites:
        story.chapter(f"what is typed at {site.row.host}, a fresh Debian 12 (`restart`: in this kernel)")
        typed[site.row.host].append(site.run(site.row.commands("")["restart"]))
        for step in typed[site.row.host]:
            print(f"    {step.seconds:6.1f} s  # {step.command}")
        shown = site.shown("ActiveState", "StatusText")
        print(indented(f"systemd: {shown['ActiveState']}; {shown['StatusText']}"))
        story.claim("the daemon has said itself that it is ready", shown["ActiveState"] == "active"
                    and "flows encrypted" in shown["StatusText"])
        story.claim(f"{len(typed[site.row.host])} commands", len(typed[site.row.host]) <= AT_MOST)


def tell_records(story: Story, records: list[str]) -> None:
    story.chapter("what is published in the reverse zones")
    for line in records:
        print(f"    {line[:100]}...")
    story.claim("two records for each site", len(records) == 2 * len(SITES))


def tell_ping(story: Story, net: Network, site: Site, typed: dict[str, list[Step]]) -> None:
    story.chapter(f"Alice pings Bob ({BOB})")
    began = time.monotonic()
    with net.capture("internet", name="internet") as tap:
        answered = net["alice"].ping(BOB, PINGS)
        packets = tap.end()
    took = time.monotonic() - began
    print(indented(site.why(ALICE, BOB)))
    story.claim(f"{PINGS} of {PINGS} were answered", answered == PINGS)
    story.claim("ESP between the gateways, both ways",
                {packet.flow for packet in packets if packet.is_esp} == {(SG_A, SG_B), (SG_B, SG_A)})
    story.claim("no datagram between Alice and Bob in clear", in_clear(packets, BOB) == 0)
    slowest = max(sum(step.seconds for step in steps) for steps in typed.values())
    print(f"    {slowest + took:.0f} s from `apt install` to here at the slower site, the sites side by side")


def tell_privileges(story: Story, site: Site) -> None:
    story.chapter("what the service may do")
    status = site.run("cat /proc/$(systemctl show -p MainPID --value oegw)/status").output
    effective = int(re.findall(r"CapEff:\s*(\w+)", status)[0], 16)
    names = [name for name, bit in CAPABILITIES.items() if effective >> bit & 1]
    print(indented("\n".join(re.findall(r"^(?:Uid|CapEff|CapBnd|NoNewPrivs|Seccomp):.*", status, re.MULTILINE))))
    story.claim(f"exactly {', '.join(names)}", effective == sum(1 << bit for bit in CAPABILITIES.values()))
    story.claim("it is not root", re.findall(r"Uid:\s*(\d+)", status)[0] != "0")
    story.claim("system calls are filtered", "Seccomp:\t2" in status)
    closed = site.run("stat -c '%a %U' /var/lib/oegw /var/lib/oegw/private/gateway.pem").output.split()
    story.claim("the key is its own alone", closed == ["700", "oegw", "600", "oegw"])


def tell_upgrade(story: Story, net: Network, site: Site, package: str) -> None:
    story.chapter(f"{site.row.host}: Bob's network becomes `private`; the package is upgraded under Alice's pings")
    site.run("printf '192.2.0.0/24\\n192.1.1.128/25\\n' >>/etc/oegw/policies/private && systemctl restart oegw")
    answered = net["alice"].ping(BOB, PINGS)
    story.claim("Bob is reached, encrypted", answered == PINGS and "is encrypted" in site.why(ALICE, BOB))
    former = site.shown("MainPID")["MainPID"]
    with net.capture("internet", name="upgrade") as tap:
        pings = [net["alice"].popen(["ping", "-n", "-i", "0.2", "-w", "600", to], "pings.log") for to in (BOB, FRANK)]
        step = site.run(f"dpkg -i {package}")
        answered = net["alice"].ping(BOB, PINGS)
        for ping in pings:
            ping.terminate()
        packets = tap.end()
    print(f"    {step.seconds:6.1f} s  # {step.command}")
    shown = site.shown("MainPID", "ActiveState")
    story.claim("another daemon runs than before", shown["ActiveState"] == "active" and shown["MainPID"] != former)
    story.claim("Bob is reached again, encrypted", answered == PINGS and "is encrypted" in site.why(ALICE, BOB))
    story.claim("not one datagram to Bob or Frank went in clear meanwhile",
                in_clear(packets, BOB) == in_clear(packets, FRANK) == 0)


def tell_other_daemon(story: Story, site: Site) -> None:
    story.chapter(f"another IKE daemon serves UDP port 500 of {site.row.host}")
    site.run("systemctl stop oegw")
    site.run(f'systemd-run --quiet --unit=other-ike python3 -c "{OTHER_DAEMON}"')
    time.sleep(2)
    site.run("systemctl start oegw", check=False)
    said = [line for line in site.log().splitlines() if line.startswith("oegw: ")]
    print(indented("\n".join(said)))
    story.claim("oegw is not started, and that is no failure", site.shown("ActiveState")["ActiveState"] == "inactive")
    story.claim("it names process, unit and package", any("(process " in line and "other-ike.service" in line
                                                          and "package python3" in line for line in said))
    site.run("systemctl stop other-ike && systemctl start oegw")
    story.claim("it starts when the other has gone", site.shown("ActiveState")["ActiveState"] == "active")


def tell_purge(story: Story, site: Site) -> None:
    story.chapter(f"the package is removed from {site.row.host}, then purged")
    before = site.run("sha256sum /var/lib/oegw/private/gateway.pem").output
    site.run("dpkg -r oegw")
    story.claim("removed: the key is kept", site.run("sha256sum /var/lib/oegw/private/gateway.pem").output == before)
    story.claim("and Bob's network stays blocked", "192.2.0.0/24" in site.host.xfrm("policy")
                and site.host.run(["nft", "list", "table", "inet", "oegw"], check=False).returncode == 0)
    site.run("dpkg -P oegw")
    left = site.run("ls -d /etc/oegw /var/lib/oegw 2>/dev/null", check=False).output
    story.claim("purged: neither key nor configuration", left == "")
    story.claim("nor anything in the kernel", not site.host.xfrm("policy") and not site.host.sas()
                and site.host.run(["nft", "list", "table", "inet", "oegw"], check=False).returncode != 0)


def in_clear(packets: list, destination: str) -> int:
    return sum(destination in packet.flow for packet in packets)


if __name__ == "__main__":
    if sys.argv[1:2] == ["prepare"]:
        prepare(Path(sys.argv[2]).resolve())
    else:
        sys.exit(main())
