"""An oegw daemon on a gateway of the lab, as an administrator would run it: a configuration, twistd, the command."""

import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oesvc.operator.client import ask
from tests.lab.keys import private_key_file
from tests.lab.network import ROOT, Host, Network, address_of, stop

PYTHON = "/usr/bin/python3"
TWISTD = (PYTHON, "/usr/bin/twistd3")
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


@dataclass(frozen=True)
class GatewayRow:
    """What sets one gateway apart from another: nothing is said of the other (RFC 4322 section 1)."""

    host: str
    clients: tuple[str, ...]
    private: tuple[str, ...] = ()
    "Prefixes of the paranoid class."
    clear: tuple[str, ...] = ()
    "Prefixes of the class always-clear-text."


GATEWAYS = (
    GatewayRow("sg-a", ("192.1.0.0/24", "2001:db8:1::/64"), private=("192.1.1.128/25", "2001:db8:1:1::200/128"),
               clear=("192.2.0.99/32", "2001:db8:2::199/128")),
    GatewayRow("sg-b", ("192.2.0.0/24", "2001:db8:2::/64"), clear=("192.1.0.99/32", "2001:db8:1::99/128")),
)
SECOND_EXIT = GatewayRow("sg-d", ("192.1.0.0/24", "192.3.0.0/24", "2001:db8:1::/64", "2001:db8:3::/64"))
"Dave's gateway, which speaks for Alice's network too (RFC 4322 section 8)."


class Gateway:
    """The daemon of one gateway. Its files are in `folder`; its log is in the network's folder."""

    def __init__(self, net: Network, row: GatewayRow, options: Mapping[str, Mapping[str, str]] | None = None,
                 policies: Mapping[str, Iterable[str]] | None = None) -> None:
        """`options` (section, option, value) and `policies` (file, prefixes) replace the usual ones."""
        self.net = net
        self.host: Host = net[row.host]
        self.folder = net.folder / row.host
        self.control = self.folder / "control"
        self.metrics_socket = self.folder / "metrics"
        self.log = net.folder / f"oegw-{row.host}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._write(row, options or {}, policies or {})

    def start(self, file: Path | None = None, environment: Mapping[str, str] = ENVIRONMENT) -> None:
        """Begin, without waiting; with another configuration if one is given."""
        command = (*TWISTD, "-n", "--pidfile=", "oegw", "--config", str(file or self.folder / "oegw.conf"))
        self._process = self.host.popen(command, self.log.name, environment)

    def wait(self, limit: float = 120) -> None:
        """Until the daemon answers on its control socket and says so by `oegw status`."""
        deadline = time.monotonic() + limit
        while not self._answers():
            if self._process is None or self._process.poll() is not None:
                raise RuntimeError(f"{self.host.name}: the daemon ended:\n{self._log_text()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.host.name}: no daemon after {limit:.0f} s:\n{self._log_text()}")
            time.sleep(0.1)
        self.oegw("status")

    def stop(self, wait: float = 60) -> bool:
        """Ask it to end (SIGTERM); whether it did so in order. Twisted ends by the signal that it was stopped with."""
        assert self._process
        return stop(self._process, wait) in (0, -signal.SIGTERM)

    def kill(self) -> None:
        """End it without a chance to tidy up."""
        assert self._process
        self._process.kill()
        self._process.wait()

    def hang_up(self) -> None:
        """Have it read its policy anew (SIGHUP)."""
        assert self._process
        self._process.send_signal(signal.SIGHUP)

    def oegw(self, *words: str, check: bool = True) -> str:
        """What the command `oegw WORDS...` prints. With `check`, a status other than 0 raises."""
        command = [PYTHON, "-m", "oesvc.operator.main", *words, "--control", str(self.control)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
        if check and done.returncode:
            raise RuntimeError(f"oegw {' '.join(words)}: status {done.returncode}\n{done.stdout}{done.stderr}"
                               f"\n{self._log_text()}")
        return done.stdout

    def ask(self, command: str) -> Any:
        """What the daemon answers `oegw COMMAND --json`; the command itself takes seconds to start under emulation."""
        return ask(self.control, {"command": command}, within=120)

    def status(self) -> Any:
        """`oegw status --json`, read."""
        return json.loads(self.oegw("status", "--json"))

    def metrics(self) -> dict[str, float]:
        """What Prometheus would be told: series as they are written, and their values."""
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.metrics_socket))
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            _, _, body = client.makefile().read().partition("\n\n")
        series = (line.rpartition(" ") for line in body.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in series}

    def why(self, source: str, destination: str) -> str:
        return self.oegw("why", source, destination)

    def timeline(self, source: str, destination: str) -> str:
        return self.oegw("timeline", source, destination)

    def _answers(self) -> bool:
        # A connection, not the command: that takes seconds to start under emulation.
        with socket.socket(socket.AF_UNIX) as knock:
            try:
                knock.connect(str(self.control))
            except (FileNotFoundError, ConnectionRefusedError):
                return False
        return True

    def _log_text(self) -> str:
        return self.log.read_text(errors="replace")[-6000:] if self.log.exists() else "(no log)"

    def _write(self, row: GatewayRow, options: Mapping[str, Mapping[str, str]],
               policies: Mapping[str, Iterable[str]]) -> None:
        sections: dict[str, dict[str, str]] = {
            "gateway": {"address": " ".join(address_of(row.host, version, self.net.rows) for version in (4, 6)),
                        "clients": " ".join(row.clients), "inside": "lan0", "metrics": str(self.metrics_socket)},
            "ike": {"private-key": str(private_key_file(row.host)), "profile": "modern"},
            "dns": {"servers": "127.0.0.1", "trust-anchors": str(self.net.folder / "root.key")},
            "paths": {"policies": str(self.folder / "policies"), "control-socket": str(self.control),
                      "state": str(self.folder / "state")},
        }
        for section, values in options.items():
            sections.setdefault(section, {}).update(values)
        (self.folder / "policies").mkdir(parents=True)
        (self.folder / "state").mkdir()
        (self.folder / "oegw.conf").write_text("\n".join(
            line for section, values in sections.items()
            for line in (f"[{section}]", *(f"{option} = {value}" for option, value in values.items()), "")))
        # The gateway's resolver asks the name server itself: that must not wait for what it is to bring.
        files = {"block": (), "clear": (f"{address_of('dns')}/32", *row.clear),
                 "private-or-clear": ("0.0.0.0/0", "::/0"), "private": row.private, **policies}
        for name, prefixes in files.items():
            (self.folder / "policies" / name).write_text("".join(f"{prefix}\n" for prefix in prefixes))


def start_gateways(gateways: Iterable[Gateway]) -> None:
    """Start all of them at once, and wait for each."""
    gateways = list(gateways)
    for gateway in gateways:
        gateway.start()
    for gateway in gateways:
        gateway.wait()
