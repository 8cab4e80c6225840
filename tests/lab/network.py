"""RFC 4322's canonical network (section 2.1) in network namespaces: one per host, one per wire.

    with Network() as net:
        net["alice"].ping("192.2.0.66")
        with net.capture("internet", "esp") as tap:
            ...
        tap.packets()

The tables below are the network; another host is another row. A wire is a bridge in a namespace of its own, which
sees every frame of it once: captures are taken there. What a run leaves is under `net.folder`, and `net.keep(name)`
saves it where it outlives the lab's kernel. Everything is taken down in the end, whatever happened.
"""

import ctypes
import ipaddress
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tests.lab.capture import Capture

ROOT = Path(__file__).resolve().parents[2]
OUT = Path(os.environ.get("OEGW_LAB_OUT", ROOT / ".cache/lab-out"))
BRIDGE = "bridge"
CLONE_NEWNET = 0x40000000


@dataclass(frozen=True)
class Link:
    """An interface of a host on a wire. Each address is given with its prefix's length."""

    interface: str
    wire: str
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class HostRow:
    """One row of the network's table. Routes are (prefix or `default`, next hop)."""

    name: str
    links: tuple[Link, ...]
    routes: tuple[tuple[str, str], ...]
    forwards: bool = False


# Addresses of RFC 4322 section 2.2; for IPv6 the same numbers, read as digits, in the prefix of RFC 3849.
WIRES = ("net-a", "net-d", "internet", "net-b")
TO_NET_A = (("192.1.0.0/24", "192.1.1.4"), ("2001:db8:1::/64", "2001:db8:1:1::4"))
TO_NET_D = (("192.3.0.0/24", "192.1.1.6"), ("2001:db8:3::/64", "2001:db8:1:1::6"))
WITHIN_AS1 = (("192.3.0.0/24", "192.1.0.254"), ("2001:db8:3::/64", "2001:db8:1::254"))
TO_NET_B = (("192.2.0.0/24", "192.1.1.5"), ("2001:db8:2::/64", "2001:db8:1:1::5"))
FROM_OUTSIDE = TO_NET_A + TO_NET_B + TO_NET_D
HOSTS = (
    HostRow("alice", (Link("eth0", "net-a", ("192.1.0.65/24", "2001:db8:1::65/64")),),
            (("default", "192.1.0.1"), ("default", "2001:db8:1::1"), *WITHIN_AS1)),
    HostRow("dave", (Link("eth0", "net-d", ("192.3.0.68/24", "2001:db8:3::68/64")),),
            (("default", "192.3.0.1"), ("default", "2001:db8:3::1"),
             ("192.1.0.0/24", "192.3.0.254"), ("2001:db8:1::/64", "2001:db8:3::254"))),
    # The line between Alice's and Dave's networks in the figure: both are of AS1, with an exit each.
    HostRow("as1", (Link("lan0", "net-a", ("192.1.0.254/24", "2001:db8:1::254/64")),
                    Link("lan1", "net-d", ("192.3.0.254/24", "2001:db8:3::254/64"))), (), forwards=True),
    HostRow("sg-d", (Link("lan0", "net-d", ("192.3.0.1/24", "2001:db8:3::1/64")),
                     Link("wan0", "internet", ("192.1.1.6/24", "2001:db8:1:1::6/64"))),
            (("192.1.0.0/24", "192.3.0.254"), ("2001:db8:1::/64", "2001:db8:3::254"), *TO_NET_B), forwards=True),
    HostRow("sg-a", (Link("lan0", "net-a", ("192.1.0.1/24", "2001:db8:1::1/64")),
                     Link("wan0", "internet", ("192.1.1.4/24", "2001:db8:1:1::4/64"))), TO_NET_B + WITHIN_AS1,
            forwards=True),
    HostRow("sg-b", (Link("lan0", "net-b", ("192.2.0.1/24", "2001:db8:2::1/64")),
                     Link("wan0", "internet", ("192.1.1.5/24", "2001:db8:1:1::5/64"))), TO_NET_A + TO_NET_D,
            forwards=True),
    HostRow("bob", (Link("eth0", "net-b", ("192.2.0.66/24", "2001:db8:2::66/64")),),
            (("default", "192.2.0.1"), ("default", "2001:db8:2::1"))),
    # Two nodes without a gateway of their own: one meets a permissive class, the other a paranoid one.
    HostRow("carol", (Link("eth0", "internet", ("192.1.1.67/24", "2001:db8:1:1::67/64")),), FROM_OUTSIDE),
    HostRow("q", (Link("eth0", "internet", ("192.1.1.81/24", "2001:db8:1:1::81/64")),), FROM_OUTSIDE),
    HostRow("r", (Link("eth0", "internet", ("192.1.1.82/24", "2001:db8:1:1::82/64")),), FROM_OUTSIDE),
    HostRow("frank", (Link("eth0", "internet", ("192.1.1.200/24", "2001:db8:1:1::200/64")),), FROM_OUTSIDE),
    HostRow("dns", (Link("eth0", "internet", ("192.1.1.250/24", "2001:db8:1:1::250/64")),), FROM_OUTSIDE),
)


