"""The manual pages: what they name is there, and what is there they name."""

import argparse
import re
import subprocess
from pathlib import Path

import pytest

from oesvc import class_sections
from oesvc.config import OPTIONS
from oesvc.config_tunnels import OPTIONS as TUNNEL_OPTIONS
from oesvc.operator import command_line
from oesvc.policy_files import GROUPS

MAN = Path(__file__).parent.parent / "docs/man"


@pytest.mark.parametrize("page", sorted(MAN.iterdir()), ids=lambda page: page.name)
def test_page_is_well_formed(page):
    """In style too; but whether the pages that it refers to are installed is not of its form."""
    done = subprocess.run(["mandoc", "-T", "lint", page], capture_output=True, text=True, check=False)
    assert [line for line in done.stdout.splitlines() if "referenced manual not found" not in line] == []


def test_every_option_is_described_with_its_default():
    text = (MAN / "oegw.conf.5").read_text()
    described = {name for line in re.findall(r"^\.It Cm (.*)$", text, re.MULTILINE) for name in line.split(" , ")}
    assert described == {option for _, option in OPTIONS} | set(class_sections.OPTIONS) | set(TUNNEL_OPTIONS)
    of_tunnels = [(("tunnel", option), (reader, default or "")) for option, (reader, default) in TUNNEL_OPTIONS.items()]
    for (_, option), (_, default) in [*OPTIONS.items(), *of_tunnels]:
        entry = text.partition(f".It Cm {option}\n")[2].partition("\n.It ")[0]
        assert not entry or default in entry


def test_every_section_of_the_configuration_is_there():
    sections = re.findall(r"^\.Ss \[(.*)\]\\&$", (MAN / "oegw.conf.5").read_text(), re.MULTILINE)
    assert set(sections) == {section for section, _ in OPTIONS} | {"class NAME", "tunnel NAME"}


def test_every_policy_file_is_described():
    assert set(re.findall(r"^\.It Pa (\S+)$", (MAN / "oegw-policies.5").read_text(), re.MULTILINE)) == set(GROUPS)


def paths(parser, before=()):
    """Every command with its sub-commands, as words."""
    inner = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return {" ".join(before)} if not inner else {
        path for name, one in inner[0].items() for path in paths(one, (*before, name))}


def commands_described():
    return re.findall(r"^\.It Cm ([a-z]+(?: [a-z]+)*)", (MAN / "oegw.1").read_text(), re.MULTILINE)


def test_every_command_is_described():
    assert sorted(commands_described()) == sorted(paths(command_line.parser()))
