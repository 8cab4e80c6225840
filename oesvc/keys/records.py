"""The DNS records to publish for a gateway and the hosts behind it: RFC 4322 section 5."""

from collections.abc import Iterable

from oesvc.ipsec.flow import Address
from oesvc.ipsec.rsa_key import RsaPublicKey

CHARACTER_STRING = 255
"Octets that one character-string of a TXT record holds (RFC 1035 section 3.3)."
PRECEDENCE = 10


def key_record(gateway: Address, key: RsaPublicKey) -> str:
    """The KEY record by which a gateway proves who it is: one line of a zone file (section 5.1)."""
    # 16896 is 0x4200; not every tool reads hexadecimal flags.
    return f"{gateway.reverse_pointer}. IN KEY 16896 4 1 {key.to_base64()}"


def delegation_record(host: Address, gateway: Address | str, key: RsaPublicKey, precedence: int = PRECEDENCE) -> str:
    """The TXT record by which a host lets a gateway act for it: one line of a zone file (section 5.2)."""
    named = f"@{gateway}" if isinstance(gateway, str) else str(gateway)
    text = f"X-IPsec-Server({precedence})={named} {key.to_base64()}"
    strings = [text[i:i + CHARACTER_STRING] for i in range(0, len(text), CHARACTER_STRING)]
    return f"{host.reverse_pointer}. IN TXT " + " ".join(f'"{string}"' for string in strings)


def records(gateway: Address, hosts: Iterable[Address], key: RsaPublicKey) -> list[str]:
    """All records for a gateway that protects itself and `hosts`."""
    return [key_record(gateway, key), *(delegation_record(host, gateway, key) for host in (gateway, *hosts))]
