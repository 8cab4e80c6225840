import struct

import pytest

from oesvc.dns.failures import MalformedData
from oesvc.dns.name import parse_name, to_wire
from oesvc.dns.question import VALIDATING
from oesvc.dns.records import RecordType, parse_soa, parse_target
from oesvc.dns.wire import MAX_RECORDS, Flag, answers_query, parse_message, write_query

NAME = parse_name("66.0.2.192.in-addr.arpa")
QUESTION = to_wire(NAME) + struct.pack("!HH", RecordType.TXT, 1)
POINTER = b"\xc0\x0c"
"To the question's name."


def record(owner=POINTER, rdtype=RecordType.TXT, rdclass=1, ttl=300, rdata=b"\4text"):
    return owner + struct.pack("!HHIH", rdtype, rdclass, ttl, len(rdata)) + rdata


def message(*answers, authority=(), additional=(), flags=0x8180, question=QUESTION, counts=None):
    counts = counts or (len(answers), len(authority), len(additional))
    return struct.pack("!6H", 7, flags, 1, *counts) + question + b"".join((*answers, *authority, *additional))


def test_records_are_grouped_with_the_signatures_that_cover_them():
    signature = struct.pack("!H", RecordType.TXT) + b"rest of the signature"
    parsed = parse_message(message(record(ttl=500), record(rdata=b"\3two"), record(rdata=b"\3two"),
                                   record(rdtype=RecordType.RRSIG, ttl=200, rdata=signature)))
    rrset, = parsed.answer
    assert (rrset.owner, rrset.rdtype) == (NAME, RecordType.TXT)
    assert rrset.rdatas == (b"\4text", b"\3two"), "duplicates are dropped"
    assert rrset.signatures == (signature,)
    assert rrset.ttl == 200, "the least of records and signatures"
    assert parsed.find(NAME, RecordType.TXT) is rrset and parsed.find(NAME, RecordType.KEY) is None


def test_owners_are_in_lower_case_and_names_in_rdata_are_uncompressed():
    mixed = QUESTION.replace(b"arpa", b"ArPa")
    soa = b"\1a" + POINTER + b"\1b" + POINTER + struct.pack("!5I", 1, 2, 3, 4, 60)
    parsed = parse_message(message(record(rdtype=RecordType.CNAME, rdata=b"\1x" + POINTER),
                                   authority=[record(rdtype=RecordType.SOA, rdata=soa)], question=mixed))
    assert parsed.answer[0].owner == NAME
    assert parse_target(parsed.answer[0].rdatas[0]) == (b"x", *NAME)
    assert parse_soa(parsed.find_soa().rdatas[0]).minimum == 60


def test_other_classes_are_left_out_and_ttls_beyond_the_limit_are_zero():
    parsed = parse_message(message(record(rdclass=3), record(rdata=b"\1a", ttl=0x80000001)))
    assert [(rrset.ttl, rrset.rdatas) for rrset in parsed.answer] == [(0, (b"\1a",))]


def test_the_upper_bits_of_the_code_stand_in_the_opt_record():
    opt = b"\0" + struct.pack("!HHIH", RecordType.OPT, 1232, 1 << 24, 0)
    assert parse_message(message(additional=[opt])).rcode == 16
    assert parse_message(message(flags=0x8183)).rcode == 3


@pytest.mark.parametrize("data, complaint", [
    (b"", "0 octets"),
    (message()[:11], "11 octets"),
    (message() + b"x", "1 octets behind"),
    (message(record())[:-1], "cut short"),
    (message(counts=(1, 0, 0)), "cut short"),
    (message(counts=(0, 0, MAX_RECORDS + 1)), "257 records"),
    (message(record(owner=b"\xc0\x29")), "does not lead back"),
    (message(record(owner=b"\xc0\x0b")), "does not lead back"),
    (message(record(owner=b"\x80a")), "unknown kind"),
    (message(record(owner=b"\xc0")), "does not lead back"),
    (message(record(rdtype=RecordType.CNAME, rdata=b"\1x")), "cut short"),
    (message(record(rdtype=RecordType.CNAME, rdata=b"\1x"), record(rdata=b"\0" * 200)), "out of its record"),
    (struct.pack("!6H", 7, 0x8180, 0, 0, 0, 0), "0 questions"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_not_one_whole_message_is_refused(data, complaint):
    with pytest.raises(MalformedData, match=complaint):
        parse_message(data)


def test_compression_is_bounded():
    ladder = b"".join(struct.pack("!H", 0xC000 | max(12, 12 + len(QUESTION) + 10 + 2 + 2 * (i - 1))) for i in range(60))
    first = POINTER + struct.pack("!HHIH", 10, 1, 0, len(ladder)) + ladder
    last = 12 + len(QUESTION) + 10 + 2 + 2 * 59
    with pytest.raises(MalformedData, match="does not lead back"):
        parse_message(message(first, record(owner=struct.pack("!H", 0xC000 | last))))


def test_a_query_says_what_we_can_take():
    query = write_query(7, NAME, RecordType.TXT, VALIDATING.flags, dnssec_ok=True, payload=1232)
    parsed = parse_message(query)
    assert parsed.id == 7 and parsed.flags == Flag.RD | Flag.CD
    assert query.endswith(b"\0" + struct.pack("!HHIH", RecordType.OPT, 1232, 0x8000, 0))


def test_only_the_answer_to_our_own_question_is_an_answer():
    query = write_query(7, NAME, RecordType.TXT, VALIDATING.flags, dnssec_ok=True, payload=1232)
    good = message(record())
    assert answers_query(good, query)
    assert not answers_query(query, query), "an echo"
    assert not answers_query(b"\0\x08" + good[2:], query), "another id"
    assert not answers_query(message(record(), question=QUESTION.replace(b"arpa", b"ARPA")), query), "another case"
    assert not answers_query(message(record(), question=to_wire(NAME) + b"\0\x19\0\1"), query), "another type"
    assert not answers_query(message(record(), flags=0x8980), query), "another opcode"
    assert not answers_query(b"\0\7\x80\0\0\1", query), "a header cut short"
