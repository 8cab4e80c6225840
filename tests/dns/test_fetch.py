"""The transport against servers that misbehave, on loopback."""

import socket
import struct
import time
from pathlib import Path

import pytest
from twisted.internet import reactor
from twisted.internet.defer import gatherResults, maybeDeferred
from twisted.internet.protocol import DatagramProtocol, Factory
from twisted.internet.task import deferLater
from twisted.logger import formatEvent, globalLogPublisher
from twisted.protocols.basic import Int16StringReceiver

from oesvc.dns.crowd import CrowdLimits
from oesvc.dns.failures import Indeterminate
from oesvc.dns.fetch import Fetcher
from oesvc.dns.name import ROOT, parse_name
from oesvc.dns.plain import SMALL_ANSWERS_FOR
from oesvc.dns.question import TRUSTING, VALIDATING
from oesvc.dns.records import RecordType
from oesvc.dns.servers import FIRST_PENALTY
from oesvc.dns.sockets import leave_as_is
from oesvc.dns.wire import Rcode
from tests.dns.conftest import await_result

NAME = parse_name("66.0.2.192.in-addr.arpa")
GOOD = b"the right text"


def reply(query: bytes, text: bytes = GOOD, flags: int = 0x8180, **changed) -> bytes:
    """An answer to a query of ours: one TXT record."""
    question = changed.get("question", query[12:-11])
    header = struct.pack("!6H", changed.get("id", int.from_bytes(query[:2], "big")), flags, 1, 1, 0, 0)
    rdata = bytes([len(text)]) + text
    return header + question + b"\xc0\x0c" + struct.pack("!HHIH", RecordType.TXT, 1, 300, len(rdata)) + rdata


class Server(DatagramProtocol):
    """Answers by a function from the query to datagrams; keeps a diary of who asked what."""

    def __init__(self, behaviour):
        self.behaviour, self.diary = behaviour, []

    def datagramReceived(self, data, addr):
        self.diary.append((data, addr))
        for datagram in self.behaviour(data):
            self.transport.write(datagram, addr)


class Stream(Int16StringReceiver):
    def stringReceived(self, string):
        for octets in self.factory.behaviour(string):
            self.sendString(octets)


@pytest.fixture
def world():
    """Starts servers and fetchers, and closes them again."""
    opened = []

    class World:
        def __init__(self):
            self.tries, self.told = (20.0, 20.0, 20.0), []

        def server(self, behaviour, interface="127.0.0.1", port=0):
            protocol = Server(behaviour)
            listening = reactor.listenUDP(port, protocol, interface=interface)
            opened.append(listening.stopListening)
            return protocol, (interface, listening.getHost().port)

        def stream(self, behaviour, endpoint):
            factory = Factory.forProtocol(Stream)
            factory.behaviour = behaviour
            opened.append(reactor.listenTCP(endpoint[1], factory, interface=endpoint[0]).stopListening)

        def fetcher(self, *endpoints, prepare=leave_as_is, reactor=reactor, **options):
            fetcher = Fetcher(reactor, endpoints, self.tries, prepare, lambda *event: self.told.append(event),
                              **options)
            opened.append(fetcher.close)
            return fetcher

        def fetch(self, *endpoints, **options):
            return await_result(self.fetcher(*endpoints, **options).fetch(NAME, RecordType.TXT))

    yield World()
    await_result(gatherResults([maybeDeferred(stop) for stop in opened]))


def text_of(message):
    return message.find(NAME, RecordType.TXT).rdatas[0][1:]


def test_forged_datagrams_are_passed_over_until_the_right_one_comes(world):
    def forge_first(query):
        bad = b"forged"
        yield reply(query, bad, id=(int.from_bytes(query[:2], "big") + 1) & 0xFFFF)
        yield reply(query, bad, question=query[12:-11].swapcase())
        yield reply(query, bad, question=query[12:-15] + b"\0\x19\0\1")
        yield reply(query, bad, flags=0x0100)
        yield query
        yield b"garbage"
        yield b""
        yield reply(query)

    _, endpoint = world.server(forge_first)
    assert text_of(world.fetch(endpoint)) == GOOD


