"""The commands about this gateway's own keys, and the records that the DNS is to have of them.

What asks the name servers is carried out by `publishing`, a program of its own: it loads what others need not wait for.
"""

import json
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from time import time
from typing import Any

from oesvc import config
from oesvc.keys import key_pair, secrets_file
from oesvc.keys.records import TYPES
from oesvc.keys.rollover import KeyRing
from oesvc.operator.arguments import address, gateway
from oesvc.operator.client import DONE

SCHEMA = 1
BITS = (2048, 3072, 4096)


def add(commands: Any, common: ArgumentParser) -> None:
    """Give the parser these commands; `common` brings the options of all."""
    keys = commands.add_parser("keys", help="this gateway's own keys").add_subparsers(required=True, metavar="ACTION")
    gen = _command(keys, common, "gen", "make the key pair, if there is none", _generate)
    listing = _command(keys, common, "list", "the key in use, the next and the former one", _list)
    taken = _command(keys, common, "import", "take the key of FreeS/WAN or Openswan, or one in PEM form", _import)
    taken.add_argument("file", type=Path, metavar="FILE", help="such as /etc/ipsec.secrets")
    roll = _command(keys, common, "roll", "go on with the roll-over of the key as far as it can go now, or begin one",
                    _elsewhere("roll"))
    roll.add_argument("--wait", action="store_true", help="stay until it is done, hours perhaps")
    roll.add_argument("--older-than", type=float, default=0.0, metavar="DAYS", dest="days",
                      help="begin one only where the key is as old as this; so it can be called each day")
    for making in (gen, roll):
        making.add_argument("--bits", type=int, default=key_pair.BITS, choices=BITS, help="of a new key (%(default)s)")
    retire = _command(keys, common, "retire", "end a roll-over now: withdraw the former key, or the next one that is "
                      "not in use yet", _elsewhere("retire"))

    records = commands.add_parser("records", help="the DNS records of this gateway and the hosts behind it")
    actions = records.add_subparsers(required=True, metavar="ACTION")
    show = _command(actions, common, "show", "print the records to publish", _elsewhere("show"))
    show.add_argument("--nsupdate", action="store_true", help="as a script for nsupdate, not as lines of a zone file")
    check = _command(actions, common, "check", "whether every authoritative server has them", _elsewhere("check"))
    publish = _command(actions, common, "publish", "put them into their zones by dynamic update (RFC 2136), and wait "
                       "until every authoritative server has them", _elsewhere("publish"))
    for about in (show, check, publish):
        about.add_argument("--type", action="append", choices=TYPES, dest="types", help="these only (default: all)")
    for about in (show, check, publish, roll, retire):
        about.add_argument("--gateway", type=gateway, metavar="ADDRESS|@FQDN",
                           help="this gateway, by its address (default: those of the daemon) or, where we have no say "
                                "in our reverse zone, by the name that it gives as initiator")
        about.add_argument("hosts", type=address, nargs="*", metavar="HOST",
                           help="a host behind this gateway (default: [publish] hosts of the configuration)")
    for about in (listing, check, publish, roll, retire):
        about.add_argument("--json", action="store_true", help="answer in JSON")


def _command(commands: Any, common: ArgumentParser, name: str, text: str,
             carry_out: Callable[[Namespace], int]) -> ArgumentParser:
    command: ArgumentParser = commands.add_parser(name, parents=[common], help=text,
                                                  description=f"{text[0].upper()}{text[1:]}.")
    command.set_defaults(carry_out=carry_out)
    return command


def _elsewhere(action: str) -> Callable[[Namespace], int]:
    def carry_out(options: Namespace) -> int:
        said = {name: value for name, value in vars(options).items() if name != "carry_out"}
        command = [sys.executable, "-m", "oesvc.operator.publishing", action]
        sys.stdout.flush()
        return subprocess.run(command, input=json.dumps(said, default=str), text=True, check=False).returncode
    return carry_out


def _generate(options: Namespace) -> int:
    file = config.load(options.config).private_key
    if file.exists():
        key_pair.load(file)
        print(f"{file} is there and is left as it is")
        return DONE
    key_pair.generate(file, options.bits)
    print(f"made {file}; `oegw records show` prints what to publish for it")
    return DONE


def _import(options: Namespace) -> int:
    file = config.load(options.config).private_key
    key_pair.store(secrets_file.read(options.file), file)
    print(f"{file} has the key of {options.file}; `oegw records show` prints what to publish for it")
    return DONE


def _list(options: Namespace) -> int:
    ring, now = KeyRing(config.load(options.config).private_key), time()
    state = ring.state(now)
    keys: list[dict[str, Any]] = [
        {"role": role, "file": str(file), "key": str(key_pair.public_key(key_pair.load(file))),
         "made": file.stat().st_mtime}
        for role, file in (("in use", ring.in_use), ("next", ring.next), ("former", ring.former)) if file.exists()]
    if not keys:
        raise key_pair.KeyPairError(f"{ring.in_use}: there is no such file; make a key with `oegw keys gen`")
    rolling = state and {"stage": state.stage.name.lower(), "says": state.stage.value, "due": state.due}
    if options.json:
        print(json.dumps({"schema": SCHEMA, "keys": keys, "roll_over": rolling}, indent=2))
        return DONE
    for key in keys:
        print(f"{key['role']:8}{key['key']:24}{moment(key['made'])}  {key['file']}")
    if state is not None:
        print(f"{state.stage.value}; due {moment(state.due)}: `oegw keys roll` goes on")
    return DONE


def moment(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M UTC")
