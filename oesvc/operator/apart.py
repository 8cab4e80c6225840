"""What is asked of programs of their own, because it takes an event loop: the DNS and the kernel without a daemon."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from oesvc.operator.client import CommandError, answer_in


def look_up_alone(file: Path, questions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """In a process of its own, which asks the resolvers of the configuration. Raises CommandError."""
    command = [sys.executable, "-m", "oesvc.operator.alone", str(file)]
    done = subprocess.run(command, input=json.dumps(questions), stdout=subprocess.PIPE, text=True, check=False)
    try:
        return [answer_in(reply) for reply in json.loads(done.stdout)]
    except ValueError:
        raise CommandError(f"the look-up ended without an answer (status {done.returncode})") from None


def what_is_left() -> str:
    """What the kernel does without a daemon, in one line; nothing where we may not ask it."""
    done = subprocess.run([sys.executable, "-m", "oesvc.operator.left"], stdout=subprocess.PIPE, text=True, check=False,
                          stderr=subprocess.DEVNULL)
    return done.stdout.strip()
