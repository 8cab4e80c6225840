"""Stand-ins for the outside worlds at the daemon's seams; all write one diary."""

from twisted.internet.defer import Deferred, succeed

from oesvc.dns.answer import Answer, AnswerKind, SecurityStatus


class FakePlane:
    """A forwarding plane that acknowledges everything at once, or fails as told."""

    def __init__(self, diary):
        self.diary = diary
        self.last_used = 0.0
        self.failure = None
        self.connected = False
        self.counted = {}
        self.carried = None
        "Octets and datagrams by SPI; None: what is easily recognized."
        self.sent_by = {}

    def install_policy(self, flow, policy, gateways=None, because=""):
        self.diary.append((policy.value, str(flow)))
        self.sent_by[flow] = gateways
        return self._done()

    def add_sas(self, flow, sas):
        self.diary.append(("add", str(flow), [sa.spi for sa in sas]))
        return self._done()

    def change_sas(self, flow, sas):
        self.diary.append(("change", str(flow), list(sas)))
        return self._done()

    def remove_sas(self, flow, sas):
        self.diary.append(("remove", str(flow), [sa.spi for sa in sas]))
        return self._done()

    def forget(self, flow):
        self.diary.append(("forget", str(flow)))
        return self._done()

    def traffic(self, sas):
        return succeed({(sa.spi, sa.destination): (1000 * sa.spi, sa.spi) if self.carried is None
                        else self.carried.get(sa.spi, (0, 0)) for sa in sas})

    def last_use(self, flow):
        return succeed(self.last_used)

    def account(self):
        return succeed(self.counted)

    def is_connected(self, flow):
        return succeed(self.connected)

    def bounds(self):
        return {"max-held": (1, 20_000, 0)}

    def _done(self):
        deferred = Deferred()
        deferred.errback(self.failure) if self.failure else deferred.callback(None)
        return deferred


class FakeResolver:
    """Answers from a table of (name, type) -> Answer; what is not in it does not exist, securely."""

    def __init__(self, diary=None):
        self.diary = [] if diary is None else diary
        self.answers = {}
        self.waiting = None

    def look_up(self, name, rdtype, client=None):
        self.diary.append(("ask", rdtype, b".".join(name).decode()))
        missing = Answer(name, rdtype, AnswerKind.NXDOMAIN, SecurityStatus.SECURE, "proven", expires=900.0)
        answer = self.answers.get((name, rdtype), missing)
        if self.waiting is None:
            return succeed(answer)
        deferred = Deferred()
        self.waiting.append((deferred, answer))
        return deferred

    def bounds(self):
        return {"look-ups": (len(self.waiting or ()), 1000, 0)}


class FakeEngine:
    """A keying engine that writes down what it is told and says what a test puts into `says`."""

    def __init__(self, diary):
        self.diary = diary
        self.says = []
        self.number = 0

    def initiate(self, flow, local, peer, identity, keys, now, within=None):
        self.number += 1
        self.diary.append(("initiate", str(flow), str(peer), len(keys), *([within] if within else [])))
        return self.number

    def events(self):
        said, self.says = self.says, []
        return said

    def datagrams_to_send(self):
        return []

    def next_deadline(self):
        return None

    def counters(self):
        return {"channels": 0}

    def bounds(self, now):
        return {"max-tunnels": (1, 20_000, 0)}

    def close(self, now):
        self.diary.append(("close",))

    def __getattr__(self, name):
        return lambda *args: self.diary.append((name, *args[:-1]))
