"""Policy files: those of FreeS/WAN and libreswan, ports, and classes of an administrator's own."""

from functools import partial
from ipaddress import ip_network

import pytest

from oesvc import config
from oesvc.ipsec.ports import Ports
from oesvc.oe.aging import Lifespans
from oesvc.oe.authorization import DnssecPolicy
from oesvc.oe.classes import ConnectionClass
from tests.configuration import write_configuration


@pytest.fixture
def write(tmp_path):
    return partial(write_configuration, tmp_path)


LIBRESWAN = {
    "block": "# This file defines the set of CIDRs (network/mask-length)\n#\n",
    "clear": "# root name servers should be in the clear\n193.110.157.0/24 # one\n10.0.0.0/8 tcp 0 22\n"
             "10.0.0.0/8  udp  500 0\n2001:db8:53::/48 tcp 0 0\n",
    "clear-or-private": "192.168.1.0/24\n",
    "private": "10.1.0.0/16\n  2001:db8::/32\n",
    "private-or-clear": "0.0.0.0/0\n::/0\n192.0.2.7\n",
    "portexcludes.conf": "# direction protocol source dest priority\n#in tcp any 22 1023\n",
}


def put(folder, files):
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)


@pytest.mark.conformance("C-3.2-05", "C-3.2-06")
def test_policy_groups_of_libreswan_are_read_as_they_are(tmp_path):
    put(tmp_path / "policies", LIBRESWAN)
    (tmp_path / "oegw.conf").write_text(f"[paths]\npolicies = {tmp_path}/policies\n")
    read = config.load(tmp_path / "oegw.conf")
    assert {str(line.network): line.connection_class for line in read.policies} == {
        "193.110.157.0/24": ConnectionClass.ALWAYS_CLEAR_TEXT, "192.168.1.0/24": ConnectionClass.PASSIVE,
        "10.1.0.0/16": ConnectionClass.OE_PARANOID, "2001:db8::/32": ConnectionClass.OE_PARANOID,
        "0.0.0.0/0": ConnectionClass.OE_PERMISSIVE, "::/0": ConnectionClass.OE_PERMISSIVE,
        "192.0.2.7/32": ConnectionClass.OE_PERMISSIVE}
    assert {(str(line.network), line.ports, line.dropped) for line in read.port_lines} == {
        ("10.0.0.0/8", Ports(6, 0, 22), False), ("10.0.0.0/8", Ports(17, 500, 0), False),
        ("2001:db8:53::/48", Ports(6), False)}


def test_two_directories_are_read_as_one_and_what_they_disagree_about_is_an_error(tmp_path):
    put(tmp_path / "ours", {"private": "192.0.2.0/24\n"})
    put(tmp_path / "theirs", {"private": "198.51.100.0/24\n192.0.2.0/24\n", "clear": "203.0.113.0/24\n"})
    file = tmp_path / "oegw.conf"
    file.write_text(f"[paths]\npolicies = {tmp_path}/ours {tmp_path}/theirs\n")
    assert {str(line.network) for line in config.load(file).policies} == {
        "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"}
    (tmp_path / "ours/block").write_text("203.0.113.0/24\n")
    with pytest.raises(config.ConfigError, match=r"theirs/clear:1: .* here and deny at .*ours/block:1"):
        config.load(file)


@pytest.mark.conformance("C-3.2-05")
def test_ports_are_excepted_beside_their_prefix(write):
    read = config.load(write(private_or_clear="192.0.2.0/24 except tcp/80, TCP/443 icmp 47\n",
                             block="10.0.0.0/8 6 25 0\n"))
    assert {(line.ports, line.dropped) for line in read.port_lines} == {
        (Ports(6, 0, 80), False), (Ports(6, 0, 443), False), (Ports(1), False), (Ports(47), False),
        (Ports(6, 25, 0), True)}
    assert [line.network for line in read.policies] == [ip_network("192.0.2.0/24")]
    assert "10.0.0.0/8 tcp from port 25 is dropped (" in str(read.port_lines[0])


