"""A Python prompt inside the running daemon, over SSH, for those whose public keys are listed: `[gateway] manhole`.

Who has it may do all that the daemon may, keys included. So it is loaded only where the option is set, on a UNIX socket
or the loopback interface, and knows no passwords. What is typed runs between the daemon's own work, and holds it up.
"""

import os
import pydoc
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.conch.checkers import IAuthorizedKeysDB, SSHPublicKeyChecker, readAuthorizedKeyFile
from twisted.conch.insults.insults import ServerProtocol
from twisted.conch.manhole import ColoredManhole
from twisted.conch.manhole_ssh import ConchFactory, TerminalRealm, TerminalSession
from twisted.conch.ssh.keys import Key
from twisted.cred.portal import Portal
from twisted.logger import Logger
from zope.interface import implementer

from oesvc import __version__
from oesvc.daemon import KeyingDaemon
from oesvc.ipsec.flow import Flow
from oesvc.ipsec.sa import IpsecSa
from oesvc.oe.connection import Connection
from oesvc.operator import report, text

HOST_KEY = "manhole-host-key"
"In the state directory."
NOT_FOR_OTHERS = 0o022

log = Logger()


class ManholeFactory(ConchFactory):
    """One SSH server, whose sessions share nothing but the daemon."""

    noisy = False

    def __init__(self, daemon: KeyingDaemon, seconds: Callable[[], float], authorized: Path, state: Path) -> None:
        """`authorized`: the file of public keys, read at each login. Raises OSError or ValueError for the host key."""
        # Any: what Twisted's annotations say of these is narrower than what it takes.
        host_key: Any = _host_key(state / HOST_KEY)
        realm: Any = TerminalRealm()
        authorized_keys: Any = AuthorizedKeys(authorized)
        checker: Any = SSHPublicKeyChecker(authorized_keys)
        realm.sessionFactory = Session
        realm.chainedProtocolFactory = lambda: ServerProtocol(ColoredManhole, Prompt(daemon, seconds).names())
        super().__init__(Portal(realm, [checker]))
        self.publicKeys = {host_key.sshType(): host_key.public()}
        self.privateKeys = {host_key.sshType(): host_key}


class Session(TerminalSession):
    """Twisted's raises where a client does what every client does."""

    def windowChanged(self, newWindowSize: object) -> None:  # noqa: N802, N803
        """Lines go on to be broken at the first width."""

    def eofReceived(self) -> None:
        """What was typed before is carried out; the client ends the session."""


@implementer(IAuthorizedKeysDB)
class AuthorizedKeys:
    """A file of the form of OpenSSH's authorized_keys, for whatever user name."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def getAuthorizedKeys(self, username: bytes) -> Iterator[Key]:  # noqa: N802
        """None where the file cannot be read, or others than its owner may write it."""
        try:
            with self._file.open("rb") as opened:
                if os.fstat(opened.fileno()).st_mode & NOT_FOR_OTHERS:
                    log.error("manhole: {file} counts for nothing, for others may write it; say `chmod 644 {file}`",
                              file=self._file)
                    return
                yield from readAuthorizedKeyFile(opened)
        except OSError as error:
            log.error("manhole: {error}", error=error)


class Prompt:
    """What the prompt's names mean. The first line of each docstring is what `help()` tells of it."""

    def __init__(self, daemon: KeyingDaemon, seconds: Callable[[], float]) -> None:
        self.daemon = daemon
        self._seconds = seconds

    def names(self) -> dict[str, Any]:
        """The namespace of a session, its own."""
        helpers = (self.flows, self.flow, self.sas, self.why, self.timeline, self.status, self.help)
        return {"daemon": self.daemon, **{helper.__name__: helper for helper in helpers}}

    def flows(self, containing: str = "") -> list[Connection]:
        """flows("denied"): the connections of whose address, state or reason it is a part; without it, all."""
        return [connection for connection in self.daemon.connections
                if containing in f"{connection.flow} {connection.state.value} {connection.reason}"]

    def flow(self, source: str, destination: str) -> Any:
        """flow("192.1.0.65", "192.2.0.66"): its connection, a live one: what you change is changed."""
        return self.daemon.connections.get(_flow(source, destination))

    def sas(self, containing: str = "") -> list[IpsecSa]:
        """sas("192.2.0.66"): phase 2 SAs of tunnels, with SPIs and lifetimes; the keys are in them, but not printed."""
        return [sa for tunnel in self.daemon.tunnels for sa in tunnel.sas if containing in repr(sa)]

    def why(self, source: str, destination: str) -> None:
        """why("192.1.0.65", "192.2.0.66"): prints what `oegw why` does."""
        print(text.why(report.why(self.daemon, _flow(source, destination), self._seconds())))

    def timeline(self, source: str, destination: str) -> None:
        """timeline("192.1.0.65", "192.2.0.66"): prints what `oegw timeline` does."""
        print(text.timeline(report.timeline(self.daemon, _flow(source, destination))))

    def status(self) -> None:
        """status(): prints what `oegw status` does, but for how much was sent."""
        print(text.status(report.status(self.daemon, __version__, self._seconds())))

    def help(self, thing: Any = None) -> None:
        """help(): this list; help(THING): what is written about it in the source."""
        if thing is not None:
            print(pydoc.plain(pydoc.render_doc(thing)))
            return
        print("A Python prompt in the daemon: while something typed here runs, nothing is keyed. End it with Ctrl-D.\n")
        print(f"daemon\n    {_first_line(KeyingDaemon)}")
        for name, helper in self.names().items():
            if name != "daemon":
                print(f"{name}\n    {_first_line(helper)}")


def _first_line(thing: Any) -> str:
    return (pydoc.getdoc(thing) or "").partition("\n")[0]


def _flow(source: str, destination: str) -> Flow:
    return Flow(ip_address(source), ip_address(destination))


def _host_key(file: Path) -> Any:
    """That of the former run, or a new one."""
    if not file.exists():
        new = Key(Ed25519PrivateKey.generate()).toString("OPENSSH", subtype="v1")
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
            opened.write(new)
    return Key.fromFile(str(file))
