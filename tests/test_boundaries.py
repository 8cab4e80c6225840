"""What RFC 4322 asks of the design as a whole, read from the sources: one seam, no numbers of our own."""

import ast
from enum import IntEnum
from pathlib import Path

import pytest

from oesvc.dns.records import RecordType
from oesvc.ike.v1 import constants
from oesvc.ike.v1.vendor import Extension
from oesvc.interfaces import ForwardingPlane, PlaneListener

ROOT = Path(__file__).parent.parent / "oesvc"
OWN_NUMBERS = [kind for kind in vars(constants).values() if isinstance(kind, type) and issubclass(kind, IntEnum)
               and kind is not IntEnum]
PRIVATE = {"PayloadType": range(128, 256), "ExchangeType": range(240, 256), "NotifyType": range(32768, 65536),
           "AuthenticationMethod": range(65001, 65536), "Phase1Attribute": range(16384, 32768),
           "EspAttribute": range(32001, 32768), "IdType": range(249, 256), "Protocol": range(249, 256)}
"Of IANA's registries of ISAKMP, IKE and the IPsec DOI; notifies from 8192 to 16383 are private errors, we use none."
BEHIND_A_VENDOR_ID = {"FRAGMENT": Extension.FRAGMENTATION, "R_U_THERE": Extension.DEAD_PEER_DETECTION,
                      "R_U_THERE_ACK": Extension.DEAD_PEER_DETECTION}


def names_used_of(path, owner):
    """What is asked of an attribute of this name: `self.plane.forget` is `forget` of `plane`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.value.attr == owner:
            yield node.attr


def public(protocol):
    return {name for name in vars(protocol) if not name.startswith("_")}


@pytest.mark.conformance("C-3-01")
def test_keying_and_forwarding_talk_by_the_defined_messages_alone():
    """XFRM's acquire and expire come by PlaneListener; pass, deny, encrypt and hold go by ForwardingPlane."""
    outside = [path for path in ROOT.rglob("*.py") if "kernel" not in path.parts and path.name != "gateway.py"]
    used = {name for path in outside for owner in ("plane", "_plane") for name in names_used_of(path, owner)}
    assert used and used <= public(ForwardingPlane)
    heard = {name for path in (ROOT / "kernel").glob("*.py") for owner in ("_listener", "listener")
             for name in names_used_of(path, owner)}
    assert heard and heard <= public(PlaneListener)
    assert {"acquired", "sa_expired"} <= public(PlaneListener)


@pytest.mark.conformance("C-13-01")
@pytest.mark.parametrize("kind", OWN_NUMBERS, ids=lambda kind: kind.__name__)
def test_no_number_is_new_and_private_ones_belong_to_an_extension_that_is_announced(kind):
    private = {member.name for member in kind if member.value in PRIVATE.get(kind.__name__, ())}
    assert private <= BEHIND_A_VENDOR_ID.keys()


@pytest.mark.conformance("C-13-01")
def test_record_types_are_iana_s():
    assert all(type.value < 65280 for type in RecordType)
    assert {RecordType.TXT, RecordType.KEY, RecordType.IPSECKEY} == {16, 25, 45}
