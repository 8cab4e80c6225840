"""NAT on the gateway: rules loaded into a real kernel's scratch namespace and read back, and what the doctor says."""

from dataclasses import replace
from ipaddress import ip_network

import pytest

from oesvc.operator.doctor.checks import answer
from oesvc.operator.doctor.nat import translations
from tests.operator.doctor.parts import healthy
from tests.operator.doctor.test_firewall import rules

MASQUERADE = 'oifname "wan0" ip saddr 10.0.0.0/8 masquerade'


def nat(*postrouting, pre=()):
    rules = "; ".join(postrouting)
    return (f"table ip nat {{ chain outward {{ type nat hook postrouting priority srcnat; {rules}; }}\n"
            f"chain inward {{ type nat hook prerouting priority dstnat; {'; '.join(pre) or 'accept'}; }}; }}")


OF_A_SET = nat("ip saddr @some masquerade").replace("chain out", "set some { type ipv4_addr; }\nchain out")


def found(folder, text, *lines, **facts):
    return [(one.cause, one.remedy) for one in translations(replace(
        healthy(folder, *lines), ruleset=rules(text), **facts))]


@pytest.mark.parametrize("text", [
    "", nat(MASQUERADE), nat('oifname "ppp0" masquerade'), nat("ip saddr 192.1.0.0/24 accept", "masquerade"),
    nat("ip saddr 192.1.0.0/24 counter return", "masquerade"), nat("ip daddr 198.51.100.0/24 masquerade"),
    OF_A_SET,
    nat("ip6 saddr 2001:db8::/32 masquerade").replace("table ip ", "table inet "),
    nat("tcp dport 25 snat to 203.0.113.1", MASQUERADE), nat("accept", pre=("tcp dport 22 dnat to 10.0.0.2",)),
    nat("accept", pre=('iifname "lan0" udp dport 500 dnat to 10.0.0.2',)),
    nat("ip protocol esp snat to 192.1.1.4"), nat("snat to ip saddr map { 192.1.0.2 : 203.0.113.7 }"),
])
def test_nat_that_is_none_of_our_business_is_not_complained_of(tmp_path, text):
    assert found(tmp_path, text) == []


@pytest.mark.parametrize("text, cause, remedy", [
    (nat('oifname "wan0" masquerade'), "the firewall translates what comes from the clients 192.1.0.0/24 into "
     "192.1.1.4, so their own records serve nobody, and the first datagram of each flow is lost: a rule (handle ",
     "nft insert rule ip nat outward ip saddr 192.1.0.0/24 accept, and the same in your firewall's configuration; or, "
     "if it is to be: translated = 192.1.0.0/24 in place of clients"),
    (nat("ip daddr != { 10.0.0.0/8, 172.16.0.0/12 } ip saddr 192.1.0.0-192.1.0.99 snat to 203.0.113.77"),
     "into 203.0.113.77, whom this gateway does not protect: it leaves in clear: a rule",
     "translated = 192.1.0.0/24=203.0.113.77 in place of clients"),
    (nat("accept", pre=("udp dport { 500, 4500 } dnat to 10.0.0.2",)),
     "the firewall hands incoming UDP port 500 on to 10.0.0.2, not 192.1.1.4: a rule (handle ",
     "nft insert rule ip nat inward ip daddr 192.1.1.4 udp dport { 500, 4500 } accept"),
    (nat("accept", pre=('iifname "wan0" udp dport 500 redirect to :5000',)),
     "the firewall hands incoming UDP port 500 on to another port, not 192.1.1.4", "accept"),
    (nat("accept", pre=("ip daddr 192.1.1.4 dnat to 10.0.0.2",)), "the firewall hands incoming ESP on to 10.0.0.2",
     "nft insert rule ip nat inward ip daddr 192.1.1.4 meta l4proto esp accept"),
    (nat('ip saddr 192.1.1.4 snat to 192.1.1.9'), "the firewall lets outgoing ESP leave from 192.1.1.9, not 192.1.1.4",
     "nft insert rule ip nat outward ip saddr 192.1.1.4 meta l4proto esp accept"),
])
def test_rule_that_defeats_encryption_is_named_with_what_mends_it(tmp_path, text, cause, remedy):
    first = found(tmp_path, text)[0]
    assert cause in first[0] and remedy in first[1]


@pytest.mark.parametrize("translated, text", [
    ("10.1.0.0/24", nat(MASQUERADE)), ("10.1.0.0/24", nat('ip saddr 10.1.0.0/24 snat to 192.1.1.4')),
    ("10.1.0.0/24=192.1.0.9", nat('ip saddr 10.1.0.0/24 snat to 192.1.0.9', MASQUERADE)),
    ("10.1.0.0/24=192.1.0.0/24", nat("snat ip prefix to ip saddr map { 10.1.0.0/24 : 192.1.0.0/24 }")),
    ("10.1.0.0/24", OF_A_SET),
])
def test_firewall_that_does_what_the_configuration_says_is_not_complained_of(tmp_path, translated, text):
    assert found(tmp_path, text, f"[gateway] translated = {translated}") == []


@pytest.mark.parametrize("translated, text, cause, remedy", [
    ("10.1.0.0/24", "", "[gateway] translated: no rule of this host's firewall translates 10.1.0.0/24: its datagrams "
     "leave as they are", "nft 'table ip nat { chain postrouting { type nat hook postrouting priority srcnat; oifname "
     "\"wan0\" ip saddr 10.1.0.0/24 masquerade; }; }'"),
    ("10.1.0.80=192.1.0.80", nat("ip saddr 10.9.0.0/16 masquerade"), "translates 10.1.0.80/32: ",
     "ip saddr 10.1.0.80/32 snat to 192.1.0.80; }; }'"),
    ("10.1.0.0/24=192.1.0.9", nat(MASQUERADE), "10.1.0.0/24=192.1.0.9/32 is not what the firewall does: it translates "
     "10.1.0.2 into 192.1.1.4, not into 192.1.0.9: a rule",
     "translated = 10.1.0.0/24=192.1.1.4; systemctl restart oegw"),
])
def test_firewall_that_does_not_do_what_the_configuration_says_is_told(tmp_path, translated, text, cause, remedy):
    (first,) = found(tmp_path, text, f"[gateway] translated = {translated}")
    assert cause in first[0] and remedy in first[1]


def test_command_that_the_doctor_gives_is_one_that_mends(tmp_path):
    translated = "[gateway] translated = 10.1.0.80=192.1.0.80"
    (_, remedy), = found(tmp_path, "", translated)
    command = remedy.partition("nft '")[2].partition("', and")[0]
    assert found(tmp_path, command, translated) == []


def test_rules_that_nft_does_not_list_are_not_said_to_be_missing(tmp_path):
    assert found(tmp_path, "", "[gateway] translated = 10.1.0.0/24", hidden_rules=True) == []


@pytest.mark.conformance("C-6.1-01")
def test_private_clients_are_told_how_to_be_translated(tmp_path):
    facts = healthy(tmp_path)
    private = replace(facts.settings, clients=(ip_network("10.1.0.0/24"),))
    first = next(one for one in answer(replace(facts, settings=private))["findings"])
    assert first["check"] == "private clients" and "10.1.0.0/24 is private" in first["cause"]
    assert "translated = 10.1.0.0/24" in first["remedy"]
    assert 'oifname "wan0" ip saddr 10.1.0.0/24 masquerade' in first["remedy"]
