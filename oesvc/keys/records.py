"""The DNS records to publish for a gateway and the hosts behind it: RFC 4322 section 5, RFC 4025."""

import base64
from collections.abc import Collection, Iterable, Iterator

from oesvc.ipsec.flow import Address
from oesvc.ipsec.rsa_key import RsaPublicKey

CHARACTER_STRING = 255
"Octets that one character-string of a TXT record holds (RFC 1035 section 3.3)."
PRECEDENCE = 10
TYPES = ("KEY", "TXT", "IPSECKEY")
"KEY and TXT for peers by RFC 4322; IPSECKEY for those that have left KEY behind."

Host = Address | str
"By its address, whose name stands in the reverse map; a gateway also by its FQDN (RFC 4322 section 5.3)."


class PublishedRecord(str):
    """One record, as a line of a zone file."""

    __slots__ = ()

    @property
    def owner(self) -> str:
        return self.split(" ")[0]

    @property
    def rdtype(self) -> str:
        return self.split(" ")[2]

    @property
    def rdata(self) -> str:
        return self.split(" ", 3)[3]

    @property
    def wire(self) -> bytes:
        """A KEY record's RDATA (RFC 2535 section 3.1)."""
        flags, protocol, algorithm, key = self.rdata.split(" ")
        return int(flags).to_bytes(2, "big") + bytes([int(protocol), int(algorithm)]) + base64.b64decode(key)


def key_record(gateway: Host, key: RsaPublicKey) -> PublishedRecord:
    """The KEY record by which a gateway proves who it is (section 5.1)."""
    # 16896 is 0x4200; not every tool reads hexadecimal flags.
    return PublishedRecord(f"{_owner(gateway)} IN KEY 16896 4 1 {key.to_base64()}")


def delegation_record(host: Address, gateway: Host, key: RsaPublicKey, precedence: int = PRECEDENCE) -> PublishedRecord:
    """The TXT record by which a host lets a gateway act for it (section 5.2)."""
    named = f"@{gateway}" if isinstance(gateway, str) else str(gateway)
    text = f"X-IPsec-Server({precedence})={named} {key.to_base64()}"
    strings = [text[i:i + CHARACTER_STRING] for i in range(0, len(text), CHARACTER_STRING)]
    return PublishedRecord(f"{_owner(host)} IN TXT " + " ".join(f'"{string}"' for string in strings))


def ipseckey_record(host: Host, gateway: Host, key: RsaPublicKey, precedence: int = PRECEDENCE) -> PublishedRecord:
    """The same as an IPSECKEY record (RFC 4025 section 3). A gateway itself is a host without a gateway, type 0."""
    if host == gateway:
        kind, named = 0, "."
    elif isinstance(gateway, str):
        kind, named = 3, f"{gateway}."
    else:
        kind, named = {4: 1, 6: 2}[gateway.version], str(gateway)
    return PublishedRecord(f"{_owner(host)} IN IPSECKEY {precedence} {kind} 2 {named} {key.to_base64()}")


def records(gateway: Host, hosts: Iterable[Address], key: RsaPublicKey,
            types: Collection[str] = TYPES) -> list[PublishedRecord]:
    """All records for a gateway that protects itself and `hosts`, of the types wanted."""
    found = [key_record(gateway, key)]
    for host in dict.fromkeys((gateway, *hosts)):
        if not isinstance(host, str):
            found.append(delegation_record(host, gateway, key))
        found.append(ipseckey_record(host, gateway, key))
    return [record for record in found if record.rdtype in types]


def nsupdate_script(wanted: Iterable[PublishedRecord], ttl: int) -> Iterator[str]:
    """The lines that make `nsupdate` add these records: one update for each name, whose zone it finds by itself."""
    owner = None
    for record in wanted:
        if owner not in (None, record.owner):
            yield "send"
        owner = record.owner
        yield f"update add {record.owner} {ttl} IN {record.rdtype} {record.rdata}"
    if owner:
        yield "send"


def _owner(host: Host) -> str:
    return f"{host}." if isinstance(host, str) else f"{host.reverse_pointer}."
