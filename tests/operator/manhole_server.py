"""A manhole into one of two simulated gateways that have keyed; run by test_manhole.py as a process of its own.

    python3 -m tests.operator.manhole_server AUTHORIZED STATE SOCKET     prints the port of 127.0.0.1, and serves
"""

import sys
from pathlib import Path

from twisted.internet import reactor

from oesvc.ipsec.flow import Flow
from oesvc.operator.manhole import ManholeFactory
from tests.oe.parts import ALICE, BOB
from tests.pair import Pair

if __name__ == "__main__":
    pair = Pair()
    pair.a.daemon.acquired(Flow(ALICE, BOB))
    pair.run(10.0)
    authorized, state, path = map(Path, sys.argv[1:])
    factory = ManholeFactory(pair.a.daemon, pair.clock.seconds, authorized, state)
    reactor.listenUNIX(str(path), factory)
    print(reactor.listenTCP(0, factory, interface="127.0.0.1").getHost().port, flush=True)
    reactor.run()
