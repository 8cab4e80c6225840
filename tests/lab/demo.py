"""`make demo`: two gateways that share no configuration find each other in the DNS and encrypt what Alice sends to Bob.

Ends with status 1 when anything that it claims is not so.
"""

import sys
import time
from collections.abc import Sequence

from tests.lab.capture import Packet
from tests.lab.gateway import GATEWAYS, Gateway, start_gateways
from tests.lab.names import canonical_tree, serve_names
from tests.lab.network import Host, Network, address_of

ALICE, BOB, CAROL, FRANK = (address_of(name) for name in ("alice", "bob", "carol", "frank"))
SG_A, SG_B = address_of("sg-a"), address_of("sg-b")
PINGS = 3
SHOWN = 40
"Lines of the tap that are printed."


class Story:
    """Prints what happens, and keeps count of what is so and what is not."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        self._began = time.monotonic()

    def chapter(self, title: str) -> None:
        print(f"\n--- {time.monotonic() - self._began:5.1f} s  {title}", flush=True)

    def claim(self, what: str, so: bool) -> None:
        print(f"    {'it is so:' if so else 'NOT SO:  '} {what}", flush=True)
        if not so:
            self.failures.append(what)


def main() -> int:
    story = Story()
    with Network() as net:
        story.chapter("the network of RFC 4322 section 2.1 is built, its reverse zones are signed and served")
        serve_names(net, canonical_tree())
        a, b = (Gateway(net, row) for row in GATEWAYS)
        story.chapter("twistd oegw starts on SG-A and SG-B; neither configuration names the other gateway")
        print(indented((a.folder / "oegw.conf").read_text()))
        start_gateways((a, b))
        with net.capture("internet", name="internet") as tap:
            tell_pings(story, net["alice"])
            packets = tap.end()
        tell_tap(story, packets)
        tell_why(story, a)
        story.chapter("both daemons are stopped")
        in_order = [gateway.stop() for gateway in (a, b)]
        story.claim("they ended in order", all(in_order))
        story.claim("no SA is left", not any(net[name].sas() for name in ("sg-a", "sg-b")))
        story.claim("of policies only the block of the paranoid class, with its exemptions, at SG-A",
                    not net["sg-b"].xfrm("policy") and "tmpl" not in net["sg-a"].xfrm("policy")
                    and "192.1.1.128/25" in net["sg-a"].xfrm("policy"))
        if story.failures:
            print(f"\nlogs and captures are kept in {net.keep('demo')}")
    print(f"\n{len(story.failures)} of the claims above are not so" if story.failures else "\nAll of it is so.")
    return 1 if story.failures else 0


def tell_pings(story: Story, alice: Host) -> None:
    for title, destination, answered in (
            (f"Alice pings Bob ({BOB}), who has a gateway of his own", BOB, PINGS),
            (f"Alice pings Carol ({CAROL}), who has none; policy `private-or-clear`", CAROL, PINGS),
            (f"Alice pings Frank ({FRANK}), who has none either; policy `private` for 192.1.1.128/25", FRANK, 0)):
        story.chapter(title)
        # The first alone: of several that wait for the verdict, only the first and the last are kept (section 3.1.1).
        received = 0
        for count in (1, PINGS - 1):
            done = alice.run(["ping", "-n", "-c", str(count), "-i", "0.2", "-W", "10", destination], check=False)
            print(indented(done.stdout))
            received += done.stdout.count(" bytes from ")
        story.claim(f"{answered} of {PINGS} were answered, the first datagram of all among them" if answered
                    else "none was answered", received == answered)


def tell_tap(story: Story, packets: Sequence[Packet]) -> None:
    story.chapter("what a tap on the public Internet saw")
    start = packets[0].time if packets else 0
    told = [packet for packet in packets if packet.describe().startswith(("ESP", "ISAKMP", "ICMP "))
            or any(kind in packet.describe() for kind in (" TXT ", " KEY "))]
    for packet in told[:SHOWN]:
        print(f"    {packet.time - start:7.3f}  {packet.source:>13} -> {packet.destination:13}  {packet.describe()}")
    if len(told) > SHOWN:
        print(f"    ... and {len(told) - SHOWN} more")
    flows = [packet.flow for packet in packets]
    esp = {packet.flow for packet in packets if packet.is_esp}
    story.claim("ESP between the gateways, both ways", esp == {(SG_A, SG_B), (SG_B, SG_A)})
    story.claim("no datagram between Alice and Bob in clear", not {(ALICE, BOB), (BOB, ALICE)} & set(flows))
    story.claim("Alice and Carol in clear", flows.count((ALICE, CAROL)) == flows.count((CAROL, ALICE)) == PINGS)
    story.claim("no datagram at all from Alice to Frank", (ALICE, FRANK) not in flows)


def tell_why(story: Story, gateway: Gateway) -> None:
    story.chapter("oegw timeline: the negotiation, in the shape of RFC 4322 section 11.2")
    timeline = gateway.timeline(ALICE, BOB)
    print(indented(timeline))
    story.claim("it tells of the question to the DNS and of quick mode", "5B" in timeline and "5P" in timeline)
    for destination, outcome in ((BOB, "is encrypted"), (CAROL, "goes in clear"), (FRANK, "is denied")):
        story.chapter(f"oegw why {ALICE} {destination}")
        why = gateway.why(ALICE, destination)
        print(indented(why))
        story.claim(f"it {outcome}", f"{ALICE} -> {destination} {outcome}" in why)


def indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.rstrip().splitlines())


if __name__ == "__main__":
    sys.exit(main())
