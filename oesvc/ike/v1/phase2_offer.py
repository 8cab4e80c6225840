"""The SA payload of quick mode: ESP in tunnel mode with perfect forward secrecy (RFC 2407 4.4, 4.5; RFC 4106, 4868).

The KE payload commits to one group, so every transform that we offer carries the same one.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from oesvc.ike.crypto.groups import Group, public_length
from oesvc.ike.v1.constants import RESERVED_SPIS, Encapsulation, EspAttribute, Protocol, name_of
from oesvc.ike.v1.errors import NoProposalChosenError, SpiError
from oesvc.ike.v1.negotiation import MismatchError, differences, lifetime_attributes, read_attributes, refusal, within
from oesvc.ike.v1.offers import Profile
from oesvc.ike.v1.wire.payloads import GENERIC_HEADER
from oesvc.ike.v1.wire.proposals import PROPOSAL, SITUATION, Attribute, Proposal, Transform, pack_sa, parse_sa
from oesvc.ipsec.sa import VOLUMES, Encryption, EspTransform, Integrity, Lifetime

A = EspAttribute
ESP_NUMBERS = {Encryption.DES3_CBC: 3, Encryption.AES_CBC: 12, Encryption.AES_GCM_16: 20}
ENCRYPTIONS = {number: encryption for encryption, number in ESP_NUMBERS.items()}
INTEGRITY_NUMBERS = {Integrity.HMAC_MD5_96: 1, Integrity.HMAC_SHA1_96: 2, Integrity.HMAC_SHA2_256_128: 5,
                     Integrity.HMAC_SHA2_384_192: 6, Integrity.HMAC_SHA2_512_256: 7}
INTEGRITIES: dict[int, Integrity] = {number: integrity for integrity, number in INTEGRITY_NUMBERS.items()}
INTEGRITY_OCTETS = {Integrity.HMAC_MD5_96: 16, Integrity.HMAC_SHA1_96: 20, Integrity.HMAC_SHA2_256_128: 32,
                    Integrity.HMAC_SHA2_384_192: 48, Integrity.HMAC_SHA2_512_256: 64}
GCM_SALT_OCTETS = 4
"RFC 4106 section 8.1."
SPI_OCTETS = 4
SPI_AT = SITUATION.size + GENERIC_HEADER.size + PROPOSAL.size
"Where the SPI of the first proposal is in an SA payload's body."
NO_FLOOR = Lifetime(0)
UNSAID_SECONDS = 28800
"Who says nothing of time means this (RFC 2407 section 4.5)."
GROUPS = {int(group): group for group in Group}


@dataclass(frozen=True, slots=True)
class Phase2Suite:
    """What both sides agreed on for one tunnel."""

    esp: EspTransform
    group: Group
    lifetime: Lifetime
    shortened: bool
    "It is shorter than what the initiator offered."


def key_octets(transform: EspTransform) -> tuple[int, int]:
    """Octets of the encryption key (with its salt) and of the integrity key."""
    salt = GCM_SALT_OCTETS if transform.encryption is Encryption.AES_GCM_16 else 0
    integrity = INTEGRITY_OCTETS[transform.integrity] if transform.integrity else 0
    return transform.key_bits // 8 + salt, integrity


def offer(profile: Profile, group: Group, lifetime: Lifetime, spi: int,
          encapsulation: Encapsulation = Encapsulation.TUNNEL) -> bytes:
    """The SA payload's body of quick mode 1: one proposal, its transforms in order of preference."""
    body = _offer(profile, group, lifetime, encapsulation)
    return body[:SPI_AT] + spi.to_bytes(SPI_OCTETS, "big") + body[SPI_AT + SPI_OCTETS:]


def choose(body: bytes, profile: Profile, ours: Lifetime, ke_octets: int | None, floor: Lifetime = NO_FLOOR,
           encapsulation: Encapsulation = Encapsulation.TUNNEL) -> tuple[Phase2Suite, int, Proposal]:
    """The first acceptable transform in the initiator's order, the initiator's SPI, and the proposal to return.

    `ke_octets` is the length of the KE payload that came with it. Raises NoProposalChosenError, SpiError.
    """
    proposals = parse_sa(body)
    numbers = Counter(proposal.number for proposal in proposals)
    mismatches: list[str] = []
    for proposal in proposals:
        for transform in proposal.transforms:
            try:
                if numbers[proposal.number] > 1:
                    raise MismatchError("it is to be combined with another protocol")
                suite = _read(proposal, transform, ours, floor, encapsulation)
                _accept(suite, profile, ke_octets)
            except MismatchError as mismatch:
                mismatches.append(f"proposal {proposal.number} transform {transform.number}: {mismatch}")
            else:
                chosen = Proposal(proposal.number, proposal.protocol, proposal.spi, (transform,))
                return suite, read_spi(proposal), chosen
    mode = name_of(Encapsulation, encapsulation)
    raise refusal(mismatches, f"ESP in mode {mode} with perfect forward secrecy and any combination of the parts of "
                  + say(profile.esp))


def answer(chosen: Proposal, spi: int) -> bytes:
    """The SA payload's body that returns the chosen proposal with our SPI."""
    mine = Proposal(chosen.number, chosen.protocol, spi.to_bytes(SPI_OCTETS, "big"), chosen.transforms)
    return pack_sa((mine,))


