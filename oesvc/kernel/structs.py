"""The XFRM messages of linux/xfrm.h, declared on pyroute2's `nlmsg` (pyroute2 itself has none).

Structures inside structures become runs of fields with a prefix. Padding that the C compiler puts in is written out.
Messages are read by pyroute2 and written by `encode`, which is ten times faster: each new flow takes several.
"""

import struct
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from socket import htonl, htons
from typing import Any

from pyroute2.netlink import nla, nlmsg

from oesvc.kernel.netlink import attribute

Fields = tuple[tuple[str, str], ...]


def selector(prefix: str) -> Fields:
    """struct xfrm_selector, 56 octets. Ports and their masks are in network order."""
    return tuple((prefix + name, form) for name, form in (
        ("daddr", "16s"), ("saddr", "16s"), ("dport", ">H"), ("dport_mask", ">H"), ("sport", ">H"),
        ("sport_mask", ">H"), ("family", "H"), ("prefixlen_d", "B"), ("prefixlen_s", "B"), ("proto", "B"),
        ("pad", "3x"), ("ifindex", "i"), ("user", "I")))


def sa_id(prefix: str) -> Fields:
    """struct xfrm_id, 24 octets."""
    return tuple((prefix + name, form) for name, form in (
        ("daddr", "16s"), ("spi", ">I"), ("proto", "B"), ("pad", "3x")))


LIFETIME: Fields = tuple((name, "Q") for name in (
    "soft_byte_limit", "hard_byte_limit", "soft_packet_limit", "hard_packet_limit",
    "soft_add_expires_seconds", "hard_add_expires_seconds", "soft_use_expires_seconds", "hard_use_expires_seconds",
    "bytes", "packets", "add_time", "use_time"))
"struct xfrm_lifetime_cfg and the xfrm_lifetime_cur that always follows it."

POLICY: Fields = (*selector("sel_"), *LIFETIME, ("priority", "I"), ("index", "I"), ("dir", "B"), ("action", "B"),
                  ("flags", "B"), ("share", "B"), ("pad", "4x"))
"struct xfrm_userpolicy_info, 168 octets."

SA: Fields = (*selector("sel_"), *sa_id("id_"), ("saddr", "16s"), *LIFETIME, ("replay_window_stat", "I"),
              ("replay_stat", "I"), ("integrity_failed", "I"), ("seq", "I"), ("reqid", "I"), ("family", "H"),
              ("mode", "B"), ("replay_window", "B"), ("flags", "B"), ("pad", "7x"))
"struct xfrm_usersa_info, 224 octets."


class XfrmAttributes(nlmsg):
    """What all messages share: the attributes that this package writes or reads."""

    nla_map = (
        (2, "XFRMA_ALG_CRYPT", "algo"),
        (4, "XFRMA_ENCAP", "encap"),
        (5, "XFRMA_TMPL", "template"),
        (9, "XFRMA_LTIME_VAL", "lifetime_current"),
        (10, "XFRMA_REPLAY_VAL", "replay_state"),
        (18, "XFRMA_ALG_AEAD", "algo_icv"),
        (20, "XFRMA_ALG_AUTH_TRUNC", "algo_icv"),
        (23, "XFRMA_REPLAY_ESN_VAL", "replay"),
        (29, "XFRMA_SET_MARK", "number"),
        (30, "XFRMA_SET_MARK_MASK", "number"),
    )

    class algo(nla):  # noqa: N801 (pyroute2 looks these classes up by the names above)
        """struct xfrm_algo; the key's length is in bits."""

        fields = (("alg_name", "64s"), ("alg_key_len", "I"), ("alg_key", "s"))

    class algo_icv(nla):  # noqa: N801
        """struct xfrm_algo_auth, struct xfrm_algo_aead; both lengths are in bits."""

        fields = (("alg_name", "64s"), ("alg_key_len", "I"), ("alg_icv_len", "I"), ("alg_key", "s"))

    class encap(nla):  # noqa: N801
        """struct xfrm_encap_tmpl, 24 octets. Ports are in network order."""

        fields = (("type", "H"), ("sport", ">H"), ("dport", ">H"), ("pad", "2x"), ("oa", "16s"))

    class lifetime_current(nla):  # noqa: N801
        """struct xfrm_lifetime_cur."""

        fields = LIFETIME[-4:]

    class replay_state(nla):  # noqa: N801
        """struct xfrm_replay_state."""

        fields = (("oseq", "I"), ("seq", "I"), ("bitmap", "I"))

    class template(nla):  # noqa: N801
        """struct xfrm_user_tmpl, 64 octets."""

        fields = (*sa_id("id_"), ("family", "H"), ("pad", "2x"), ("saddr", "16s"), ("reqid", "I"), ("mode", "B"),
                  ("share", "B"), ("optional", "B"), ("pad2", "1x"), ("aalgos", "I"), ("ealgos", "I"), ("calgos", "I"))

    class replay(nla):  # noqa: N801
        """struct xfrm_replay_state_esn with room for a window of 128."""

        fields = (("bmp_len", "I"), ("oseq", "I"), ("seq", "I"), ("oseq_hi", "I"), ("seq_hi", "I"),
                  ("replay_window", "I"), ("bmp", "16s"))

    class number(nla):  # noqa: N801
        """32 bits."""

        fields = (("value", "I"),)


