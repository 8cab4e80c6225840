"""Set-ups broken in the DNS, each made with real servers: the doctor's first line names the cause.

Those that need a kernel are made in tests/lab/test_broken_set_ups.py.
"""

import os
import pwd
import socket
from collections.abc import Callable
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from oesvc import config
from oesvc.config import ConfigError
from oesvc.ipsec.flow import Address
from oesvc.ipsec.rsa_key import RsaPublicKey
from oesvc.keys import key_pair
from oesvc.keys.records import delegation_record, ipseckey_record, records
from oesvc.operator import main
from oesvc.operator.doctor.checks import answer, as_text
from oesvc.operator.doctor.facts import Daemon
from oesvc.operator.doctor.gather import KERNEL_PARTS, gather, refused, unwritable, with_dns, with_files
from tests.dns.conftest import OddServer, free_address, running, unused
from tests.operator.doctor.parts import healthy, written
from tests.zones import Endpoint, Zone, build_tree, nsd_conf, root_hints, unbound_conf

GATEWAY, HOST = ip_address("192.1.1.4"), ip_address("192.1.0.65")
OTHER_GATEWAY = ip_address("203.0.113.1")
OF_EXPIRED_ZONE, OF_UNSIGNED_ZONE = ip_address("192.1.2.4"), ip_address("192.1.3.65")


@dataclass(frozen=True)
class World:
    """Keys of a gateway and of another, and the tree of zones in which everything is wrong in one way each."""

    own: RsaPublicKey
    other: RsaPublicKey
    resolver: Endpoint
    anchor: Path


@dataclass(frozen=True)
class Case:
    """One set-up: a gateway and a host behind it, and the records that are theirs."""

    name: str
    cause: str
    gateway: Address = GATEWAY
    host: Address = HOST
    records: Callable[[RsaPublicKey, RsaPublicKey], list[str]] = lambda own, other: []


def gateway_case(name, number, records_of, cause):
    return Case(name, cause, gateway=ip_address(f"192.1.1.{number}"), records=records_of)


def host_case(name, number, records_of, cause):
    return Case(name, cause, host=ip_address(f"192.1.0.{number}"), records=records_of)


CASES = (
    gateway_case("wrong key in the DNS", 10, lambda own, other: records(ip_address("192.1.1.10"), [], other),
                 "the key in the DNS is not this gateway's: 10.1.1.192.in-addr.arpa. has RSA-2048"),
    gateway_case("missing reverse record of the gateway", 11, lambda own, other: [],
                 "no key of this gateway is in the DNS: there is no KEY record at 11.1.1.192.in-addr.arpa."),
    gateway_case("RFC 2317 alias of the gateway broken", 12,
                 lambda own, other: ["12.1.1.192.in-addr.arpa. IN CNAME 12.0-63.1.1.192.in-addr.arpa."],
                 "no key of this gateway is in the DNS: the alias 12.1.1.192.in-addr.arpa. leads to "),
    host_case("missing reverse record of a host", 10, lambda own, other: [],
              "no record lets this gateway act for 192.1.0.10: there is neither TXT nor IPSECKEY at "
              "10.0.1.192.in-addr.arpa."),
    host_case("wrong gateway in TXT", 11,
              lambda own, other: [delegation_record(ip_address("192.1.0.11"), OTHER_GATEWAY, own)],
              "the TXT record of 192.1.0.11 names the gateway 203.0.113.1, which is not this one (192.1.1.4)"),
    host_case("wrong key in a host's IPSECKEY", 12,
              lambda own, other: [ipseckey_record(ip_address("192.1.0.12"), GATEWAY, other)],
              "the IPSECKEY record of 192.1.0.12 has another key"),
    host_case("mistyped TXT", 13, lambda own, other: ['13.0.1.192.in-addr.arpa. IN TXT "X-IPsec-Server=192.1.1.4"'],
              "a TXT record of 192.1.0.13 cannot be read: 'X-IPsec-Server=192.1.1.4' is not of the form"),
    host_case("RFC 2317 alias broken", 14,
              lambda own, other: ["14.0.1.192.in-addr.arpa. IN CNAME 14.0-63.0.1.192.in-addr.arpa."],
              "no record lets this gateway act for 192.1.0.14: the alias 14.0.1.192.in-addr.arpa. leads to "
              "14.0-63.0.1.192.in-addr.arpa., where there is none (RFC 2317)"),
    Case("expired signature",
         "the TXT record of 192.1.2.4 cannot be believed: the DNSKEY records of 2.1.192.in-addr.arpa.: ",
         gateway=OF_EXPIRED_ZONE,
         records=lambda own, other: records(OF_EXPIRED_ZONE, [], own)),
    Case("unsigned zone of a client", "the records of 192.1.3.65 are not signed", host=OF_UNSIGNED_ZONE,
         records=lambda own, other: [delegation_record(OF_UNSIGNED_ZONE, GATEWAY, own)]),
)


