"""Whether this host's nftables rules drop IKE or ESP: a walk with a packet of which only some fields are known.

Only what is certain is told: a rule with a condition that cannot be decided may accept, but is never said to drop.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from oesvc.operator.doctor.facts import Facts, Finding, Severity

OUR_TABLE = "oegw"
PROTOCOL_NUMBERS = {"icmp": 1, "tcp": 6, "udp": 17, "esp": 50, "ah": 51, "ipv6-icmp": 58}
NOT_CONDITIONS = ("counter", "log", "comment", "mangle", "notrack", "meter")
HARMLESS = (*NOT_CONDITIONS, "accept", "drop", "reject", "return", "jump", "goto", "queue", "vmap", "match")
MAX_DEPTH = 16
"Of jumps, as in the kernel (NFT_JUMP_STACK_SIZE)."


@dataclass(frozen=True, slots=True)
class Packet:
    """What is known of it. Its peer may be anybody."""

    name: str
    "For people."
    hook: str
    meta: Mapping[str, Any]
    "By nft's keys of meta and ct."
    payload: Mapping[str, Any]
    "By nft's names of fields, whatever header they are in."
    allow: str
    "What a rule that lets it pass matches, in nft's words."


def packets(outside: str) -> Iterator[Packet]:
    """ESP and IKE, both ways over an interface; IPv4."""
    for protocol, port in (("esp", None), ("udp", 500), ("udp", 4500)):
        for hook, way, interface in (("input", "incoming", "iif"), ("output", "outgoing", "oif")):
            meta = {"l4proto": protocol, "nfproto": "ipv4", "protocol": "ip", "state": "new",
                    interface: outside, f"{interface}name": outside}
            payload = {"protocol": protocol, "version": 4} | ({"dport": port} if port else {})
            yield Packet(f"{way} UDP port {port}" if port else f"{way} ESP", hook, meta, payload,
                         "udp dport { 500, 4500 }" if port else "meta l4proto esp")


def firewall(facts: Facts) -> Iterator[Finding]:
    """Rules that drop what keying and tunnels live on."""
    rules = Ruleset(facts.ruleset)
    outside = next((one.name for one in facts.interfaces if {each.ip for each in one.networks} & set(facts.addresses)),
                   "eth0")
    for packet in packets(outside):
        culprit = rules.drops(packet)
        if culprit is not None:
            chain = culprit.chain
            where = f"{chain['family']} {chain['table']} {chain['name']}"
            yield Finding(Severity.PROBLEM, f"the firewall drops {packet.name}: {culprit}",
                          f"nft insert rule {where} {packet.allow} accept, and the same in your firewall's "
                          "configuration")


@dataclass(frozen=True, slots=True)
class Culprit:
    """What drops a packet."""

    chain: Mapping[str, Any]
    rule: Mapping[str, Any] | None
    "None: the chain's policy."

    def __str__(self) -> str:
        where = f"chain {self.chain['name']} of table {self.chain['family']} {self.chain['table']}"
        return f"the policy of {where}" if self.rule is None else f"a rule (handle {self.rule['handle']}) in {where}"


class UndecidedError(Exception):
    """It may pass, or not: that depends on what is not known."""


class Ruleset:
    """The chains and rules of a ruleset, by table."""

    def __init__(self, objects: Sequence[Mapping[str, Any]]) -> None:
        self._chains = [one["chain"] for one in objects if "chain" in one and one["chain"]["table"] != OUR_TABLE]
        self._rules: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
        for rule in (one["rule"] for one in objects if "rule" in one):
            self._rules.setdefault((rule["family"], rule["table"], rule["chain"]), []).append(rule)
        self._named = {(chain["family"], chain["table"], chain["name"]): chain for chain in self._chains}

    def drops(self, packet: Packet) -> Culprit | None:
        """What certainly drops it on its hook; None where it passes, or may."""
        for chain in self._chains:
            if chain.get("hook") == packet.hook and chain.get("type") == "filter" and chain["family"] in ("inet", "ip"):
                try:
                    verdict = self._walk(chain, packet)
                except UndecidedError:
                    continue
                if isinstance(verdict, Culprit):
                    return verdict
                if verdict is None and chain.get("policy") == "drop":
                    return Culprit(chain, None)
        return None

    def _walk(self, chain: Mapping[str, Any], packet: Packet, depth: int = 0) -> Culprit | str | None:
        """A drop, 'accept', or None at the chain's end. Raises UndecidedError."""
        if depth > MAX_DEPTH:
            raise UndecidedError
        for rule in self._rules.get((chain["family"], chain["table"], chain["name"]), ()):
            applies = _all([_matches(part, packet) for part in rule.get("expr", ())])
            if applies is False:
                continue
            verdict, target = _verdict(rule.get("expr", ()), packet)
            if verdict is None:
                continue
            if applies is None:
                if verdict in ("drop", "reject"):
                    continue
                raise UndecidedError
            if verdict in ("drop", "reject"):
                return Culprit(chain, rule)
            if verdict in ("accept", "queue"):
                return "accept"
            if verdict == "return":
                return None
            there = self._named.get((chain["family"], chain["table"], target))
            if there is None:
                raise UndecidedError
            decided = self._walk(there, packet, depth + 1)
            if decided is not None or verdict == "goto":
                return decided
        return None


