"""What fuzzing has found worth keeping, once more and changed at random, without atheris. The seeds are fixed.

Each target says itself what must hold (fuzz/ladders.py, fuzz/strangers.py, fuzz/readers.py) and raises otherwise.
"""

import random
from collections.abc import Callable

import pytest

from fuzz.corpora import KEPT
from fuzz.targets import TARGETS

INTERESTING = (0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 20, 28, 32, 63, 64, 127, 128, 192, 255)
EDITS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    lambda data, chance: _set(data, chance, data[chance.randrange(len(data))] ^ 1 << chance.randrange(8)),
    lambda data, chance: _set(data, chance, chance.choice(INTERESTING)),
    lambda data, chance: _set(data, chance, chance.randrange(256)),
    lambda data, chance: data.__delitem__(slice(chance.randrange(len(data)), None)),
    lambda data, chance: data.__delitem__(chance.randrange(len(data))),
    lambda data, chance: data.insert(chance.randrange(len(data)), chance.randrange(256)),
    lambda data, chance: data.extend(data[chance.randrange(len(data)):]),
    lambda data, chance: data.extend(chance.randbytes(chance.randrange(1, 40))),
)


def _set(data: bytearray, chance: random.Random, value: int) -> None:
    data[chance.randrange(len(data))] = value


def changed(original: bytes, chance: random.Random) -> bytes:
    data = bytearray(original)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        if data:
            chance.choice(EDITS)(data, chance)
    return bytes(data)


def kept(name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((KEPT / name).iterdir())]


@pytest.mark.parametrize("name", TARGETS)
def test_what_was_kept_finds_nothing(name):
    inputs = kept(name)
    assert len(inputs) > 10
    for data in inputs:
        TARGETS[name].run_alone(data)


@pytest.mark.parametrize("name", TARGETS)
def test_what_was_kept_finds_nothing_when_it_is_changed(name):
    chance, target, originals = random.Random(name), TARGETS[name], kept(name) + TARGETS[name].seeds()
    for _ in range(target.changes):
        target.run(changed(chance.choice(originals), chance))
    target.finish()
