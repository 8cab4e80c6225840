"""The commands about this gateway's own keys; what rolls them over, at the name servers too, is in `publishing`."""

import json
from argparse import Namespace
from datetime import UTC, datetime
from time import time
from typing import Any

from oesvc import config
from oesvc.keys import key_pair, secrets_file
from oesvc.keys.rollover import KeyRing
from oesvc.operator.client import DONE

SCHEMA = 1


def generate(options: Namespace) -> int:
    file = config.load(options.config).private_key
    if file.exists():
        key_pair.load(file)
        print(f"{file} is there and is left as it is")
        return DONE
    key_pair.generate(file, options.bits)
    print(f"made {file}; `oegw records show` prints what to publish for it")
    return DONE


def take(options: Namespace) -> int:
    file = config.load(options.config).private_key
    key_pair.store(secrets_file.read(options.file), file)
    print(f"{file} has the key of {options.file}; `oegw records show` prints what to publish for it")
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
