"""One client's flows do not take the resolver away from the others."""

from ipaddress import ip_address

import pytest

from oesvc.dns.crowd import Crowd, CrowdLimits
from oesvc.dns.failures import Indeterminate

ALICE, NEIGHBOUR, FAR = map(ip_address, ("192.1.0.65", "192.1.0.66", "192.1.1.1"))


@pytest.fixture
def crowd():
    return Crowd(CrowdLimits(per_client=2, in_all=4))


def test_a_prefix_has_its_share_and_the_others_theirs(crowd):
    places = [crowd.enter(client, 0) for client in (ALICE, NEIGHBOUR)]
    with pytest.raises(Indeterminate, match=r"2 look-ups for 192\.1\.0\.0/24 are under way"):
        crowd.enter(ALICE, 0)
    assert crowd.enter(FAR, 0) and crowd.enter(None, 0) is None
    assert crowd.bounds(0) == {"look-ups": (4, 4, 0), "look-ups-per-client": (2, 2, 1)}
    crowd.leave(places[0])
    assert crowd.enter(NEIGHBOUR, 0)


def test_ipv6_hosts_count_by_64(crowd):
    for host in (1, 2):
        crowd.enter(ip_address(f"2001:db8:1::{host}"), 0)
    with pytest.raises(Indeterminate, match="2001:db8:1::/64"):
        crowd.enter(ip_address("2001:db8:1::ffff:1"), 0)
    assert crowd.enter(ip_address("2001:db8:1:1::1"), 0)


def test_all_together_are_limited_too(crowd):
    for number in range(4):
        crowd.enter(ip_address(f"192.1.{number}.1"), 0)
    with pytest.raises(Indeterminate, match="4 look-ups are under way"):
        crowd.enter(None, 0)


def test_what_goes_on_without_anybody_waiting_counts(crowd):
    with pytest.raises(Indeterminate, match="4 look-ups are under way"):
        crowd.enter(ALICE, 4)
    assert crowd.bounds(4) == {"look-ups": (4, 4, 1), "look-ups-per-client": (0, 2, 0)}


def test_nothing_is_remembered_of_those_who_left(crowd):
    for number in range(100):
        crowd.leave(crowd.enter(ip_address(f"192.1.{number}.1"), 0))
    assert not crowd._prefixes
