"""The command line of `oegw`: every command with its words and options, and where it is carried out.

That is imported by `later`, when it is: the command line itself is read in a few milliseconds.
"""

from argparse import ArgumentParser, BooleanOptionalAction
from pathlib import Path
from typing import Any

from oesvc import __version__
from oesvc.operator.later import later
from oesvc.set_up import CONFIG_FILE

RECORD_TYPES = ("KEY", "TXT", "IPSECKEY")
"Of `oesvc.keys.records`."
LOOK_UP_TYPES = ("TXT", "IPSECKEY", "KEY")
"Of `oesvc.operator.inquiry`."
BITS, USUAL_BITS = (2048, 3072, 4096), 2048
SHELLS = ("bash", "zsh", "fish")
ADDRESS = later("operator.arguments:address")


def parser() -> ArgumentParser:
    common = ArgumentParser(add_help=False)
    common.add_argument("--config", type=Path, default=CONFIG_FILE, metavar="FILE",
                        help="the daemon's configuration (default: %(default)s)")
    answering = ArgumentParser(add_help=False, parents=[common])
    answering.add_argument("--json", action="store_true", help="answer in JSON")
    asking = ArgumentParser(add_help=False, parents=[answering])
    asking.add_argument("--control", type=Path, metavar="SOCKET",
                        help="the daemon's control socket (default: as its configuration says)")

    whole = ArgumentParser(prog="oegw", description="Opportunistic encryption gateway (RFC 4322).",
                           epilog="Exit codes: 0 done, 1 the answer is no, 2 it could not be done.")
    whole.add_argument("--version", action="version", version=f"oegw {__version__}")
    commands = whole.add_subparsers(required=True, metavar="COMMAND")
    _live(commands, asking)
    _whole_gateway(commands, asking)
    _policy(commands, asking)
    _dns(commands, asking)
    _debug(commands, asking)
    _keys(commands, answering)
    _records(commands, answering)
    completion = commands.add_parser(
        "completion", help="what bash, zsh or fish complete, as a script",
        description="Print the script that completes the words of this command, for a shell to read.")
    completion.add_argument("shell", choices=SHELLS)
    completion.set_defaults(carry_out=later("operator.completion:carry_out"), parser=whole)
    return whole


def _command(commands: Any, parent: ArgumentParser, name: str, text: str, carried_out: str, description: str = "",
             epilog: str | None = None, **defaults: Any) -> ArgumentParser:
    """`text` stands in the list of commands, and is the description where there is no other."""
    command: ArgumentParser = commands.add_parser(
        name, parents=[parent], help=text, description=description or f"{text[0].upper()}{text[1:]}.", epilog=epilog)
    command.set_defaults(carry_out=later(carried_out), **defaults)
    return command


def _live(commands: Any, asking: ArgumentParser) -> None:
    """What the running daemon is asked: how things stand, why, and what happens now."""
    of_flow = ArgumentParser(add_help=False, parents=[asking])
    _ends(of_flow)
    for name, parent, text in (
            ("status", asking, "whether the daemon runs, and what it holds"),
            ("flows", asking, "every flow with its state and the reason"),
            ("sas", asking, "every IPsec SA, and how much it has carried"),
            ("peers", asking, "the gateways there are tunnels with, and how well they are proved"),
            ("why", of_flow, "why a flow is encrypted, in clear or denied"),
            ("timeline", of_flow, "the negotiation of a flow, step by step"),
            ("drop", of_flow, "forget what was decided about a flow, and close its tunnel")):
        command = _command(commands, parent, name, text, "operator.live:answered", question=name)
        if name == "timeline":
            command.add_argument("--svg", action="store_true", help="as a picture")
        if name == "status":
            command.add_argument("--watch", type=later("operator.arguments:seconds"), nargs="?", const=2.0,
                                 metavar="SECONDS", help="again and again, until interrupted (default: each 2 seconds)")
    probe = commands.add_parser("probe", parents=[asking], help="try opportunistic encryption now, step by step",
                                description="Try opportunistic encryption with a host now, and tell each step.")
    probe.add_argument("destination", type=ADDRESS, metavar="ADDRESS", help="a host on the far side")
    probe.add_argument("--from", type=ADDRESS, dest="source", metavar="SRC",
                       help="for this host on our side (default: this gateway itself)")
    probe.set_defaults(carry_out=later("operator.live:probe"))
    monitor = commands.add_parser("monitor", parents=[asking], help="follow what happens, line by line",
                                  description="Write what happens to any flow, as it happens, until interrupted.")
    monitor.set_defaults(carry_out=later("operator.live:monitor"))