@pytest.mark.parametrize("files, complaint", [
    ({"private": "192.0.2.0/24 except tcp/80\n"}, r"private:1: private is never in clear; .* 192.0.2.0/24 tcp 0 22"),
    ({"block": "192.0.2.0/24 except tcp/80\n"}, r"block:1: block is never in clear"),
    ({"private_or_clear": "192.0.2.0/24 tcp 0 22\n"}, r"private-or-clear:1: what is encrypted is decided for pairs"),
    ({"clear": "192.0.2.0/24 tcp 22\n"}, r"clear:1: 'tcp 22' is neither"),
    ({"clear": "192.0.2.0/24 tpc 0 22\n"}, r"clear:1: 'tpc' is no protocol: there are icmp, tcp"),
    ({"clear": "192.0.2.0/24 tcp 0 ssh\n"}, r"clear:1: 'ssh' is no port: that is a number up to 65535"),
    ({"clear": "192.0.2.0/24 icmp 0 22\n"}, r"clear:1: icmp has no ports"),
    ({"private_or_clear": "192.0.2.0/24 except\n"}, r"private-or-clear:1: 'except' is neither"),
    ({"clear": "192.0.2.0/24 tcp 0 22\n", "block": "192.0.2.0/24 tcp 0 22\n"},
     r"clear:1: 192.0.2.0/24 tcp to port 22 is in clear .*, but .* is dropped \(.*block:1\); remove one"),
])
def test_wrong_ports_say_where_and_what_would_be_right(write, files, complaint):
    with pytest.raises(config.ConfigError, match=complaint):
        config.load(write(**files))


def test_rule_in_the_port_excludes_of_libreswan_is_not_ignored(write, tmp_path):
    file = write()
    (tmp_path / "policies/portexcludes.conf").write_text("\nin tcp any 22 1023\n")
    with pytest.raises(config.ConfigError, match=r"portexcludes.conf:2: ports are excepted by lines of the file clear"):
        config.load(file)


OWN = """
[class bank]
base = private-or-clear
dnssec = require
on-bad-record = absent
on-dns-failure = deny
keying-time = 3
icmp-on-deny = yes
first = 30
"""


@pytest.mark.conformance("C-3.2-06", "C-3.2.4-13", "C-9.1-02")
def test_class_of_ones_own_has_a_file_and_options(write):
    read = config.load(write(f"{OWN}[lifespans]\nused = 99", bank="192.0.2.0/24\n", private="198.51.100.0/24\n"))
    bank, private = sorted(read.policies, key=lambda line: line.network)
    assert str(bank).startswith("192.0.2.0/24 is bank (OE-permissive) (")
    assert (bank.connection_class, bank.options.dnssec) == (ConnectionClass.OE_PERMISSIVE, DnssecPolicy.REQUIRE)
    assert bank.options.bad_record_is_absence and bank.options.dns_failure_denies and bank.options.icmp_on_deny
    assert (bank.options.keying_time, bank.options.lifespans) == (3.0, Lifespans(first=30.0, used=99.0))
    assert (private.options.dnssec, private.options.lifespans) == (DnssecPolicy.PREFER, None)


def test_class_of_ones_own_can_be_the_default(write):
    read = config.load(write(f"{OWN}[policy]\ndefault = bank"))
    assert read.class_table().find(ip_network("192.0.2.1").network_address).options.name == "bank"


@pytest.mark.parametrize("text, complaint", [
    ("[class bank]", r"oegw.conf:1: base: '' is none of block, clear, clear-or-private"),
    ("[class bank]\nbase = privat", r"oegw.conf:2: base: 'privat' is none of"),
    ("[class private]\nbase = private", r"oegw.conf:1: class private: the class private is there already"),
    ("[class My Bank]\nbase = private", r"oegw.conf:1: class My Bank: 'My Bank' cannot be the name of a policy file"),
    ("[class bank]\nbase = private\non-dns-failure = clear", r"oegw.conf:3: on-dns-failure: .* never in clear"),
    ("[class bank]\nbase = clear\ndnssec = require", r"oegw.conf:3: dnssec: counts for nothing in .* based on clear"),
    ("[class bank]\nbase = clear\ndns-sec = require", r"oegw.conf:3: there is no option dns-sec .* mean dnssec"),
    ("[class bank]\nbase = clear\nkeying-time = 0", r"oegw.conf:3: keying-time: 0 is not between 1 and 300"),
    ("[policy]\ndefault = bnk\n[class bank]\nbase = clear", r"oegw.conf:2: default: 'bnk' is no class; .* bank"),
])
def test_wrong_class_says_where_and_what_would_be_right(write, text, complaint):
    with pytest.raises(config.ConfigError, match=complaint):
        config.load(write(text))
