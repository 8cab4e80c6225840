"""What must never go in clear, as the policy last put in force has it: for a boot at which the files have an error.

Without it a slip of the pen, which a reload refuses, would at the next boot open what it was about.
"""

import configparser
import json
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from oesvc.config import OPTIONS, Config, ConfigError
from oesvc.config_values import interface, translation
from oesvc.ipsec.ports import Ports
from oesvc.ipsec.subnets import Subnets
from oesvc.kernel.plane_config import PlaneConfig
from oesvc.plane_settings import plane_config

FILE_NAME = "closed.json"
VERSION = 1
MODE = 0o600
MOST = 64 << 20
"Octets that are read."

NETWORKS = ("clients", "never_clear", "spared")
OTHERS: dict[str, Callable[[str], Any]] = {"own": ip_address, "inside": interface, "translated": translation}
"By the names that they have in PlaneConfig, as NETWORKS; and how each is read."


@dataclass(frozen=True, slots=True)
class Closing:
    """All that `oesvc.closed` has to know."""

    plane: PlaneConfig
    control_socket: Path


def closing_of(config: Config) -> Closing:
    return Closing(plane_config(config, config.addresses), config.control_socket)


def keep(config: Config) -> None:
    """Replace what is kept: whenever the machine stops, the old or the new one is there. Raises OSError."""
    file = config.state_directory / FILE_NAME
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = file.with_name(FILE_NAME + ".new")
    beside.unlink(missing_ok=True)
    directory = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE), "w", encoding="utf-8") as new:
            owner = os.fstat(directory).st_uid
            if os.fstat(new.fileno()).st_uid != owner:
                os.fchown(new.fileno(), owner, -1)  # the daemon was started by root's hand
            new.write(written(closing_of(config)))
            new.flush()
            os.fsync(new.fileno())
        beside.replace(file)
        os.fsync(directory)
    finally:
        os.close(directory)


def written(closing: Closing) -> str:
    plane = closing.plane
    return json.dumps({
        "version": VERSION, "control_socket": str(closing.control_socket),
        **{name: [str(one) for one in getattr(plane, name)] for name in (*NETWORKS, *OTHERS)},
        "port_rules": [[str(network), [ports.protocol, ports.source, ports.destination], dropped]
                       for network, ports, dropped in plane.port_rules],
        "configured": [[*subnets.ends, reqid] for subnets, reqid in plane.configured.items()],
    }, indent=1) + "\n"


def state_directory(file: Path) -> Path:
    """Where it is, as far as a configuration with an error tells; else the default."""
    parser = configparser.ConfigParser(strict=False, interpolation=None, inline_comment_prefixes=("#", ";"))
    with suppress(OSError, UnicodeDecodeError, configparser.Error):
        parser.read_string(file.read_text("utf-8"))
    reader, default = OPTIONS["paths", "state"]
    with suppress(ValueError):
        return Path(reader(parser.get("paths", "state", fallback=default)))
    return Path(default)


def read_kept(file: Path) -> Closing:
    """Raises ConfigError where there is none, where it is no such thing, or where another could have written it."""
    try:
        return _closing(json.loads(_trusted_text(file)))
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{file}: this is not what oegw keeps there: {error!r}") from None


def _trusted_text(file: Path) -> str:
    """Of a file that the owner of the directory, and nobody else, can have written. Raises OSError or ConfigError."""
    with os.fdopen(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as opened:
        found, directory = os.fstat(opened.fileno()), file.parent.stat()
        if not stat.S_ISREG(found.st_mode) or stat.S_IMODE(found.st_mode) != MODE:
            raise ConfigError(f"{file}: its mode is {stat.filemode(found.st_mode)}, not {stat.filemode(MODE)[1:]}")
        if found.st_uid != directory.st_uid:
            raise ConfigError(f"{file}: its owner is {found.st_uid}, and that of {file.parent} {directory.st_uid}")
        if directory.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ConfigError(f"{file}: others than its owner may write into {file.parent}")
        return opened.read(MOST).decode("utf-8")


def _closing(read: Any) -> Closing:
    """Raises ValueError, KeyError, TypeError or AttributeError."""
    if read["version"] != VERSION:
        raise ValueError(f"its version is {read['version']}")
    parts: dict[str, Any] = {
        name: tuple(map(reader, read[name]))
        for name, reader in (dict.fromkeys(NETWORKS, ip_network) | OTHERS).items()}
    rules = tuple((ip_network(network), Ports(*map(int, ports)), bool(dropped))
                  for network, ports, dropped in read["port_rules"])
    configured = {Subnets.between(ip_network(source), ip_network(destination)): int(reqid)
                  for source, destination, reqid in read["configured"]}
    return Closing(PlaneConfig(**parts, port_rules=rules, configured=configured), Path(read["control_socket"]))