def test_datagrams_from_another_place_do_not_reach_us(world):
    other, _ = world.server(lambda query: ())

    def let_another_answer(query):
        other.transport.write(reply(query, b"forged"), server.diary[-1][1])
        reactor.callLater(0.05, server.transport.write, reply(query), server.diary[-1][1])
        return ()

    server, endpoint = world.server(let_another_answer)
    assert text_of(world.fetch(endpoint)) == GOOD


@pytest.mark.conformance("C-3.2-11")
def test_each_try_has_a_new_socket_and_a_new_id_but_the_same_question(world):
    world.tries = (0.1, 0.1, 20.0)
    server, endpoint = world.server(lambda query: [reply(query)] if len(server.diary) == 3 else [])
    assert text_of(world.fetch(endpoint)) == GOOD
    assert len({addr for _, addr in server.diary}) == 3
    assert len({query[12:-11].lower() for query, _ in server.diary}) == 1
    assert len({query[12:-11] for query, _ in server.diary}) > 1, "letters turned over anew"
    assert len({query[:2] for query, _ in server.diary}) > 1


@pytest.mark.parametrize("behaviour", [
    lambda query: [],
    lambda query: [reply(query, flags=0x8182)],
    lambda query: [reply(query, flags=0x8185)],
    lambda query: [reply(query)[:-3]],
], ids=["silent", "SERVFAIL", "REFUSED", "malformed"])
def test_another_server_is_asked_when_one_fails_and_is_preferred_from_then_on(world, behaviour):
    world.tries = (0.2, 20.0)
    bad, first = world.server(behaviour)
    _, second = world.server(lambda query: [reply(query)])
    fetcher = world.fetcher(first, second)
    for _ in range(3):
        assert text_of(await_result(fetcher.fetch(NAME, RecordType.TXT))) == GOOD
    assert len(bad.diary) == 1


def test_a_port_where_nobody_listens_costs_no_waiting(world):
    world.tries = (600.0, 600.0)
    _, endpoint = world.server(lambda query: [reply(query)])
    assert text_of(world.fetch(("127.0.0.1", 9), endpoint)) == GOOD


def test_silence_of_all_servers_is_indeterminate_and_names_them(world):
    world.tries = (0.1, 20.0)
    _, silent = world.server(lambda query: [])
    _, broken = world.server(lambda query: [reply(query)[:-3]], interface="127.0.0.2")
    with pytest.raises(Indeterminate, match=r"TXT: 127.0.0.1@\d+ did not answer, 127.0.0.2@\d+ sent a .*cut short"):
        world.fetch(silent, broken)


def test_an_answer_that_waits_while_we_are_busy_is_no_silence(world):
    """Timers ring before what has arrived is read: here after the reactor was kept busy for longer than a try."""
    def behaviour(query):
        yield reply(query)
        time.sleep(0.4)

    world.tries = (0.2,)
    _, endpoint = world.server(behaviour)
    assert text_of(world.fetch(endpoint)) == GOOD


def test_an_error_of_the_only_server_is_its_answer(world):
    server, endpoint = world.server(lambda query: [reply(query, flags=0x8182)])
    assert world.fetch(endpoint).rcode == Rcode.SERVFAIL
    assert len(server.diary) == 1


@pytest.mark.conformance("C-5.2.1-04")
def test_a_truncated_answer_is_fetched_over_tcp(world):
    _, endpoint = world.server(lambda query: [reply(query, flags=0x8380)])
    world.stream(lambda query: [reply(query, b"x" * 255)], endpoint)
    assert text_of(world.fetch(endpoint)) == b"x" * 255


def test_over_tcp_too_only_the_right_answer_counts(world):
    _, endpoint = world.server(lambda query: [reply(query, flags=0x8380)])
    world.stream(lambda query: [reply(query, id=0xFFFF - int.from_bytes(query[:2], "big"))], endpoint)
    with pytest.raises(Indeterminate, match="closed without an answer"):
        world.fetch(endpoint)


