"""The configuration: what it says when it is right, and what it says when it is wrong."""

import hashlib
from dataclasses import fields
from functools import partial
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from oesvc import config
from oesvc.config_values import NameServer
from oesvc.ike.identity import AddressIdentity, FqdnIdentity
from oesvc.ike.v1.config import EngineConfig
from oesvc.oe.authorization import DnssecPolicy
from oesvc.oe.classes import ConnectionClass
from oesvc.policy_files import GROUPS
from tests.configuration import write_configuration

SHIPPED = Path(__file__).parent.parent / "etc"


@pytest.fixture
def write(tmp_path):
    return partial(write_configuration, tmp_path)


@pytest.mark.conformance("C-3.2-07", "C-1.2-10", "C-4.6.1-08", "C-3.2.4.1-01")
def test_everything_has_a_default(write):
    read = config.load(write(private_or_clear="0.0.0.0/0\n::/0\n"))
    assert read.profile is config.Profile.MODERN
    assert read.dnssec is DnssecPolicy.PREFER
    assert read.default_class is ConnectionClass.OE_PERMISSIVE
    assert [line.network for line in read.policies] == [ip_network("0.0.0.0/0"), ip_network("::/0")]


@pytest.mark.conformance("C-3.2.5-08", "C-3.2-03")
def test_what_is_written_is_read(write):
    read = config.load(write("""
        [gateway]
        address = 192.1.1.4, 2001:db8::4   # both families
        clients = 192.1.0.0/24
        inside = lan0 lan1
        [ike]
        keying-time = 5
        profile = rfc4322
        identity = @Gw.Example.com
        [dns]
        servers = 127.0.0.1
        dnssec = require
        [policy]
        default = private
        [lifespans]
        first = 3
        in-use-within = 1.5
        """, block="10.0.0.0/8\n", clear="# servers\n192.0.2.1/32 # one\n\n", private="192.2.0.0/16"))
    assert read.addresses == (ip_address("192.1.1.4"), ip_address("2001:db8::4"))
    assert read.inside == ("lan0", "lan1")
    assert (read.keying_time, read.profile) == (5.0, config.Profile.RFC4322)
    assert (read.lifespans.first, read.lifespans.in_use_within) == (3.0, 1.5)
    assert read.identity == FqdnIdentity("gw.example.com")
    assert read.default_class is ConnectionClass.OE_PARANOID
    classes = {line.network: (line.connection_class, line.place.rpartition("/")[2]) for line in read.policies}
    assert classes == {ip_network("10.0.0.0/8"): (ConnectionClass.DENY, "block:1"),
                       ip_network("192.0.2.1/32"): (ConnectionClass.ALWAYS_CLEAR_TEXT, "clear:2"),
                       ip_network("192.2.0.0/16"): (ConnectionClass.OE_PARANOID, "private:1")}


def test_identity_may_be_the_address_that_a_nat_gives_us(write):
    read = config.load(write("[ike]\nidentity = 198.51.100.1"))
    assert read.identity == AddressIdentity(ip_address("198.51.100.1"))


