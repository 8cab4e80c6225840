"""The records of this gateway at their name servers: shown, checked, published, and rolled over with its keys."""

import json
import sys
import time
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Iterable
from pathlib import Path

from oesvc import config
from oesvc.ipsec.flow import Address
from oesvc.kernel.addresses import outside_addresses
from oesvc.keys import key_pair
from oesvc.keys.records import TYPES, Host, PublishedRecord, nsupdate_script, records
from oesvc.keys.rollover import KeyRing, RollOver, Stage
from oesvc.keys.zone_data import Sighting, ZoneData, read_tsig
from oesvc.oe.delegation import MalformedRecordError, gateway_name
from oesvc.operator.arguments import address
from oesvc.operator.client import DONE, REFUSED, CommandError, NoDaemonError, ask
from oesvc.operator.key_commands import moment
from oesvc.operator.schema import SCHEMA

PORT = 53
SECONDARIES_WITHIN = 60.0
"Seconds that the secondaries of a zone are given to follow an update."
AGAIN = 1.0
LARGEST_NETWORK = 1024
DAY = 86400.0


class Own:
    """What this gateway has to publish, and where."""

    def __init__(self, options: Namespace, settings: config.Config) -> None:
        self.options, self.settings = options, settings
        self.ring = KeyRing(settings.private_key)
        self.gateways = self._gateways()
        self.hosts = self._hosts()

    def _gateways(self) -> tuple[Host, ...]:
        if self.options.gateway is not None:
            return (self.options.gateway,)
        own = self.settings.addresses or tuple(
            one.address for one in outside_addresses(self.settings.clients, self.settings.inside) if one.lasting)
        if not own:
            raise CommandError("this host has no global address outside, and [gateway] address names none; "
                               "say --gateway ADDRESS")
        return own

    def _hosts(self) -> list[Address]:
        if self.options.hosts:
            return list(self.options.hosts)
        for network in self.settings.publish_hosts:
            if network.num_addresses > LARGEST_NETWORK:
                raise CommandError(f"[publish] hosts: {network} has more than {LARGEST_NETWORK} addresses; name those "
                                   "of hosts that exist")
        return [host for network in self.settings.publish_hosts
                for host in (network.hosts() if network.num_addresses > 1 else [network.network_address])]

    def records(self, key_file: Path) -> list[PublishedRecord]:
        """Those that one key needs. A host is delegated to the gateways of its own family, where there are such."""
        key = key_pair.public_key(key_pair.load(key_file))
        found: dict[PublishedRecord, None] = {}
        for gateway in self.gateways:
            families = {one.version for one in self.gateways if not isinstance(one, str)}
            mine = [host for host in self.hosts
                    if isinstance(gateway, str) or host.version == gateway.version or host.version not in families]
            found |= dict.fromkeys(records(gateway, mine, key, getattr(self.options, "types", None) or TYPES))
        return list(found)

    def published(self) -> list[PublishedRecord]:
        """All that should be there now: those of the key in use, and of the other one during a roll-over."""
        files = [file for file in (self.ring.in_use, self.ring.next, self.ring.former) if file.exists()]
        return [record for file in files or [self.ring.in_use] for record in self.records(file)]

    def zones(self) -> ZoneData:
        tsig = self.settings.publish_tsig_key
        return ZoneData([(server.address, server.port or PORT) for server in self.settings.dns_servers],
                        self.settings.publish_primary, PORT, read_tsig(tsig) if tsig else ())


def show(own: Own) -> int:
    wanted: Iterable[PublishedRecord] = own.published()
    if own.options.follow:
        wanted = list(own.zones().followed(wanted))
    if own.options.json:
        print(json.dumps({"schema": SCHEMA, "ttl": own.settings.publish_ttl, "records": [
            {"owner": one.owner, "type": one.rdtype, "rdata": one.rdata} for one in wanted]}, indent=2))
    else:
        print("\n".join(nsupdate_script(wanted, own.settings.publish_ttl) if own.options.nsupdate else wanted))
    return DONE


def check(own: Own) -> int:
    return _tell(own, list(own.zones().look(own.published())))


def publish(own: Own) -> int:
    zones, wanted = own.zones(), own.published()
    count = zones.change(wanted, own.settings.publish_ttl)
    _say(own, f"{count} records handed to {', '.join(sorted({zone.primary for zone in zones.zones(wanted)}))}")
    return _tell(own, _wait(zones, wanted, True))


def roll(own: Own) -> int:
    """One step after the other, as far as it can go now; or, with --wait, to the end."""
    key_pair.load(own.ring.in_use)
    while True:
        now = time.time()
        state = own.ring.state(now)
        if state is None:
            age = (now - own.ring.made()) / DAY
            if age < own.options.days:
                return _report(own, None, f"the key is {age:.1f} days old: nothing to do")
            state = own.ring.begin(now, own.options.bits)
            _say(own, f"made {own.ring.next}")
        status = STEPS[state.stage](own, state, now)
        state = own.ring.state(now)
        if status is not None:
            return _report(own, state, f"{state.stage.value}; due {moment(state.due)}" if state else "done", status)
        if state is None:
            return _report(own, None, f"done: {own.ring.in_use} is the new key, and nothing is left of the old one")
        while own.options.wait and (left := state.due - time.time()) > 0:
            time.sleep(min(left, 60.0))


