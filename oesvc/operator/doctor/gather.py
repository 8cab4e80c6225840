"""Learns what the doctor looks at, from the system and the DNS. Nothing is changed: kernels are tried in a scratch
network namespace."""

import ctypes
import json
import os
import pwd
import re
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

from oesvc import config
from oesvc.config import Config, ConfigError
from oesvc.dns.anchor_file import read_points
from oesvc.dns.anchor_keeper import FILE_NAME
from oesvc.dns.anchors import AnchorError, read_anchors
from oesvc.ike.identity import AddressIdentity, FqdnIdentity
from oesvc.ipsec.flow import Address
from oesvc.kernel.addresses import outside_addresses
from oesvc.keys import key_pair
from oesvc.operator.apart import look_up_alone
from oesvc.operator.client import ANSWER_OF_DNS_WITHIN, CommandError, NoDaemonError, ask, pid_of_daemon
from oesvc.operator.doctor.facts import Daemon, Facts, Interface, PortHolder, Subject
from oesvc.operator.doctor.host_checks import IKE_PORTS

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
WITHIN = 30.0
"Seconds, for a command."
PROC = Path("/proc")
KEY_256 = "0x" + "4322" * 16
SA = "ip xfrm state add src {} dst {} proto esp spi 0x100 mode tunnel "
GCM = f"aead 'rfc4106(gcm(aes))' 0x{'4322' * 10} 128"
CBC = f"enc 'cbc(aes)' 0x{'4322' * 8} auth-trunc 'hmac(sha256)' {KEY_256} 128"
KERNEL_PARTS = {
    "IPsec (esp4, xfrm_user)": SA.format("192.0.2.1", "192.0.2.2") + GCM,
    "IPsec for IPv6 (esp6)": SA.format("2001:db8::1", "2001:db8::2") + GCM,
    "AES-CBC with SHA-256": SA.format("192.0.2.1", "192.0.2.3") + CBC,
    "nftables that hold datagrams (nf_tables, nft_queue, nfnetlink_queue)":
        "nft 'table inet probe { chain c { type filter hook prerouting priority raw; queue flags bypass to 1; }; }'",
    "nftables that see IPsec (nft_xfrm)":
        "nft 'table inet probe2 { chain c { type filter hook prerouting priority raw; meta ipsec missing accept; }; }'",
}
"What a gateway needs, and a command that shows whether it is there."
SYSCTLS = ("ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv4/ip_no_pmtu_disc")
OF_INTERFACE = ("disable_xfrm", "disable_policy", "rp_filter", "send_redirects")
TIME_ERROR = 5
"Of adjtimex(2): the clock is not synchronized."
ROOM = 1 << 16
"Octets that must find place in the state directory."


def gather(file: Path, control: Path | None = None, hosts: Sequence[Address] = (),
           kernel_parts: Mapping[str, str] = KERNEL_PARTS) -> Facts:
    """All facts, as far as they can be learned."""
    facts = Facts(file, as_root=os.geteuid() == 0, now=time.time(), synchronized=clock_synchronized(),
                  hidden_rules=True, interfaces=tuple(interfaces()), holders=tuple(port_holders()), hosts=tuple(hosts))
    if facts.as_root:
        facts = replace(facts, kernel=refused(kernel_parts), ruleset=ruleset(), hidden_rules=legacy_nat())
    facts = replace(facts, sysctls=sysctls(one.name for one in facts.interfaces))
    try:
        settings = config.load(file)
    except ConfigError as error:
        return replace(facts, complaint=str(error), daemon=Daemon.ABSENT)
    facts = with_files(facts, settings)
    socket = control or settings.control_socket
    facts = with_daemon(facts, socket)
    return with_dns(facts, socket)


def with_files(facts: Facts, settings: Config) -> Facts:
    facts = replace(facts, settings=settings,
                    state_complaint=unwritable(settings.state_directory) if facts.as_root else "",
                    addresses=settings.addresses or tuple(
                        own.address for own in outside_addresses(settings.clients, settings.inside) if own.lasting))
    try:
        key = key_pair.public_key(key_pair.load(settings.private_key))
        facts = replace(facts, key=key, key_complaint=unreadable(settings.private_key, settings.state_directory))
    except key_pair.KeyPairError as error:
        if facts.as_root:
            facts = replace(facts, key_complaint=str(error))
    try:
        if settings.dns_mode is config.DnsMode.VALIDATE:
            read_anchors(settings.trust_anchors)
        points = read_points(settings.state_directory / FILE_NAME).values()
        return replace(facts, anchors_refreshed=min((point.refreshed for point in points), default=None))
    except AnchorError as error:
        return replace(facts, anchors_complaint=str(error))


def with_daemon(facts: Facts, control: Path) -> Facts:
    try:
        ask(control, {"command": "peers"})
        facts = replace(facts, daemon=Daemon.RUNS, daemon_pid=pid_of_daemon(control))
    except NoDaemonError:
        return replace(facts, daemon=Daemon.DEAD if control.is_socket() else Daemon.ABSENT)
    except CommandError as error:
        return replace(facts, daemon=Daemon.SILENT if facts.as_root else Daemon.HIDDEN, daemon_says=str(error))
    with suppress(CommandError):  # of very many it may take too long
        facts = replace(facts, sas=ask(control, {"command": "sas"})["sas"])
    return facts


