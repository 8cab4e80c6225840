"""What `oegw dns` is asked for. Imports little, so that the command starts quickly."""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from oesvc.dns.answer import Name
from oesvc.dns.name import name_text, parse_name, reverse_name
from oesvc.dns.records import RecordType
from oesvc.ipsec.flow import Address

TYPES = {"TXT": RecordType.TXT, "IPSECKEY": RecordType.IPSECKEY, "KEY": RecordType.KEY}


@dataclass(frozen=True, slots=True)
class Inquiry:
    """What to look up."""

    name: Name
    host: Address | str
    "Whom the records at the name speak for."
    types: tuple[str, ...]
    fresh: bool

    @classmethod
    def parse(cls, subject: str, types: Sequence[str], fresh: bool) -> "Inquiry":
        """An address, or a name; ValueError says what is wrong. Without types, all that the daemon may ask for."""
        unknown = [rdtype for rdtype in types if rdtype not in TYPES]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is none of {', '.join(TYPES)}")
        try:
            host: Address | str = ip_address(subject)
        except ValueError:
            if not subject.isascii():
                raise ValueError(f"{subject!r}: a name is written in ASCII, as in xn--bcher-kva.example") from None
            name = parse_name(subject.removeprefix("@"))
            host = _address(name) or name_text(name).rstrip(".")
        if isinstance(host, str):
            return cls(parse_name(host or "."), host, tuple(types) or ("KEY", "IPSECKEY"), fresh)
        return cls(reverse_name(host), host, tuple(types) or tuple(TYPES), fresh)


def _address(name: Name) -> Address | None:
    """Of a name in the reverse map."""
    try:
        if name[4:] == (b"in-addr", b"arpa"):
            return IPv4Address(b".".join(name[3::-1]).decode("ascii"))
        if name[32:] == (b"ip6", b"arpa"):
            return IPv6Address(bytes.fromhex(b"".join(name[31::-1]).decode("ascii")))
    except ValueError:
        return None
    return None