def zones(own, other):
    lines = [*records(GATEWAY, [HOST], own), *(line for case in CASES for line in case.records(own, other))]

    def inside(name):
        return "\n".join(line for line in lines if line.split()[0].endswith(f".{name}"))

    return [*map(Zone, (".", "arpa.", "in-addr.arpa.")),
            *(Zone(name, inside(name)) for name in ("1.1.192.in-addr.arpa.", "0.1.192.in-addr.arpa.")),
            Zone("2.1.192.in-addr.arpa.", inside("2.1.192.in-addr.arpa."), inception="now-40d", expiration="now-10d"),
            Zone("3.1.192.in-addr.arpa.", inside("3.1.192.in-addr.arpa."), signed=False)]


@contextmanager
def served(folder, table):
    """The endpoint of a resolver, and the file of the anchor."""
    root, resolver = free_address(), unused("127.0.0.54")
    tree = build_tree(folder / "zones", table, "ns.example.", [root[0]])
    (folder / "anchor").write_text(tree.anchor + "\n")
    (folder / "hints").write_text(root_hints("ns.example.", [root[0]]))
    with (running(folder, "nsd", nsd_conf(folder, tree, [root]), root),
          running(folder, "unbound", unbound_conf(folder, [resolver], root_hints=folder / "hints"), resolver)):
        yield resolver, folder / "anchor"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    own, other = (key_pair.public_key(key_pair.generate(folder / name)) for name in ("own.pem", "other.pem"))
    with served(folder, zones(own, other)) as (resolver, anchor):
        yield World(own, other, resolver, anchor)


def examined(tmp_path, world, gateway=GATEWAY, host=HOST, daemon=Daemon.RUNS, **different):
    """What the doctor says of a gateway that is healthy but for what the DNS shows: the lines."""
    world = replace(world, **different)
    facts = healthy(tmp_path, f"[dns] servers = {world.resolver[0]}@{world.resolver[1]}",
                    f"[dns] trust-anchors = {world.anchor}")
    clients = (*facts.settings.clients, ip_network("192.1.3.0/24"))
    facts = replace(facts, key=world.own, daemon=Daemon.ABSENT, hosts=(host,), addresses=(gateway,), interfaces=(),
                    settings=replace(facts.settings, addresses=(gateway,), clients=clients))
    facts = with_dns(facts, facts.settings.control_socket)
    return as_text(answer(replace(facts, daemon=daemon))).splitlines()


def test_nothing_is_wrong_where_nothing_is_wrong(tmp_path, world):
    assert examined(tmp_path, world)[0].startswith("all is well: ")


@pytest.mark.conformance("C-5.2-02")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_first_line_names_what_is_wrong_in_the_dns(tmp_path, world, case):
    first, second, *_ = examined(tmp_path, world, case.gateway, case.host)
    assert first.startswith("problem: ") and case.cause in first
    assert second.startswith("    mend it: ")
    if "publish: " in second:
        right = {*records(case.gateway, [case.host], world.own)}
        assert second.partition("publish: ")[2] in right


@pytest.mark.parametrize("dates, cause", [
    ({"inception": "now+10d", "expiration": "now+40d"}, "the clock of this host is behind, or its time zone is wrong: "
     "the keys of the zone . itself are signed from 20"),
    ({"inception": "now-40d", "expiration": "now-10d"}, "the clock of this host is ahead, or its time zone is wrong: "
     "the keys of the zone . itself are signed until 20")])
def test_first_line_names_a_clock_that_is_off(tmp_path, world, dates, cause):
    """To this host a root signed as for another time is the same as a clock that shows another time."""
    with served(tmp_path, [Zone(name, **dates) for name in (".", "arpa.", "in-addr.arpa.")]) as (resolver, anchor):
        first, second, *_ = examined(tmp_path, world, resolver=resolver, anchor=anchor)
    assert cause in first and "timedatectl" in second


def test_first_line_tells_of_records_that_are_published_while_no_daemon_runs(tmp_path, world):
    first, *_ = examined(tmp_path, world, daemon=Daemon.ABSENT)
    assert first == ("problem: no daemon runs, but the records of 192.1.1.4, 192.1.0.65 are published: peers that "
                     "trust them cannot reach you")


