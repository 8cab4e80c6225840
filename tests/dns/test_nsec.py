"""Proofs made by hand: those that must hold, and those that look right but must not."""

import pytest

from oesvc.dns import nsec
from oesvc.dns.answer import AnswerKind
from oesvc.dns.budget import Budget
from oesvc.dns.failures import Bogus
from oesvc.dns.name import parse_name, to_wire
from oesvc.dns.records import RecordType as T

ZONE = parse_name("example")
APEX = [T.NS, T.SOA, T.RRSIG, T.NSEC, T.DNSKEY]


def bitmap(types):
    octets = bytearray(32)
    for rdtype in types:
        octets[rdtype // 8] |= 0x80 >> rdtype % 8
    return bytes([0, 32]) + bytes(octets)


def denial(owner, following, *types):
    return parse_name(owner), to_wire(parse_name(following)) + bitmap(types)


def prove(records, name, rdtype=T.TXT, nxdomain=False, zone=ZONE):
    return nsec.prove_absence(records, zone, parse_name(name), rdtype, nxdomain, Budget())


@pytest.mark.parametrize("name", ["b.example", "x.b.example", "0.example"])
def test_a_name_in_a_gap_does_not_exist_when_no_wildcard_stands_for_it(name):
    records = [denial("example", "a.example", *APEX), denial("a.example", "c.example", T.TXT)]
    assert prove(records, name, nxdomain=True).kind is AnswerKind.NXDOMAIN


def test_the_last_record_of_a_zone_leads_back_to_the_apex():
    records = [denial("example", "a.example", *APEX), denial("c.example", "example", T.TXT)]
    assert prove(records, "d.example", nxdomain=True).kind is AnswerKind.NXDOMAIN


def test_one_record_alone_can_close_a_zone():
    assert prove([denial("example", "example", *APEX)], "d.example", nxdomain=True).kind is AnswerKind.NXDOMAIN


def test_a_name_without_the_type():
    absence = prove([denial("a.example", "c.example", T.A)], "a.example")
    assert absence.kind is AnswerKind.NODATA and not absence.delegation


def test_an_empty_non_terminal_has_no_data():
    absence = prove([denial("a.example", "x.b.example", T.TXT)], "b.example")
    assert absence.kind is AnswerKind.NODATA


def test_no_data_may_be_proven_under_the_code_for_no_name():
    assert prove([denial("a.example", "c.example", T.A)], "a.example", nxdomain=True).kind is AnswerKind.NODATA
    records = [denial("example", "0.example", *APEX), denial("a.example", "x.b.example", T.A)]
    assert prove(records, "b.example", nxdomain=True).kind is AnswerKind.NODATA, "an empty non-terminal exists"


def test_a_wildcard_without_the_type():
    records = [denial("*.example", "a.example", T.A), denial("a.example", "c.example", T.TXT)]
    assert prove(records, "b.example").kind is AnswerKind.NODATA


def test_an_unsigned_delegation():
    absence = prove([denial("a.example", "c.example", T.NS)], "a.example", T.DS)
    assert absence.kind is AnswerKind.NODATA and absence.delegation


@pytest.mark.parametrize("why, records, name, rdtype, nxdomain", [
    ("nothing at all", [], "b.example", T.TXT, True),
    ("a gap elsewhere", [denial("x.example", "z.example", T.A)], "b.example", T.TXT, True),
    ("the wildcard is not denied", [denial("a.example", "c.example", T.A)], "b.example", T.TXT, True),
    ("the wildcard is denied at another encloser",
     [denial("example", "a.example", *APEX), denial("a.b.example", "c.b.example", T.A)],
     "b.b.example", T.TXT, True),
    ("the name exists", [denial("b.example", "c.example", T.TXT)], "b.example", T.TXT, True),
    ("the type is there", [denial("b.example", "c.example", T.TXT)], "b.example", T.TXT, False),
    ("an alias is there", [denial("b.example", "c.example", T.CNAME)], "b.example", T.TXT, False),
    ("below a delegation", [denial("example", "a.example", *APEX), denial("b.example", "c.example", T.NS)],
     "x.b.example", T.TXT, True),
    ("below a DNAME", [denial("example", "a.example", *APEX), denial("b.example", "c.example", T.DNAME)],
     "x.b.example", T.TXT, True),
    ("the parent's side for the child's data", [denial("b.example", "c.example", T.NS)], "b.example", T.TXT, False),
    ("the child's side for the parent's DS", [denial("b.example", "c.b.example", *APEX)], "b.example", T.DS, False),
    ("an end outside of the zone", [denial("a.example", "z.other", T.A), denial("example", "a.example", *APEX)],
     "b.example", T.TXT, True),
    ("an owner outside of the zone", [denial("a.other", "example", T.A)], "b.example", T.TXT, True),
    ("the wrong way round, not at the end", [denial("z.example", "a.example", T.A)], "b.example", T.TXT, True),
    ("a gap is no code for no data",
     [denial("example", "a.example", *APEX), denial("a.example", "c.example", T.A)], "b.example", T.TXT, False),
    ("the wildcard has the type", [denial("*.example", "a.example", T.TXT), denial("a.example", "c.example", T.A)],
     "b.example", T.TXT, False),
    ("the wildcard is an alias", [denial("*.example", "a.example", T.CNAME), denial("a.example", "c.example", T.A)],
     "b.example", T.TXT, False),
])
def test_what_is_no_proof(why, records, name, rdtype, nxdomain):
    with pytest.raises(Bogus, match="do not prove"):
        prove(records, name, rdtype, nxdomain)


def test_a_wildcard_stands_for_names_in_a_gap():
    gap = [denial("a.example", "c.example", T.A)]
    assert nsec.prove_no_closer_match(gap, ZONE, parse_name("x.b.example"), ZONE, Budget()) is None


@pytest.mark.parametrize("why, records", [
    ("no gap", [denial("c.example", "d.example", T.A)]),
    ("the name exists", [denial("x.b.example", "c.example", T.A)]),
    ("a closer name exists", [denial("a.b.example", "c.example", T.A)]),
    ("a closer name follows", [denial("a.example", "z.b.example", T.A)]),
    ("below a delegation", [denial("b.example", "c.example", T.NS)]),
])
def test_a_wildcard_does_not_stand_for_others(why, records):
    with pytest.raises(Bogus, match="a wildcard stands for"):
        nsec.prove_no_closer_match(records, ZONE, parse_name("x.b.example"), ZONE, Budget())