def with_dns(facts: Facts, control: Path) -> Facts:
    """Through the daemon, which sees it as it is to be; else as one would."""
    questions: dict[Subject, dict[str, Any]] = {
        subject: {"command": "dns", "subject": str(subject), "types": [], "fresh": True} for subject in subjects(facts)}
    try:
        if facts.daemon is Daemon.RUNS:
            answers = [ask(control, question, ANSWER_OF_DNS_WITHIN) for question in questions.values()]
        else:
            answers = look_up_alone(facts.file, list(questions.values()))
    except CommandError as error:
        return replace(facts, dns_complaint=str(error))
    return replace(facts, dns=dict(zip(questions, answers, strict=True)))


def subjects(facts: Facts) -> list[Subject]:
    """Whose records are to be there: the gateway's as it calls itself, and those of the hosts named."""
    identity = facts.settings.identity if facts.settings else None
    own: Iterable[Subject] = facts.addresses
    if isinstance(identity, FqdnIdentity):
        own = (identity.fqdn,)
    elif isinstance(identity, AddressIdentity):
        own = (identity.address,)
    single = [network.network_address for network in (facts.settings.clients if facts.settings else ())
              if network.num_addresses == 1]
    return list(dict.fromkeys([*own, *facts.hosts, *single]))


def interfaces() -> Iterator[Interface]:
    for link in _json_of(["ip", "-j", "address", "show"]):
        networks = tuple(ip_interface(f"{one['local']}/{one['prefixlen']}") for one in link.get("addr_info", ())
                         if one.get("scope") == "global" and "local" in one)
        yield Interface(link["ifname"], networks, link["mtu"])


def ruleset() -> list[dict[str, Any]]:
    """Without the contents of sets: ours have many."""
    told = _json_of(["nft", "-j", "-t", "list", "ruleset"])
    return list(told.get("nftables", ())) if isinstance(told, dict) else []


def legacy_nat() -> bool:
    """Whether iptables-legacy translates: nft does not see its rules."""
    with suppress(OSError):
        return "nat" in (PROC / "thread-self/net/ip_tables_names").read_text().split()
    return False


def sysctls(names: Iterable[str]) -> dict[str, str]:
    wanted = [*SYSCTLS, *(f"ipv4/conf/{name}/{setting}" for name in ("all", *names) for setting in OF_INTERFACE)]
    found = {}
    for name in wanted:
        with suppress(OSError):
            found[name] = (PROC / "sys/net" / name).read_text().strip()
    return found


def refused(parts: Mapping[str, str]) -> dict[str, str]:
    """What of these the kernel does not have, and what it said."""
    script = "\n".join(f"({command}) 2>&1 | head -n 1; echo end" for command in parts.values())
    said = _run(["unshare", "--net", "sh", "-c", script])
    if said is None:
        return {}
    outputs = re.split(r"^end$", said, flags=re.MULTILINE)
    return {what: output.strip() for what, output in zip(parts, outputs, strict=False) if output.strip()}


def port_holders(ports: Sequence[int] = IKE_PORTS) -> Iterator[PortHolder]:
    """Who has bound them, in this network namespace."""
    inodes: dict[str, int] = {}
    for table in ("udp", "udp6"):
        with suppress(OSError):
            for line in (PROC / "thread-self/net" / table).read_text().splitlines()[1:]:
                words = line.split()
                port = int(words[1].rpartition(":")[2], 16)
                if port in ports:
                    inodes[words[9]] = port
    owners = _owners(inodes.keys()) if inodes else {}
    for inode, port in inodes.items():
        pid = owners.get(inode)
        yield PortHolder(port, pid, _command(pid) if pid else "a program that is not to be seen")


def _owners(inodes: Iterable[str]) -> dict[str, int]:
    """Processes by the sockets that they have open."""
    links = {f"socket:[{inode}]": inode for inode in inodes}
    owners = {}
    for process in PROC.glob("[0-9]*"):
        with suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                with suppress(OSError):
                    target = str(descriptor.readlink())
                    if target in links:
                        owners[links[target]] = int(process.name)
    return owners


def _command(pid: int) -> str:
    try:
        return (PROC / str(pid) / "comm").read_text().strip()
    except OSError:
        return "a program that has ended"


def unwritable(directory: Path) -> str:
    """Why a small file cannot be kept in a directory; empty if it can."""
    try:
        with tempfile.TemporaryFile(dir=directory) as trial:
            trial.write(bytes(ROOM))
            trial.flush()
            os.fsync(trial.fileno())
    except OSError as error:
        return os.strerror(error.errno or 0)
    return ""


def unreadable(key: Path, directory: Path) -> str:
    """Why the owner of the state directory, as whom the daemon runs, cannot read the key; empty if that can be read."""
    try:
        owner, user = key.stat().st_uid, directory.stat().st_uid
    except OSError:
        return ""  # that is told elsewhere
    return "" if user in (0, owner) else \
        f"{key}: it belongs to user {_name(owner)}; the daemon, which runs as {_name(user)}, cannot read it"


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def clock_synchronized() -> bool | None:
    """What the kernel thinks of its clock (adjtimex(2), without changing anything)."""
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != TIME_ERROR


def _json_of(command: Sequence[str]) -> Any:
    try:
        return json.loads(_run(command) or "[]")
    except ValueError:
        return []


def _run(command: Sequence[str]) -> str | None:
    """What a command prints; None where it fails."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              text=True, timeout=WITHIN, check=False, env={"PATH": PATH, "LC_ALL": "C"})
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
