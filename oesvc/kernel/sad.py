"""Security associations as XFRM messages: RFC 4303, and RFC 4322 section 12.1 for their selectors."""

import errno
from collections.abc import Iterable
from typing import Any

from oesvc.interfaces import Traffic
from oesvc.ipsec.flow import Address
from oesvc.ipsec.sa import Encryption, EspTransform, Integrity, IpsecSa
from oesvc.kernel.constants import (
    CONFIGURED_MARK,
    CONFIGURED_REQIDS,
    IPPROTO_ESP,
    NLM_F_DUMP,
    REPLAY_WINDOW,
    SEQUENCE_NUMBERS,
    UDP_ENCAP_ESPINUDP,
    XFRM_INF,
    XFRM_MODE_TUNNEL,
    XfrmMessage,
)
from oesvc.kernel.netlink import Message, Request
from oesvc.kernel.spd import FAMILY, Selector, address
from oesvc.kernel.structs import SaId, SaMessage, encode

CIPHERS = {Encryption.DES3_CBC: b"cbc(des3_ede)", Encryption.AES_CBC: b"cbc(aes)",
           Encryption.AES_GCM_16: b"rfc4106(gcm(aes))"}
"The kernel's names."

INTEGRITY = {
    Integrity.HMAC_MD5_96: (b"hmac(md5)", 96),
    Integrity.HMAC_SHA1_96: (b"hmac(sha1)", 96),
    Integrity.HMAC_SHA2_256_128: (b"hmac(sha256)", 128),
    Integrity.HMAC_SHA2_384_192: (b"hmac(sha384)", 192),
    Integrity.HMAC_SHA2_512_256: (b"hmac(sha512)", 256),
}
"The kernel's names, and the bits of the ICV on the wire."

GCM_ICV_BITS = 128

Attributes = list[tuple[str, dict[str, Any]]]


def algorithms(sa: IpsecSa) -> Attributes:
    """The attributes that name the algorithms and carry the keys."""
    cipher = {"alg_name": CIPHERS[sa.transform.encryption], "alg_key_len": 8 * len(sa.encryption_key),
              "alg_key": sa.encryption_key}
    if sa.transform.integrity is None:
        return [("XFRMA_ALG_AEAD", cipher | {"alg_icv_len": GCM_ICV_BITS})]
    name, icv_bits = INTEGRITY[sa.transform.integrity]
    return [("XFRMA_ALG_CRYPT", cipher),
            ("XFRMA_ALG_AUTH_TRUNC", {"alg_name": name, "alg_key_len": 8 * len(sa.integrity_key),
                                      "alg_icv_len": icv_bits, "alg_key": sa.integrity_key})]


TOLD_BY_MARK: Attributes = [(name, {"value": CONFIGURED_MARK}) for name in ("XFRMA_SET_MARK", "XFRMA_SET_MARK_MASK")]

LEAP = 1 << 16
"Sequence numbers that an SA may use while it is being moved: more than 10 Gbit/s use in 50 ms."

EARLIER, LATER = 0.1, 0.05
"Of its share by time, what the share of its volume is less, for that can be used up fast; and more at its receiver."


def soft_share(spi: int) -> float:
    """At which share of its lifetime the sender renews an SA: 85 to 95 %, spread so that not all are at once.

    The SPIs of a tunnel are different in both directions, which keeps its two ends from renewing in the same moment.
    """
    return 0.85 + 0.1 * (spi % 1009) / 1009


def lifetime(sa: IpsecSa, inbound: bool, packets: int = SEQUENCE_NUMBERS) -> dict[str, int]:
    """struct xfrm_lifetime_cfg: time, octets and datagrams, hard and soft.

    So many packets are our own wish, of which no peer knows: new keys are asked for, and the old ones serve on.
    Both SAs of a tunnel are of one age, so the time of the outbound one does for both. How much the peer sends is
    counted by the inbound one alone; who has only responded leaves it to us to renew, or knows no limit by volume.
    """
    octets = sa.lifetime.kilobytes * 1024
    share = soft_share(sa.spi)
    volume = share - EARLIER + (LATER if inbound else 0.0)
    return {
        "hard_add_expires_seconds": sa.lifetime.seconds,
        "soft_add_expires_seconds": 0 if inbound else int(sa.lifetime.seconds * share),
        "hard_byte_limit": octets or XFRM_INF, "soft_byte_limit": int(octets * volume) or XFRM_INF,
        "hard_packet_limit": SEQUENCE_NUMBERS, "soft_packet_limit": int(packets * volume)}


def add_sa(sa: IpsecSa, reqid: int, inbound: bool, packets: int = SEQUENCE_NUMBERS) -> Request:
    """Add an SA for its own pair of inner addresses alone, which is renewed after so many datagrams."""
    return Request(XfrmMessage.NEWSA, _message(sa, reqid, inbound, packets), f"add {_in_words(sa, inbound)}")