def _ends(command: ArgumentParser) -> None:
    command.add_argument("source", type=ADDRESS, metavar="SRC", help="address of the host on this side")
    command.add_argument("destination", type=ADDRESS, metavar="DST", help="address of the host on the far side")


def _whole_gateway(commands: Any, asking: ArgumentParser) -> None:
    doctor = _command(
        commands, asking, "doctor", "what is wrong on this gateway and in its records, and what mends it",
        "operator.doctor.command:carry_out",
        "Look at this gateway, its files, kernel, firewall, clock, resolvers and records, with or without "
        "a running daemon, and say what is wrong, the worst first, and what mends it.",
        epilog="Exit codes: 0 no problem (there may be warnings), 1 problems, 2 it could not be done.")
    doctor.add_argument("hosts", type=ADDRESS, nargs="*", metavar="HOST",
                        help="a host behind this gateway whose records are to be looked at too")

    machine = _command(
        commands, asking, "machine", "the state machine as a graph, with the flows in each state",
        "operator.pictures:machine",
        "Print the state machine of RFC 4322 section 3.2 for Graphviz, as this program has it; where the "
        "daemon runs, with the number of flows in each state.")
    machine.add_argument("--svg", action="store_true", help="as a picture (takes Graphviz)")

    report = _command(
        commands, asking, "report", "everything for a bug report, or as a page to look at",
        "operator.bundle:report",
        "Write what the daemon, the doctor and the time lines tell into one document: JSON without "
        "addresses and names, to be sent to others; or a page of HTML that needs nothing else.")
    report.add_argument("--html", action="store_true", help="a page to look at, with a map of the tunnels")
    report.add_argument("--redact", action=BooleanOptionalAction, default=None,
                        help="replace addresses and names by stand-ins (default: in JSON, not in HTML)")
    report.add_argument("--output", "-o", type=Path, metavar="FILE", help="instead of standard output")


def _policy(commands: Any, asking: ArgumentParser) -> None:
    policy = commands.add_parser("policy", help="which destinations are treated how").add_subparsers(
        required=True, metavar="WHAT")
    _command(policy, asking, "show", "the classes in force with their prefixes", "operator.policy:show")
    test = _command(policy, asking, "test", "what becomes of a flow, and what the files would make of it",
                    "operator.policy:test")
    _ends(test)
    test.add_argument("ports", type=later("operator.policy:ports"), nargs="?", metavar="PROTOCOL[/PORT]",
                      help="for these datagrams alone, to this port of the far side, such as tcp/80")
    _command(policy, asking, "diff", "what a reload would change, for live flows too", "operator.policy:diff")
    _command(policy, asking, "reload", "put in force what the files say now", "operator.policy:reload")


def _dns(commands: Any, asking: ArgumentParser) -> None:
    dns = commands.add_parser("dns", parents=[asking], help="what the DNS says of a host, and why it is believed",
                              description="Look up what the DNS says of a host or a gateway: the chain of trust link "
                                          "by link, the records, and what the daemon makes of them.")
    dns.add_argument("subject", metavar="ADDRESS|NAME")
    dns.add_argument("--type", action="append", choices=LOOK_UP_TYPES, dest="types", default=[],
                     help="ask for these records only (default: all that the daemon asks for)")
    dns.add_argument("--fresh", action="store_true", help="prove everything anew, nothing from memory")
    dns.add_argument("--no-daemon", action="store_true", dest="alone",
                     help="do not ask the daemon, but the resolvers, as the configuration says; so it is also done "
                          "when no daemon runs")
    dns.set_defaults(carry_out=later("operator.dns_command:carry_out"))


