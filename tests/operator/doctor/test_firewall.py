"""Firewall rules, loaded into a real kernel's scratch namespace and read back: which of them drop IKE or ESP."""

import json
import subprocess

import pytest

from oesvc.operator.doctor.firewall import firewall
from tests.operator.doctor.parts import healthy

INPUT = "type filter hook input priority 0; policy {policy};"


def rules(text):
    """As nft tells them after it has loaded them."""
    done = subprocess.run(["unshare", "--net", "sh", "-c", "nft -f - && nft -j -t list ruleset"], input=text, text=True,
                          capture_output=True, check=True)
    return json.loads(done.stdout)["nftables"]


def complaints(tmp_path, text):
    facts = healthy(tmp_path)
    return [finding.cause for finding in firewall(type(facts)(**{
        name: getattr(facts, name) for name in facts.__slots__} | {"ruleset": rules(text)}))]


def table(*lines, policy="accept", more=""):
    body = "\n".join(lines)
    return f"table inet filter {{\n{more}\nchain input {{ {INPUT.format(policy=policy)}\n{body}\n}}\n}}\n"


@pytest.mark.parametrize("text", [
    "",
    table(),
    table("ct state established,related accept", 'iifname "lo" accept', "meta l4proto esp accept",
          "udp dport { 500, 4500 } accept", policy="drop"),
    table("ct state vmap { established : accept, related : accept, invalid : drop }", "ip protocol esp accept",
          "udp dport 400-600 accept", "udp dport 4500 accept", policy="drop"),
    table("ip saddr 203.0.113.0/24 drop", "tcp dport 22 drop", "udp dport != { 500, 4500 } meta l4proto udp drop"),
    table('iifname "wan0" accept', policy="drop"),
    table("jump ours", policy="drop", more="chain ours { meta l4proto { esp, udp } accept; }"),
    table("meta l4proto vmap { esp : accept, udp : goto ours }", policy="drop",
          more="chain ours { udp dport 500 accept; udp dport 4500 accept; }"),
    table("ip daddr 192.1.1.4 accept", policy="drop"),
    "table inet oegw { chain input { type filter hook input priority 0; policy drop; }; }",
])
def test_rules_that_let_it_pass_or_may_are_not_complained_of(tmp_path, text):
    assert complaints(tmp_path, text) == []


@pytest.mark.parametrize("text, dropped", [
    (table(policy="drop"), ["ESP", "UDP port 500", "UDP port 4500"]),
    (table('iifname "lo" accept', "tcp dport 22 accept", "ct state established accept", policy="drop"),
     ["ESP", "UDP port 500", "UDP port 4500"]),
    (table("meta l4proto esp drop"), ["ESP"]),
    (table("ip protocol esp counter log drop"), ["ESP"]),
    (table("udp dport 500 reject"), ["UDP port 500"]),
    (table("udp dport 4000-5000 drop"), ["UDP port 4500"]),
    (table("udp dport 500 accept", "udp dport 4500 accept", policy="drop"), ["ESP"]),
    (table("jump others", "meta l4proto esp drop", more="chain others { udp dport 53 accept; tcp dport 1 return; }"),
     ["ESP"]),
    (table("udp dport vmap { 500 : drop, 53 : accept }"), ["UDP port 500"]),
])
def test_rule_or_policy_that_drops_it_is_named(tmp_path, text, dropped):
    found = complaints(tmp_path, text)
    assert [cause.partition(": ")[0].removeprefix("the firewall drops incoming ") for cause in found] == dropped
    assert all("table inet filter" in cause for cause in found)