def change_sa(sa: IpsecSa, reqid: int, inbound: bool, packets: int = SEQUENCE_NUMBERS) -> Request:
    """Give an SA, if it is still there, another lifetime or other ports; what it has counted so far counts on."""
    return Request(XfrmMessage.UPDSA, _message(sa, reqid, inbound, packets),
                   f"change {_in_words(sa, inbound)}", tolerates=frozenset({errno.ESRCH}))


def succeed_sa(sa: IpsecSa, reqid: int, former: Any, packets: int = SEQUENCE_NUMBERS) -> Request:
    """Add an outbound SA in the place of one that went to another address, in the state in which that was read.

    A receiver takes no sequence number twice; what left meanwhile by the former SA shall not have used ours.
    """
    counted = {name: former[name] for name in ("bytes", "packets", "add_time", "use_time")}
    state: Attributes = [("XFRMA_REPLAY_VAL", {"oseq": former.get_attr("XFRMA_REPLAY_VAL")["oseq"] + LEAP}),
                         ("XFRMA_LTIME_VAL", counted)]
    return Request(XfrmMessage.NEWSA, _message(sa, reqid, False, packets, state),
                   f"move {_in_words(sa, inbound=False)}")


def _message(sa: IpsecSa, reqid: int, inbound: bool, packets: int, state: Attributes | None = None) -> bytes:
    fields = Selector.of_flow(sa.flow).fields() | lifetime(sa, inbound, packets) | {
        "id_daddr": sa.destination.packed, "id_spi": sa.spi, "id_proto": IPPROTO_ESP, "saddr": sa.source.packed,
        "reqid": reqid, "family": FAMILY[sa.destination.version], "mode": XFRM_MODE_TUNNEL}
    window: Attributes = [("XFRMA_REPLAY_ESN_VAL", {
        "bmp_len": REPLAY_WINDOW // 32, "replay_window": REPLAY_WINDOW, "bmp": b""})]
    ports: Attributes = [("XFRMA_ENCAP", {
        "type": UDP_ENCAP_ESPINUDP, "sport": sa.udp.source, "dport": sa.udp.destination, "oa": b""})] if sa.udp else []
    mark = TOLD_BY_MARK if reqid in CONFIGURED_REQIDS else []
    return encode(SaMessage, fields, algorithms(sa) + ports + (window if inbound else []) + mark + (state or []))


def _in_words(sa: IpsecSa, inbound: bool) -> str:
    way = "inbound" if inbound else "outbound"
    ports = f", UDP {sa.udp.source} to {sa.udp.destination}" if sa.udp else ""
    return f"the {way} SA {sa.spi:#010x} from {sa.source} to {sa.destination} ({sa.transform}, {sa.flow}{ports})"


def delete_sa(spi: int, destination: Address) -> Request:
    """Delete an SA, if there is one."""
    return Request(XfrmMessage.DELSA, _sa_id(spi, destination), f"delete the SA {spi:#010x} to {destination}",
                   tolerates=frozenset({errno.ESRCH}))


def get_sa(spi: int, destination: Address) -> Request:
    """Ask for an SA; no reply if there is none."""
    return Request(XfrmMessage.GETSA, _sa_id(spi, destination), f"get the SA {spi:#010x} to {destination}",
                   tolerates=frozenset({errno.ESRCH}))


def read_traffic(messages: Iterable[Message]) -> Traffic:
    """Octets and datagrams of the SAs that were asked for."""
    traffic = {}
    for message in messages:
        sa = SaMessage(message.octets)
        sa.decode()
        traffic[sa["id_spi"], address(sa["family"], sa["id_daddr"])] = sa["bytes"], sa["packets"]
    return traffic


def list_sas() -> Request:
    return Request(XfrmMessage.GETSA, b"", "list the SAs", flags=NLM_F_DUMP)


def _sa_id(spi: int, destination: Address) -> bytes:
    """struct xfrm_usersa_id."""
    return encode(SaId, {"daddr": destination.packed, "spi": spi, "family": FAMILY[destination.version],
                           "proto": IPPROTO_ESP})


WARM_UP = (
    (EspTransform(Encryption.AES_GCM_16, 256, None), 36, 0),
    (EspTransform(Encryption.AES_CBC, 256, Integrity.HMAC_SHA2_256_128), 32, 32),
    (EspTransform(Encryption.AES_CBC, 256, Integrity.HMAC_SHA2_384_192), 32, 48),
    (EspTransform(Encryption.AES_CBC, 256, Integrity.HMAC_SHA2_512_256), 32, 64),
    (EspTransform(Encryption.AES_CBC, 128, Integrity.HMAC_SHA1_96), 16, 20),
    (EspTransform(Encryption.DES3_CBC, 192, Integrity.HMAC_MD5_96), 24, 16),
)
"Transforms that bring in every algorithm, with the octets of their keys."