@pytest.mark.parametrize("text, complaint", [
    ("[ike]\nkeying-time = soon", r"oegw.conf:2: keying-time: 'soon' is no number of seconds"),
    ("[ike]\nkeying-time = 0", r"oegw.conf:2: keying-time: 0 is not between 1 and 300 seconds"),
    ("[ike]\nmax-tunnels = 0", r"oegw.conf:2: max-tunnels: 0 is not between 1 and 1000000$"),
    ("[ike]\nmax-tunnels = all", r"oegw.conf:2: max-tunnels: 'all' is no number$"),
    ("[ike]\ntunnel-packets = 1", r"oegw.conf:2: tunnel-packets: 1 is not between 1000 and 4294967295 datagrams"),
    ("[ike]\ntunnel-kilobytes = -1", r"oegw.conf:2: tunnel-kilobytes: -1 is not between 0 and 4294967295 kilobytes"),
    ("[ike]\nidentity = gw.example.com", r"oegw.conf:2: identity: 'gw.example.com' is no name of the form @gateway"),
    ("[ike]\nprofile = old", r"oegw.conf:2: profile: 'old' is none of modern, rfc4322"),
    ("[ike]\nprofil = modern", r"oegw.conf:2: there is no option profil in \[ike\]; did you mean profile\?"),
    ("[ike]\nclients = 10.0.0.0/8", r"oegw.conf:2: clients belongs into \[gateway\], not \[ike\]"),
    ("[dns]\nfrobnicate = 1", r"oegw.conf:2: there is no option frobnicate in \[dns\]; there are servers"),
    ("[gatway]", r"oegw.conf:1: there is no section \[gatway\]; there are dns, gateway"),
    ("[gateway]\n\naddress = 192.1.1.400", r"oegw.conf:3: address: '192.1.1.400' is no IP address"),
    ("[gateway]\nclients = 192.1.0.1/24", r"oegw.conf:2: clients: '192.1.0.1/24' is no network prefix: .*host bits"),
    ("[dns]\nservers = 192.0.2.53:53", r"oegw.conf:2: servers: '192.0.2.53:53' is no IP address"),
    ("[dns]\nservers = 192.0.2.53@dns", r"oegw.conf:2: servers: '192.0.2.53@dns': 'dns' is no port, .* 1 to 65535"),
    ("[dns]\nservers = 192.0.2.53@853#", r"oegw.conf:2: servers: .*: '' is no domain name such as dns.example.net"),
    ("[dns]\nservers = @53", r"oegw.conf:2: servers: '@53' is not of the form ADDRESS\[@PORT\]\[#NAME\]"),
    ("[dns]\nservers = 192.0.2.53#dns.example.net",
     r"oegw.conf:2: servers: 192.0.2.53#dns.example.net: only TLS can prove a name; write tls = yes"),
    ("[dns]\ntls = yes\nservers = 192.0.2.53", r"oegw.conf:3: servers: 192.0.2.53: with tls = yes .*192.0.2.53#NAME"),
    ("[dns]\ntls = yes", r"oegw.conf:2: tls: name the servers and the names that they prove, as in servers = "),
    ("[dns]\ntls = on", r"oegw.conf:2: tls: 'on' is none of yes, no"),
    ("[dns]\ntls-ca = /ca.pem", r"oegw.conf:2: tls-ca: counts only with tls = yes"),
    ("[dns]\ntls-pin = abcd", r"oegw.conf:2: tls-pin: 'abcd' is no SHA-256 digest in base64 \(44 characters\)"),
    ("[dns]\nmode = trust-ad\nservers = 192.0.2.53", r"oegw.conf:2: mode: trust-ad believes whoever can answer for"),
    ("[dns]\ntrust-anchors =", r"oegw.conf:2: trust-anchors: validation begins with a file of anchors"),
    ("[dns]\nnegative-anchors = a..b", r"oegw.conf:2: negative-anchors: 'a..b' is no domain name: .*1 to 63 octets"),
    ("[dns]\nclock-skew = -1", r"oegw.conf:2: clock-skew: -1 is not between 0 and 86400 seconds"),
    ("[gateway]\nmetrics = 192.0.2.1:9722", r"oegw.conf:2: metrics: 192.0.2.1 can be reached from elsewhere"),
    ("[gateway]\nmetrics = 9722", r"oegw.conf:2: metrics: '9722' is neither an absolute path nor ADDRESS:PORT"),
    ("[gateway]\nmetrics = ::1:9722", r"oegw.conf:2: metrics: '::1:9722' is neither"),
    ("[gateway]\nmetrics = [::1]:0", r"oegw.conf:2: metrics: '\[::1\]:0' is neither"),
    ("[gateway]\nmetrics = localhost:9722", r"oegw.conf:2: metrics: 'localhost' is no IP address"),
    ("[gateway]\nclients = 192.1.0.0/24 0.0.0.0/0", r"oegw.conf:2: clients: 0.0.0.0/0 is everybody; .* so write"),
    ("[gateway]\nclients = ::/0", r"oegw.conf:2: clients: ::/0 is everybody"),
    ("[gateway]\nicmp-on-deny = on", r"oegw.conf:2: icmp-on-deny: 'on' is none of yes, no"),
    ("[gateway]\ninside = \"lan0\"", r"oegw.conf:2: inside: '\"lan0\"' is no name of a network interface"),
    ("[gateway]\nmax-held = 1", r"oegw.conf:2: max-held: 1 is not between 2 and 1000000"),
    ("[ike]\nthreads = 0", r"oegw.conf:2: threads: '0' is no number of 1 or more"),
    ("[dns]\nlook-ups = 0", r"oegw.conf:2: look-ups: '0' is no number of 1 or more"),
    ("[dns]\ntries = 1 soon", r"oegw.conf:2: tries: 'soon' is no number of seconds"),
    ("[dns]\ntries =", r"oegw.conf:2: tries: say how long to wait .* as in tries = 1 1.5 2.5"),
    ("[dns]\ntries = 5 5\npatience = 4", r"oegw.conf:3: patience: 4 seconds are over before the first of tries, 5, is"),
    ("[dns]\nlook-up-queries = 7", r"oegw.conf:2: look-up-queries: 7 is not between 16 and 1000$"),
    ("[dns]\ntrust-anchors = root.key", r"oegw.conf:2: trust-anchors: 'root.key' is no absolute path"),
    ("address = 1.2.3.4", r"oegw.conf:1: a line stands before the first \[section\]"),
    ("[ike]\nprofile", r"oegw.conf:2: .* is not of the form `option = value`"),
    ("[ike]\nprofile = modern\nprofile = modern", r"oegw.conf:3: profile is there twice"),
])
def test_wrong_configuration_says_where_what_and_what_would_be_right(write, text, complaint):
    with pytest.raises(config.ConfigError, match=complaint):
        config.load(write(text))


