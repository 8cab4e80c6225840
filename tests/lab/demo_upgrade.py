"""`make demo-deb ACT=upgrade`: what the package's service is like when things happen to it.

An upgrade under traffic, a daemon that hangs, a boot, another IKE daemon, removal. Paranoid destinations are never
reached in clear meanwhile; permissive ones go on.
"""

import time
from collections.abc import Callable

from tests.lab.demo import ALICE, BOB, PINGS, indented
from tests.lab.demo_stage import Stage, in_clear
from tests.lab.site import NEWER, Site

OTHER_DAEMON = "import socket, time; s = socket.socket(2, 2); s.bind(('', 500)); time.sleep(600)"
PRIVATE = "192.2.0.0/24", "192.1.1.128/25"
"Bob's network, and Frank."


def tell_private(stage: Stage) -> None:
    stage.story.chapter(f"{stage.a.row.host}: Bob's network and Frank's become `private`")
    lines = "".join(f"{prefix}\\n" for prefix in PRIVATE)
    step = stage.a.run(f"printf '{lines}' >>/etc/oegw/policies/private && systemctl reload oegw")
    print(f"    {step.seconds:6.1f} s  # {step.command}")
    tell_encrypted(stage, "Bob is reached, encrypted")


def tell_upgrade(stage: Stage) -> None:
    stage.story.chapter(f"{stage.a.row.host} gets a newer package")
    former = stage.a.shown("MainPID")["MainPID"]
    version = "dpkg-query -W -f '${Version}' oegw"
    was = stage.a.run(version).output
    seen = stage.while_pinging("upgrade", lambda: print_step(stage.a, f"apt install ./{NEWER}/oegw_*.deb"))
    now, shown = stage.a.run(version).output, stage.a.shown("MainPID", "ActiveState")
    stage.story.claim(f"{was} was replaced by {now}, and another daemon runs than before",
                      was != now and shown["ActiveState"] == "active" and shown["MainPID"] != former)
    seen.tell(stage.story, (stage.a.moment("ActiveExitTimestamp"), stage.a.moment("ActiveEnterTimestamp")))
    tell_encrypted(stage, "Bob is reached again, encrypted")


def tell_hanging(stage: Stage) -> None:
    watchdog = stage.a.shown("WatchdogUSec")["WatchdogUSec"]
    stage.story.chapter(f"the daemon hangs (SIGSTOP); systemd's watchdog has {watchdog}")
    former = stage.a.shown("MainPID")["MainPID"]

    def hang() -> None:
        stage.a.run(f"kill -STOP {former}")
        wait_for_another(stage.a, former)

    seen = stage.while_pinging("hanging", hang)
    said = [line for line in stage.a.log().splitlines() if "atchdog" in line]
    print(indented("\n".join(said)))
    stage.story.claim("systemd ended it for that, and started another", any("timeout" in line for line in said)
                      and stage.a.shown("NRestarts")["NRestarts"] == "1")
    seen.tell(stage.story, (seen.began, stage.a.moment("ActiveEnterTimestamp")))
    tell_encrypted(stage, "Bob is reached again, encrypted")


def tell_boot(stage: Stage) -> None:
    stage.story.chapter("as at a boot: no daemon yet, and nothing in the kernel; then oegw-closed.service")
    stage.a.run("systemctl stop oegw; nft delete table inet oegw; ip xfrm policy flush; ip xfrm state flush")
    print_step(stage.a, "systemctl restart oegw-closed")
    with stage.net.capture("internet", name="closed") as tap:
        answered = stage.net["alice"].ping(BOB, PINGS, wait=2)
        packets = tap.end()
    stage.story.claim("Bob is blocked before there is a daemon", answered == in_clear(packets, BOB) == 0
                      and blocked(stage.a))


def tell_other_daemon(stage: Stage) -> None:
    site = stage.b
    stage.story.chapter(f"another IKE daemon serves UDP port 500 of {site.row.host}")
    site.run("systemctl stop oegw")
    site.run(f'systemd-run --quiet --unit=other-ike python3 -c "{OTHER_DAEMON}"')
    time.sleep(2)
    site.run("systemctl start oegw", check=False)
    said = [line for line in site.log().splitlines() if line.startswith("oegw: ")]
    print(indented("\n".join(said)))
    claim = stage.story.claim
    claim("oegw is not started, and that is no failure", site.shown("ActiveState")["ActiveState"] == "inactive")
    claim("it names process, unit and package", any("(process " in line and "other-ike.service" in line
                                                    and "package python3" in line for line in said))
    site.run("systemctl stop other-ike && systemctl start oegw")
    claim("it starts when the other has gone", site.shown("ActiveState")["ActiveState"] == "active")


def tell_purge(stage: Stage) -> None:
    site, claim = stage.a, stage.story.claim
    stage.story.chapter(f"the package is removed from {site.row.host}, then purged")
    key = "sha256sum /var/lib/oegw/private/gateway.pem"
    before = site.run(key).output
    site.run("dpkg -r oegw")
    claim("removed: the key is kept", site.run(key).output == before)
    claim("and Bob's network stays blocked", blocked(site))
    site.run("dpkg -P oegw")
    left = site.run("ls -d /etc/oegw /var/lib/oegw 2>/dev/null", check=False).output
    claim("purged: neither key nor configuration", left == "")
    claim("nor anything in the kernel", not site.host.xfrm("policy") and not site.host.sas() and not has_table(site))


UPGRADE: tuple[Callable[[Stage], None], ...] = (
    tell_private, tell_upgrade, tell_hanging, tell_boot, tell_other_daemon, tell_purge)


def tell_encrypted(stage: Stage, what: str) -> None:
    answered = stage.reach_bob()
    why = stage.a.why(ALICE, BOB)
    print(indented(why.splitlines()[0]))
    stage.story.claim(what, answered == PINGS and "is encrypted" in why)


def print_step(site: Site, command: str) -> None:
    step = site.run(command, limit=900)
    print(f"    {step.seconds:6.1f} s  # {step.command}")


def wait_for_another(site: Site, former: str, limit: float = 600) -> None:
    """Until another daemon than the process `former` is ready."""
    deadline = time.monotonic() + limit
    while True:
        shown = site.shown("MainPID", "ActiveState")
        if shown["ActiveState"] == "active" and shown["MainPID"] != former:
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"{site.row.host}: no other daemon after {limit:.0f} s: {shown}")
        time.sleep(2)


def blocked(site: Site) -> bool:
    return PRIVATE[0] in site.host.xfrm("policy") and has_table(site)


def has_table(site: Site) -> bool:
    return site.host.run(["nft", "list", "table", "inet", "oegw"], check=False).returncode == 0
