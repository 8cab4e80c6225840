"""The `oegw` command: what an administrator asks of the running daemon, and of the keys on disk."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from oesvc import __version__, config
from oesvc.keys import key_pair
from oesvc.operator import bundle, completion, dns_text, key_commands, live, pictures, policy
from oesvc.operator.client import (
    ANSWER_OF_DNS_WITHIN,
    DONE,
    INTERRUPTED,
    REFUSED,
    UNUSABLE,
    CommandError,
    NoDaemonError,
    ask,
    look_up_alone,
)
from oesvc.operator.doctor import command as doctor
from oesvc.operator.inquiry import TYPES, Inquiry


def run() -> None:
    """Entry point of the console script."""
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def main(arguments: Sequence[str]) -> int:
    """Carry out one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.carry_out(options))
    except (CommandError, config.ConfigError, key_pair.KeyPairError, OSError) as error:
        print(f"oegw: {error}", file=sys.stderr)
        return UNUSABLE


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", type=Path, default=config.DEFAULT_FILE, metavar="FILE",
                        help="the daemon's configuration (default: %(default)s)")
    asking = argparse.ArgumentParser(add_help=False, parents=[common])
    asking.add_argument("--control", type=Path, metavar="SOCKET",
                        help="the daemon's control socket (default: as its configuration says)")
    asking.add_argument("--json", action="store_true", help="answer in JSON")

    parser = argparse.ArgumentParser(prog="oegw", description="Opportunistic encryption gateway (RFC 4322).",
                                     epilog="Exit codes: 0 done, 1 the answer is no, 2 it could not be done.")
    parser.add_argument("--version", action="version", version=f"oegw {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    live.add(commands, asking)
    doctor.add(commands, asking)
    pictures.add(commands, asking)
    bundle.add(commands, asking)
    policy.add(commands, asking)

    dns = commands.add_parser("dns", parents=[asking], help="what the DNS says of a host, and why it is believed",
                              description="Look up what the DNS says of a host or a gateway: the chain of trust link "
                                          "by link, the records, and what the daemon makes of them.")
    dns.add_argument("subject", metavar="ADDRESS|NAME")
    dns.add_argument("--type", action="append", choices=tuple(TYPES), dest="types", default=[],
                     help="ask for these records only (default: all that the daemon asks for)")
    dns.add_argument("--fresh", action="store_true", help="prove everything anew, nothing from memory")
    dns.add_argument("--no-daemon", action="store_true", dest="alone",
                     help="do not ask the daemon, but the resolvers, as the configuration says; so it is also done "
                          "when no daemon runs")
    dns.set_defaults(carry_out=_dns)

    debug = commands.add_parser("debug", help="what helps to find out what is wrong").add_subparsers(
        required=True, metavar="WHAT")
    keylog = debug.add_parser("keylog", parents=[asking], help="write keys for Wireshark, for a time",
                              description="Write the keys of new channels and tunnels into files of Wireshark's.")
    keylog.add_argument("--seconds", type=float, default=600, help="until it ends by itself (default: %(default)s)")
    keylog.add_argument("--off", dest="seconds", action="store_const", const=0, help="write no more")
    keylog.set_defaults(carry_out=_key_log)

    key_commands.add(commands, common)
    completion.add(commands, parser)
    return parser


def _dns(options: argparse.Namespace) -> int:
    try:
        Inquiry.parse(options.subject, options.types, options.fresh)
    except ValueError as error:
        raise CommandError(f"{options.subject!r} is neither an address nor a name: {error}") from None
    question = {"command": "dns", "subject": options.subject, "types": options.types, "fresh": options.fresh}
    try:
        if options.alone:
            raise NoDaemonError
        answer = ask(live.control(options), question, ANSWER_OF_DNS_WITHIN)
    except NoDaemonError:
        (answer,) = look_up_alone(options.config, [question])
        if not (options.alone or options.json):
            print("(no daemon answers: this is what one would see)", file=sys.stderr)
    live.show(options, answer, dns_text.dns)
    doubtful = any(look_up["status"] in ("bogus", "indeterminate") for look_up in answer["lookups"])
    return REFUSED if doubtful else DONE


def _key_log(options: argparse.Namespace) -> int:
    question = {"command": "keylog", "seconds": options.seconds}
    answer = ask(live.control(options), question)
    print(json.dumps(answer, indent=2) if options.json else
          f"keys are {'' if answer['on'] else 'not '}written to {answer['directory']}")
    return DONE


if __name__ == "__main__":
    run()
