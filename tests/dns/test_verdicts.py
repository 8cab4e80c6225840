"""The verdicts on the whole tree, beside those of unbound and delv."""

import subprocess

import pytest
from twisted.internet import reactor

from oesvc.dns.anchors import read_anchors
from oesvc.dns.answer import Answer, AnswerKind, SecurityStatus
from oesvc.dns.name import parse_name
from oesvc.dns.records import RecordType
from oesvc.dns.resolver import DnsConfig, Mode, ValidatingResolver
from tests.dns.conftest import await_result
from tests.dns.tree import questions

SECURE, INSECURE, BOGUS, INDETERMINATE = SecurityStatus
DATA, NODATA, NXDOMAIN, NONE = AnswerKind


def look_up_all(config, names, rdtype) -> dict[str, Answer]:
    resolver = ValidatingResolver(config, reactor)
    answers = {name: await_result(resolver.look_up(parse_name(name), rdtype)) for name in names}
    await_result(resolver.close())
    return answers


@pytest.fixture(scope="module")
def verdicts(servers):
    """Of the TXT records of the whole tree."""
    return look_up_all(DnsConfig((servers.plain,), read_anchors([servers.anchor])), questions(), RecordType.TXT)


@pytest.mark.conformance("C-4.5-01")
@pytest.mark.parametrize("name, status, kind", [
    ("66.0.2.192.in-addr.arpa.", SECURE, DATA),
    ("2.2.192.in-addr.arpa.", SECURE, DATA),
    ("1.1.192.in-addr.arpa.", SECURE, DATA),
    ("1.5.192.in-addr.arpa.", SECURE, DATA),
    ("1.8.192.in-addr.arpa.", SECURE, DATA),
    ("3.2.192.in-addr.arpa.", SECURE, NODATA),
    ("9.2.192.in-addr.arpa.", SECURE, NODATA),
    ("9.3.192.in-addr.arpa.", SECURE, NODATA),
    ("77.2.192.in-addr.arpa.", SECURE, NXDOMAIN),
    ("77.3.192.in-addr.arpa.", SECURE, NXDOMAIN),
    ("x.wild.2.192.in-addr.arpa.", SECURE, DATA),
    ("y.x.wild.3.192.in-addr.arpa.", SECURE, DATA),
    ("x.wild.4.192.in-addr.arpa.", INSECURE, DATA),
    ("77.4.192.in-addr.arpa.", INSECURE, NXDOMAIN),
    ("1.7.4.192.in-addr.arpa.", INSECURE, DATA),
    ("1.8.4.192.in-addr.arpa.", SECURE, DATA),
    ("1.40.in-addr.arpa.", INSECURE, NODATA),
    ("77.40.in-addr.arpa.", INSECURE, NXDOMAIN),
    ("1.1.40.in-addr.arpa.", INSECURE, DATA),
    ("5.40.in-addr.arpa.", INSECURE, DATA),
    ("5.0.20.in-addr.arpa.", SECURE, DATA),
    ("6.0.20.in-addr.arpa.", SECURE, NXDOMAIN),
    ("7.0.20.in-addr.arpa.", INSECURE, DATA),
    ("8.0.20.in-addr.arpa.", SECURE, NXDOMAIN),
    ("9.0.20.in-addr.arpa.", BOGUS, NONE),
    ("1.x.0.20.in-addr.arpa.", SECURE, DATA),
    ("77.x.0.20.in-addr.arpa.", SECURE, NXDOMAIN),
    ("1.1.30.in-addr.arpa.", BOGUS, NONE),
    ("77.1.30.in-addr.arpa.", BOGUS, NONE),
    ("1.2.30.in-addr.arpa.", BOGUS, NONE),
    ("1.3.30.in-addr.arpa.", BOGUS, NONE),
    ("1.4.30.in-addr.arpa.", BOGUS, NONE),
    ("3.4.30.in-addr.arpa.", SECURE, NODATA),
    ("1.5.30.in-addr.arpa.", BOGUS, NONE),
    ("1.6.30.in-addr.arpa.", BOGUS, NONE),
    ("1.7.30.in-addr.arpa.", BOGUS, NONE),
    ("1.8.30.in-addr.arpa.", BOGUS, NONE),
    ("1.9.30.in-addr.arpa.", SECURE, DATA),
    ("77.9.30.in-addr.arpa.", BOGUS, NONE),
    ("loop.2.192.in-addr.arpa.", INDETERMINATE, NONE),
])
def test_every_way_of_being_right_or_wrong_has_its_verdict(verdicts, name, status, kind):
    answer = verdicts[name]
    assert (answer.status, answer.kind) == (status, kind), answer.reason
    assert answer.reason and bool(answer.rdatas) == (kind is DATA)


