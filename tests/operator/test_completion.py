"""Completion, tried in the shells themselves."""

import subprocess
import sys

import pytest

from oesvc.operator import command_line
from oesvc.operator.completion import SHELLS

LINES = {
    ("oegw", "sta"): {"status"},
    ("oegw", "debug", ""): {"keylog"},
    ("oegw", "debug", "keylog", "--se"): {"--seconds"},
    ("oegw", "dns", "--type", "IP"): {"IPSECKEY"},
    ("oegw", "why", "--j"): {"--json"},
}


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """One file for each shell, as the installed command writes them."""
    folder = tmp_path_factory.mktemp("completions")
    for shell in SHELLS:
        done = subprocess.run([sys.executable, "-m", "oesvc.operator.main", "completion", shell], capture_output=True,
                              text=True, check=True)
        (folder / shell).write_text(done.stdout)
    return folder


def in_bash(script, words):
    quoted = " ".join(f"'{word}'" for word in words)
    return ["bash", "--norc", "-c", f"source {script}; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _oegw; "
                                    'printf "%s\\n" "${COMPREPLY[@]}"']


def in_zsh(script, words):
    """What the function hands to zsh, which itself chooses those that begin with the word."""
    quoted = " ".join(f"'{word}'" for word in words)
    return ["zsh", "-f", "-c", f"compdef() {{ }}; compadd() {{ print -l -- ${{@[2,-1]}} }}; source {script}; "
                               f"words=({quoted}); CURRENT={len(words)}; _oegw"]


def in_fish(script, words):
    return ["fish", "--no-config", "-c", f"source {script}; complete -C '{' '.join(words)}'"]


@pytest.mark.parametrize("words", LINES, ids=" ".join)
@pytest.mark.parametrize("shell, run", [("bash", in_bash), ("zsh", in_zsh), ("fish", in_fish)])
def test_shell_completes_commands_options_and_values(scripts, shell, run, words):
    done = subprocess.run(run(scripts / shell, words), capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    offered = {line.partition("\t")[0] for line in done.stdout.splitlines()}
    assert {word for word in offered if word.startswith(words[-1])} == LINES[words]


@pytest.mark.parametrize("shell, run", [("bash", in_bash), ("zsh", in_zsh), ("fish", in_fish)])
def test_shell_offers_every_command_and_no_other(scripts, shell, run):
    done = subprocess.run(run(scripts / shell, ("oegw", "")), capture_output=True, text=True, check=True, timeout=60)
    offered = {line.partition("\t")[0] for line in done.stdout.splitlines()}
    (commands,) = (action.choices for action in command_line.parser()._actions if action.choices)
    assert {word for word in offered if not word.startswith("-")} == set(commands)


def test_files_are_completed_where_a_file_is_wanted(scripts, tmp_path):
    (tmp_path / "my.conf").write_text("")
    done = subprocess.run(in_bash(scripts / "bash", ("oegw", "status", "--config", f"{tmp_path}/my")),
                          capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{tmp_path}/my.conf"
