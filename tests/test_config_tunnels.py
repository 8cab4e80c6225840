"""Sections [tunnel NAME]: what they say when they are right, and what is said when they are wrong."""

from ipaddress import ip_address, ip_network

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from oesvc import config
from oesvc.ike.identity import AddressIdentity, FqdnIdentity
from oesvc.ipsec.subnets import Subnets
from oesvc.kernel.constants import CONFIGURED_REQIDS, FLOW_REQIDS
from oesvc.keys.key_pair import public_key
from oesvc.keys.records import key_record
from oesvc.name_service import dns_config
from oesvc.oe.classes import ConnectionClass
from oesvc.oe.configured import Start
from oesvc.plane_settings import plane_config
from tests.pair import private_key

PRIVATE = private_key("london")
KEY = public_key(PRIVATE)
PEM = PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
LONDON = {"peer": "203.0.113.1", "remote": "10.2.0.0/16", "key": "KEY"}


@pytest.fixture
def read(tmp_path):
    """Write a configuration with clients 10.1.0.0/16 and these tunnels, and load it."""
    def read(*tunnels, key=PEM, more="", **policies):
        (tmp_path / "policies").mkdir(exist_ok=True)
        for name, lines in policies.items():
            (tmp_path / "policies" / name).write_text(lines)
        (tmp_path / "peer.key").write_text(key)
        lines = [f"[gateway]\naddress = 192.0.2.1\nclients = 10.1.0.0/16\n{more}\n[paths]\n"
                 f"policies = {tmp_path / 'policies'}\nstate = {tmp_path}"]
        for number, options in enumerate(tunnels):
            lines.append(f"[tunnel {'abcdef'[number]}]")
            lines += [f"{name} = {tmp_path / 'peer.key' if value == 'KEY' else value}"
                      for name, value in options.items() if value is not None]
        file = tmp_path / "oegw.conf"
        file.write_text("\n".join(lines))
        return config.load(file)
    return read


def test_what_is_written_is_read(read):
    (tunnel,) = read(LONDON).tunnels
    assert (tunnel.name, tunnel.number, tunnel.address) == ("a", 1, ip_address("203.0.113.1"))
    assert (tunnel.identity, tunnel.keys, tunnel.start) == (AddressIdentity(tunnel.address), (KEY,), Start.ON_DEMAND)
    assert [str(subnets) for subnets in tunnel.subnets] == ["10.1.0.0/16 -> 10.2.0.0/16"]


def test_each_network_here_and_each_there_of_its_family_is_a_pair(read):
    (tunnel,) = read(LONDON | {"local": "10.1.1.0/24 10.1.2.0/24 2001:db8:1::/64", "start": "at once",
                               "remote": "10.2.0.0/16, 2001:db8:2::/48"}).tunnels
    assert [str(subnets) for subnets in tunnel.subnets] == [
        "10.1.1.0/24 -> 10.2.0.0/16", "10.1.2.0/24 -> 10.2.0.0/16", "2001:db8:1::/64 -> 2001:db8:2::/48"]


def test_road_warrior_and_names(read):
    warrior = {"peer": "any", "identity": "@Laptop.example.com", "remote": "10.9.0.1/32", "key": "dns", "start": "wait"}
    named = LONDON | {"peer": "GW.example.com"}
    first, second = read(warrior, named).tunnels
    assert (first.address, first.identity, first.keys, first.start) == (
        None, FqdnIdentity("laptop.example.com"), (), Start.WAIT)
    assert (second.address, second.identity) == ("gw.example.com", FqdnIdentity("gw.example.com"))


@pytest.mark.parametrize("key", [
    PEM, KEY.to_base64(), f"# london's\n{key_record(ip_address('203.0.113.1'), KEY)}\n",
], ids=["PEM", "base64", "a KEY record"])
def test_key_is_read_in_each_form_in_which_keys_are_handed_on(read, key):
    assert read(LONDON, key=key).tunnels[0].keys == (KEY,)


def test_several_keys_are_for_a_roll_over(read):
    other = public_key(private_key("another"))
    assert read(LONDON, key=f"{KEY.to_base64()}\n{other.to_base64()}\n").tunnels[0].keys == (KEY, other)


