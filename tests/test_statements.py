"""Statements of RFC 4322 about how things are set up, and said; what the machines do is shown where they are tested."""

from ipaddress import ip_address
from pathlib import Path

import pytest

from oesvc.config import OPTIONS
from oesvc.ipsec.rsa_key import RsaPublicKey
from oesvc.keys.records import records

ROOT = Path(__file__).parent.parent


@pytest.mark.conformance("C-Abs-04")
def test_one_more_gateway_writes_its_own_records_only():
    """What it publishes stands at names of its own, and says nothing of any other gateway."""
    sites = [(ip_address(f"192.0.2.{n}"), ip_address(f"198.51.100.{n}"), RsaPublicKey(65537, (1 << 2047) + 2 * n + 1))
             for n in range(1, 5)]
    for gateway, host, key in sites:
        owners = {record.owner for record in records(gateway, [host], key)}
        assert owners == {f"{gateway.reverse_pointer}.", f"{host.reverse_pointer}."}
        others = [str(other) for other, _, _ in sites if other != gateway]
        assert not any(other in word for record in records(gateway, [host], key) for word in record.split()
                       for other in others)


@pytest.mark.conformance("C-Abs-04")
def test_no_option_of_opportunistic_encryption_names_a_peer():
    assert not [option for _, option in OPTIONS if "peer" in option and not option.startswith("max-")]


@pytest.mark.conformance("C-12.1-08")
@pytest.mark.parametrize("page", ["README.md", "SECURITY.md", "docs/man/oegw-records.7"])
def test_what_unsigned_dns_protects_against_is_said(page):
    text = " ".join((ROOT / page).read_text().split())
    assert any(words in text for words in (
        "protect against passive listeners only", "against somebody who only listens it does",
        "| forges DNS answers | can stop the traffic | can take part as a gateway |"))
