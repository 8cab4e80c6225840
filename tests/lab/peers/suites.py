"""The suites of the matrix: every phase 1 suite and every ESP transform of our two profiles, at least once."""

from dataclasses import dataclass

from oesvc.ike.v1.offers import RFC4322, Phase1Suite
from oesvc.ipsec.sa import EspTransform


@dataclass(frozen=True)
class Suite:
    """What both phases use; phase 2's perfect forward secrecy is by phase 1's group."""

    phase1: Phase1Suite
    esp: EspTransform

    def __str__(self) -> str:
        return f"{self.phase1} / {self.esp}"

    @property
    def id(self) -> str:
        """For the name of a test."""
        return str(self).replace(" / ", "+").replace(" ", "-")


# Which transform of ESP (by its place in the profile) goes with each suite of phase 1: like with like.
_ESP_OF = (0, 1, 5, 2, 3, 4, 5, 1, 0, 6, 7, 8, 7, 8)
SUITES = tuple(Suite(phase1, RFC4322.esp[place]) for phase1, place in zip(RFC4322.phase1, _ESP_OF, strict=True))
