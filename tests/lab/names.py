"""The DNS of the lab: the chain `.`, `arpa.`, `in-addr.arpa.`, `ip6.arpa.` and the reverse zones of its networks.

All zones are signed by BIND's tools and served by one nsd on the host `dns`; each gateway has an unbound of its own,
a plain recursive resolver without validation (RFC 4322 section 2.3.1: the records are in the reverse maps).
"""

import json
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

from oesvc.ipsec.rsa_key import RsaPublicKey
from oesvc.keys.key_pair import BITS
from oesvc.keys.records import delegation_record, ipseckey_record, key_record, records
from tests.lab.keys import public_keys
from tests.lab.network import ROOT, Host, Network, address_of
from tests.zones import Zone, ZoneTree, build_tree, nsd_conf, root_hints, unbound_conf

NAME_SERVER = "ns.test."
SERVED_AT = [address_of("dns", version) for version in (4, 6)]
RESOLVE_IN = {4: "server:\n  do-ip6: no\n", 6: "server:\n  do-ip4: no\n"}
"For an unbound that asks name servers in one family only."
KEPT_ZONES = ROOT / ".cache/lab-zones"
RENEWAL = 7 * 86400
"Seconds; `build_tree` signs for 30 days."
CLIENTS = {"alice": "sg-a", "bob": "sg-b"}
"Whose gateway speaks for whom."
NAMED = ("sg-a", "laptop")
"Who is known by name too, `sg-a.test`, and has its key there (RFC 4322 section 5.3)."
NAMED_ALICES = ("192.1.0.80", "2001:db8:1::80")
"Further addresses of Alice's, which delegate to SG-A by its name."
CROSSED = (("192.1.0.85", "sg-a", 6), ("192.2.0.90", "sg-b", 6), ("2001:db8:1::85", "sg-a", 4))
"Hosts that delegate to a gateway's address of the other IP version."
SPARE_BOBS = tuple(f"192.2.0.{number}" for number in range(100, 200))
"Further addresses of Bob's that SG-B speaks for: a new flow each. `Network` gives them to nobody."
BY_CLASS = {"alice": {4: [f"192.1.0.{number}" for number in range(101, 106)],
                      6: [f"2001:db8:1::{number}" for number in range(101, 106)]},
            "bob": {4: list(SPARE_BOBS[:5]), 6: [f"2001:db8:2::{number}" for number in range(101, 106)]}}
"Further addresses of Alice's and Bob's, one for each class; SG-A and SG-B speak for them."
SPARE_BOB6 = "2001:db8:2::100"
"One more in IPv6."
TWO_EXITS = {4: "192.1.0.70", 6: "2001:db8:1::70"}
"Addresses of Alice's that both SG-A and SG-D speak for, with the same precedence. `Network` gives them to nobody."
BROKEN = {"another gateway in TXT": "192.1.0.151", "another key in IPSECKEY": "192.1.0.152",
          "mistyped TXT": "192.1.0.153", "alias that leads nowhere": "192.1.0.154"}
"Addresses in Alice's network whose records are wrong, each in its way; and one that has none."
WITHOUT_RECORD = "192.1.0.155"
OF_EXPIRED_ZONE, OF_UNSIGNED_ZONE = "192.1.9.65", "192.1.8.65"
"Hosts for which SG-A speaks in zones that are to blame."
BAD_ZONES = (Zone("9.1.192.in-addr.arpa.", inception="now-40d", expiration="now-10d"),
             Zone("8.1.192.in-addr.arpa.", signed=False))
ZONES = (".", "arpa.", "in-addr.arpa.", "0.1.192.in-addr.arpa.", "1.1.192.in-addr.arpa.", "0.2.192.in-addr.arpa.",
         *(zone.name for zone in BAD_ZONES), "ip6.arpa.", "8.b.d.0.1.0.0.2.ip6.arpa.")


def reverse_name(address: str) -> str:
    """`65.0.1.192.in-addr.arpa.` of 192.1.0.65."""
    return ip_address(address).reverse_pointer + "."


def canonical_records(keys: Mapping[str, RsaPublicKey]) -> list[str]:
    """What the gateways publish for themselves, Alice and Bob: SG-A and SG-B for both IP versions."""
    canonical = [record for version in (4, 6) for client, gateway in CLIENTS.items()
                 for record in records(ip_address(address_of(gateway, version)),
                                       [ip_address(address_of(client, version))], keys[gateway])]
    spare = [delegation_record(ip_address(bob), ip_address(address_of("sg-b", ip_address(bob).version)), keys["sg-b"])
             for bob in (*SPARE_BOBS, SPARE_BOB6)]
    spare += [delegation_record(ip_address(host), ip_address(address_of(gateway, version)), keys[gateway])
              for client, gateway in CLIENTS.items() for version in (4, 6)
              for host in BY_CLASS[client][version] if host not in SPARE_BOBS]
    two_exits = [delegation_record(ip_address(alice), ip_address(address_of(gateway, version)), keys[gateway])
                 for version, alice in TWO_EXITS.items() for gateway in ("sg-a", "sg-d")]
    second = [record for version in TWO_EXITS
              for record in records(ip_address(address_of("sg-d", version)), [], keys["sg-d"])]
    crossed = [delegation_record(ip_address(host), ip_address(address_of(gateway, version)), keys[gateway])
               for host, gateway, version in CROSSED]
    named = [key_record(f"{name}.test", keys[name]) for name in NAMED]
    named += [delegation_record(ip_address(alice), "sg-a.test", keys["sg-a"]) for alice in NAMED_ALICES]
    return canonical + spare + two_exits + second + crossed + named + broken_records(keys)


