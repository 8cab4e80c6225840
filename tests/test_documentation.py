"""What the documentation tells people to type is understood: `oegw` commands, `make` targets, options."""

import argparse
import re
import shlex
from pathlib import Path

import pytest

from oesvc.config import OPTIONS
from oesvc.operator import command_line
from tests.lab import quick_start

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "docs/man").iterdir()]
WRITTEN = {"SRC": "198.51.100.7", "DST": "203.0.113.9", "ADDR": "203.0.113.9", "ADDRESS": "203.0.113.9",
           "ADDRESS|NAME": "203.0.113.9", "FILE": "/tmp/file"}
"What stands for something."
TO_TYPE = re.compile(r"^(?:    |\.Dl )oegw ([^#\n]*)", re.MULTILINE)
NAMED = re.compile(r"`oegw ([a-z][^`\n]*)`")


def found(pattern):
    return sorted({(page.name, words.strip()) for page in PAGES for words in pattern.findall(page.read_text())})


def understood(words):
    """Optional words in brackets and all."""
    written = (word.strip("[]") for word in words if word != "...")
    return command_line.parser().parse_args([WRITTEN.get(word, word) for word in written])


def is_command(words):
    """Whether these words are the name of a command, or of a group of them."""
    parser = command_line.parser()
    for word in words:
        inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        if not inner or word not in inner[0].choices:
            return False
        parser = inner[0].choices[word]
    return True


@pytest.mark.parametrize("page, line", found(TO_TYPE))
def test_command_to_type_is_understood(page, line):
    assert understood(shlex.split(line)).carry_out


@pytest.mark.parametrize("page, name", found(NAMED))
def test_command_that_is_named_is_there(page, name):
    first, *others = (shlex.split(part) for part in name.split(" | "))
    for words in (first, *(first[:-1] + other for other in others)):
        assert is_command(words) or understood(words).carry_out


def test_every_make_target_that_is_named_is_there():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for _, name in found(re.compile(r"(?:^    |`)make ([a-z-]+)", re.MULTILINE))}
    assert len(named) > 5
    assert named <= targets


def test_every_option_that_is_named_is_one():
    """As `[section] option` in running text."""
    named = {pair for page in PAGES for pair in re.findall(r"`\[([a-z]+)\]\s+([a-z0-9-]+)[ `]", page.read_text())}
    assert len(named) > 5
    assert named <= set(OPTIONS)


def test_the_quick_start_is_at_most_five_commands_and_its_lines_are_in_oegw_conf():
    """`make demo-deb` types the one, and writes the other, as README.md has them."""
    assert 1 < len(quick_start.commands()) <= quick_start.AT_MOST
    shipped = (ROOT / "etc/oegw.conf").read_text().splitlines()
    assert set(quick_start.options().items()) < {(name, example) for example, name in quick_start.EXAMPLES.items()}
    for name, value in quick_start.options().items():
        assert f"#{name} = {value}" in shipped, "an example of README.md is that of the file"