class Host:
    """A namespace of the network."""

    def __init__(self, name: str, namespace: str, folder: Path) -> None:
        self.name = name
        self.namespace = namespace
        self.folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []

    def run(self, command: Sequence[str], *, check: bool = True, timeout: float = 60,
            stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command here to its end; its output is text. With `check`, another status than 0 raises."""
        done = subprocess.run(self._inside(command), input=stdin, capture_output=True, text=True, timeout=timeout)
        if check and done.returncode:
            raise RuntimeError(f"{self.name}: {' '.join(command)}: status {done.returncode}\n"
                               f"{done.stdout}{done.stderr}")
        return done

    def popen(self, command: Sequence[str], log: str, environment: Mapping[str, str] | None = None,
              ) -> subprocess.Popen[bytes]:
        """Start a daemon here, its output appended to the file `log` of the network's folder; `close` stops it."""
        with (self.folder / log).open("ab") as output:
            process = subprocess.Popen(self._inside(command), stdin=subprocess.DEVNULL, stdout=output,
                                       stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})})
        self._processes.append(process)
        return process

    def ping(self, destination: str, count: int = 1, *, interval: float = 0.2, wait: float = 10,
             source: str | None = None) -> int:
        """Send `count` echo requests; how many were answered within `wait` seconds of the last."""
        options = ["-I", source] if source else []
        done = self.run(["ping", "-n", "-q", "-c", str(count), "-i", str(interval), "-W", str(wait), *options,
                         destination], check=False, timeout=wait + count * interval + 30)
        if "connect: Operation not permitted" in done.stderr:
            return 0  # by this host's own policy
        if done.returncode > 1:
            raise RuntimeError(f"{self.name}: ping {destination}: {done.stderr}")
        return int(done.stdout.partition(" received")[0].rpartition(" ")[2])

    def ping_each(self, destinations: Sequence[str], count: int = 1, **how: Any) -> list[int]:
        """`ping` to all of them at once."""
        with ThreadPoolExecutor(len(destinations)) as pool:
            return list(pool.map(lambda each: self.ping(each, count, **how), destinations))

    @contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread is in this namespace: sockets made meanwhile belong to it, and stay there."""
        with Path("/proc/thread-self/ns/net").open() as ours, Path(f"/run/netns/{self.namespace}").open() as theirs:
            _set_namespace(theirs.fileno())
            try:
                yield
            finally:
                _set_namespace(ours.fileno())

    def socket(self, family: int = socket.AF_INET, kind: int = socket.SOCK_DGRAM, protocol: int = 0) -> socket.socket:
        """A socket of this process in the host's network."""
        with self.entered():
            return socket.socket(family, kind, protocol)

    def xfrm(self, what: str) -> str:
        """The kernel's `state` or `policy` entries, as `ip -s xfrm` prints them (keys hidden)."""
        return self.run(["ip", "-s", "xfrm", what, "list", *(["nokeys"] if what == "state" else [])]).stdout

    def sas(self, of: str = "") -> dict[int, int]:
        """Octets so far by SPI of the ESP SAs whose entry says `of`.

        Without the larval ones: a trap that was met has one, of SPI 0, for two seconds; nothing deletes it sooner.
        """
        entries = ("\n" + self.xfrm("state")).split("\nsrc ")
        found = (re.search(r"proto esp spi 0x([0-9a-f]+).*lifetime current:\s+(\d+)\(bytes\)", entry, re.DOTALL)
                 for entry in entries if of in entry)
        sas = {int(entry[1], 16): int(entry[2]) for entry in found if entry}
        sas.pop(0, None)
        return sas

    def xfrm_errors(self) -> dict[str, int]:
        """Counters of /proc/net/xfrm_stat that are not zero: `XfrmInTmplMismatch` and its like."""
        with self.entered():
            rows = Path("/proc/thread-self/net/xfrm_stat").read_text().split()
        return {name: int(number) for name, number in zip(rows[::2], rows[1::2], strict=True) if number != "0"}

    def close(self) -> None:
        """End the daemons, the latest first, and whatever else still runs here."""
        for process in reversed(self._processes):
            stop(process)
        strays = subprocess.run(["ip", "netns", "pids", self.namespace], capture_output=True, text=True)
        for pid in strays.stdout.split():
            os.kill(int(pid), signal.SIGKILL)

    def _inside(self, command: Sequence[str]) -> list[str]:
        return ["ip", "netns", "exec", self.namespace, *command]