def broken_records(keys: Mapping[str, RsaPublicKey]) -> list[str]:
    """For tests/lab/test_broken_set_ups.py."""
    stranger, sg_a = ip_address("203.0.113.1"), ip_address(address_of("sg-a"))
    alias = reverse_name(BROKEN["alias that leads nowhere"])
    return [delegation_record(ip_address(BROKEN["another gateway in TXT"]), stranger, keys["sg-a"]),
            ipseckey_record(ip_address(BROKEN["another key in IPSECKEY"]), sg_a, keys["sg-b"]),
            f'{reverse_name(BROKEN["mistyped TXT"])} IN TXT "X-IPsec-Server={sg_a}"',
            f"{alias} IN CNAME {alias.replace('.', '.0-255.', 1)}",
            *(delegation_record(ip_address(host), sg_a, keys["sg-a"]) for host in (OF_EXPIRED_ZONE, OF_UNSIGNED_ZONE))]


def signed_zones(lines: Iterable[str], names: Sequence[str] = ZONES) -> list[Zone]:
    """The lab's table of zones, each record (a line of a zone file) in the nearest zone above its owner."""
    inside: dict[str, list[str]] = {name: [] for name in names}
    for line in lines:
        owner = line.split()[0]
        inside[max((name for name in names if f".{owner}".endswith(f".{name.lstrip('.')}")), key=len)].append(line)
    bad = {zone.name: zone for zone in BAD_ZONES}
    return [replace(bad.get(name, Zone(name)), records="\n".join(own)) for name, own in inside.items()]


def canonical_tree(bits: int = BITS) -> ZoneTree:
    """The lab's usual zones, signed, with RSA keys of so many bits for the gateways.

    They are made anew when their records or keys have changed, or their signatures age.
    """
    folder = KEPT_ZONES / str(bits)
    zones = signed_zones(canonical_records(public_keys(bits)))
    wanted, built = repr([SERVED_AT, *((zone.name, zone.records) for zone in zones)]), folder / "table"
    if not built.exists() or built.read_text() != wanted or time.time() - built.stat().st_mtime > RENEWAL:
        shutil.rmtree(folder, ignore_errors=True)
        tree = build_tree(folder, zones, NAME_SERVER, SERVED_AT)
        (folder / "anchor").write_text(tree.anchor)
        (folder / "files").write_text(json.dumps({name: str(file) for name, file in tree.files.items()}))
        built.write_text(wanted)
    files = json.loads((folder / "files").read_text())
    return ZoneTree((folder / "anchor").read_text(), {name: Path(file) for name, file in files.items()})


def serve_names(net: Network, tree: ZoneTree, resolvers: Iterable[str] = ("sg-a", "sg-b")) -> None:
    """Serve a tree of zones on `dns`, start an unbound on each of `resolvers`, and wait until all answer.

    The tree's anchor is written to `net.folder / "root.key"`, for the gateways to trust.
    """
    server = net["dns"]
    (net.folder / "root.key").write_text(f"{tree.anchor}\n")
    (net.folder / "root.hints").write_text(root_hints(NAME_SERVER, SERVED_AT))
    (net.folder / "nsd.conf").write_text(nsd_conf(net.folder, tree, [(address, 53) for address in SERVED_AT]))
    server.popen(["nsd", "-d", "-c", str(net.folder / "nsd.conf")], "nsd.log")
    for name in resolvers:
        file = net.folder / f"unbound-{name}.conf"
        file.write_text(unbound_conf(net.folder, [("127.0.0.1", 53)], root_hints=net.folder / "root.hints")
                        + RESOLVE_IN[4])
        net[name].popen(["unbound", "-d", "-c", str(file)], f"unbound-{name}.log")
    wait_for_answer(server, SERVED_AT[0])
    for name in resolvers:
        wait_for_answer(net[name], "127.0.0.1")


def wait_for_answer(host: Host, server: str, limit: float = 60) -> None:
    """Ask `server` for the root's SOA, seen from `host`, until it answers without error."""
    query = b"\x4f\x45\x01\x00\x00\x01" + bytes(6) + b"\x00\x00\x06\x00\x01"
    deadline = time.monotonic() + limit
    with host.socket() as asker:
        asker.settimeout(0.5)
        asker.connect((server, 53))
        while time.monotonic() < deadline:
            try:
                asker.send(query)
                answer = asker.recv(4096)
            except (TimeoutError, ConnectionRefusedError):
                time.sleep(0.1)
                continue
            if len(answer) > 12 and answer[:2] == query[:2] and answer[3] & 15 == 0:
                return
    raise RuntimeError(f"no answer from {server} at {host.name} within {limit:.0f} s")
