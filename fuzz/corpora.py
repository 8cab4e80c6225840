"""The inputs that are collected while fuzzing, and the few of them that are kept in the repository."""

import sys
from collections.abc import Callable
from hashlib import sha1
from pathlib import Path
from types import FrameType
from typing import Any

from fuzz.targets import Target

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "fuzz/corpus"
WORK = ROOT / ".cache/fuzz"
OURS = str(ROOT / "oesvc")
MOST_OCTETS = 1500
"Of an input that is kept."

Arcs = frozenset[tuple[str, int, int]]


def begin(target: Target, folder: Path) -> None:
    """Put the seeds into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds():
        (folder / _name(seed)).write_bytes(seed)


def keep(name: str, target: Target, folder: Path) -> str:
    """Write to fuzz/corpus the inputs of a folder, and of those kept before, that together cover what all cover."""
    begin(target, folder)
    kept = KEPT / name
    kept.mkdir(parents=True, exist_ok=True)
    inputs = {path.read_bytes() for where in (folder, kept) for path in where.iterdir()}
    covered = {data: covers(target.run_alone, data) for data in sorted(inputs) if len(data) <= MOST_OCTETS}
    chosen = fewest(covered)
    for path in kept.iterdir():
        path.unlink()
    for data in chosen:
        (kept / _name(data)).write_bytes(data)
    return f"{name}: {len(chosen)} of {len(inputs)} inputs, {sum(map(len, chosen)):,} octets"


def fewest(covered: dict[bytes, Arcs]) -> list[bytes]:
    """Greedily: always the input that adds most, of those that add as much the smallest."""
    chosen: list[bytes] = []
    while covered:
        best = max(covered, key=lambda data: (len(covered[data]), -len(data), data))
        seen = covered.pop(best)
        chosen.append(best)
        covered = {data: rest for data, arcs in covered.items() if (rest := arcs - seen)}
    return chosen


def covers(run: Callable[[bytes], None], data: bytes) -> Arcs:
    """The pairs of lines of oesvc that follow each other when a target runs."""
    arcs: set[tuple[str, int, int]] = set()

    def enter(frame: FrameType, event: str, argument: Any) -> Callable[..., Any] | None:
        file = frame.f_code.co_filename
        if not file.startswith(OURS):
            return None
        last = 0

        def line(frame: FrameType, event: str, argument: Any) -> Callable[..., Any]:
            nonlocal last
            if event == "line":
                arcs.add((file, last, frame.f_lineno))
                last = frame.f_lineno
            return line

        return line

    sys.settrace(enter)
    try:
        run(data)
    finally:
        sys.settrace(None)
    return frozenset(arcs)


def _name(data: bytes) -> str:
    return sha1(data).hexdigest()[:16]
