"""Raw answers of real servers, to be tampered with and replayed."""

import socket
import struct
from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred, fail, succeed

from oesvc.dns.anchors import TrustAnchor
from oesvc.dns.answer import Answer, Name
from oesvc.dns.budget import Budget
from oesvc.dns.chain import Chain
from oesvc.dns.failures import Indeterminate, MalformedData
from oesvc.dns.question import VALIDATING, Style
from oesvc.dns.records import RecordType
from oesvc.dns.validator import Validator
from oesvc.dns.wire import Message, is_truncated, parse_message, write_query
from tests.zones import Endpoint

Question = tuple[Name, int]


def ask(server: Endpoint, name: Name, rdtype: int, style: Style = VALIDATING) -> bytes:
    """The answer as it came, over TCP when it is long."""
    query = write_query(7, name, rdtype, style.flags, dnssec_ok=style.dnssec_ok, payload=1232)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.sendto(query, server)
        data = sock.recv(65535)
    if not is_truncated(data):
        return data
    with socket.create_connection(server, timeout=5) as stream, stream.makefile("rb") as reader:
        stream.sendall(struct.pack("!H", len(query)) + query)
        return reader.read(*struct.unpack("!H", reader.read(2)))


def judge(fetch: "Callable[[Name, int], Deferred[Message]]", anchors: Sequence[TrustAnchor], name: Name, now: float,
          rdtype: int = RecordType.TXT, budget: Budget | None = None) -> Answer:
    """The verdict with cold caches, when `fetch` answers at once (the Deferred has fired then)."""
    validator = Validator(Chain(fetch, anchors, lambda: now, 0), lambda: now)
    answer: Answer = validator.validate(name, rdtype, budget).result
    return answer


class Recorder:
    """Fetches from a real server and keeps what came."""

    def __init__(self, server: Endpoint, style: Style = VALIDATING) -> None:
        self.server, self.style = server, style
        self.tape: dict[Question, bytes] = {}

    def fetch(self, name: Name, rdtype: int) -> "Deferred[Message]":
        if (name, rdtype) not in self.tape:
            self.tape[name, rdtype] = ask(self.server, name, rdtype, self.style)
        return succeed(parse_message(self.tape[name, rdtype]))


class Player:
    """Fetches from a tape. What is not on it, or cannot be read, is no answer: as `fetch` has it."""

    def __init__(self, tape: dict[Question, bytes]) -> None:
        self.tape = tape
        self.asked = self.octets = 0

    def fetch(self, name: Name, rdtype: int) -> "Deferred[Message]":
        self.asked += 1
        try:
            message = parse_message(self.tape[name, rdtype])
            self.octets += len(self.tape[name, rdtype])
            return succeed(message)
        except KeyError:
            return fail(Indeterminate("not on the tape"))
        except MalformedData as error:
            return fail(Indeterminate(str(error)))