def test_no_tcp_where_udp_says_truncated_is_a_failure_of_that_server(world):
    _, truncating = world.server(lambda query: [reply(query, flags=0x8380)])
    with pytest.raises(Indeterminate, match="ECONNREFUSED"):
        world.fetch(truncating)
    _, endpoint = world.server(lambda query: [reply(query)])
    assert text_of(world.fetch(truncating, endpoint)) == GOOD


def test_the_same_question_at_the_same_time_is_asked_once(world):
    server, endpoint = world.server(lambda query: [reply(query)])
    fetcher = world.fetcher(endpoint)
    answers = await_result(gatherResults([fetcher.fetch(NAME, RecordType.TXT) for _ in range(20)]))
    assert len(server.diary) == 1 and all(text_of(answer) == GOOD for answer in answers)
    await_result(fetcher.fetch(NAME, RecordType.TXT))
    assert len(server.diary) == 2
    assert world.told == [(NAME, RecordType.TXT, f"query to 127.0.0.1@{endpoint[1]}")] * 2


def test_a_crowd_shares_a_bounded_number_of_sockets_and_is_bounded_itself(world):
    def count_and_answer(query):
        counts.append(open_files())
        return [reply(query)]

    counts, world.tries = [], (60.0,)
    server, endpoint = world.server(count_and_answer)
    fetcher, before = world.fetcher(endpoint, crowd=CrowdLimits(questions=1000, sockets=100)), open_files()
    crowd = [fetcher.fetch((b"%d" % number, *NAME), RecordType.TXT) for number in range(1000)]
    with pytest.raises(Indeterminate, match="more than 1000 questions"):
        await_result(fetcher.fetch(NAME, RecordType.TXT))
    assert len(await_result(gatherResults(crowd))) == len(server.diary) == 1000
    assert max(counts) <= before + 100
    assert open_files() <= before


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_every_socket_is_prepared_before_it_speaks(world):
    prepared = []

    def prepare(sock):
        with pytest.raises(OSError):
            sock.getpeername()
        prepared.append(sock.type)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, 5)

    _, endpoint = world.server(lambda query: [reply(query, flags=0x8380)])
    world.stream(lambda query: [reply(query)], endpoint)
    assert text_of(world.fetch(endpoint, prepare=prepare)) == GOOD
    assert prepared == [socket.SOCK_DGRAM, socket.SOCK_STREAM]


def test_a_socket_that_cannot_be_prepared_is_not_used(world):
    def refuse(sock):
        raise OSError("no CAP_NET_ADMIN")

    server, endpoint = world.server(lambda query: [reply(query)])
    with pytest.raises(Indeterminate, match="CAP_NET_ADMIN"):
        world.fetch(endpoint, prepare=refuse)
    assert server.diary == []


def test_servers_with_ipv6_addresses(world):
    _, endpoint = world.server(lambda query: [reply(query, flags=0x8380)], interface="::1")
    world.stream(lambda query: [reply(query)], endpoint)
    assert text_of(world.fetch(endpoint)) == GOOD


def test_closing_ends_what_is_under_way(world):
    world.tries = (600.0,)
    _, endpoint = world.server(lambda query: [])
    fetcher = world.fetcher(endpoint)
    waiting = fetcher.fetch(NAME, RecordType.TXT, VALIDATING)
    fetcher.close()
    with pytest.raises(Indeterminate, match="closed"):
        await_result(waiting)
    assert [call for call in reactor.getDelayedCalls() if call.getTime() > reactor.seconds() + 500] == []


class MovedReactor:
    """The reactor, with a clock that can be moved on."""

    def __init__(self):
        self.ahead = 0.0

    def seconds(self):
        return reactor.seconds() + self.ahead

    def __getattr__(self, name):
        return getattr(reactor, name)