@pytest.mark.conformance("C-4.5-03")
def test_a_signed_zone_without_its_proof_of_absence_is_bogus_not_without_a_record(verdicts):
    answer = verdicts["77.9.30.in-addr.arpa."]
    assert answer.status is BOGUS
    assert "is not signed, and no unsigned delegation is proven above" in answer.reason


@pytest.mark.parametrize("rdtype", [RecordType.TXT, RecordType.KEY])
def test_unbound_comes_to_the_same_verdict_name_by_name(servers, rdtype):
    theirs = look_up_all(DnsConfig((servers.oracle,), mode=Mode.TRUST_AD), questions(), rdtype)
    anchors = read_anchors([servers.anchor])
    for upstream in (servers.plain, servers.oracle):
        ours = look_up_all(DnsConfig((upstream,), anchors), questions(), rdtype)
        assert len(ours) > 350
        assert {name: differ for name in ours if (differ := difference(ours[name], theirs[name]))} == {}


def test_asked_directly_the_authority_gives_the_same_verdicts_but_for_loops(servers, verdicts):
    """A recursive resolver refuses a loop of aliases at once; an authority hands it on, and the first link is bogus."""
    direct = look_up_all(DnsConfig((servers.authority,), read_anchors([servers.anchor])), questions(), RecordType.TXT)
    differing = {name for name in direct if difference(direct[name], verdicts[name])}
    assert all(name.startswith("loop.") and direct[name].status is BOGUS for name in differing)


def difference(one: Answer, other: Answer) -> str:
    def seen(answer: Answer) -> tuple[object, ...]:
        return answer.status, answer.kind, answer.canonical, answer.rdatas

    return "" if seen(one) == seen(other) else f"{one} {other}"


def test_delv_comes_to_the_same_verdict_but_for_opt_out(servers, verdicts):
    """delv calls validated what opt-out leaves unproven (RFC 5155 section 9.2 forbids it to us, as to unbound)."""
    names = [name for name in verdicts if name.partition(".")[0] in ("1", "5", "77", "x")]
    assert len(names) > 90
    differing = {name: (verdicts[name].status, theirs) for name in names
                 if (theirs := delv(servers, name)) is not verdicts[name].status}
    opted_out = ("77.4.192.in-addr.arpa.", "5.77.4.192.in-addr.arpa.")
    assert differing == dict.fromkeys(opted_out, (INSECURE, SECURE))


def delv(servers, name) -> SecurityStatus:
    address, port = servers.plain
    keys = servers.directory / "delv.keys"
    owner, _, _, tag, algorithm, digest_type, digest = servers.tree.anchor.split()
    keys.write_text(f'trust-anchors {{ {owner} static-ds {tag} {algorithm} {digest_type} "{digest}"; }};\n')
    done = subprocess.run(["delv", f"@{address}", "-p", str(port), "-a", str(keys), "+root=.", name, "TXT"],
                          capture_output=True, text=True, timeout=20, check=False)
    lines = done.stdout.splitlines()
    if any(line.endswith("fully validated") for line in lines):
        return SECURE
    return INSECURE if any(line.endswith("unsigned answer") for line in lines) else BOGUS
