"""One target under atheris, in a process of its own: python -m fuzz.guided TARGET CORPUS SECONDS."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["oesvc"]):
    from fuzz.targets import TARGETS

from fuzz.corpora import KEPT, WORK, begin

LONGEST = 2048
"Octets of an input."
LIMITS = ("-timeout=120", "-rss_limit_mb=1024", f"-max_len={LONGEST}")


def main(name: str, corpus: str, seconds: str) -> None:
    target, folder, findings = TARGETS[name], Path(corpus) / name, WORK / "findings"
    begin(target, folder)
    for needed in (findings, KEPT / name):
        needed.mkdir(parents=True, exist_ok=True)
    atheris.Setup([sys.argv[0], str(folder), str(KEPT / name), f"-artifact_prefix={findings}/{name}-", *LIMITS],
                  bounded(target.run, float(seconds)))
    atheris.Fuzz()


def bounded(run: Callable[[bytes], None], seconds: float) -> Callable[[bytes], None]:
    """Ends the process when its CPU time is over: libFuzzer knows the clock only, and machines are shared."""
    count = 0

    def one(data: bytes) -> None:
        nonlocal count
        count += 1
        run(data)
        if time.process_time() >= seconds:
            print(f"#{count}\tOVER", file=sys.stderr, flush=True)
            os._exit(0)

    return one


if __name__ == "__main__":
    main(*sys.argv[1:])
