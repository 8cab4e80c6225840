"""The SA payload of main mode: one proposal with several transforms (RFC 2409 section 5 and appendix A)."""

from collections.abc import Sequence

from oesvc.ike.crypto.groups import Group
from oesvc.ike.crypto.keymat import Hash
from oesvc.ike.v1.constants import KEY_IKE, AuthenticationMethod, Phase1Attribute, Protocol, name_of
from oesvc.ike.v1.errors import NoProposalChosenError
from oesvc.ike.v1.negotiation import (
    MismatchError,
    differences,
    lifetime_attributes,
    read_attributes,
    refusal,
    within,
)
from oesvc.ike.v1.offers import Cipher, Phase1Suite, Profile
from oesvc.ike.v1.wire.proposals import Attribute, Proposal, Transform, pack_sa, parse_sa
from oesvc.ipsec.sa import Lifetime

A = Phase1Attribute
CIPHER_NUMBERS = {"3des-cbc": 5, "aes-cbc": 7}
CIPHERS = {(CIPHER_NUMBERS[cipher.algorithm], cipher.key_bits): cipher for cipher in Cipher}
CIPHER_NAMES = {1: "des-cbc", 2: "idea-cbc", 3: "blowfish-cbc", 4: "rc5-cbc", 5: "3des-cbc", 6: "cast-cbc",
                7: "aes-cbc", 8: "camellia-cbc"}
HASH_NUMBERS = {Hash.MD5: 1, Hash.SHA1: 2, Hash.SHA2_256: 4, Hash.SHA2_384: 5, Hash.SHA2_512: 6}
HASHES = {number: hash for hash, number in HASH_NUMBERS.items()}
GROUPS = {int(group): group for group in Group}


def offer(profile: Profile, lifetime: Lifetime) -> bytes:
    """The SA payload's body of main mode 1."""
    transforms = tuple(_transform(number, suite, lifetime) for number, suite in enumerate(profile.phase1, 1))
    return pack_sa((Proposal(1, Protocol.ISAKMP, b"", transforms),))


def choose(body: bytes, profile: Profile, ours: Lifetime, floor: Lifetime) -> tuple[Phase1Suite, Lifetime, bool, bytes]:
    """The first acceptable transform in the initiator's order; the SA payload's body that returns it unmodified.

    Between them the lifetime, and whether it is shorter than what the initiator will think it is.

    Raises NoProposalChosenError, which says of every transform why it was not taken.
    """
    mismatches: list[str] = []
    for proposal in parse_sa(body):
        for transform in proposal.transforms:
            try:
                suite, theirs = _read(proposal, transform)
                _accept(suite, profile)
                lifetime, shortened = within(ours, theirs, floor)
            except MismatchError as mismatch:
                mismatches.append(f"proposal {proposal.number} transform {transform.number}: {mismatch}")
            else:
                chosen = Proposal(proposal.number, proposal.protocol, proposal.spi, (transform,))
                return suite, lifetime, shortened, pack_sa((chosen,))
    raise refusal(mismatches, _acceptable(profile))


def accept_choice(body: bytes, profile: Profile, ours: Lifetime) -> tuple[Phase1Suite, Lifetime]:
    """What the responder chose of our offer. Raises NoProposalChosenError when it had not been offered."""
    proposals = parse_sa(body)
    if len(proposals) != 1 or len(proposals[0].transforms) != 1:
        raise NoProposalChosenError("the responder returned more than one proposal or transform")
    try:
        suite, theirs = _read(proposals[0], proposals[0].transforms[0])
    except MismatchError as mismatch:
        raise NoProposalChosenError(f"the responder chose what was not offered: {mismatch}") from None
    if suite not in profile.phase1:
        raise NoProposalChosenError(f"the responder chose {suite}, which was not offered; "
                                    f"offered were {say(profile.phase1)}")
    return suite, ours.shorter(theirs)


def say(suites: Sequence[Phase1Suite]) -> str:
    return ", ".join(map(str, suites))


def _transform(number: int, suite: Phase1Suite, lifetime: Lifetime) -> Transform:
    cipher = suite.cipher
    key_length = (Attribute.of(A.KEY_LENGTH, cipher.key_bits),) if cipher is not Cipher.DES3_CBC else ()
    return Transform(number, KEY_IKE, (
        Attribute.of(A.ENCRYPTION, CIPHER_NUMBERS[cipher.algorithm]),
        *key_length,
        Attribute.of(A.HASH, HASH_NUMBERS[suite.hash]),
        Attribute.of(A.AUTHENTICATION, AuthenticationMethod.RSA_SIGNATURES),
        Attribute.of(A.GROUP, suite.group),
        *lifetime_attributes(A.LIFE_TYPE, A.LIFE_DURATION, lifetime),
    ))


def _read(proposal: Proposal, transform: Transform) -> tuple[Phase1Suite, Lifetime]:
    """A transform as a suite of ours. Raises MismatchError with all that is unknown in it."""
    if proposal.protocol != Protocol.ISAKMP or transform.id != KEY_IKE:
        raise MismatchError(f"protocol {name_of(Protocol, proposal.protocol)} with transform ID {transform.id} "
                            "instead of ISAKMP with KEY_IKE")
    attributes = read_attributes(transform, A, A.LIFE_TYPE, A.LIFE_DURATION)
    get = attributes.numbers.get
    encryption, bits = get(A.ENCRYPTION, 0), get(A.KEY_LENGTH)
    key_bits = 192 if encryption == CIPHER_NUMBERS["3des-cbc"] and bits is None else bits or 0
    cipher = CIPHERS.get((encryption, key_bits))
    hash, group, method = HASHES.get(get(A.HASH, 0)), GROUPS.get(get(A.GROUP, 0)), get(A.AUTHENTICATION, 0)
    wrong = []
    if cipher is None:
        wrong.append(f"cipher {CIPHER_NAMES.get(encryption, encryption)} with {key_bits or 'no'} bits")
    if hash is None:
        wrong.append(f"hash {get(A.HASH)}")
    if group is None:
        wrong.append(f"group {get(A.GROUP)}")
    if method != AuthenticationMethod.RSA_SIGNATURES:
        wrong.append(f"authentication {name_of(AuthenticationMethod, method)} instead of RSA-SIGNATURES")
    if cipher is None or hash is None or group is None or wrong:
        raise MismatchError(" and ".join(wrong))
    return Phase1Suite(cipher, hash, group), attributes.lifetime


def _accept(suite: Phase1Suite, profile: Profile) -> None:
    different = differences((("cipher", suite.cipher, profile.ciphers), ("hash", suite.hash, profile.hashes),
                             ("group", suite.group, profile.groups)))
    if different:
        raise MismatchError(f"{suite} is not in the profile {profile.name}: {different}")


def _acceptable(profile: Profile) -> str:
    return f"rsa signatures with any combination of the parts of {say(profile.phase1)}"
