"""The documentation's gateway, as a process: its daemon asks real name servers and keys with the gateway of
203.0.113.9, which is in the same process. Only the forwarding plane is a fake: that takes a kernel.

    python3 -m tests.operator.documented_gateway CONFIGURATION KEY-OF-THE-PEER     says `ready`, and serves
"""

import sys
import time
from ipaddress import ip_address
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed

from oesvc import config
from oesvc.dns.resolver import ValidatingResolver
from oesvc.keylog import KeyLog
from oesvc.keys import key_pair
from oesvc.name_service import dns_config
from oesvc.operator.control import ControlFactory
from oesvc.operator.dns_report import Inspector
from oesvc.running_policy import RunningPolicy
from tests.pair import Gateway, Wire

SG_A, ALICE, SG_B, BOB = map(ip_address, ("192.0.2.1", "198.51.100.7", "203.0.113.1", "203.0.113.9"))


def serve(settings: config.Config, key_of_peer: Path) -> None:
    resolver, wire = ValidatingResolver(dns_config(settings), reactor), Wire(reactor)
    ours, _ = (Gateway(name, address, client, wire, resolver, settings.default_class, settings.dnssec,
                       key=key_pair.load(file))
               for name, address, client, file in (("a", SG_A, ALICE, settings.private_key),
                                                   ("b", SG_B, BOB, key_of_peer)))
    daemon = ours.daemon
    daemon.key_log = KeyLog(daemon.engine, reactor, settings.state_directory)
    Deferred.fromCoroutine(daemon.reclassify(settings.class_table(), settings.lifespans))

    def use_key() -> str:
        key = key_pair.load(settings.private_key)
        daemon.engine.use_key(key)
        return str(key_pair.public_key(key))

    inspector = Inspector(resolver, daemon.discovery, settings.class_table(), time.time)
    policy = RunningPolicy(settings, daemon, lambda config: succeed(None))
    reactor.listenUNIX(str(settings.control_socket), ControlFactory(
        daemon, inspector, reactor.seconds, use_key, policy, settings.translated))
    reactor.callWhenRunning(print, "ready", flush=True)
    reactor.run()


if __name__ == "__main__":
    serve(config.load(Path(sys.argv[1])), Path(sys.argv[2]))