@pytest.fixture
def said():
    """What the log is told, as text."""
    lines = []

    def note(event):
        lines.append(formatEvent(event))

    globalLogPublisher.addObserver(note)
    yield lines
    globalLogPublisher.removeObserver(note)


def signed(query, key=b"key"):
    """An answer with a signature: one TXT record, whatever is asked for, and its RRSIG."""
    end = query.index(b"\0", 12) + 5
    rdatas = [(query[end - 4:end - 2], key), (b"\0\x2e", query[end - 4:end - 2] + bytes(20))]
    records = b"".join(b"\xc0\x0c" + rdtype + struct.pack("!HIH", 1, 300, len(rdata)) + rdata
                       for rdtype, rdata in rdatas)
    return query[:2] + struct.pack("!5H", 0x8180, 1, 2, 0, 0) + query[12:end] + records


def type_of(query):
    end = query.index(b"\0", 12) + 1
    return int.from_bytes(query[end:end + 2], "big")


def test_a_server_that_does_not_keep_the_case_is_asked_without_and_reported_once(world, said):
    world.tries = (0.2, 20.0)

    def lower(query):
        return [reply(query, question=query[12:-11].lower())]

    server, endpoint = world.server(lower)
    fetcher = world.fetcher(endpoint)
    name = (b"abcdefghijklmnopqrstuvwxyz" * 2, *NAME)
    for host in (b"one", b"two"):
        assert await_result(fetcher.fetch((host, *name), RecordType.TXT)).rcode == Rcode.NOERROR
    cases = [query[12:-11] != query[12:-11].lower() for query, _ in server.diary]
    assert cases == [True, False, False]
    assert len([line for line in said if "does not keep the case" in line]) == 1


def test_a_forger_who_misses_the_case_does_not_stop_a_server_that_keeps_it(world, said):
    server, endpoint = world.server(
        lambda query: [reply(query, b"forged", question=query[12:-11].swapcase()), reply(query)])
    fetcher = world.fetcher(endpoint)
    for _ in range(2):
        assert text_of(await_result(fetcher.fetch(NAME, RecordType.TXT))) == GOOD
    assert all(query[12:-11] != query[12:-11].lower() for query, _ in server.diary)
    assert not any("case" in line for line in said)


@pytest.mark.parametrize("rcode", [Rcode.FORMERR, Rcode.NOTIMP])
def test_a_server_without_edns_serves_where_dnssec_is_not_needed(world, said, rcode):
    def refuse_edns(query):
        if int.from_bytes(query[10:12], "big"):
            return [query[:2] + struct.pack("!5H", 0x8180 | rcode, 1, 0, 0, 0) + query[12:-11]]
        return [reply(query, question=query[12:])]

    server, endpoint = world.server(refuse_edns)
    fetcher = world.fetcher(endpoint)
    for _ in range(2):
        assert text_of(await_result(fetcher.fetch(NAME, RecordType.TXT, TRUSTING))) == GOOD
    assert len(server.diary) == 3
    assert len([line for line in said if f"does not know EDNS (it answers {rcode.name})" in line]) == 1
    with pytest.raises(Indeterminate, match=f"does not know EDNS .it answers {rcode.name}. and so hands on no DNSSEC"):
        await_result(fetcher.fetch(NAME, RecordType.TXT, VALIDATING))


def test_large_answers_that_get_lost_are_fetched_over_tcp(world, said):
    def lose_large(query):
        payload = int.from_bytes(query[-8:-6], "big")
        return [reply(query, flags=0x8380)] if payload == 512 else []

    world.tries, clock = (0.2, 20.0), MovedReactor()
    server, endpoint = world.server(lose_large)
    world.stream(lambda query: [reply(query, b"large")], endpoint)
    fetcher = world.fetcher(endpoint, reactor=clock)
    for _ in range(4):
        assert text_of(await_result(fetcher.fetch(NAME, RecordType.TXT))) == b"large"
    assert len(server.diary) == 2 + 2 + 2 + 1
    clock.ahead += SMALL_ANSWERS_FOR
    server.behaviour = lambda query: [reply(query)]
    assert text_of(await_result(fetcher.fetch(NAME, RecordType.TXT))) == GOOD
    assert int.from_bytes(server.diary[-1][0][-8:-6], "big") == 1232, "tried again"
    assert len([line for line in said if "fetched over TCP" in line]) == 1