def accept_choice(body: bytes, profile: Profile, group: Group, ours: Lifetime,
                  encapsulation: Encapsulation = Encapsulation.TUNNEL) -> tuple[Phase2Suite, int]:
    """What the responder chose of our offer, and its SPI. Raises NoProposalChosenError, SpiError."""
    proposals = parse_sa(body)
    if len(proposals) != 1 or len(proposals[0].transforms) != 1:
        raise NoProposalChosenError("the responder returned more than one proposal or transform")
    try:
        suite = _read(proposals[0], proposals[0].transforms[0], ours, NO_FLOOR, encapsulation)
    except MismatchError as mismatch:
        raise NoProposalChosenError(f"the responder chose what was not offered: {mismatch}") from None
    if suite.esp not in profile.esp or suite.group is not group:
        raise NoProposalChosenError(f"the responder chose {suite.esp} with {suite.group}, which was not offered; "
                                    f"offered were {say(profile.esp)}, all with {group}")
    return suite, read_spi(proposals[0])


def read_spi(proposal: Proposal) -> int:
    spi = int.from_bytes(proposal.spi, "big")
    if len(proposal.spi) != SPI_OCTETS or spi < RESERVED_SPIS:
        raise SpiError(f"the SPI {proposal.spi.hex() or 'of no octets'} is none that ESP can use")
    return spi


def say(transforms: Sequence[EspTransform]) -> str:
    return ", ".join(map(str, transforms))


@lru_cache(maxsize=64)
def _offer(profile: Profile, group: Group, lifetime: Lifetime, encapsulation: Encapsulation) -> bytes:
    """With an SPI of zeros: all else is always the same."""
    transforms = tuple(_transform(number, esp, group, lifetime, encapsulation)
                       for number, esp in enumerate(profile.esp, 1))
    return pack_sa((Proposal(1, Protocol.ESP, bytes(SPI_OCTETS), transforms),))


def _transform(number: int, esp: EspTransform, group: Group, lifetime: Lifetime,
               encapsulation: Encapsulation) -> Transform:
    key_length = (Attribute.of(A.KEY_LENGTH, esp.key_bits),) if esp.encryption is not Encryption.DES3_CBC else ()
    integrity = (Attribute.of(A.INTEGRITY, INTEGRITY_NUMBERS[esp.integrity]),) if esp.integrity else ()
    return Transform(number, ESP_NUMBERS[esp.encryption], (
        Attribute.of(A.ENCAPSULATION, encapsulation),
        Attribute.of(A.GROUP, group),
        *integrity,
        *key_length,
        *lifetime_attributes(A.LIFE_TYPE, A.LIFE_DURATION, _at_most(lifetime, esp)),
    ))


def _read(proposal: Proposal, transform: Transform, ours: Lifetime, floor: Lifetime,
          encapsulation: Encapsulation) -> Phase2Suite:
    """A transform as a suite of ours. Raises MismatchError with all that is wrong with it."""
    if proposal.protocol != Protocol.ESP:
        raise MismatchError(f"protocol {name_of(Protocol, proposal.protocol)} instead of ESP")
    attributes = read_attributes(transform, A, A.LIFE_TYPE, A.LIFE_DURATION)
    get = attributes.numbers.get
    encryption, integrity, group = ENCRYPTIONS.get(transform.id), get(A.INTEGRITY), GROUPS.get(get(A.GROUP, 0))
    wrong = []
    if get(A.ENCAPSULATION) != encapsulation:
        wrong.append(f"encapsulation {name_of(Encapsulation, get(A.ENCAPSULATION, 0))} instead of "
                     + name_of(Encapsulation, encapsulation))
    if encryption is None:
        wrong.append(f"ESP transform {transform.id}")
    if integrity is not None and integrity not in INTEGRITIES:
        wrong.append(f"integrity {integrity}")
    if group is None:
        wrong.append(f"group {get(A.GROUP)}" if A.GROUP in attributes.numbers else "no perfect forward secrecy")
    if encryption is None or group is None or wrong:
        raise MismatchError(" and ".join(wrong))
    bits = get(A.KEY_LENGTH, 192 if encryption is Encryption.DES3_CBC else 0)
    esp = EspTransform(encryption, bits, None if integrity is None else INTEGRITIES[integrity])
    offered = Lifetime(attributes.lifetime.seconds or UNSAID_SECONDS, attributes.lifetime.kilobytes)
    return Phase2Suite(esp, group, *within(_at_most(ours, esp), offered, floor))


def _at_most(lifetime: Lifetime, esp: EspTransform) -> Lifetime:
    """No longer than the cipher is good for."""
    return lifetime.shorter(VOLUMES[esp.encryption]) if esp.encryption in VOLUMES else lifetime


def _accept(suite: Phase2Suite, profile: Profile, ke_octets: int | None) -> None:
    if not profile.accepts_esp(suite.esp):
        raise MismatchError(f"{suite.esp} is not in the profile {profile.name}")
    if suite.group not in profile.groups:
        different = differences([("group", suite.group, profile.groups)])
        raise MismatchError(f"{suite.group} is not in the profile {profile.name}: {different}")
    if ke_octets != public_length(suite.group):
        had = "none" if ke_octets is None else f"one of {ke_octets} octets"
        raise MismatchError(f"{suite.group} needs a KE payload of {public_length(suite.group)} octets, not {had}")
