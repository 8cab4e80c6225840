"""The commands about this gateway's own keys; what rolls them over, at the name servers too, is in `publishing`."""

import json
from argparse import Namespace
from datetime import UTC, datetime
from pathlib import Path
from time import time
from typing import Any

from oesvc import config
from oesvc.keys import key_pair, secrets_file
from oesvc.keys.rollover import KeyRing
from oesvc.operator.client import DONE
from oesvc.operator.schema import SCHEMA

THEN = "`oegw records show` prints what to publish for it"


def generate(options: Namespace) -> int:
    file = config.load(options.config).private_key
    if there := file.exists():
        key_pair.load(file)
    else:
        key_pair.generate(file, options.bits)
    return _tell(options, file, f"{file} is there and is left as it is" if there else f"made {file}; {THEN}", not there)


def take(options: Namespace) -> int:
    file = config.load(options.config).private_key
    key_pair.store(secrets_file.read(options.file), file)
    return _tell(options, file, f"{file} has the key of {options.file}; {THEN}", True)


def _tell(options: Namespace, file: Path, says: str, made: bool) -> int:
    key = str(key_pair.public_key(key_pair.load(file)))
    print(json.dumps({"schema": SCHEMA, "says": says, "file": str(file), "key": key, "made": made}, indent=2)
          if options.json else says)
    return DONE


def list_all(options: Namespace) -> int:
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