class Network:
    """All hosts and wires; a context manager."""

    live: ClassVar[list["Network"]] = []
    _numbers = itertools.count()

    def __init__(self, hosts: Sequence[HostRow] = HOSTS, wires: Sequence[str] = WIRES) -> None:
        self.rows, self.wires = hosts, wires
        self.prefix = f"oegw-{os.getpid()}-{next(self._numbers)}"
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.prefix}-"))
        self._hosts = {name: Host(name, f"{self.prefix}-{name}", self.folder)
                       for name in (*wires, *(row.name for row in hosts))}
        self._stack = ExitStack()
        self._captures = itertools.count(1)

    def __getitem__(self, name: str) -> Host:
        return self._hosts[name]

    def __enter__(self) -> "Network":
        with ExitStack() as stack:
            stack.callback(self._take_down)
            _remove_stale()
            self._build()
            self._stack = stack.pop_all()
        Network.live.append(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        Network.live.remove(self)
        if kind is not None:
            self.keep("failure")
        self._stack.close()

    def capture(self, host: str, expression: str = "", *, interface: str = BRIDGE, name: str = "") -> Capture:
        """A tap: begins in `with`, ends with it. Its file is in the network's folder, under `name` if given."""
        name = name or f"{host}-{next(self._captures)}"
        return Capture(self[host].popen, self.folder, name, interface, expression)

    def keep(self, name: str) -> Path:
        """Copy logs and captures to OEGW_LAB_OUT/NAME, where they outlive the lab's kernel."""
        target = OUT / name
        shutil.copytree(self.folder, target, dirs_exist_ok=True,
                        ignore=lambda folder, names: [each for each in names if Path(folder, each).is_socket()])
        for host in self._hosts.values():
            (target / f"{host.name}.xfrm").write_text(host.xfrm("state") + host.xfrm("policy"))
        return target

    def _build(self) -> None:
        _ip("", [f"netns add {host.namespace}" for host in self._hosts.values()])
        _ip("", [f"link add {link.interface} netns {self[row.name].namespace} type veth "
                 f"peer name {row.name} netns {self[link.wire].namespace}"
                 for row in self.rows for link in row.links])
        for wire in self.wires:
            ends = [row.name for row in self.rows for link in row.links if link.wire == wire]
            # Without addresses of its own a wire says nothing of its own.
            _ip(self[wire].namespace, [
                f"link add {BRIDGE} type bridge mcast_snooping 0",
                *(f"link set {end} master {BRIDGE}" for end in ends),
                *(f"link set {each} addrgenmode none up" for each in (BRIDGE, *ends))])
        for row in self.rows:
            if row.forwards:
                self[row.name].run(["sysctl", "-q", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"])
            _ip(self[row.name].namespace, [
                "link set lo up",
                *(f"link set {link.interface} up" for link in row.links),
                *(f"address add {address} dev {link.interface} {'nodad' if ':' in address else ''}"
                  for link in row.links for address in link.addresses),
                *(f"route add {prefix} via {hop}" for prefix, hop in row.routes)])

    def _take_down(self) -> None:
        for host in self._hosts.values():
            host.close()
        for host in self._hosts.values():
            subprocess.run(["ip", "netns", "delete", host.namespace], capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def stop(process: subprocess.Popen[bytes], wait: float = 15) -> int:
    """End a process by SIGTERM, or SIGKILL if it will not; its status. An ended one stays as it is."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def address_of(host: str, version: int = 4, hosts: Sequence[HostRow] = HOSTS) -> str:
    """A host's outermost address: the last one of this version in its row."""
    row = next(row for row in hosts if row.name == host)
    addresses = [ipaddress.ip_interface(address).ip for link in row.links for address in link.addresses]
    return str([address for address in addresses if address.version == version][-1])


def _ip(namespace: str, commands: Sequence[str]) -> None:
    """Many `ip` commands in one process: starting processes is what costs under emulation."""
    where = ["-n", namespace] if namespace else []
    done = subprocess.run(["ip", *where, "-batch", "-"], input="\n".join(commands), capture_output=True, text=True,
                          timeout=60)
    if done.returncode:
        raise RuntimeError(f"ip {namespace}: {done.stderr}\n" + "\n".join(commands))


def _set_namespace(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def _remove_stale() -> None:
    """Namespaces that a killed run left behind."""
    for path in Path("/run/netns").glob("oegw-*-*"):
        if not Path("/proc", path.name.split("-")[1]).exists():
            subprocess.run(["ip", "netns", "delete", path.name], capture_output=True)
