"""What is fuzzed: each target by its name, with the inputs that it begins with."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from fuzz import readers, seeds
from fuzz.ladders import ALL, Ladder
from fuzz.strangers import Strangers

INITIATOR, RESPONDER = "ab"


@dataclass(frozen=True)
class Target:
    """A function that raises for findings only, and what is known to be worth changing."""

    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    share: int = 1
    "Of the time."
    changes: int = 6000
    "Inputs that the unit tests make up."

    def finish(self) -> None:
        """See what inputs before have left behind; raises for a finding."""
        if isinstance(self.run, Ladder | Strangers):
            self.run.finish()

    def run_alone(self, data: bytes) -> None:
        """One input, whatever was before."""
        self.finish()
        self.run(data)
        self.finish()


def _ladder(*steps: tuple[int, str], nat: bool = False) -> Target:
    ladder = Ladder(*steps, nat=nat)
    return Target(ladder, partial(seeds.ladder, ladder), share=2, changes=600)


TARGETS: dict[str, Target] = {
    "isakmp": Target(readers.isakmp, seeds.isakmp),
    "strangers": Target(Strangers(), seeds.strangers, changes=2000),
    "main-mode-initiator": _ladder((1, INITIATOR), (3, INITIATOR), (5, INITIATOR)),
    "main-mode-responder": _ladder((0, RESPONDER), (2, RESPONDER), (4, RESPONDER)),
    "quick-mode-initiator": _ladder((7, INITIATOR)),
    "quick-mode-responder": _ladder((6, RESPONDER), (8, RESPONDER)),
    "informational": _ladder((3, INITIATOR), (4, RESPONDER), (5, INITIATOR), (ALL, INITIATOR), (ALL, RESPONDER)),
    "nat-initiator": _ladder((3, INITIATOR), (5, INITIATOR), (7, INITIATOR), (ALL, INITIATOR), nat=True),
    "nat-responder": _ladder((2, RESPONDER), (4, RESPONDER), (6, RESPONDER), (ALL, RESPONDER), nat=True),
    "dns-message": Target(readers.dns_message, seeds.dns_message),
    "record": Target(readers.record, seeds.record),
}