def test_a_silent_server_costs_once_and_comes_back_when_it_answers_again(world, said):
    def ask(times):
        for _ in range(times):
            assert text_of(await_result(fetcher.fetch(NAME, RecordType.TXT))) == GOOD
        return len(first.diary), len(second.diary)

    world.tries, clock = (0.2, 0.2), MovedReactor()
    first, preferred = world.server(lambda query: [])
    second, other = world.server(lambda query: [reply(query)])
    fetcher = world.fetcher(preferred, other, reactor=clock)
    assert ask(4) == (1, 4)
    clock.ahead += FIRST_PENALTY
    assert ask(1) == (2, 5), "tried again, but nobody waits for it"
    await_result(deferLater(reactor, 0.3))
    clock.ahead += FIRST_PENALTY
    assert ask(1) == (2, 6), "later than the first time"
    clock.ahead += FIRST_PENALTY
    first.behaviour = lambda query: [reply(query)]
    assert ask(1) == (3, 7)
    await_result(deferLater(reactor, 0.1))
    assert ask(2) == (5, 7), "preferred again"
    assert [line.partition("resolver 127.0.0.1")[2].partition(" ")[2] for line in said if "resolver" in line] == [
        "did not answer: others are asked first", "answers again"]


def test_an_upstream_that_ignores_do_is_found_out_and_not_believed(world, said):
    ignorant, first = world.server(lambda query: [reply(query)])
    _, second = world.server(lambda query: [signed(query)])
    alone = world.fetcher(first, proof=ROOT)
    for _ in range(2):
        with pytest.raises(Indeterminate, match=r"127.0.0.1@\d+ hands on no DNSSEC signatures .it ignores DO.: let it"):
            await_result(alone.fetch(NAME, RecordType.TXT))
    assert [type_of(query) for query, _ in ignorant.diary] == [RecordType.TXT, RecordType.DNSKEY], "then it is known"
    both = world.fetcher(first, second, proof=ROOT)
    for _ in range(2):
        assert await_result(both.fetch(NAME, RecordType.TXT)).find(NAME, RecordType.TXT).signatures
    assert len([line for line in said if "ignores DO" in line]) == 1


def test_unsigned_answers_of_a_server_that_signs_are_handed_on(world):
    server, endpoint = world.server(
        lambda query: [signed(query) if type_of(query) == RecordType.DNSKEY else reply(query)])
    fetcher = world.fetcher(endpoint, proof=ROOT)
    for _ in range(3):
        assert text_of(await_result(fetcher.fetch(NAME, RecordType.TXT))) == GOOD
    assert len(server.diary) == 4, "the proof was asked for once"


def test_a_survey_asks_every_server_and_says_what_is_wrong_with_which(world):
    world.tries = (0.3, 0.3)
    _, good = world.server(lambda query: [signed(query)])
    _, ignorant = world.server(lambda query: [reply(query)])
    _, refusing = world.server(lambda query: [reply(query, flags=0x8185)])
    _, silent = world.server(lambda query: [])
    fetcher = world.fetcher(silent, refusing, ignorant, good, proof=ROOT)
    problems = await_result(fetcher.survey())
    assert [(problem.what.partition(" (")[0], problem.silent) for problem in problems] == [
        ("did not answer", True), ("answers REFUSED for DNSKEY of .", False), ("hands on no DNSSEC signatures", False)]
    assert await_result(fetcher.fetch(NAME, RecordType.TXT))
    assert world.told[-1] == (NAME, RecordType.TXT, f"query to 127.0.0.1@{good[1]}"), "the others are asked last"
