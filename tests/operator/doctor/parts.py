"""A gateway in good health, as facts; and what the doctor says first of one that is not."""

from dataclasses import replace
from ipaddress import ip_interface
from pathlib import Path

from oesvc import config
from oesvc.operator.doctor.checks import answer, as_text
from oesvc.operator.doctor.facts import Facts, Interface, PortHolder
from tests.oe.parts import KEY

PID = 4322


def written(folder, *lines, policies=("private-or-clear",)):
    """A configuration file for 192.1.1.4 with further lines."""
    (folder / "policies").mkdir(exist_ok=True)
    for name in policies:
        (folder / "policies" / name).write_text("0.0.0.0/0\n")
    file = folder / "oegw.conf"
    text = (f"[gateway]\naddress = 192.1.1.4\nclients = 192.1.0.0/24\ninside = lan0\n"
            f"[ike]\nprivate-key = {folder}/key.pem\n"
            f"[paths]\npolicies = {folder}/policies\nstate = {folder}\ncontrol-socket = {folder}/control\n")
    for line in lines:
        section, _, option = line.partition(" ")
        text = text if section in text else f"{text}{section}\n"
        text = text.replace(f"{section}\n", f"{section}\n{option}\n")
    file.write_text(text)
    return file


def healthy(folder: Path, *lines: str) -> Facts:
    settings = config.load(written(folder, *lines))
    return Facts(
        folder / "oegw.conf", settings=settings, addresses=settings.addresses, key=KEY, daemon_pid=PID,
        holders=tuple(PortHolder(port, PID, "twistd3") for port in (500, 4500)),
        interfaces=(Interface("lo", (), 65536), Interface("lan0", (ip_interface("192.1.0.1/24"),), 1500),
                    Interface("wan0", (ip_interface("192.1.1.4/24"),), 1500)),
        sysctls={"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1", "ipv4/conf/wan0/send_redirects": "1",
                 "ipv4/conf/wan0/rp_filter": "1"},
        synchronized=True, now=1_800_000_000.0, anchors_refreshed=1_800_000_000.0 - 86400)


def first_line(facts: Facts, **changes: object) -> str:
    return as_text(answer(replace(facts, **changes))).splitlines()[0]
