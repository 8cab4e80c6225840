"""The configuration: what it says when it is right, and what it says when it is wrong."""

from ipaddress import ip_address, ip_network

import pytest

from oesvc import config
from oesvc.oe.authorization import DnssecPolicy
from oesvc.oe.classes import ConnectionClass


@pytest.fixture
def write(tmp_path):
    """Write oegw.conf and policy files; returns the path of the former."""
    def write(text="", **policies):
        directory = tmp_path / "policies"
        directory.mkdir(exist_ok=True)
        for name, lines in policies.items():
            (directory / name.replace("_", "-")).write_text(lines)
        file = tmp_path / "oegw.conf"
        file.write_text(f"{text}\n[paths]\npolicies = {directory}\n")
        return file
    return write


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
    assert read.fqdn == "gw.example.com"
    assert read.default_class is ConnectionClass.OE_PARANOID
    classes = {line.network: (line.connection_class, line.place.rpartition("/")[2]) for line in read.policies}
    assert classes == {ip_network("10.0.0.0/8"): (ConnectionClass.DENY, "block:1"),
                       ip_network("192.0.2.1/32"): (ConnectionClass.ALWAYS_CLEAR_TEXT, "clear:2"),
                       ip_network("192.2.0.0/16"): (ConnectionClass.OE_PARANOID, "private:1")}


@pytest.mark.parametrize("text, complaint", [
    ("[ike]\nkeying-time = soon", r"oegw.conf:2: keying-time: 'soon' is no number of seconds"),
    ("[ike]\nkeying-time = 0", r"oegw.conf:2: keying-time: 0 is not between 1 and 300 seconds"),
    ("[ike]\nidentity = gw.example.com", r"oegw.conf:2: identity: 'gw.example.com' is no name of the form @gateway"),
    ("[ike]\nprofile = old", r"oegw.conf:2: profile: 'old' is none of modern, rfc4322"),
    ("[ike]\nprofil = modern", r"oegw.conf:2: there is no option profil in \[ike\]; did you mean profile\?"),
    ("[ike]\nclients = 10.0.0.0/8", r"oegw.conf:2: clients belongs into \[gateway\], not \[ike\]"),
    ("[dns]\nfrobnicate = 1", r"oegw.conf:2: there is no option frobnicate in \[dns\]; there are servers"),
    ("[gatway]", r"oegw.conf:1: there is no section \[gatway\]; there are dns, gateway"),
    ("[gateway]\n\naddress = 192.1.1.400", r"oegw.conf:3: address: '192.1.1.400' is no IP address"),
    ("[gateway]\nclients = 192.1.0.1/24", r"oegw.conf:2: clients: '192.1.0.1/24' is no network prefix: .*host bits"),
    ("[dns]\ntrust-anchors = root.key", r"oegw.conf:2: trust-anchors: 'root.key' is no absolute path"),
    ("address = 1.2.3.4", r"oegw.conf:1: a line stands before the first \[section\]"),
    ("[ike]\nprofile", r"oegw.conf:2: .* is not of the form `option = value`"),
    ("[ike]\nprofile = modern\nprofile = modern", r"oegw.conf:3: profile is there twice"),
])
def test_wrong_configuration_says_where_what_and_what_would_be_right(write, text, complaint):
    with pytest.raises(config.ConfigError, match=complaint):
        config.load(write(text))


@pytest.mark.conformance("C-1.2-03")
def test_prefix_in_two_classes_is_refused_with_both_places(write):
    with pytest.raises(config.ConfigError) as refused:
        config.load(write(private="192.2.0.0/16\n", block="#\n192.2.0.0/16\n"))
    assert "private:1" in str(refused.value) and "block:2" in str(refused.value)


@pytest.mark.parametrize("line", ["192.2.0.0/33", "bob", "192.2.0.66/24", "0.0.0.0/0 ::/0"])
def test_wrong_policy_line_says_where_and_what_would_be_right(write, line):
    with pytest.raises(config.ConfigError, match=r"private:2: .*such as 192\.0\.2\.0/24"):
        config.load(write(private=f"\n{line}\n"))


def test_missing_files_are_named(write, tmp_path):
    with pytest.raises(config.ConfigError, match=r"nowhere.conf: No such file"):
        config.load(tmp_path / "nowhere.conf")
    file = write()
    (tmp_path / "policies").rmdir()
    with pytest.raises(config.ConfigError, match=r"policies: there is no such directory; it holds the files block"):
        config.load(file)


def test_shipped_configuration_is_right():
    shipped = config.Path(__file__).parent.parent / "etc"
    assert config._read_options(shipped / "oegw.conf")
    lines = list(config._read_policies(shipped / "policies"))
    assert {str(line.network): line.connection_class for line in lines} == {
        "0.0.0.0/0": ConnectionClass.OE_PERMISSIVE, "::/0": ConnectionClass.OE_PERMISSIVE}
