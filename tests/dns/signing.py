"""A zone key that signs whatever it is told to: for signatures that are arithmetically right and wrong in all else."""

import copy
import struct
from collections.abc import Sequence

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from oesvc.dns.answer import Name
from oesvc.dns.name import to_wire
from oesvc.dns.records import Dnskey, RecordType, parse_dnskey
from oesvc.dns.wire import IN, RRset

ECDSAP256SHA256 = 13
NOW = 1_800_000_000


class ZoneKey:
    def __init__(self, flags: int = 0x0100, protocol: int = 3) -> None:
        self._private = ec.generate_private_key(ec.SECP256R1())
        numbers = self._private.public_key().public_numbers()
        point = numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
        self.dnskey: Dnskey = parse_dnskey(struct.pack("!HBB", flags, protocol, ECDSAP256SHA256) + point)

    def revoked(self) -> "ZoneKey":
        """The same pair of keys with the REVOKE bit (RFC 5011 section 2.1)."""
        other = copy.copy(self)
        other.dnskey = self.dnskey.revoked
        return other

    def sign(self, owner: Name, rdtype: int, rdatas: tuple[bytes, ...], signer: Name, *, covered: int | None = None,
             labels: int | None = None, ttl: int = 3600, original_ttl: int = 3600, inception: int = NOW - 3600,
             expiration: int = NOW + 3600, signed_as: Name | None = None) -> RRset:
        """An RRset with its signature (RFC 4034 section 3.1.8.1); `signed_as` is the wildcard that was expanded."""
        count = len(owner) if labels is None else labels
        header = struct.pack("!HBBIIIH", covered or rdtype, ECDSAP256SHA256, count, original_ttl,
                             expiration & 0xFFFFFFFF, inception & 0xFFFFFFFF, self.dnskey.tag) + to_wire(signer)
        name = to_wire(owner if signed_as is None else signed_as)
        records = b"".join(name + struct.pack("!HHIH", rdtype, IN, original_ttl, len(rdata)) + rdata
                           for rdata in sorted(rdatas))
        der = self._private.sign(header + records, ec.ECDSA(hashes.SHA256()))
        signature = b"".join(number.to_bytes(32, "big") for number in decode_dss_signature(der))
        return RRset(owner, rdtype, ttl, rdatas, (header + signature,))


def dnskeys(zone: Name, published: Sequence[ZoneKey], signers: Sequence[ZoneKey], now: int = NOW,
            ttl: int = 3600) -> RRset:
    """The DNSKEY RRset of a zone with the signatures of some keys, good for ten days."""
    rdatas = tuple(key.dnskey.rdata for key in published)
    signed = [key.sign(zone, RecordType.DNSKEY, rdatas, zone, ttl=ttl, original_ttl=ttl, inception=now - 3600,
                       expiration=now + 10 * 86400) for key in signers]
    return RRset(zone, RecordType.DNSKEY, ttl, rdatas, tuple(one for rrset in signed for one in rrset.signatures))
