"""What the daemon says about its policy, as text for people."""

from typing import Any


def show(answer: dict[str, Any], colour: bool) -> str:
    """Class by class, each with its prefixes and where they are written."""
    lines = []
    for one in answer["classes"]:
        lines.append(_class(one))
        lines += _columns([(line["prefix"], line["place"]) for line in one["prefixes"]])
    if answer["ports"]:
        lines.append("ports, whatever becomes of the rest of their flows")
        lines += _columns([(line["prefix"], line["ports"], _verdict(line), line["place"]) for line in answer["ports"]])
    return "\n".join([*lines, f"all other destinations: {_class(answer['default'])}"])


def test(answer: dict[str, Any], colour: bool) -> str:
    """The outcome first; then what decides it, what there is now, and what the files would change."""
    lines = [f"{answer['source']} -> {answer['destination']} {answer['outcome']}", f"  policy   {answer['policy']}",
             f"  class    {_class(answer)}"]
    if answer.get("state"):
        lines.append(f"  state    {answer['state']} now; `oegw why` says why")
    files = answer.get("files")
    if files and files["error"]:
        lines.append(f"  files    cannot be used: {files['error']}")
    elif files and (files["policy"], files["outcome"]) != (answer["policy"], answer["outcome"]):
        lines.append(f"  files    say otherwise: {files['policy']}; after `oegw policy reload` it {files['outcome']}")
    return "\n".join(lines)


def diff(answer: dict[str, Any], colour: bool) -> str:
    return _difference(answer, "would be decided anew, and held until then", "would go on") or (
        "the files say what is in force")


def reload(answer: dict[str, Any], colour: bool) -> str:
    said = _difference(answer, "is decided anew", "goes on")
    return f"reloaded; this has changed:\n{said}" if said else "reloaded; nothing has changed"


def _difference(answer: dict[str, Any], ended: str, goes_on: str) -> str:
    lines = []
    for one in answer["prefixes"]:
        lines += [f"- {one['prefix']} {one['before']} ({one['before_place']})",
                  f"+ {one['prefix']} {one['after']} ({one['after_place']})"]
    for sign, ports in (("-", answer["ports_gone"]), ("+", answer["ports_new"])):
        lines += [f"{sign} {one['prefix']} {one['ports']} {_verdict(one)} ({one['place']})" for one in ports]
    lines += [f"  {one['source']} -> {one['destination']} ({one['state']}) {goes_on if one['goes_on'] else ended}"
              for one in answer["flows"]]
    if answer["more_flows"]:
        lines.append(f"  and {answer['more_flows']} more flows")
    if answer["options"]:
        lines.append(f"  options: {', '.join(answer['options'])}")
    if answer["restart"]:
        lines.append(f"! a restart is needed for {', '.join(answer['restart'])}")
    return "\n".join(lines)


def _class(one: dict[str, Any]) -> str:
    options = "; ".join(f"{name} = {value}" for name, value in one["options"].items())
    return f"{one['class']} ({one['base']}){f': {options}' if options else ''}"


def _verdict(line: dict[str, Any]) -> str:
    return "is dropped" if line["dropped"] else "is in clear"


def _columns(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)) for row in rows]
