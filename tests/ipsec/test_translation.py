"""NAT on the gateway itself: a flow as it comes in, and as it leaves (RFC 4322 section 6.1)."""

from ipaddress import ip_address, ip_network

import pytest

from oesvc.ipsec.flow import Flow
from oesvc.ipsec.translation import Translation, translate

OWN, BOBS = ip_address("192.1.1.4"), {4: ip_address("192.2.0.66"), 6: ip_address("2001:db8:2::66")}


@pytest.mark.parametrize("source, rules, becomes", [
    ("10.1.0.65", ["10.1.0.0/16"], "192.1.1.4"),
    ("10.1.0.65", ["10.1.0.0/16=198.51.100.9"], "198.51.100.9"),
    ("10.1.0.65", ["10.1.0.0/24=198.51.100.0/24"], "198.51.100.65"),
    ("10.1.0.65", ["10.1.0.65=198.51.100.1", "10.1.0.0/24"], "198.51.100.1"),
    ("10.1.0.66", ["10.1.0.65=198.51.100.1", "10.1.0.0/24"], "192.1.1.4"),
    ("10.2.0.65", ["10.1.0.0/24"], None),
    ("fd00::65", ["10.1.0.0/24", "fd00::/64=2001:db8::/64"], "2001:db8::65"),
])
def test_first_rule_that_is_about_the_source_says_what_it_becomes(source, rules, becomes):
    bob = BOBS[ip_address(source).version]
    flow = Flow(ip_address(source), bob)
    rules = [Translation(*map(ip_network, rule.split("="))) for rule in rules]
    translated = translate(flow, rules, lambda peer: OWN)
    assert translated == (Flow(ip_address(becomes), bob) if becomes else None)


@pytest.mark.parametrize("inside, outside, complaint", [
    ("10.1.0.0/24", "2001:db8::/64", "of different IP versions"),
    ("10.1.0.0/24", "198.51.100.0/28", "neither a single address nor as large as 10.1.0.0/24"),
])
def test_what_is_neither_nat_nor_napt_is_refused(inside, outside, complaint):
    with pytest.raises(ValueError, match=complaint):
        Translation(ip_network(inside), ip_network(outside))
