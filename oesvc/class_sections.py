"""Sections [class NAME] of oegw.conf: connection classes of an administrator's own (RFC 4322 section 3.2)."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from oesvc import config_values as read
from oesvc.config_values import Reader
from oesvc.oe.aging import Lifespans
from oesvc.oe.authorization import DnssecPolicy
from oesvc.oe.classes import ClassOptions
from oesvc.policy_files import GROUPS, PolicyClass, group_of

DAY = 86400
LIFESPANS = ("first", "used", "low", "normal", "in-use-within")
"As in the section [lifespans]."

OPTIONS: dict[str, tuple[Reader, str]] = {
    "base":           (read.choice(GROUPS), ""),
    "dnssec":         (read.optional(read.one_of(DnssecPolicy)), ""),
    "on-bad-record":  (read.choice({"deny": False, "absent": True}), "deny"),
    "on-dns-failure": (read.optional(read.choice({"clear": "clear", "deny": "deny"})), ""),
    "keying-time":    (read.optional(read.between(float, 1, 300)), ""),
    "icmp-on-deny":   (read.optional(read.choice(read.YES_NO)), ""),
    **{name: (read.optional(read.between(float, 1, DAY)), "") for name in LIFESPANS},
}
"Every option: how it is read, and its default as it would be written. What has none is as for all."


def policy_class(name: str, values: Mapping[str, Any], lifespans: Lifespans) -> PolicyClass:
    """The class that a section makes; `lifespans` are those of the other classes."""
    own = {option.replace("-", "_"): values[option] for option in LIFESPANS if values[option] is not None}
    return PolicyClass(values["base"], ClassOptions(
        name, values["dnssec"], values["on-bad-record"], values["on-dns-failure"] == "deny",
        replace(lifespans, **own) if own else None, values["keying-time"], values["icmp-on-deny"]))


def contradictions(name: str, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What of a section does not go together: at which option, and what would be right."""
    if name in GROUPS:
        yield "", f"the class {name} is there already; choose another name, and say base = {name}"
    if not read.CLASS_NAME.fullmatch(name):
        yield "", f"{name!r} cannot be the name of a policy file; write small letters, digits and hyphens"
    base = values["base"]
    for option, counts in (("dnssec", base.opportunistic), ("on-bad-record", base.initiates),
                           ("on-dns-failure", base.initiates), ("keying-time", base.initiates)):
        if values[option] and not counts:
            yield option, f"counts for nothing in a class based on {group_of(base)}"
    if base.never_clear and values["on-dns-failure"] == "clear":
        yield "on-dns-failure", "a class based on private is never in clear; write base = private-or-clear"
