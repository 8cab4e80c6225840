"""The verdicts on the whole tree, beside those of unbound and delv."""

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from twisted.internet import reactor
from twisted.internet.defer import gatherResults

from oesvc.dns.anchors import read_anchors
from oesvc.dns.answer import Answer, AnswerKind, SecurityStatus
from oesvc.dns.name import parse_name
from oesvc.dns.records import RecordType
from oesvc.dns.resolver import DnsConfig, Mode, ValidatingResolver
from tests.dns.conftest import await_result
from tests.dns.tree import questions

SECURE, INSECURE, BOGUS, INDETERMINATE = SecurityStatus
DATA, NODATA, NXDOMAIN, NONE = AnswerKind


def look_up_all(config, names, rdtype, together=1) -> dict[str, Answer]:
    """With one resolver, so many at a time."""
    resolver, answers = ValidatingResolver(config, reactor), {}
    for i in range(0, len(names), together):
        some = names[i:i + together]
        found = await_result(gatherResults([resolver.look_up(parse_name(name), rdtype) for name in some]))
        answers |= dict(zip(some, found, strict=True))
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
    ("77.10.30.in-addr.arpa.", BOGUS, NONE),
    ("1.10.30.in-addr.arpa.", SECURE, DATA),
    ("3.10.30.in-addr.arpa.", BOGUS, NONE),
    ("1.11.30.in-addr.arpa.", INDETERMINATE, NONE),
    ("1.12.30.in-addr.arpa.", INDETERMINATE, NONE),
    ("3.13.30.in-addr.arpa.", BOGUS, NONE),
    ("1.1.50.in-addr.arpa.", SECURE, DATA),
    ("1.2.50.in-addr.arpa.", INSECURE, DATA),
    ("1.3.50.in-addr.arpa.", INSECURE, DATA),
    ("1.4.50.in-addr.arpa.", SECURE, DATA),
    ("77.4.50.in-addr.arpa.", INSECURE, NXDOMAIN),
    ("77.5.50.in-addr.arpa.", SECURE, NXDOMAIN),
    ("1.6.50.in-addr.arpa.", SECURE, DATA),
    ("x.n.7.50.in-addr.arpa.", SECURE, DATA),
    ("n.7.50.in-addr.arpa.", SECURE, NODATA),
    ("1.d.7.50.in-addr.arpa.", SECURE, DATA),
    ("77.d.7.50.in-addr.arpa.", INSECURE, NXDOMAIN),
    ("u.7.50.in-addr.arpa.", INSECURE, NODATA),
    ("mixedcase.7.50.in-addr.arpa.", SECURE, DATA),
    ("MIXED-alias.7.50.in-addr.arpa.", SECURE, DATA),
    ("mix.7.50.in-addr.arpa.", SECURE, NXDOMAIN),
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


@dataclass(frozen=True)
class Difference:
    """Where another validator's verdict, or ours behind another resolver, is not `verdicts`; nowhere may it be."""

    where: str
    names: str
    "A regular expression."
    ours: SecurityStatus
    theirs: SecurityStatus
    reason: str


_LOOP = r"loop\.[123568]\.30\."
_LAME = r"(1|77)\.1[12]\.30\."
DIFFERENCES = (
    Difference("delv", r"(77|5\.77)\.4\.192\.|x\.wild\.4\.192\.|77\.d\.7\.50\.", INSECURE, SECURE,
               "delv calls validated what opt-out leaves unproven; RFC 5155 section 9.2 forbids that"),
    Difference("delv", _LAME, INDETERMINATE, BOGUS,
               "the server fails; delv says so, which is not validated"),
    Difference("BIND's AD", r"(alias|loop)\.[568]\.30\.", BOGUS, INDETERMINATE,
               "asked with CD for an alias in a zone without signatures BIND does not answer at all"),
    Difference("Knot's AD", r"\.5\.50\.|^5\.50\.|^4\.9\.4\.50\.", SECURE, INSECURE,
               "Knot Resolver takes 150 iterations for too many already, and for more calls the whole zone insecure"),
    Difference("Knot's AD", r"^4\.9\.(9|10|13)\.30\.", SECURE, BOGUS,
               "Knot Resolver asks for 9.X.30 on its way, and for that name the proof of absence is missing"),
    Difference("we behind BIND", r"x\.wild\.4\.50\.", INSECURE, BOGUS,
               "of zones with more than 150 iterations BIND leaves out the NSEC3 that show why it is insecure"),
    Difference("we behind BIND", _LOOP, INDETERMINATE, BOGUS, "BIND hands on the first alias of a loop"),
    Difference("we behind Knot", _LOOP, INDETERMINATE, BOGUS, "Knot Resolver hands on aliases of a loop that it knows"),
    Difference("we at nsd", _LOOP, INDETERMINATE, BOGUS, "an authority hands on the first alias of a loop"),
    Difference("we at nsd", r"(1|77)\.11\.30\.", INDETERMINATE, SECURE, "this nsd is not lame for the zone"),
    Difference("we at nsd", r"(1|77)\.12\.30\.", INDETERMINATE, INSECURE, "this nsd is not lame for the zone"),
)


