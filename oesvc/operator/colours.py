"""Colours, for terminals only; https://no-color.org is honoured."""

import os
import sys
from collections.abc import Callable

RED, GREEN, YELLOW, BOLD, PLAIN = "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[1m", "\x1b[0m"

Paint = Callable[[str, str], str]
"Text and its colour (or none) to what is written."


def painter(colour: bool) -> Paint:
    def paint(text: str, code: str) -> str:
        return f"{code}{text}{PLAIN}" if colour and code and text else text
    return paint


def wanted() -> bool:
    """Whether standard output is a terminal whose owner wants colours."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
