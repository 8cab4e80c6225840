"""What `oegw records show` prints, served by nsd from a signed zone, is what the daemon finds: RFC 4322 section 5."""

from ipaddress import ip_address

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from oesvc.discovery import Discovery
from oesvc.dns.anchors import read_anchors
from oesvc.dns.resolver import DnsConfig, ValidatingResolver
from oesvc.ike.identity import AddressIdentity, FqdnIdentity
from oesvc.ipsec.rsa_key import RsaPublicKey
from oesvc.keys.records import records
from oesvc.oe import events as ev
from oesvc.oe.authorization import DnssecPolicy
from tests.dns.conftest import await_result, start, unused, wait_until_answering
from tests.zones import Zone, build_tree, nsd_conf

LARGE = RsaPublicKey(3, (1 << 4095) + 1)
GATEWAY_4, GATEWAY_6, FQDN = ip_address("192.1.1.4"), ip_address("2001:db8::4"), "gw.example.com"
EVERY, BY_TXT, BY_IPSECKEY, BEHIND_6, BEHIND_NAME, WITHOUT_KEY = (ip_address(f"192.2.0.{n}") for n in range(1, 7))
ONLY_KEY, ONLY_TXT, ONLY_IPSECKEY = (ip_address(f"192.1.2.{n}") for n in range(1, 4))

PUBLISHED = [
    *records(GATEWAY_4, [EVERY], LARGE),
    *records(GATEWAY_4, [BY_TXT], LARGE, ["TXT"])[1:],
    *records(GATEWAY_4, [BY_IPSECKEY], LARGE, ["IPSECKEY"])[1:],
    *records(GATEWAY_6, [BEHIND_6], LARGE),
    *records(FQDN, [BEHIND_NAME], LARGE),
    *records(ONLY_KEY, [], LARGE, ["KEY"]), *records(ONLY_TXT, [], LARGE, ["TXT"]),
    *records(ONLY_IPSECKEY, [], LARGE, ["IPSECKEY"]),
    # BIND's tools read no IPSECKEY without a key (RFC 4025's algorithm 0), in no form.
    f'{WITHOUT_KEY.reverse_pointer}. IN TXT "X-IPsec-Server(10)={GATEWAY_4}"',
]


@pytest.fixture(scope="module")
def discovery(tmp_path_factory):
    directory = tmp_path_factory.mktemp("published")
    tree = build_tree(directory, [Zone("."), Zone("arpa.", "\n".join(line for line in PUBLISHED if "arpa. " in line)),
                                  Zone("com.", "\n".join(line for line in PUBLISHED if "arpa. " not in line))])
    anchor = directory / "anchor"
    anchor.write_text(tree.anchor + "\n")
    endpoint = unused("127.0.0.10")
    server = start(directory, "nsd", nsd_conf(directory, tree, [endpoint]))
    wait_until_answering(server, endpoint)
    resolver = ValidatingResolver(DnsConfig((endpoint,), read_anchors([anchor])), reactor)
    yield Discovery(resolver, DnssecPolicy.REQUIRE, lambda: 0.5)
    await_result(resolver.close())
    server.terminate()
    server.wait(10)


def run(job):
    return await_result(Deferred.fromCoroutine(job))


def ignore(note):
    """The journal is not what is looked at here."""


@pytest.mark.conformance("C-5.2-03", "C-5.2-08", "C-1.1-01")
@pytest.mark.parametrize("host, gateway", [
    (GATEWAY_4, GATEWAY_4), (EVERY, GATEWAY_4), (BY_TXT, GATEWAY_4), (BY_IPSECKEY, GATEWAY_4), (BEHIND_6, GATEWAY_6),
    (GATEWAY_6, GATEWAY_6), (WITHOUT_KEY, GATEWAY_4), (ONLY_TXT, ONLY_TXT), (ONLY_IPSECKEY, ONLY_IPSECKEY)])
def test_host_is_keyed_with_by_what_is_published_for_it(discovery, host, gateway):
    found = run(discovery.delegations(host, ignore))
    assert isinstance(found, ev.DelegationFound), found.detail
    assert [(d.precedence, d.gateway, d.keys) for d in found.delegations] == [(10, gateway, (LARGE,))]


@pytest.mark.conformance("C-5.1-01", "C-5.3-05")
@pytest.mark.parametrize("identity", [*map(AddressIdentity, (GATEWAY_4, GATEWAY_6, ONLY_KEY, ONLY_TXT, ONLY_IPSECKEY)),
                                      FqdnIdentity(FQDN)])
def test_gateways_key_is_found_by_what_is_published_for_it(discovery, identity):
    assert run(discovery.keys(identity, ignore)).keys == (LARGE,)


@pytest.mark.parametrize("host, identity", [
    (EVERY, AddressIdentity(GATEWAY_4)), (BY_TXT, AddressIdentity(GATEWAY_4)), (BEHIND_6, AddressIdentity(GATEWAY_6)),
    (BY_IPSECKEY, AddressIdentity(GATEWAY_4)), (BEHIND_NAME, FqdnIdentity(FQDN))])
def test_gateway_may_act_for_the_hosts_that_it_published(discovery, host, identity):
    assert run(discovery.authorization(host, identity, LARGE, ignore)).authorized
    assert not run(discovery.authorization(host, AddressIdentity(ONLY_KEY), LARGE, ignore)).authorized


@pytest.mark.conformance("C-5.2-13", "C-5.2.2-02")
def test_host_of_a_gateway_known_by_name_and_one_with_a_key_only_are_not_called(discovery):
    named = run(discovery.delegations(BEHIND_NAME, ignore))
    assert isinstance(named, ev.DelegationAbsent)
    assert named.detail.count("can be answered, not called") == 2
    assert isinstance(run(discovery.delegations(ONLY_KEY, ignore)), ev.DelegationAbsent)
