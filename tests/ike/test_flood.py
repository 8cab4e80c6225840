"""A flood of spoofed first messages over real sockets, and honest peers in the midst of it (section 12.3)."""

import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from oesvc.ike.datagram import Datagram, Endpoint
from oesvc.ike.events import SasReady, TunnelFailed, TunnelUp, Work
from oesvc.ike.identity import AddressIdentity
from oesvc.ike.v1.config import EngineConfig
from oesvc.ike.v1.engine import IkeEngine
from oesvc.ipsec.flow import Address, Flow
from oesvc.ipsec.rsa_key import RsaPublicKey
from oesvc.keys import key_pair
from tests.ike.flood import BOB, GATEWAY, PEERS, config

ROOT = Path(__file__).resolve().parents[2]
SPACING = 0.03
"Seconds that lie at least between two honest handshakes."
SPOOFED_BETWEEN = 100
"Messages of the flood that are answered at least between two honest handshakes."
MEGABYTE = 1 << 20


@contextmanager
def running(role: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-m", "tests.ike.flood", role, *map(str, arguments)], cwd=ROOT, text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


class Gateway:
    """The process that is flooded."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.port, self.room = map(int, self._line().split())
        self.most = 0

    def counters(self, later: str = "") -> dict[str, int]:
        self.process.stdin.write(f"{later}\n")
        self.process.stdin.flush()
        counters = json.loads(self._line())
        self.blocks = counters.pop("blocks")
        return counters

    def memory(self) -> int:
        """Octets of it that are in memory."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        octets = int(pages) * os.sysconf("SC_PAGE_SIZE")
        self.most = max(self.most, octets)
        return octets

    def _line(self) -> str:
        line = self.process.stdout.readline()
        assert line, "the gateway ended"
        return line


class HonestPeer:
    """A gateway that protects itself, with an address and a socket of its own."""

    def __init__(self, address: Address, configuration: EngineConfig, gateway: RsaPublicKey, port: int) -> None:
        self.engine = IkeEngine(configuration, os.urandom)
        self.local = Endpoint(address, 500)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind((str(address), 0))
        self.socket.connect((str(GATEWAY), port))
        self.came_of_it: list[str] = []
        self.engine.initiate(Flow(address, BOB), address, GATEWAY, AddressIdentity(GATEWAY), (gateway,),
                             time.monotonic())
        self.serve()

    def receive(self) -> None:
        arrived = Datagram(self.socket.recv(65535), self.local, Endpoint(GATEWAY, 500))
        self.engine.receive_datagram(arrived, time.monotonic())
        self.serve()

    def leave(self) -> None:
        self.engine.close(time.monotonic())
        self.serve()

    def serve(self) -> None:
        self.engine.handle_deadline(time.monotonic())
        while events := self.engine.events():
            for event in events:
                if isinstance(event, Work):
                    self.engine.work_done(event.id, event.calculate(), time.monotonic())
                elif isinstance(event, SasReady):
                    self.engine.sas_installed(event.tunnel, time.monotonic())
                elif isinstance(event, TunnelUp):
                    self.came_of_it.append("up")
                elif isinstance(event, TunnelFailed):
                    self.came_of_it.append(event.detail)
        for datagram in self.engine.datagrams_to_send():
            self.socket.send(datagram.data)


def wait(peers: Sequence[HonestPeer], seconds: float) -> None:
    """Let the peers do what there is to do."""
    until = time.monotonic() + seconds
    while (now := time.monotonic()) < until:
        deadlines = [deadline for peer in peers if (deadline := peer.engine.next_deadline()) is not None]
        readable, _, _ = select.select([peer.socket for peer in peers], [], [],
                                       max(0.0, min([until, *deadlines]) - now))
        for peer in peers:
            if peer.socket in readable:
                peer.receive()
            else:
                peer.serve()


def settle(peers: Sequence[HonestPeer]) -> None:
    """Until something has come of what each has begun."""
    while not all(peer.came_of_it for peer in peers):
        wait(peers, 0.1)


@pytest.mark.conformance("C-12.3-01", "C-4.1-03")
def test_honest_peers_key_under_a_flood_of_spoofed_messages_in_bounded_memory(tmp_path):
    for name in "gateway", "peer":
        key_pair.generate(tmp_path / f"{name}.pem")
    key, ours = key_pair.public_key(key_pair.load(tmp_path / "gateway.pem")), config(tmp_path / "peer.pem")
    with running("serve", tmp_path) as process, ExitStack() as stack:
        gateway, peers = Gateway(process), []

        def begin(address: Address) -> None:
            peers.append(HonestPeer(address, ours, key, gateway.port))
            stack.callback(peers[-1].socket.close)

        begin(PEERS[0])
        settle(peers)
        before = gateway.memory()
        with running("send", tmp_path, gateway.port, gateway.room) as flood:
            for number, address in enumerate(PEERS[1:], 1):
                wait(peers, SPACING)
                while gateway.counters()["first_messages"] < number * SPOOFED_BETWEEN:
                    assert flood.poll() is None
                    wait(peers, SPACING)
                begin(address)
                gateway.memory()
            settle(peers)
        flooded = gateway.counters()
        while flooded != (flooded := gateway.counters()):
            wait(peers, 0.2)
        gateway.memory()
        for peer in peers:
            peer.leave()
        while any(peer.engine.counters()["tunnels"] for peer in peers):
            wait(peers, 0.1)
        held, blocks = gateway.counters(), gateway.blocks
        after = gateway.counters(later="200")
    assert [peer.came_of_it for peer in peers] == [["up"]] * len(PEERS)
    assert flooded["refused"] > 100, "many were worded as none before"
    assert flooded["tunnels"] >= len(PEERS) and flooded["half_open_channels"] == 0
    assert gateway.most - before < 10 * MEGABYTE
    assert held["invitations"] > 100 and after["invitations"] == after["proven_invitations"] <= 2
    assert blocks - gateway.blocks > 5 * held["invitations"], "their memory is free again"
    assert [after[what] for what in ("channels", "half_open_channels", "tunnels", "calculations")] == [0, 0, 0, 0]
