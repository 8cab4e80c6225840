"""`oegw completion`: what the shells complete, written from the command line's own definition."""

from argparse import SUPPRESS, Action, ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import dataclass, field

from oesvc.operator.client import DONE

FILE_METAVARS = ("FILE", "SOCKET", "DIRECTORY")
"Of arguments that are files."


@dataclass(slots=True)
class Node:
    """A command, by the words that lead to it ('' for `oegw` itself, 'keys gen')."""

    path: str
    commands: dict[str, str] = field(default_factory=dict)
    "With what they do, in a line."
    options: dict[str, str] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    "By option: the values that it takes, FILES for a file, empty for what nobody can guess."


FILES = "<files>"


def nodes(parser: ArgumentParser, path: str = "") -> Iterator[Node]:
    """The parser's tree, each command after the one that it is under."""
    node = Node(path)
    below: list[tuple[str, ArgumentParser]] = []
    for action in parser._actions:
        if isinstance(action.choices, dict):
            described = {one.dest: one.help or "" for one in getattr(action, "_choices_actions", ())}
            node.commands = {name: described.get(name, "") for name in action.choices}
            below = list(action.choices.items())
        elif action.option_strings and action.help != SUPPRESS:
            for option in action.option_strings:
                node.options[option] = _first_sentence(action)
                if action.nargs != 0:
                    node.values[option] = _values(action)
    yield node
    for name, command in below:
        yield from nodes(command, f"{path} {name}".strip())


def _first_sentence(action: Action) -> str:
    return (action.help or "").partition(" (")[0].replace("%%", "%")


def _values(action: Action) -> str:
    if action.choices:
        return " ".join(map(str, action.choices))
    return FILES if action.metavar in FILE_METAVARS else ""


def bash(parser: ArgumentParser) -> str:
    tree = list(nodes(parser))
    return "\n".join([
        "# bash completion of oegw; `oegw completion bash` writes it.",
        "declare -gA _oegw_commands=(", *(f"  [{_quoted(n.path + ' ')}]={_quoted(' '.join(n.commands))}" for n in tree),
        ")", "declare -gA _oegw_options=(",
        *(f"  [{_quoted(n.path + ' ')}]={_quoted(' '.join(n.options))}" for n in tree), ")",
        "declare -gA _oegw_values=(",
        *(f"  [{_quoted(f'{n.path} {option}')}]={_quoted(values)}"
          for n in tree for option, values in n.values.items()),
        ")", BASH])


BASH = """\
_oegw() {
  local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} path="" word
  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    if [[ -n $word && " ${_oegw_commands["$path "]} " == *" $word "* ]]; then path="${path:+$path }$word"; fi
  done
  if [[ -n ${_oegw_values["$path $before"]+there} ]]; then
    local values=${_oegw_values["$path $before"]}
    if [[ $values == "<files>" ]]; then mapfile -t COMPREPLY < <(compgen -f -- "$current")
    else mapfile -t COMPREPLY < <(compgen -W "$values" -- "$current"); fi
  elif [[ $current == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "${_oegw_options["$path "]}" -- "$current")
  else
    mapfile -t COMPREPLY < <(compgen -W "${_oegw_commands["$path "]}" -- "$current")
  fi
}
complete -o filenames -F _oegw oegw
"""


def zsh(parser: ArgumentParser) -> str:
    tree = list(nodes(parser))
    return "\n".join([
        "#compdef oegw", "# zsh completion of oegw; `oegw completion zsh` writes it.",
        "typeset -gA _oegw_commands _oegw_options _oegw_values",
        "_oegw_commands=(", *(_pair(_words(n.path), " ".join(n.commands)) for n in tree), ")",
        "_oegw_options=(", *(_pair(_words(n.path), " ".join(n.options)) for n in tree), ")",
        "_oegw_values=(", *(_pair(_words(n.path, option), values) for n in tree for option, values in n.values.items()),
        ")", ZSH])


ZSH = """\
_oegw() {
  local here="oegw" word before=${words[CURRENT-1]}
  for word in ${words[2,CURRENT-1]}; do
    if [[ -n $word && " ${_oegw_commands[$here]} " == *" $word "* ]]; then here="$here $word"; fi
  done
  if (( ${+_oegw_values[$here $before]} )); then
    if [[ ${_oegw_values[$here $before]} == "<files>" ]]; then _files
    else compadd -- ${=_oegw_values[$here $before]}; fi
  elif [[ ${words[CURRENT]} == -* ]]; then compadd -- ${=_oegw_options[$here]}
  else compadd -- ${=_oegw_commands[$here]}; fi
}
"""


def fish(parser: ArgumentParser) -> str:
    lines = ["# fish completion of oegw; `oegw completion fish` writes it.", FISH, "complete -c oegw -f"]
    for node in nodes(parser):
        here, within = (f"-n {_quoted(f'{test} {node.path}'.strip())}" for test in ("_oegw_is", "_oegw_in"))
        for name, what in node.commands.items():
            lines.append(f"complete -c oegw {here} -a {name} -d {_quoted(what)}")
        for option, what in node.options.items():
            long = f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"
            takes = node.values.get(option)
            after = "" if takes is None else " -r -F" if takes == FILES else f" -x -a {_quoted(takes)}"
            lines.append(f"complete -c oegw {within} {long}{after} -d {_quoted(what)}")
    return "\n".join([*lines, ""])


FISH = """\
function _oegw_is
    set -l named (string match -v -- '-*' (commandline -opc)[2..])
    test "$named" = "$argv"
end
function _oegw_in
    set -l named (string match -v -- '-*' (commandline -opc)[2..])
    test -z "$argv"; or string match -q -- "$argv *" "$named "
end"""

SHELLS = {"bash": bash, "zsh": zsh, "fish": fish}


def carry_out(options: Namespace) -> int:
    print(SHELLS[options.shell](options.parser), end="")
    return DONE


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _words(path: str, *more: str) -> str:
    return " ".join(["oegw", *path.split(), *more])


def _pair(key: str, value: str) -> str:
    return f"  {_quoted(key)} {_quoted(value)}"
