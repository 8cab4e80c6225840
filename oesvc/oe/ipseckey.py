"""IPSECKEY records as delegations: RFC 4025 section 2."""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

from oesvc.ipsec.flow import Address
from oesvc.ipsec.rsa_key import KeyFormatError, RsaPublicKey
from oesvc.oe.delegation import Delegation, ForeignRecordError, MalformedRecordError, gateway_name, one_host

NO_KEY, RSA = 0, 2
OTHER_ALGORITHMS = {1: "DSA", 3: "ECDSA", 4: "EdDSA"}
MAX_NAME = 255
MAX_LABEL = 63


def parse_ipseckey(rdata: bytes, host: Address | str) -> Delegation:
    """Read the RDATA of an IPSECKEY record at the name of `host`.

    Gateway type 0, no gateway, is the host that does IPsec by itself: it delegates to its own address (or name).
    Raises MalformedRecordError; ForeignRecordError for gateway types and keys that are not known here.
    """
    if len(rdata) < 3:
        raise MalformedRecordError(f"an IPSECKEY record of {len(rdata)} octets is cut short")
    precedence, kind, algorithm = rdata[:3]
    if kind == 0:
        gateway, rest = host, rdata[3:]
    elif kind in _GATEWAYS:
        gateway, rest = _GATEWAYS[kind](rdata[3:])
    else:
        raise ForeignRecordError(f"an IPSECKEY record has gateway type {kind}; 0 to 3 are known")
    return Delegation(precedence, gateway, _keys(algorithm, rest), written_as="IPSECKEY")


def _address(kind: type[IPv4Address] | type[IPv6Address], size: int) -> Callable[[bytes], tuple[Address, bytes]]:
    def read(data: bytes) -> tuple[Address, bytes]:
        if len(data) < size:
            raise MalformedRecordError(f"an IPSECKEY record's gateway has {len(data)} octets; "
                                       f"an IPv{kind(0).version} address has {size}")
        return one_host(kind(data[:size])), data[size:]
    return read


def _name(data: bytes) -> tuple[str, bytes]:
    """A name on the wire, which may not be compressed here."""
    labels: list[bytes] = []
    offset = 0
    while offset < len(data) and offset < MAX_NAME:
        length = data[offset]
        label = data[offset + 1:offset + 1 + length]
        offset += 1 + length
        if not length:
            return gateway_name(b".".join(labels).decode("latin-1")), data[offset:]
        if length > MAX_LABEL or len(label) != length or b"." in label:
            break
        labels.append(label)
    raise MalformedRecordError("an IPSECKEY record's gateway is no name, uncompressed")


_GATEWAYS: dict[int, Callable[[bytes], tuple[Address | str, bytes]]] = {
    1: _address(IPv4Address, 4),
    2: _address(IPv6Address, 16),
    3: _name,
}


def _keys(algorithm: int, data: bytes) -> tuple[RsaPublicKey, ...]:
    if algorithm == NO_KEY:
        if data:
            raise MalformedRecordError("an IPSECKEY record has a key, but algorithm 0, which says that it has none; "
                                       f"{RSA} is RSA")
        return ()
    if algorithm != RSA:
        name = OTHER_ALGORITHMS.get(algorithm)
        raise ForeignRecordError(f"an IPSECKEY record's key is of algorithm {algorithm}{f' ({name})' if name else ''};"
                                 f" {RSA} (RSA) is known here")
    if not data:
        raise MalformedRecordError(f"an IPSECKEY record has algorithm {RSA}, but no key; 0 says that it has none")
    try:
        return (RsaPublicKey.from_rfc3110(data),)
    except KeyFormatError as error:
        raise MalformedRecordError(f"an IPSECKEY record's key: {error}") from None
