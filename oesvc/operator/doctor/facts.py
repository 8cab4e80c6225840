"""What the doctor knows of a gateway: plain values, so that each check can be tried without one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path
from typing import Any

from oesvc.config import Config
from oesvc.ipsec.flow import Address
from oesvc.ipsec.rsa_key import RsaPublicKey

Subject = Address | str
"Whose records are looked at: an address by its reverse name, or an FQDN."


class Severity(Enum):
    PROBLEM = "problem"
    "Something does not work, or not for all."
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be."""

    severity: Severity
    cause: str
    "One sentence."
    remedy: str
    "The command that mends it, or the lines to write."


class Daemon(Enum):
    """Whether there is one at the control socket."""

    RUNS = "runs"
    ABSENT = "does not run"
    DEAD = "is dead, and its socket is still there"
    SILENT = "does not answer"
    HIDDEN = "may not be asked by this user"


@dataclass(frozen=True, slots=True)
class Interface:
    name: str
    networks: tuple[IPv4Interface | IPv6Interface, ...]
    "Its global addresses."
    mtu: int


@dataclass(frozen=True, slots=True)
class PortHolder:
    """Who has bound a UDP port on this host."""

    port: int
    pid: int | None
    command: str


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is looked at. What could not be learned is None, or empty."""

    file: Path
    complaint: str = ""
    "About the configuration."
    settings: Config | None = None
    addresses: tuple[Address, ...] = ()
    "Those of this gateway that peers call."
    key: RsaPublicKey | None = None
    key_complaint: str = ""
    state_complaint: str = ""
    "Why nothing can be written into the state directory."
    as_root: bool = True
    daemon: Daemon = Daemon.RUNS
    daemon_pid: int | None = None
    daemon_says: str = ""
    sas: Sequence[Mapping[str, Any]] = ()
    "As `oegw sas` tells them."
    holders: Sequence[PortHolder] = ()
    kernel: Mapping[str, str] = field(default_factory=dict)
    "Complaints of the kernel by what was tried in vain."
    interfaces: Sequence[Interface] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict)
    "By their names below net."
    ruleset: Sequence[Mapping[str, Any]] = ()
    "As `nft -j list ruleset` tells it."
    hidden_rules: bool = False
    "Whether there may be rules of NAT that it does not tell."
    synchronized: bool | None = None
    "Whether the kernel's clock is steered."
    now: float = 0.0
    "UNIX time."
    anchors_refreshed: float | None = None
    "UNIX time at which the keys of the trust anchor that was longest not seen were seen; 0 for never."
    anchors_complaint: str = ""
    hosts: tuple[Address, ...] = ()
    "Clients whose records are to be looked at."
    dns: Mapping[Subject, Mapping[str, Any]] = field(default_factory=dict)
    "What `oegw dns` says of each subject."
    dns_complaint: str = ""