def _debug(commands: Any, asking: ArgumentParser) -> None:
    debug = commands.add_parser("debug", help="what helps to find out what is wrong").add_subparsers(
        required=True, metavar="WHAT")
    keylog = debug.add_parser("keylog", parents=[asking], help="write keys for Wireshark, for a time",
                              description="Write the keys of new channels and tunnels into files of Wireshark's.")
    keylog.add_argument("--seconds", type=float, default=600, help="until it ends by itself (default: %(default)s)")
    keylog.add_argument("--off", dest="seconds", action="store_const", const=0, help="write no more")
    keylog.set_defaults(carry_out=later("operator.live:key_log"))


def _keys(commands: Any, answering: ArgumentParser) -> None:
    keys = commands.add_parser("keys", help="this gateway's own keys").add_subparsers(required=True, metavar="ACTION")
    gen = _command(keys, answering, "gen", "make the key pair, if there is none", "operator.key_commands:generate")
    _command(keys, answering, "list", "the key in use, the next and the former one", "operator.key_commands:list_all")
    taken = _command(keys, answering, "import", "take the key of FreeS/WAN or Openswan, or one in PEM form",
                     "operator.key_commands:take")
    taken.add_argument("file", type=Path, metavar="FILE", help="such as /etc/ipsec.secrets")
    roll = _command(keys, answering, "roll", "go on with the roll-over of the key as far as it can go now, or begin "
                    "one", "operator.publishing:carry_out", action="roll")
    roll.add_argument("--wait", action="store_true", help="stay until it is done, hours perhaps")
    roll.add_argument("--older-than", type=float, default=0.0, metavar="DAYS", dest="days",
                      help="begin one only where the key is as old as this; so it can be called each day")
    for making in (gen, roll):
        making.add_argument("--bits", type=int, default=USUAL_BITS, choices=BITS, help="of a new key (%(default)s)")
    retire = _command(keys, answering, "retire", "end a roll-over now: withdraw the former key, or the next one that "
                      "is not in use yet", "operator.publishing:carry_out", action="retire")
    for about in (roll, retire):
        _of_gateway(about)


def _records(commands: Any, answering: ArgumentParser) -> None:
    actions = commands.add_parser("records", help="the DNS records of this gateway and the hosts behind it") \
        .add_subparsers(required=True, metavar="ACTION")
    show, check, publish = (
        _command(actions, answering, name, text, "operator.publishing:carry_out", action=name) for name, text in (
            ("show", "print the records to publish"), ("check", "whether every authoritative server has them"),
            ("publish", "put them into their zones by dynamic update (RFC 2136), and wait until every authoritative "
                        "server has them")))
    show.add_argument("--nsupdate", action="store_true", help="as a script for nsupdate, not as lines of a zone file")
    show.add_argument("--follow", action="store_true",
                      help="at the names that the DNS has the reverse names as aliases of (RFC 2317)")
    for about in (show, check, publish):
        about.add_argument("--type", action="append", choices=RECORD_TYPES, dest="types",
                           help="these only (default: all)")
        _of_gateway(about)


def _of_gateway(command: ArgumentParser) -> None:
    command.add_argument("--gateway", type=later("operator.publishing:gateway"), metavar="ADDRESS|@FQDN",
                         help="this gateway, by its address (default: those of the daemon) or, where we have no say "
                              "in our reverse zone, by the name that it gives as initiator")
    command.add_argument("hosts", type=ADDRESS, nargs="*", metavar="HOST",
                         help="a host behind this gateway (default: [publish] hosts of the configuration)")
