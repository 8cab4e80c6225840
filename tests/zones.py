"""Trees of signed zones for tests and the lab, made by BIND's tools from a table; configurations to serve them.

`build_tree` signs from the leaves up, so that each parent holds the delegations (NS, DS) of its children. What a
test wants broken is said in the table: dates, keys, absent DS, and `edit` for what is cut from signed zones.
"""

import ipaddress
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

Endpoint = tuple[str, int]
"Address and port of a server."


class DelegationSigner(Enum):
    """What the parent publishes for a signed zone."""

    RIGHT = "its DS"
    ABSENT = "no DS: an island"
    FORGED = "the DS of a key that is not in the zone"
    OF_UNKNOWN_DIGEST = "its DS, said to be of a digest that nobody knows"
    OF_UNKNOWN_ALGORITHM = "its DS, said to be of an algorithm that nobody knows"


def unchanged(text: str) -> str:
    return text


@dataclass(frozen=True)
class Zone:
    """One row of the table. Records are lines of a zone file; SOA, NS and delegations are added."""

    name: str
    "Absolute, as in a zone file: `2.0.192.in-addr.arpa.`"
    records: str = ""
    signed: bool = True
    algorithm: str = "ECDSAP256SHA256"
    "dnssec-keygen's word for it."
    key_bits: int | None = None
    "For RSA."
    more_algorithms: tuple[str, ...] = ()
    "In which the zone is signed too, with a DS for each."
    inception: str = "now-1d"
    expiration: str = "now+30d"
    "dnssec-signzone's -s and -e; absolute times are YYYYMMDDHHMMSS."
    nsec3: str | None = None
    "The salt in hexadecimal, `-` for none; without it, NSEC."
    iterations: int = 0
    "More than 150: signed by ldns-signzone, from now on and for four weeks; dnssec-signzone refuses."
    opt_out: bool = False
    delegation_signer: DelegationSigner = DelegationSigner.RIGHT
    edit: Callable[[str], str] = unchanged
    "Applied to the signed zone, one record a line."
    ttl: int = 3600
    minimum: int = 300
    name_server: str = ""
    "Another than the tree's."


@dataclass(frozen=True)
class ZoneTree:
    """The files of a built tree."""

    anchor: str
    "The root's DS, as a zone-file line."
    files: dict[str, Path]


def build_tree(directory: Path, zones: Sequence[Zone], name_server: str = "ns.test.",
               addresses: Sequence[str] = ("127.0.0.10",)) -> ZoneTree:
    """Make keys, sign the zones and write them to `directory`. The table must hold the root.

    All zones are served by `name_server`, whose addresses are put into the zone that holds its name.
    """
    directory.mkdir(parents=True, exist_ok=True)
    names = [zone.name for zone in zones]
    leaves_first = sorted(zones, key=lambda zone: _depth(zone.name), reverse=True)
    delegations: dict[str, list[str]] = {name: [] for name in names}
    home = _enclosing(name_server, names)
    delegations[home] += [_address_record(name_server, address) for address in addresses]
    files: dict[str, Path] = {}
    ds = ""
    for zone in leaves_first:
        text = _unsigned_text(zone, name_server, delegations[zone.name])
        files[zone.name], ds = _sign(directory, zone, text)
        if zone.name != ".":
            parent = delegations[_enclosing(_parent(zone.name), names)]
            parent.append(f"{zone.name} {zone.ttl} IN NS {zone.name_server or name_server}")
            if zone.signed and zone.delegation_signer is not DelegationSigner.ABSENT:
                parent.append(ds)
    return ZoneTree(anchor=ds, files=files)


def nsd_conf(directory: Path, tree: ZoneTree, listen: Iterable[Endpoint]) -> str:
    """Configuration of an nsd that serves the whole tree, in the foreground with `nsd -d -c FILE`."""
    server = [f"  ip-address: {address}@{port}" for address, port in listen]
    zones = [f'zone:\n  name: "{name}"\n  zonefile: "{path}"' for name, path in tree.files.items()]
    return "\n".join(["server:", *server,
                      "  username: \"\"", "  chroot: \"\"", f'  zonesdir: "{directory}"', '  database: ""',
                      f'  pidfile: "{directory}/nsd.pid"', f'  xfrdfile: "{directory}/nsd.xfrd"',
                      f'  zonelistfile: "{directory}/nsd.zones"', "  server-count: 1", "  rrl-ratelimit: 0",
                      "remote-control:", "  control-enable: no", *zones, ""])


def unbound_conf(directory: Path, listen: Iterable[Endpoint], *, stubs: Iterable[tuple[str, Endpoint]] = (),
                 root_hints: Path | None = None, anchor: Path | None = None) -> str:
    """Configuration of an unbound, in the foreground with `unbound -d -c FILE`; it validates when given an anchor.

    Its sources are `stubs` (zone, server: for servers on other ports than 53) or a root hints file.
    """
    modules = "validator iterator" if anchor else "iterator"
    lines = ["server:", *(f"  interface: {address}@{port}" for address, port in listen),
             '  username: ""', '  chroot: ""', f'  directory: "{directory}"',
             f'  pidfile: "{directory}/unbound.pid"',
             "  use-syslog: no", "  do-daemonize: no", "  num-threads: 1", "  access-control: 0.0.0.0/0 allow",
             "  access-control: ::/0 allow", "  do-not-query-localhost: no", "  unblock-lan-zones: yes",
             '  local-zone: "test." nodefault',
             "  val-sig-skew-min: 0", "  val-sig-skew-max: 0", "  trust-anchor-signaling: no",
             f'  module-config: "{modules}"']
    if anchor:
        lines.append(f'  trust-anchor-file: "{anchor}"')
    if root_hints:
        lines.append(f'  root-hints: "{root_hints}"')
    lines += ["remote-control:", "  control-enable: no"]
    for zone, (address, port) in stubs:
        lines += ["stub-zone:", f'  name: "{zone}"', f"  stub-addr: {address}@{port}"]
    return "\n".join([*lines, ""])