class PolicyMessage(XfrmAttributes):
    """NEWPOLICY, UPDPOLICY."""

    fields = POLICY


class PolicyId(XfrmAttributes):
    """DELPOLICY, GETPOLICY: struct xfrm_userpolicy_id."""

    fields = (*selector("sel_"), ("index", "I"), ("dir", "B"), ("pad", "3x"))


class SaMessage(XfrmAttributes):
    """NEWSA, UPDSA."""

    fields = SA


class SaId(XfrmAttributes):
    """DELSA, GETSA: struct xfrm_usersa_id."""

    fields = (("daddr", "16s"), ("spi", ">I"), ("family", "H"), ("proto", "B"), ("pad", "1x"))


class AcquireMessage(XfrmAttributes):
    """ACQUIRE: struct xfrm_user_acquire."""

    fields = (*sa_id("id_"), ("saddr", "16s"), *((f"wanted_{name}", form) for name, form in selector("sel_")),
              *POLICY, ("aalgos", "I"), ("ealgos", "I"), ("calgos", "I"), ("seq", "I"))


class ExpireMessage(XfrmAttributes):
    """EXPIRE: struct xfrm_user_expire."""

    fields = (*SA, ("hard", "B"), ("pad3", "7x"))


IN_NETWORK_ORDER: dict[str, Callable[[int], int]] = {">H": htons, ">I": htonl}


def encode(message: type[XfrmAttributes], fields: Mapping[str, Any],
           attrs: Iterable[tuple[str, Mapping[str, Any]]] = ()) -> bytes:
    """The body of a message, without its netlink header. Fields that are not given are zero."""
    return _pack(message, fields) + encode_attributes(attrs)


def encode_attributes(attrs: Iterable[tuple[str, Mapping[str, Any]]]) -> bytes:
    """What comes after the fields."""
    return b"".join(attribute(kind, _pack(structure, values))
                    for name, values in attrs for kind, structure in (_attributes()[name],))


def _pack(structure: Any, values: Mapping[str, Any]) -> bytes:
    layout, fields, rest = _layout(structure)
    packed = layout.pack(*[change(values.get(name, nothing)) if change else values.get(name, nothing)
                           for name, nothing, change in fields])
    return packed + values[rest] if rest else packed


@cache
def _layout(structure: Any) -> tuple[struct.Struct, list[tuple[str, Any, Any]], str]:
    """How it is packed: its fields but padding, each with its zero and what puts it in order; the name of the rest."""
    fixed = [(name, form) for name, form in structure.fields if form != "s"]
    layout = struct.Struct("=" + "".join(form.removeprefix(">") for _, form in fixed))
    fields = [(name, b"" if form.endswith("s") else 0, IN_NETWORK_ORDER.get(form))
              for name, form in fixed if not form.endswith("x")]
    return layout, fields, "".join(name for name, form in structure.fields if form == "s")


@cache
def _attributes() -> dict[str, tuple[int, type[nla]]]:
    return {name: (kind, getattr(XfrmAttributes, structure)) for kind, name, structure in XfrmAttributes.nla_map}