@pytest.mark.conformance("C-12.1-01")
def test_reqids_tell_tunnels_apart_and_from_opportunistic_ones(read):
    one, two = read(LONDON | {"number": "7"}, LONDON | {"remote": "10.3.0.0/16 10.4.0.0/16"}).tunnels
    assert set(one.reqids().values()) == {0xF0000070}
    assert set(two.reqids().values()) == {0xF0000010, 0xF0000011}
    assert all(reqid in CONFIGURED_REQIDS and reqid not in FLOW_REQIDS for reqid in two.reqids().values())


def test_where_a_tunnel_leads_nothing_goes_in_clear_by_any_other_way(read):
    loaded = read(LONDON)
    (line,) = loaded.policies
    assert (line.network, line.connection_class) == (ip_network("10.2.0.0/16"), ConnectionClass.CONFIGURED)
    assert line.place.endswith("oegw.conf:8, tunnel a")
    plane = plane_config(loaded, (ip_address("192.0.2.1"),), dns_config(loaded).servers)
    assert plane.never_clear == (ip_network("10.2.0.0/16"),)
    assert plane.configured == {Subnets.between(ip_network("10.1.0.0/16"), ip_network("10.2.0.0/16")): 0xF0000010}


@pytest.mark.parametrize("changes, complaint", [
    ({"peer": None}, "oegw.conf:8: [tunnel a] the option peer is missing"),
    ({"pier": "1.2.3.4"}, "did you mean peer?"),
    ({"peer": "not a name"}, "no IP address, no domain name, and not `any`"),
    ({"peer": "any"}, "oegw.conf:"),
    ({"peer": "any", "identity": "@x.example.com"}, "nobody can call `any`; write start = wait"),
    ({"peer": "any", "start": "wait"}, "who is allowed to call"),
    ({"remote": "10.1.2.0/24"}, "within our own clients' 10.1.0.0/16"),
    ({"remote": "224.0.0.0/8"}, "no network that a gateway leads to"),
    ({"remote": "2001:db8::/32"}, "of the same address family"),
    ({"remote": " ".join(f"10.{n}.0.0/16" for n in range(2, 19))}, "17 pairs of networks"),
    ({"key": "relative.pem"}, "no absolute path"),
    ({"key": "/nowhere/at/all"}, "/nowhere/at/all: No such file"),
    ({"start": "sometimes"}, "none of at once, on demand, wait"),
    ({"number": "4096"}, "not between 1 and 4095"),
])
def test_what_is_wrong_is_said_with_its_place_and_what_would_be_right(read, changes, complaint):
    with pytest.raises(config.ConfigError) as raised:
        read(LONDON | changes)
    assert complaint in str(raised.value) and "oegw.conf:" in str(raised.value)


@pytest.mark.parametrize("key, complaint", [
    ("", "no key is in it"), ("AwEAAQ==", "cut short"), ("hello", "no base64"),
    (PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(), "this is a private key"),
])
def test_what_is_no_public_key_is_refused(read, key, complaint):
    with pytest.raises(config.ConfigError, match=complaint):
        read(LONDON, key=key)


def test_two_tunnels_for_the_same_networks_are_an_error_as_is_the_same_number(read):
    with pytest.raises(config.ConfigError, match=r"10\.2\.0\.0/16 is already what \[tunnel a\] protects"):
        read(LONDON, LONDON | {"peer": "203.0.113.2"})
    with pytest.raises(config.ConfigError, match="3 is already that of tunnel a"):
        read(LONDON | {"number": "3"}, LONDON | {"remote": "10.3.0.0/16", "number": "3"})


@pytest.mark.conformance("C-1.2-07")
def test_a_policy_file_cannot_take_anything_out_of_a_tunnel(read):
    with pytest.raises(config.ConfigError, match=r"clear:1: 10\.2\.3\.0/24 belongs to 10\.2\.0\.0/16 of a configured"):
        read(LONDON, clear="10.2.3.0/24\n")


@pytest.mark.conformance("C-1.2-07")
def test_a_resolver_where_the_tunnel_leads_would_be_asked_in_clear(read):
    with pytest.raises(config.ConfigError, match=r"questions to the resolver 10\.2\.0\.53 would go .* in clear"):
        read(LONDON, more="[dns]\nservers = 10.2.0.53")
    assert read(LONDON | {"remote": "0.0.0.0/0"}, more="[dns]\nservers = 127.0.0.1").tunnels


def test_key_from_a_dns_that_nobody_validates_proves_nothing(read):
    with pytest.raises(config.ConfigError, match="nothing proves a key from the DNS"):
        read(LONDON | {"key": "dns"}, more="[dns]\nmode = off")
