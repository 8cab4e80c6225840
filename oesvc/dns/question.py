"""A question as it is sent: RFC 1035 section 4.1.2, EDNS of RFC 6891."""

import secrets
from dataclasses import dataclass

from oesvc.dns.answer import Name
from oesvc.dns.name import name_text
from oesvc.dns.records import type_text
from oesvc.dns.wire import Flag, write_query

UDP_PAYLOAD = 1232
"Our choice, as resolvers' authors agreed in 2020: fits an unfragmented datagram everywhere."
SMALL_PAYLOAD = 512
"What every path lets through (RFC 1035 section 2.3.4); more comes over TCP."
PADDING_BLOCK = 128
"RFC 8467 section 4.1: all our questions look alike on an encrypted wire."


@dataclass(frozen=True, slots=True)
class Style:
    """How to ask: RFC 4035 section 3.2, RFC 6840 section 5.7."""

    flags: Flag
    dnssec_ok: bool


VALIDATING = Style(Flag.RD | Flag.CD, dnssec_ok=True)
"Everything, unfiltered: we judge."
TRUSTING = Style(Flag.RD | Flag.AD, dnssec_ok=False)
"The resolver judges, and says so by AD."
UNFILTERED = Style(Flag.RD | Flag.CD, dnssec_ok=False)
"What the resolver holds back as bogus, too."


@dataclass(frozen=True, slots=True)
class Question:
    name: Name
    rdtype: int
    style: Style
    payload: int | None = UDP_PAYLOAD
    "The largest UDP answer that we take; None: ask without EDNS."

    def __str__(self) -> str:
        return f"{type_text(self.rdtype)} of {name_text(self.name)}"

    def compose(self, identifier: int, *, mixed_case: bool = False, padded: bool = False) -> bytes:
        """The octets. Each call mixes the case anew: who has not seen the question cannot answer it."""
        name = tuple(map(_mix_case, self.name)) if mixed_case else self.name
        return write_query(identifier, name, self.rdtype, self.style.flags, dnssec_ok=self.style.dnssec_ok,
                           payload=self.payload, block=PADDING_BLOCK if padded else 0)


def _mix_case(label: bytes) -> bytes:
    """Turn letters over at random (draft-vixie-dnsext-dns0x20)."""
    coins = secrets.randbits(len(label))
    upper = label.upper()
    return bytes(upper[i] if coins >> i & 1 else label[i] for i in range(len(label)))