def _publish_next(own: Own, state: RollOver, now: float) -> int | None:
    zones, wanted = own.zones(), own.records(own.ring.next)
    before = _longest(zones, own.records(own.ring.in_use))
    if own.settings.publish_tsig_key:
        zones.change(wanted, own.settings.publish_ttl)
    sightings = _wait(zones, wanted, True)
    missing = [sighting for sighting in sightings if not sighting.there]
    if missing:
        _say(own, "to be published, beside what is there:\n" + "\n".join(dict.fromkeys(one.record for one in missing)))
        for one in missing:
            _say(own, f"not yet at {one.server}: {one.record.owner} {one.record.rdtype} {one.problem}".rstrip())
        return REFUSED
    minimum = max(zone.minimum for zone in zones.zones(wanted))
    state = own.ring.seen(time.time(), minimum, max(before, minimum))
    _say(own, f"every server has the new key's records; caches forget the old answers by {moment(state.due)}")
    return None


def _use_next(own: Own, state: RollOver, now: float) -> int | None:
    if now < state.due:
        return None if own.options.wait else DONE
    own.ring.use(now)
    _say(own, f"{own.ring.in_use} is the new key now")
    _tell_daemon(own)
    return None if own.options.wait else DONE


def _retire_former(own: Own, state: RollOver, now: float) -> int | None:
    if now < state.due:
        return None if own.options.wait else DONE
    _tell_daemon(own)
    return None if _withdraw(own, own.ring.former) else REFUSED


STEPS: dict[Stage, Callable[[Own, RollOver, float], int | None]] = {
    Stage.PUBLISHING: _publish_next, Stage.WAITING: _use_next, Stage.RETIRING: _retire_former}
"What is done in each stage; with an exit code where it can go no further now."


def retire(own: Own) -> int:
    leaving = next((file for file in (own.ring.next, own.ring.former) if file.exists()), None)
    if leaving is None:
        return _report(own, None, "there is only the key in use: nothing to do")
    if not _withdraw(own, leaving):
        return REFUSED
    return _report(own, None, f"{leaving} is gone, and so are its records")


def _withdraw(own: Own, file: Path) -> bool:
    """Take a key's records out of the DNS, and then the key from the disk."""
    zones, unwanted = own.zones(), own.records(file)
    if own.settings.publish_tsig_key:
        zones.change(unwanted, None)
    left = [one for one in _wait(zones, unwanted, False) if one.there]
    if left:
        _say(own, "to be removed from the DNS:\n" + "\n".join(dict.fromkeys(one.record for one in left)))
        return False
    own.ring.retire()
    return True


def _tell_daemon(own: Own) -> None:
    """A running daemon signs with the key from now on; one that does not run reads it at its start."""
    try:
        answer = ask(own.settings.control_socket, {"command": "use-key"})
        _say(own, f"the daemon uses {answer['key']}")
    except NoDaemonError:
        _say(own, "no daemon runs; it will use the key when it starts")


def _wait(zones: ZoneData, wanted: Iterable[PublishedRecord], there: bool) -> list[Sighting]:
    """Look at every server until all records are there, or all are gone, or it takes too long."""
    wanted, until = list(wanted), time.monotonic() + SECONDARIES_WITHIN
    while True:
        sightings = list(zones.look(wanted))
        if all(one.there is there and not one.problem for one in sightings) or time.monotonic() > until:
            return sightings
        if not any(one.there is there for one in sightings):
            until = min(until, time.monotonic() + SECONDARIES_WITHIN / 6)
        time.sleep(AGAIN)


def _longest(zones: ZoneData, present: Iterable[PublishedRecord]) -> float:
    """How long caches may hold what is there now, in seconds."""
    return max((one.ttl for one in zones.look(present)), default=0)


def _say(own: Own, text: str) -> None:
    print(text, file=sys.stderr if getattr(own.options, "json", False) else sys.stdout, flush=True)


def _report(own: Own, state: RollOver | None, text: str, status: int = DONE) -> int:
    if own.options.json:
        rolling = state and {"stage": state.stage.name.lower(), "due": state.due}
        print(json.dumps({"schema": SCHEMA, "says": text, "roll_over": rolling}, indent=2))
    else:
        print(text)
    return status


def _tell(own: Own, sightings: list[Sighting]) -> int:
    """Which records are where; the answer is no where one is missing anywhere."""
    missing = [one for one in sightings if not one.there]
    if own.options.json:
        print(json.dumps({"schema": SCHEMA, "records": [
            {"owner": one.record.owner, "type": one.record.rdtype, "server": one.server.name,
             "address": one.server.address, "there": one.there, "problem": one.problem, "ttl": one.ttl}
            for one in sightings]}, indent=2))
        return REFUSED if missing else DONE
    for one in missing:
        print(f"missing at {one.server}: {one.record.owner} {one.record.rdtype}"
              f"{': ' + one.problem if one.problem else ''}")
    servers = {str(one.server) for one in sightings}
    records_there = len({one.record for one in sightings} - {one.record for one in missing})
    print(f"{records_there} of {len({one.record for one in sightings})} records are at every server of their zones: "
          f"{', '.join(sorted(servers))}")
    if missing:
        print("`oegw records publish` puts them there, `oegw records show` prints them")
    return REFUSED if missing else DONE


ACTIONS: dict[str, Callable[[Own], int]] = {
    "show": show, "check": check, "publish": publish, "roll": roll, "retire": retire}


def carry_out(options: Namespace) -> int:
    """One action of `oegw records` or `oegw keys`; returns the exit code."""
    return ACTIONS[options.action](Own(options, config.load(options.config)))


def gateway(text: str) -> Host:
    """By its address, or as @FQDN."""
    try:
        return gateway_name(text[1:]) if text.startswith("@") else address(text)
    except MalformedRecordError as error:
        raise ArgumentTypeError(str(error)) from None