def _verdict(parts: Sequence[Mapping[str, Any]], packet: Packet) -> tuple[str | None, str]:
    """What a rule comes to where it applies: the verdict, and where it leads."""
    for part in parts:
        for verdict in ("accept", "drop", "reject", "queue", "return"):
            if verdict in part:
                return verdict, ""
        for verdict in ("jump", "goto"):
            if verdict in part:
                return verdict, part[verdict]["target"]
        if "vmap" in part:
            return _mapped(part["vmap"], packet)
    return None, ""


def _mapped(vmap: Mapping[str, Any], packet: Packet) -> tuple[str | None, str]:
    """The verdict of a map for this packet. Raises UndecidedError."""
    known = _field(vmap.get("key"), packet)
    elements = vmap.get("data", {}).get("set") if isinstance(vmap.get("data"), dict) else None
    if known is None or elements is None:
        raise UndecidedError
    for key, verdict in elements:
        if _equal(known, key):
            return _verdict([verdict], packet)
    return None, ""


def _all(conditions: Sequence[bool | None]) -> bool | None:
    """Of several conditions that must all hold; None is 'not known'."""
    if False in conditions:
        return False
    return None if None in conditions else True


def _matches(part: Mapping[str, Any], packet: Packet) -> bool | None:
    if "match" not in part:
        return True if any(name in part for name in HARMLESS) else None
    match = part["match"]
    known, right = _field(match.get("left"), packet), match.get("right")
    if known is None:
        return None
    holds = _among(known, right)
    if holds is None or match.get("op") in ("==", "in"):
        return holds
    return not holds if match.get("op") == "!=" else None


def _field(left: Any, packet: Packet) -> Any:
    """The packet's value of what a rule looks at; None where that is not known."""
    if not isinstance(left, dict):
        return None
    if "payload" in left:
        header = left["payload"].get("protocol")
        if header not in ("ip", "th", None, packet.meta["l4proto"]):
            return _OTHER_PROTOCOL
        return packet.payload.get(left["payload"].get("field"))
    return packet.meta.get(next((left[kind].get("key") for kind in ("meta", "ct") if kind in left), ""))


_OTHER_PROTOCOL = object()
"The value of a field that the packet does not have: equal to nothing, and a rule that asks for it does not apply."


def _among(known: Any, right: Any) -> bool | None:
    if known is _OTHER_PROTOCOL:
        return False
    if isinstance(right, dict) and "set" in right:
        right = right["set"]
    if isinstance(right, str) and right.startswith("@"):
        return None
    return any(_equal(known, one) for one in right) if isinstance(right, list) else _equal(known, right)


def _equal(known: Any, one: Any) -> bool:
    if isinstance(one, dict) and "range" in one:
        low, high = one["range"]
        return isinstance(known, int) and isinstance(low, int) and low <= known <= high
    if isinstance(one, dict) and "elem" in one:
        return _equal(known, one["elem"].get("val"))
    return bool(known == one or PROTOCOL_NUMBERS.get(str(known), object()) == one)