def test_first_line_names_a_bogus_trust_anchor(tmp_path, world):
    strange = build_tree(tmp_path / "strange", [Zone(".")], "ns.example.", ["127.0.0.1"])
    (tmp_path / "strange-anchor").write_text(strange.anchor + "\n")
    first, second, *_ = examined(tmp_path, world, anchor=tmp_path / "strange-anchor")
    assert "the trust anchor is wrong: none of the keys of . is its trust anchor" in first
    assert "dns-root-data" in second


def test_first_line_names_a_resolver_that_knows_no_dnssec(tmp_path, world):

    def old_forwarder(question: bytes) -> bytes:
        """Hands on the question alone, as if EDNS had never been invented."""
        end = question.index(b"\0", 12) + 5
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(5)
            sock.sendto(question[:10] + b"\0\0" + question[12:end], world.resolver)
            return sock.recv(65535)

    forwarder = OddServer(unused("127.0.0.54"), old_forwarder)
    with closing(forwarder):
        forwarder.start()
        first, second, *_ = examined(tmp_path, world, resolver=forwarder.endpoint)
    assert "hands on no DNSSEC signatures, so nothing can be believed" in first
    assert "apt install unbound" in second


def test_first_line_tells_that_no_resolver_answers_and_what_becomes_of_the_paranoid_class(tmp_path, world):
    written(tmp_path)
    (tmp_path / "policies" / "private").write_text("203.0.113.0/24\n")
    first, *_ = examined(tmp_path, world, resolver=unused("127.0.0.54"))
    assert "the DNS does not answer, so nothing can be encrypted: " in first
    assert first.endswith("what is of the class `private` cannot be reached, the rest goes in clear")


def test_first_line_names_what_is_wrong_in_a_policy_file_or_the_configuration(tmp_path, capsys):
    file = healthy(tmp_path).file
    (tmp_path / "policies" / "private").write_text("192.0.2.1/24\n")
    assert main.main(["doctor", "--config", str(file)]) == 1
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith(f"problem: the configuration cannot be used: {tmp_path}/policies/private:1: '192.0.2.1/24'")
    file.write_text("[gateway]\nadress = 192.1.1.4\n")
    assert main.main(["doctor", "--config", str(file)]) == 1
    assert f"{file}:2: there is no option adress in [gateway]; did you mean address?" in capsys.readouterr().out
    with pytest.raises(ConfigError):
        config.load(file)


def test_first_line_tells_that_the_key_file_is_missing_or_open_to_others(tmp_path):
    facts = healthy(tmp_path)
    missing = as_text(answer(with_files(facts, facts.settings))).splitlines()[0]
    assert missing.startswith(f"problem: the private key cannot be used: {tmp_path}/key.pem: there is no such file")
    key_pair.generate(tmp_path / "key.pem")
    (tmp_path / "key.pem").chmod(0o644)
    first, second, *_ = as_text(answer(with_files(facts, facts.settings))).splitlines()
    assert "others may read it (mode 0644)" in first and second.endswith(f"chmod 600 {tmp_path}/key.pem")


def test_first_line_tells_that_the_key_belongs_to_another_user_than_the_daemon(tmp_path):
    facts = healthy(tmp_path)
    key_pair.generate(tmp_path / "key.pem")
    assert with_files(facts, facts.settings).key_complaint == ""
    os.chown(tmp_path, pwd.getpwnam("nobody").pw_uid, -1)
    first, second, *_ = as_text(answer(with_files(facts, facts.settings))).splitlines()
    assert first.endswith("key.pem: it belongs to user root; the daemon, which runs as nobody, cannot read it")
    assert second.endswith(f"chown --reference={tmp_path} {tmp_path}/key.pem")


def test_first_line_names_a_part_that_the_kernel_does_not_have(tmp_path):
    cipher = "ip xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 1 mode tunnel aead 'rot13(aes)' 0x13 128"
    missing = refused({"a cipher that nobody has": cipher, "nothing": "true"})
    assert list(missing) == ["a cipher that nobody has"]
    assert "this kernel has no a cipher that nobody has: " in as_text(
        answer(replace(healthy(tmp_path), kernel=missing))).splitlines()[0]
    assert set(refused(KERNEL_PARTS)) <= set(KERNEL_PARTS)


def test_state_directory_that_is_none_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    assert unwritable(tmp_path) == ""
    assert unwritable(tmp_path / "file") == "Not a directory"
    assert unwritable(tmp_path / "none") == "No such file or directory"


def test_first_line_tells_of_a_socket_that_a_dead_daemon_left(tmp_path):
    facts = healthy(tmp_path)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(facts.settings.control_socket))
    found = gather(facts.file)
    assert found.daemon is Daemon.DEAD
    assert "is left of one that died" in as_text(answer(replace(facts, daemon=found.daemon))).splitlines()[0]