KEYS = [name for name in questions() if name.partition(".")[0] in ("1", "5", "77", "alias")]
"Of these names KEY is looked up as well: aliases are the difficulty."
NAMES = {RecordType.TXT: questions(), RecordType.KEY: KEYS}


@pytest.fixture(scope="module", params=NAMES, ids=["TXT", "KEY"])
def ours(servers, request):
    """A type, and our verdicts on it."""
    config = DnsConfig((servers.plain,), read_anchors([servers.anchor]))
    return request.param, look_up_all(config, NAMES[request.param], request.param)


def unlisted(where: str, ours: dict[str, Answer], theirs: dict[str, Answer | SecurityStatus]) -> dict[str, str]:
    """The names with another verdict than ours, but for those that the table explains."""
    found = {}
    for name, answer in theirs.items():
        status = answer.status if isinstance(answer, Answer) else answer
        same = seen(answer) == seen(ours[name]) if isinstance(answer, Answer) else status is ours[name].status
        listed = any(one.where == where and re.search(one.names, name)
                     and (one.ours, one.theirs) == (ours[name].status, status) for one in DIFFERENCES)
        if not same and not listed:
            found[name] = f"{ours[name]} {answer}"
    return found


def seen(answer: Answer) -> tuple[object, ...]:
    return answer.status, answer.kind, answer.canonical, answer.rdatas


@pytest.mark.conformance("C-4.5-01")
@pytest.mark.parametrize("where, name, together", [
    ("unbound's AD", "oracle", 1), ("BIND's AD", "bind", 50), ("Knot's AD", "knot", 1)])
def test_other_validators_come_to_the_same_verdict_name_by_name(servers, ours, where, name, together):
    rdtype, verdicts = ours
    config = DnsConfig((getattr(servers, name),), mode=Mode.TRUST_AD, tries=(3.0,))
    assert unlisted(where, verdicts, look_up_all(config, list(verdicts), rdtype, together)) == {}


@pytest.mark.conformance("C-4.5-02")
@pytest.mark.parametrize("where, name", [
    ("we behind unbound", "oracle"), ("we behind BIND", "bind"), ("we behind Knot", "knot"),
    ("we at nsd", "authority")])
def test_behind_every_resolver_and_at_the_authority_we_come_to_the_same_verdict(servers, ours, where, name):
    rdtype, verdicts = ours
    config = DnsConfig((getattr(servers, name),), read_anchors([servers.anchor]))
    assert unlisted(where, verdicts, look_up_all(config, list(verdicts), rdtype)) == {}


def test_delv_comes_to_the_same_verdict_name_by_name(servers, verdicts):
    names = [name for name in verdicts if name.partition(".")[0] in ("1", "5", "77", "x")]
    assert len(names) > 120
    keys = delv_keys(servers)
    with ThreadPoolExecutor(4) as pool:
        theirs = dict(zip(names, pool.map(lambda name: delv(servers, keys, name), names), strict=True))
    assert unlisted("delv", verdicts, theirs) == {}


def test_nowhere_do_we_say_secure_where_unbound_or_delv_do_not():
    """Knot Resolver's differences are limits of its own; ours behind others are never towards SECURE but at nsd."""
    secure = {one.where for one in DIFFERENCES if SECURE in (one.ours, one.theirs) and one.ours is not INSECURE}
    assert secure == {"Knot's AD", "we at nsd"}


def delv_keys(servers) -> Path:
    keys = servers.directory / "delv.keys"
    owner, _, _, tag, algorithm, digest_type, digest = servers.tree.anchor.split()
    keys.write_text(f'trust-anchors {{ {owner} static-ds {tag} {algorithm} {digest_type} "{digest}"; }};\n')
    return keys


def delv(servers, keys, name) -> SecurityStatus:
    address, port = servers.plain
    done = subprocess.run(["delv", f"@{address}", "-p", str(port), "-a", str(keys), "+root=.", name, "TXT"],
                          capture_output=True, text=True, timeout=20, check=False)
    lines = done.stdout.splitlines()
    if any(line.endswith("fully validated") for line in lines):
        return SECURE
    return INSECURE if any(line.endswith("unsigned answer") for line in lines) else BOGUS
