"""The time line of a negotiation, in the shape of RFC 4322 section 11.2."""

from collections.abc import Sequence
from functools import cache

from oesvc.discovery import Asked, Replied
from oesvc.dns.records import RecordType
from oesvc.ike.events import MessageSeen, Way
from oesvc.journal import Arrow, Entry, Ink, Party

MESSAGE_STEPS = {
    "main mode 1": "5D", "main mode 2": "5E", "main mode 3": "5F", "main mode 4": "5G", "main mode 5": "5H",
    "main mode 6": "5K", "quick mode 1": "5L", "quick mode 2": "5O", "quick mode 3": "5P",
}
QUESTION_STEPS = {
    (RecordType.TXT, False): ("5B", "5C"),
    (RecordType.KEY, True): ("5I", "5J"),
    (RecordType.TXT, True): ("5M", "5N"),
}
"By the type asked and whether we are the responder: the steps of the question and of its answer."

COLUMNS = (Party.HERE, Party.GATEWAY, Party.DNS, Party.PEER, Party.THERE)
OFFSETS = (2, 16, 27, 38, 52)
WIDTH = OFFSETS[-1] + 6


_arrow = cache(Arrow)
"There are few different ones, in very many entries."


def arrow_of_message(event: MessageSeen) -> Arrow:
    """The arrow of an IKE message."""
    ends = (Party.GATEWAY, Party.PEER) if event.way is Way.SENT else (Party.PEER, Party.GATEWAY)
    ink = Ink.ENCRYPTED_IKE if event.encrypted else Ink.CLEAR_IKE
    return _arrow(MESSAGE_STEPS.get(event.name, ""), ink, *ends)


def arrow_of_question(happened: Asked | Replied, responder: bool) -> Arrow:
    """The arrow of a DNS question or its answer."""
    return _question_arrow(isinstance(happened, Asked), happened.rdtype, responder)


@cache
def _question_arrow(is_asked: bool, rdtype: RecordType, responder: bool) -> Arrow:
    asked, answered = QUESTION_STEPS.get((rdtype, responder), ("", ""))
    if is_asked:
        return Arrow(asked, Ink.CLEAR, Party.GATEWAY, Party.DNS)
    return Arrow(answered, Ink.CLEAR, Party.DNS, Party.GATEWAY)


def render(entries: Sequence[Entry], names: dict[Party, str]) -> str:
    """Entries as lines of text: seconds since the first, the arrow, what happened. The initiator's side is left."""
    if not entries:
        return ""
    responder = not any(entry.arrow and entry.arrow.label == "5B" for entry in entries)
    columns = COLUMNS[::-1] if responder else COLUMNS
    offsets = dict(zip(columns, OFFSETS, strict=True))
    header = [" "] * WIDTH
    for party, offset in offsets.items():
        _put(header, offset - len(names[party]) // 2, names[party])
    start = entries[0].at
    lines = [f"{'seconds':>9} {''.join(header)}"]
    lines += [f"{entry.at - start:9.3f} {_draw(entry.arrow, offsets)}  {entry.text}" for entry in entries]
    return "\n".join(line.rstrip() for line in lines)


def _draw(arrow: Arrow | None, offsets: dict[Party, int]) -> str:
    line = [" "] * WIDTH
    if arrow is None:
        return "".join(line)
    begin, end = offsets[arrow.origin], offsets[arrow.end]
    left, right = min(begin, end), max(begin, end)
    _put(line, left, arrow.ink.value * (right - left))
    if arrow.label:
        label = f"({arrow.label})"
        _put(line, (left + right - len(label)) // 2, label)
    _put(line, right - 1 if end == right else left, ">" if end == right else "<")
    return "".join(line)


def _put(line: list[str], at: int, text: str) -> None:
    at = max(0, min(at, len(line) - len(text)))
    line[at:at + len(text)] = text
