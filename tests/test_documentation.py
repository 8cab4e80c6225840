"""What the documentation tells people to type is understood: `oegw` commands, `make` targets, options."""

import argparse
import re
import shlex
import shutil
from pathlib import Path

import pytest

from oesvc.config import OPTIONS
from oesvc.operator import command_line
from tests.lab import quick_start

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "docs/man").iterdir()]
WRITTEN = {"SRC": "198.51.100.7", "DST": "203.0.113.9", "ADDR": "203.0.113.9", "ADDRESS": "203.0.113.9",
           "ADDRESS|NAME": "203.0.113.9", "address": "203.0.113.9", "FILE": "/tmp/file", "file": "/tmp/file"}
"What stands for something."
NO_WORDS = ("...", "Ar")
"The second is mdoc's."
TO_FOLLOW = (ROOT / "README.md", ROOT / "docs/tutorial.md", *(ROOT / "docs/man").iterdir())
NOT_HERE = {"systemctl": "typed in the lab's containers, which systemd boots (tests/lab/site.py)",
            "editor": "whichever is installed there (update-alternatives)"}
TO_TYPE = re.compile(r"^(?:    |\.Dl )oegw ([^#\n]*)", re.MULTILINE)
NAMED = re.compile(r"`oegw ([a-z][^`\n]*)`")
IN_MANUAL = re.compile(r"^\.(?:It )?(?:Ql|Cm|Pq Cm) oegw ([a-z][^\n]*?)(?: [.;,:])?$", re.MULTILINE)


def found(pattern):
    return sorted({(page.name, words.strip()) for page in PAGES for words in pattern.findall(page.read_text())})


def spelled_out(line):
    """The words of one command, or of several: `keys list | roll`, optional words in brackets and all."""
    first, *others = (shlex.split(part) for part in line.split(" | "))
    for words in (first, *(first[:-1] + other for other in others)):
        yield [WRITTEN.get(word, word) for word in (word.strip("[]") for word in words) if word not in NO_WORDS]


def understood(words):
    return command_line.parser().parse_args(words)


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
    (words,) = spelled_out(line)
    assert understood(words).carry_out


@pytest.mark.parametrize("page, name", [*found(NAMED), *found(IN_MANUAL)])
def test_command_that_is_named_is_there(page, name):
    for words in spelled_out(name):
        assert is_command(words) or understood(words).carry_out


def test_command_of_others_is_there_or_known_by_a_reason():
    """What else is to be typed as it stands: an indented line of a page, or one that a manual page displays."""
    words = {word for page in TO_FOLLOW for word in re.findall(
        rf"^{'    ' if page.suffix == '.md' else '[.]Dl '}([a-z][a-z-]+)(?= [^=\s])", page.read_text(), re.MULTILINE)}
    assert {word for word in words - {"oegw"} if not shutil.which(word)} <= set(NOT_HERE)
    assert words >= {"apt", "systemctl", "make", "chmod", "ssh", "tsig-keygen"}


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