def root_hints(name_server: str = "ns.test.", addresses: Iterable[str] = ("127.0.0.10",)) -> str:
    """A root hints file for resolvers that find the tree's servers at port 53."""
    return "\n".join([f". 3600 IN NS {name_server}",
                      *(_address_record(name_server, address) for address in addresses), ""])


def txt(*strings: str) -> str:
    """RDATA of a TXT record in a zone file; each string is cut to character-strings of 255 octets."""
    pieces = [string[i:i + 255] for string in strings for i in range(0, max(len(string), 1), 255)]
    return " ".join(f'"{piece}"' for piece in pieces)


def _depth(name: str) -> int:
    return 0 if name == "." else name.count(".")


def _parent(name: str) -> str:
    return name.partition(".")[2] or "."


def _enclosing(name: str, zones: Sequence[str]) -> str:
    """The zone of the table that holds `name`."""
    while name not in zones:
        if name == ".":
            raise ValueError("the table lacks the root zone")
        name = _parent(name)
    return name


def _address_record(name: str, address: str) -> str:
    rdtype = "A" if ipaddress.ip_address(address).version == 4 else "AAAA"
    return f"{name} 3600 IN {rdtype} {address}"


def _unsigned_text(zone: Zone, name_server: str, delegations: Sequence[str]) -> str:
    soa = f"@ IN SOA {name_server} hostmaster.test. 1 3600 600 86400 {zone.minimum}"
    return "\n".join([f"$ORIGIN {zone.name}", f"$TTL {zone.ttl}", soa, f"@ IN NS {zone.name_server or name_server}",
                      zone.records, *delegations, ""])


def _sign(directory: Path, zone: Zone, text: str) -> tuple[Path, str]:
    """Write the zone's file; returns it and the DS for the parent ("" for an unsigned zone)."""
    # No `/` (RFC 2317) and no `%`, which nsd would expand, in the names of files.
    stem = "root" if zone.name == "." else zone.name.rstrip(".").replace("/", "_")
    plain, signed = directory / f"{stem}.zone", directory / f"{stem}.signed"
    if not zone.signed:
        plain.write_text(zone.edit(text))
        return plain, ""
    algorithms = (zone.algorithm, *zone.more_algorithms)
    ksks = [_make_key(directory, zone, algorithm, "-f", "KSK") for algorithm in algorithms]
    zsks = [_make_key(directory, zone, algorithm) for algorithm in algorithms]
    keys = "".join((directory / f"{key}.key").read_text() for key in (*ksks, *zsks))
    plain.write_text(text + keys)
    if zone.iterations > 150:
        run(directory, "ldns-signzone", "-n", "-t", str(zone.iterations), "-s", zone.nsec3 or "-", "-o", zone.name,
             "-f", signed.name, plain.name, *ksks, *zsks)
    else:
        denial = [] if zone.nsec3 is None else ["-3", zone.nsec3, "-H", str(zone.iterations)]
        run(directory, "dnssec-signzone", "-q", "-P", "-x", "-O", "full", "-K", ".", "-o", zone.name,
             "-s", zone.inception, "-e", zone.expiration, *denial, *(["-A"] if zone.opt_out else []),
             "-f", signed.name, *(word for ksk in ksks for word in ("-k", ksk)), plain.name, *zsks)
    signed.write_text(zone.edit(signed.read_text()))
    return signed, _delegation_signers(directory, zone, ksks)


def _delegation_signers(directory: Path, zone: Zone, ksks: Sequence[str]) -> str:
    if zone.delegation_signer is DelegationSigner.FORGED:
        ksks = [_make_key(directory, zone, zone.algorithm, "-f", "KSK")]
    lines = [run(directory, "dnssec-dsfromkey", "-2", ksk).split() for ksk in ksks]
    for words in lines:  # owner IN DS tag algorithm digest-type digest
        if zone.delegation_signer is DelegationSigner.OF_UNKNOWN_DIGEST:
            words[5] = "99"
        if zone.delegation_signer is DelegationSigner.OF_UNKNOWN_ALGORITHM:
            words[4] = "99"
    return "\n".join(" ".join(words) for words in lines)


def _make_key(directory: Path, zone: Zone, algorithm: str, *options: str) -> str:
    size = ["-b", str(zone.key_bits or 2048)] if algorithm.startswith(("RSA", "NSEC3RSA")) else []
    key = ("-K", ".", "-a", algorithm, *size, *options, zone.name)
    return run(directory, "dnssec-keygen", "-q", *key).strip()


def run(directory: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr or done.stdout}")
    return done.stdout
