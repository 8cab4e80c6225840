"""A gateway as an administrator has it: the Debian package, installed in a fresh bookworm, under its own systemd.

`install` is done beforehand, on this machine's own kernel, which has a network to fetch what the package depends on:
a root folder for each site. `Site` boots such a root as a container in the network of one of the lab's hosts.
"""

import re
import shlex
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.lab.network import ROOT, Network, stop
from tests.lab.quick_start import EXAMPLES, commands, options

ROOTS = ROOT / ".cache/roots"
FRESH = ROOTS / "host"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {"PATH": PATH, "LANG": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive", "TERM": "dumb"}
NEWER = "newer"
"The folder of a newer build of the package, in root's home."
EDITOR = "#!/bin/sh\nexec sed -i '{script}' \"$1\"\n"
BOOTED = "/run/systemd/system"
NOT_STARTED = ("e2scrub_reap.service", "getty.target", "systemd-journal-flush.service", "systemd-pstore.service",
               "systemd-update-utmp.service", "systemd-update-utmp-runlevel.service", "timers.target")
"Of Debian's own: they cost a minute of emulation, and have nothing to do with a gateway."
CHROOT = """
mount --bind {root} {root} && cd {root}
mount -t proc proc proc && mount --rbind /dev dev && mount -t sysfs -o ro sysfs sys
exec chroot . "$@"
"""


@dataclass(frozen=True)
class SiteRow:
    """One site: what its administrator says in oegw.conf, of nobody but himself."""

    host: str
    address: str
    clients: str
    inside: str
    published: str
    "The host behind it whose record is published."

    @property
    def root(self) -> Path:
        return ROOTS / self.host

    def own(self, text: str) -> str:
        """README.md's examples replaced by what is so at this site."""
        for example, attribute in EXAMPLES.items():
            text = re.sub(rf"(?<![\d.]){re.escape(example)}(?![\d./])", getattr(self, attribute), text)
        return text

    def quick_start(self) -> list[str]:
        """All that is typed at the site, in its order."""
        return [self.own(command) for command in commands()]

    def editing(self) -> str:
        """The hand of the administrator: what `editor FILE` does there."""
        return EDITOR.format(script="; ".join(f"s|^#{name} = .*|{name} = {self.own(value)}|"
                                              for name, value in options().items()))


SITES = (SiteRow("sg-a", "192.1.1.4", "192.1.0.0/24", "lan0", "192.1.0.65"),
         SiteRow("sg-b", "192.1.1.5", "192.2.0.0/24", "lan0", "192.2.0.66"))


@dataclass(frozen=True)
class Step:
    """A command that was typed, what it printed, and the seconds that it took."""

    command: str
    output: str
    seconds: float


def install(row: SiteRow, package: Path) -> list[Step]:
    """Make the site's root anew from the fresh one, and type there all but the last, which needs its network."""
    shutil.rmtree(row.root, ignore_errors=True)
    subprocess.run(["cp", "-a", FRESH, row.root], check=True)
    shutil.copy(package, row.root / "root")
    (row.root / "root" / NEWER).mkdir()
    build_newer(package, row.root / "root" / NEWER)
    editor = row.root / "usr/local/bin/editor"
    editor.write_text(row.editing())
    editor.chmod(0o755)
    # Of this machine, for the download; the lab's network has a resolver of its own.
    shutil.copy("/etc/resolv.conf", row.root / "etc/resolv.conf")
    _typed(row, "apt-get update")
    steps = [_typed(row, command) for command in row.quick_start()[:-1]]
    (row.root / "etc/resolv.conf").write_text("nameserver 127.0.0.1\n")
    # Lists of 60,000 packages, which are not to be had in the lab's network, and each apt there would read.
    _typed(row, "rm -rf /var/lib/apt/lists /var/cache/apt/*.bin")
    for unit in NOT_STARTED:
        (row.root / "etc/systemd/system" / unit).symlink_to("/dev/null")
    return steps


def build_newer(package: Path, folder: Path) -> None:
    """The same, as its next version."""
    with tempfile.TemporaryDirectory() as unpacked:
        subprocess.run(["dpkg-deb", "-R", package, f"{unpacked}/oegw"], check=True)
        control = Path(unpacked, "oegw/DEBIAN/control")
        control.write_text(re.sub(r"^(Version: .*)$", r"\1+next", control.read_text(), flags=re.MULTILINE))
        subprocess.run(["dpkg-deb", "--root-owner-group", "-b", f"{unpacked}/oegw", folder], check=True,
                       capture_output=True)


def two_records(row: SiteRow, printed: str) -> list[str]:
    """Of the lines of `oegw records`, the gateway's KEY and the host's TXT."""
    lines = [line for line in printed.splitlines() if line and not line.startswith(";")]
    reverse = ".".join(reversed(row.published.split("."))) + "."
    return [line for line in lines if " KEY " in line or (" TXT " in line and line.startswith(reverse))]


def _typed(row: SiteRow, command: str) -> Step:
    began = time.monotonic()
    done = subprocess.run(["unshare", "--mount", "sh", "-ec", CHROOT.format(root=shlex.quote(str(row.root))), "sh",
                           "sh", "-c", f"cd /root && {command}"],
                          input="y\n", capture_output=True, text=True, env=ENVIRONMENT, timeout=900)
    if done.returncode:
        raise RuntimeError(f"{row.host}: {command}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return Step(command, done.stdout, time.monotonic() - began)


class Site:
    """A booted site. What is written there stays in memory, and goes with the network."""

    def __init__(self, net: Network, row: SiteRow, anchor: Path) -> None:
        """`anchor` is the file of the lab's trust anchor: its DNS has another root than the Internet's."""
        self.row = row
        self.host = net[row.host]
        self._net = net
        self._folder = net.folder / f"site-{row.host}"
        self._root = self._folder / "root"
        self._console = net.folder / f"boot-{row.host}.log"
        self._mount()
        shutil.copy(anchor, self._root / "usr/share/dns/root.key")

    def begin(self) -> None:
        """Start systemd there, without waiting."""
        self._container = subprocess.Popen(
            ["systemd-nspawn", "--quiet", "--keep-unit", "--register=no", "--boot", "--console=pipe",
             f"--network-namespace-path=/run/netns/{self.host.namespace}", "--capability=CAP_NET_ADMIN",
             "--resolv-conf=off", "-D", str(self._root)],
            stdin=subprocess.DEVNULL, stdout=self._console.open("ab"),
            stderr=subprocess.STDOUT, env={**ENVIRONMENT, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
                                            "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network"})

    def wait(self, limit: float = 240) -> None:
        """Until systemd answers; it may go on to start what it starts by itself."""
        deadline = time.monotonic() + limit
        while not self._is_up():
            if time.monotonic() > deadline or self._container.poll() is not None:
                raise RuntimeError(f"{self.row.host} does not boot:\n{self._console.read_text(errors='replace')}")
            time.sleep(0.5)

    def run(self, command: str, check: bool = True, limit: float = 300) -> Step:
        """Type a command there. With `check`, another status than 0 raises."""
        began = time.monotonic()
        done = subprocess.run(["nsenter", "-t", str(self._leader()), "-a", "sh", "-c", f"cd /root && {command}"],
                              capture_output=True, text=True, env=ENVIRONMENT, timeout=limit)
        if check and done.returncode:
            raise RuntimeError(f"{self.row.host}: {command}: status {done.returncode}\n{done.stdout}{done.stderr}\n"
                               + self.log())
        return Step(command, done.stdout + done.stderr, time.monotonic() - began)

    def why(self, source: str, destination: str) -> str:
        return self.run(f"oegw why {source} {destination}").output

    def timeline(self, source: str, destination: str) -> str:
        return self.run(f"oegw timeline {source} {destination}").output

    def shown(self, *properties: str) -> dict[str, str]:
        """`systemctl show` of the service."""
        lines = self.run(f"systemctl show oegw -p {','.join(properties)}").output.splitlines()
        return dict(line.split("=", 1) for line in lines)

    def log(self) -> str:
        """The end of the journal of the service."""
        return self.run("journalctl --no-pager -n 60 -u oegw -o cat", check=False).output

    def moment(self, name: str) -> float:
        """A timestamp of the service, in UNIX seconds."""
        return float(self.run(f"systemctl show oegw --timestamp=unix -p {name} --value").output.strip().lstrip("@"))

    def failed(self) -> str:
        """Units that have failed, and the journal of each and of the service; its console where it is not there."""
        if self._container.poll() is not None:
            return self._console.read_text(errors="replace")[-5000:]
        listed = self.run("systemctl list-units --failed --plain --no-legend", check=False).output.splitlines()
        units = [line.split()[0] for line in listed]
        journals = [self.run(f"journalctl --no-pager -n 100 -u {unit}", check=False).output
                    for unit in dict.fromkeys([*units, "oegw"])]
        return "\n".join([f"failed: {' '.join(units) or 'nothing'}", *journals])

    def power_off(self) -> None:
        """End the container whole."""
        stop(self._container, 60)
        subprocess.run(["umount", "--recursive", str(self._folder)], check=False, capture_output=True)

    def _mount(self) -> None:
        # In the emulated kernel the view of this machine's files that is cached.
        cached = Path(f"/run/files{self.row.root}")
        lower = cached if cached.is_dir() else self.row.root
        self._folder.mkdir()
        _run("mount", "-t", "tmpfs", "-o", "size=1G,mode=755", "tmpfs", str(self._folder))
        for name in ("upper", "work", "root"):
            (self._folder / name).mkdir()
        _run("mount", "-t", "overlay", "overlay", "-o",
             f"lowerdir={lower},upperdir={self._folder}/upper,workdir={self._folder}/work", str(self._root))

    def _leader(self) -> int:
        """The container's process 1, seen from here."""
        children = Path(f"/proc/{self._container.pid}/task/{self._container.pid}/children").read_text().split()
        return int(children[-1]) if children else 0

    def _is_up(self) -> bool:
        leader = self._leader()
        if not leader or not Path(f"/proc/{leader}/root{BOOTED}").is_dir():
            return False
        asked = subprocess.run(["nsenter", "-t", str(leader), "-a", "systemctl", "is-system-running"],
                               capture_output=True, text=True, env=ENVIRONMENT)
        return asked.stdout.strip() in ("initializing", "starting", "running", "degraded")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def mount_control_groups() -> None:
    """Where the lab's kernel has not done so: systemd wants them."""
    folder = Path("/sys/fs/cgroup")
    if not folder.is_mount():
        _run("mount", "-t", "cgroup2", "cgroup2", str(folder))

