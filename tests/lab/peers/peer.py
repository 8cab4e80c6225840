"""What the tests want of a peer, whoever made it."""

import abc
import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from oesvc.ike.crypto.groups import Group
from tests.lab.network import Network, address_of, stop
from tests.lab.peers.files import GATEWAY
from tests.lab.peers.suites import Suite

OURS, THEIRS = address_of("sg-a"), address_of(GATEWAY)
ALICE = address_of("alice")
PATIENCE = 60
"Seconds, for an emulated machine."
DEAD = 15
"Seconds without an answer after which a peer takes us for dead."


class Peer(abc.ABC):
    """A daemon on SG-B with one static tunnel, between Alice and one of the Bobs, that accepts exactly one suite."""

    title: str
    "Name and version."
    lacks: frozenset[Group] = frozenset()
    "Groups that it was built without."
    socket: Path
    "Where it takes commands, from when it is ready."

    @property
    def name(self) -> str:
        return self.title.partition(" ")[0]

    def __init__(self, net: Network, gateway: str = GATEWAY) -> None:
        """On another gateway it speaks for Alice instead."""
        self.gateway, self.host = gateway, net[gateway]
        self.folder = net.folder / f"{type(self).__name__.lower()}-{gateway}"
        self.folder.mkdir()
        self._process: subprocess.Popen[bytes] | None = None

    @abc.abstractmethod
    def command(self) -> list[str]:
        """That starts it in the foreground."""

    @abc.abstractmethod
    def configure(self, suite: Suite, bob: str, channel_seconds: int = 14400, silence: int = 0,
                  encapsulate: bool = False) -> None:
        """Have this tunnel and suite, and no other; replace a keying channel ten seconds before its end.

        After `silence` seconds (0: never) ask whether the other side is there; after DEAD without an answer give up.
        With `encapsulate` pretend to be behind a NAT.
        """

    def ends(self, bob: str) -> dict[str, str]:
        """What a configuration says of both sides: names of the gateways, their addresses and clients; ours is SG-A."""
        own = (GATEWAY, THEIRS, bob), ("sg-a", OURS, ALICE)
        (me, theirs, inner), (other, ours, outer) = own if self.gateway == GATEWAY else own[::-1]
        return {"me": me, "theirs": theirs, "bob": inner, "other": other, "ours": ours, "alice": outer}

    @abc.abstractmethod
    def initiate(self) -> None:
        """Begin the tunnel, and wait until it stands."""

    @abc.abstractmethod
    def trap(self) -> None:
        """Have the tunnel begun by the first datagram that wants to pass."""

    @abc.abstractmethod
    def rekey_tunnel(self) -> None:
        """Begin a new quick mode for the tunnel that stands."""

    @abc.abstractmethod
    def delete(self) -> None:
        """Delete the tunnel and the keying channel."""

    def start(self) -> None:
        self._process = self.host.popen(self.command(), f"{self.folder.name}.out")
        self.wait_until(self.socket.exists, "it takes commands")

    def stop(self) -> None:
        if self._process:
            stop(self._process)
            self.socket.unlink(missing_ok=True)

    def kill(self) -> None:
        """End without a word; what it had in the kernel goes with the machine that is thought to have died."""
        assert self._process
        self._process.kill()
        self._process.wait()
        self.socket.unlink(missing_ok=True)
        for what in ("state", "policy"):
            self.host.run(["ip", "xfrm", what, "flush"])

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def wait_until(self, so: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not so():
            if self._process and self._process.poll() is not None:
                raise RuntimeError(f"{self.title} ended before {what}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.title}: {PATIENCE} s, and not yet: {what}")
            time.sleep(0.1)

    def run(self, mounts: list[tuple[Path, str]], variables: dict[str, str], *words: object) -> str:
        """A command of its package, with the package's folders where it looks for them."""
        return self.host.run(inside(mounts, variables, *words), timeout=PATIENCE + 30).stdout


def inside(mounts: list[tuple[Path, str]], variables: dict[str, str], *words: object) -> list[str]:
    """`ip netns exec` gives every command mounts of its own: what is mounted here goes with it."""
    script = [f"mount --bind {shlex.quote(str(source))} {target}" for source, target in mounts]
    settings = [f"{name}={value}" for name, value in variables.items()]
    script.append(shlex.join(["exec", "env", *settings, *map(str, words)]))
    return ["sh", "-c", " && ".join(script)]
