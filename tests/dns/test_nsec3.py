"""NSEC3 proofs over a small zone hashed here: the right subset proves, each wrong one does not."""

import hashlib
import struct

import pytest

from oesvc.dns import nsec3
from oesvc.dns.answer import AnswerKind
from oesvc.dns.budget import Budget
from oesvc.dns.failures import Bogus
from oesvc.dns.name import name_text, parse_name, to_wire
from oesvc.dns.records import RecordType as T
from oesvc.dns.records import hash_label
from tests.dns.test_nsec import APEX, bitmap

ZONE = parse_name("example")
SALT = bytes.fromhex("aabbccdd")
NAMES = {"example": APEX, "a.example": [T.TXT], "alias.example": [T.CNAME], "cut.example": [T.NS],
         "ent.example": [], "x.ent.example": [T.A], "redirect.example": [T.DNAME],
         "w.example": [T.A], "*.w.example": [T.A]}


def digest(name, salt=SALT, iterations=12):
    result = to_wire(parse_name(name))
    for _ in range(iterations + 1):
        result = hashlib.sha1(result + salt).digest()
    return result


def chain(flags=0, salt=SALT, iterations=12, algorithm=1, names=NAMES):
    """The zone's records, by name."""
    ordered = sorted((digest(name, salt, iterations), name) for name in names)
    following = ordered[1:] + ordered[:1]
    return {name: ((hash_label(place), *ZONE),
                   struct.pack("!BBHB", algorithm, flags, iterations, len(salt)) + salt + b"\x14" + after
                   + bitmap(names[name]))
            for (place, name), (after, _) in zip(ordered, following, strict=True)}


def prove(records, name, rdtype=T.TXT, nxdomain=False):
    return nsec3.prove_absence(list(records.values()), ZONE, parse_name(name), rdtype, nxdomain, Budget())


def test_hash_of_rfc_5155():
    # Appendix A: H(example) with salt aabbccdd and 12 iterations
    assert hash_label(digest("example")) == b"0p9mhaveqvm6t7vbl5lop2u3t2rp3tom"


def test_the_whole_zone_proves_what_is_absent_from_it():
    zone = chain()
    assert prove(zone, "n.example", nxdomain=True).kind is AnswerKind.NXDOMAIN
    assert prove(zone, "z.n.example", nxdomain=True).kind is AnswerKind.NXDOMAIN
    assert prove(zone, "a.example", T.KEY).kind is AnswerKind.NODATA
    assert prove(zone, "ent.example").kind is AnswerKind.NODATA
    assert prove(zone, "v.w.example").kind is AnswerKind.NODATA, "the wildcard has no TXT"
    cut = prove(zone, "cut.example", T.DS)
    assert cut.kind is AnswerKind.NODATA and cut.delegation and not cut.unsigned


@pytest.mark.parametrize("name, rdtype, nxdomain", [
    ("a.example", T.TXT, False), ("a.example", T.TXT, True), ("alias.example", T.TXT, False),
    ("cut.example", T.TXT, False), ("x.cut.example", T.TXT, True), ("x.redirect.example", T.TXT, True),
    ("example", T.DS, False), ("n.example", T.TXT, False), ("n.example", T.DS, False),
    ("v.w.example", T.A, False), ("v.w.example", T.TXT, True),
])
def test_the_whole_zone_does_not_prove_what_is_there_or_elsewhere(name, rdtype, nxdomain):
    if (name, nxdomain) == ("v.w.example", True):
        assert prove(chain(), name, rdtype, nxdomain).kind is AnswerKind.NODATA, "never that the name is absent"
        return
    with pytest.raises(Bogus, match="do not prove"):
        prove(chain(), name, rdtype, nxdomain)


def test_every_record_of_a_minimal_proof_is_needed():
    zone, name = chain(), "n.example"
    needed = dict(zone)
    for left_out in zone:
        fewer = {key: value for key, value in needed.items() if key != left_out}
        try:
            prove(fewer, name, nxdomain=True)
            needed = fewer
        except Bogus:
            continue
    assert 1 < len(needed) <= 3, "closest encloser, next closer name, wildcard"
    for left_out in needed:
        with pytest.raises(Bogus):
            prove({key: value for key, value in needed.items() if key != left_out}, name, nxdomain=True)


def test_opt_out_leaves_room_for_unsigned_delegations():
    zone = chain(flags=1)
    delegation = prove(zone, "n.example", T.DS)
    assert delegation.delegation and "opt-out" in delegation.unsigned
    assert "opt-out" in prove(zone, "n.example", nxdomain=True).unsigned
    assert prove(zone, "a.example", T.KEY).unsigned is None, "what is there is there"


def test_more_than_150_iterations_are_insecure_and_not_computed():
    absence = prove(chain(iterations=151), "n.example", nxdomain=True)
    assert absence.kind is AnswerKind.NXDOMAIN and "150 NSEC3 iterations" in absence.unsigned
    assert prove(chain(iterations=150), "n.example", nxdomain=True).unsigned is None


@pytest.mark.parametrize("why, records", [
    ("none", {}),
    ("unknown hash", chain(algorithm=2)),
    ("unknown flags", chain(flags=2)),
    ("two salts", {**chain(), **{f"other {key}": value for key, value in chain(salt=b"").items()}}),
    ("two counts", {**chain(), **{f"other {key}": value for key, value in chain(iterations=3).items()}}),
])
def test_records_that_do_not_belong_together_prove_nothing(why, records):
    with pytest.raises(Bogus, match="do not belong together"):
        prove(records, "n.example", nxdomain=True)


def test_records_of_another_zone_are_passed_over():
    foreign = {name: (owner[:1] + parse_name("other"), rdata) for name, (owner, rdata) in chain().items()}
    with pytest.raises(Bogus):
        prove(foreign, "n.example", nxdomain=True)


def test_a_wildcard_stands_for_a_name_when_the_next_closer_is_absent():
    records, encloser = list(chain().values()), parse_name("w.example")

    def prove_wildcard(*arguments):
        return nsec3.prove_no_closer_match(*arguments, Budget())

    assert prove_wildcard(records, ZONE, parse_name("z.v.w.example"), encloser) is None
    assert "opt-out" in prove_wildcard(list(chain(flags=1).values()), ZONE, parse_name("v.w.example"), encloser)
    assert "150" in prove_wildcard(list(chain(iterations=500).values()), ZONE, parse_name("v.w.example"), encloser)
    with pytest.raises(Bogus, match=name_text(parse_name("x.ent.example"))):
        prove_wildcard(records, ZONE, parse_name("x.ent.example"), parse_name("ent.example"))
