"""After a crash, ours or a partner's: traffic goes on soon, and forged signs of a crash cost next to nothing.

RFC 4322 sections 3.2.6 and 9.3. Three things make us key anew with a gateway: it was connected when a former run was
killed; it sends by an SPI that we do not have; it says that it does not have ours. The last two anybody can forge. So
no more comes of any of them than one attempt a minute with each gateway that we know, and ten a second in all; nothing
that stands is given up for it.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable

from twisted.logger import Logger

from oesvc.interfaces import Clock
from oesvc.ipsec.flow import Address, Flow
from oesvc.partners import Partner, Partners

SPACING = 60.0
"Seconds between two attempts with one gateway, and between two hints to a stranger (decisions 1E.13)."
PACE = 0.1
"Seconds between two attempts with different ones."
MOST_STRANGERS = 100
"That are told in a minute that we do not have their SPI: the hint is as long as what they have sent."

Where = tuple[Address, int | None]
"A gateway, or one behind a NAT."


class Recovery:
    """Decides with whom to key anew, and when."""

    log = Logger()

    def __init__(self, partners: Partners, clock: Clock, *, key: Callable[[Flow, str], object],
                 disown: Callable[[Address, Address, int, int | None], object]) -> None:
        """`key` makes an attempt for a flow; `disown` tells a gateway that we do not have its SPI: our address, its
        address, the SPI, and its port where it is behind a NAT.
        """
        self._partners, self._clock, self._key, self._disown = partners, clock, key, disown
        self._former: set[Address] = set()
        self._waiting: OrderedDict[Address, tuple[Flow, str]] = OrderedDict()
        self._tried: dict[Where, float] = {}
        self._strangers: dict[Where, float] = {}
        self._forgets = -SPACING
        self._ticking = False

    def greet(self, former: Iterable[Partner]) -> None:
        """Key anew with those that a former run was connected with: INITIAL-CONTACT goes with it (section 9.3)."""
        for partner in former:
            self._former.add(partner.gateway)
            self._wait(partner.gateway, partner.flow, "this gateway was connected before we were started again")
        if self._former:
            self.log.info("the run before was not ended in order: it had tunnels with {count} gateways, which are told",
                          count=len(self._former))

    def unknown_spi(self, ends: Flow, spi: int, port: int | None = None) -> None:
        """ESP came from a gateway (the source) by an SPI that we do not have (section 3.2.6).

        Within UDP, from `port`, it came through a NAT, and we cannot call: there the gateway hears of it, and calls.
        """
        gateway = ends.source
        flow = self._partners.flow_with(gateway)
        if gateway in self._waiting and port is None:
            self._waiting.move_to_end(gateway, last=False)
        elif flow is None or port is not None:
            if self._is_time((gateway, port), self._strangers, MOST_STRANGERS):
                self._disown(ends.destination, gateway, spi, port)
        elif self._is_time((gateway, None), self._tried):
            self._disown(ends.destination, gateway, spi, None)
            self._doubt(gateway, flow, f"{gateway} sends by the SPI {spi:#010x}, which we do not have")

    def spi_refused(self, gateway: Address, flow: Flow, detail: str) -> None:
        """A gateway says that it does not have an SPI which we send a flow by (section 3.2.6)."""
        if gateway not in self._waiting and self._is_time((gateway, None), self._tried):
            self._doubt(gateway, flow, detail)

    def _doubt(self, gateway: Address, flow: Flow, why: str) -> None:
        self.log.info("{flow}: {why}: one of us may have been restarted; keying anew", flow=flow, why=why)
        self._wait(gateway, flow, why)

    def _is_time(self, gateway: Where, tried: dict[Where, float], most: int | None = None) -> bool:
        now = self._clock.seconds()
        if now - self._forgets > SPACING:
            self._forgets = now
            for table in (self._tried, self._strangers):
                for one in [one for one, when in table.items() if now - when >= SPACING]:
                    del table[one]
        if now - tried.get(gateway, -SPACING) < SPACING or (most is not None and len(tried) >= most):
            return False
        tried[gateway] = now
        return True

    def _wait(self, gateway: Address, flow: Flow, why: str) -> None:
        self._waiting[gateway] = flow, why
        if not self._ticking:
            self._ticking = True
            self._clock.callLater(0, self._next)

    def _next(self) -> None:
        """The next attempt; whoever has been keyed with by now has been told, or has told us."""
        self._ticking = bool(self._waiting)
        if not self._waiting:
            return
        gateway, (flow, why) = self._waiting.popitem(last=False)
        self._clock.callLater(PACE, self._next)
        greeting = gateway in self._former
        self._former.discard(gateway)
        if greeting:
            self._partners.told(gateway)
        if not (greeting and self._partners.flow_with(gateway)):
            self._key(flow, why)