def test_everything_about_the_resolvers_is_read(write):
    pin = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    read = config.load(write(f"""
        [dns]
        servers = 192.0.2.53 2001:db8::53@8853#DNS.Example.Net.
        tls = yes
        tls-pin = {pin}
        tls-ca = /etc/ca.pem
        mode = trust-ad
        trusted-path = yes
        trust-anchors = /root.key /local.key
        negative-anchors = broken.example. 10.in-addr.arpa
        clock-skew = 60
        look-ups-per-client = 20
        """))
    assert read.dns_servers == (NameServer(ip_address("192.0.2.53")),
                                NameServer(ip_address("2001:db8::53"), 8853, "dns.example.net"))
    assert (read.dns_tls, read.dns_mode, read.trusted_path) == (True, config.DnsMode.TRUST_AD, True)
    assert read.tls_pins == (hashlib.sha256().digest(),) and str(read.tls_ca) == "/etc/ca.pem"
    assert list(map(str, read.trust_anchors)) == ["/root.key", "/local.key"]
    assert read.negative_anchors == ((b"broken", b"example"), (b"10", b"in-addr", b"arpa"))
    assert (read.clock_skew, read.lookups, read.lookups_per_client) == (60, 1000, 20)


@pytest.mark.conformance("C-1.2-03")
def test_prefix_in_two_classes_is_refused_with_both_places(write):
    with pytest.raises(config.ConfigError) as refused:
        config.load(write(private="192.2.0.0/16\n", block="#\n192.2.0.0/16\n"))
    assert "private:1" in str(refused.value) and "block:2" in str(refused.value)


@pytest.mark.parametrize("line", ["192.2.0.0/33", "bob", "192.2.0.66/24", "0.0.0.0/0 ::/0"])
def test_wrong_policy_line_says_where_and_what_would_be_right(write, line):
    with pytest.raises(config.ConfigError, match=r"private:2: .*such as 192\.0\.2\.0/24"):
        config.load(write(private=f"\n{line}\n"))


@pytest.mark.parametrize("name, meant", [
    ("Private", "did you mean private"), ("private.conf", "did you mean private"), ("privat", "did you mean private"),
    ("README", "there are block, clear, clear-or-private, private-or-clear, private$")])
def test_a_policy_file_that_would_be_ignored_is_refused(write, tmp_path, name, meant):
    file = write(private="192.2.0.0/16\n")
    (tmp_path / "policies" / name).write_text("203.0.113.0/24\n")
    with pytest.raises(config.ConfigError, match=f"policies/{name}: no class has a file of this name; {meant}"):
        config.load(file)


@pytest.mark.parametrize("name", ["private~", ".private.swp", "#private#", "private.dpkg-dist", "private.ucf-old"])
def test_what_editors_and_packages_leave_among_the_policies_is_no_policy(write, tmp_path, name):
    file = write(private="192.2.0.0/16\n")
    (tmp_path / "policies" / name).write_text("203.0.113.0/24\n")
    assert [str(line.network) for line in config.load(file).policies] == ["192.2.0.0/16"]


def test_missing_files_are_named(write, tmp_path):
    with pytest.raises(config.ConfigError, match=r"nowhere.conf: No such file"):
        config.load(tmp_path / "nowhere.conf")
    file = write()
    (tmp_path / "policies").rmdir()
    with pytest.raises(config.ConfigError, match=r"policies: there is no such directory; it holds the files block"):
        config.load(file)


@pytest.mark.conformance("C-3.2-08")
def test_shipped_configuration_is_right_and_the_simplest_policy(tmp_path):
    file = tmp_path / "oegw.conf"
    file.write_text((SHIPPED / "oegw.conf").read_text() + f"[paths]\npolicies = {SHIPPED}/policies\n")
    read = config.load(file)
    assert {str(line.network): line.connection_class for line in read.policies} == {
        "0.0.0.0/0": ConnectionClass.OE_PERMISSIVE, "::/0": ConnectionClass.OE_PERMISSIVE}
    assert read.port_lines == () and read.addresses == read.clients == ()
    assert {file.name for file in (SHIPPED / "policies").iterdir()} == set(GROUPS)


@pytest.mark.parametrize("written, read", [
    ("127.0.0.1:9722", (ip_address("127.0.0.1"), 9722)), ("[::1]:9722", (ip_address("::1"), 9722)),
    ("/run/oegw/metrics", config.Path("/run/oegw/metrics")), ("", None)])
def test_metrics_are_for_this_host_only(write, written, read):
    assert config.load(write(f"[gateway]\nmetrics = {written}")).metrics == read


def test_every_budget_of_the_keying_engine_is_an_option(write):
    """What is bounded by an EngineConfig can be changed, and its default is the option's."""
    limits = config.load(write()).ike_limits
    bounded = {field.name: field.default for field in fields(EngineConfig) if field.name.startswith(("max_", "new_"))}
    assert {name: limits[name] for name in bounded} == bounded
