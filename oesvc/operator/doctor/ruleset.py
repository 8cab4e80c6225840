"""A walk through this host's nftables rules with a packet of which only some fields are known: what surely applies."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

from oesvc.ipsec.flow import Address

OUR_TABLE = "oegw"
PROTOCOL_NUMBERS = {"icmp": 1, "tcp": 6, "udp": 17, "esp": 50, "ah": 51, "ipv6-icmp": 58}
FAMILY = {4: "ip", 6: "ip6"}
DECIDES = ("accept", "drop", "reject", "queue", "return", "masquerade", "snat", "dnat", "redirect")
"Statements that end a chain, or all of them."
OF_IPTABLES = {"MASQUERADE": "masquerade", "SNAT": "snat", "DNAT": "dnat", "REDIRECT": "redirect"}
"Targets in rules of iptables-nft; what they say besides is not told."
NOT_CONDITIONS = ("counter", "log", "comment", "mangle", "notrack", "meter")
HARMLESS = (*NOT_CONDITIONS, *DECIDES, "jump", "goto", "vmap", "match")
MAX_DEPTH = 16
"Of jumps, as in the kernel (NFT_JUMP_STACK_SIZE)."


@dataclass(frozen=True, slots=True)
class Packet:
    """What is known of it. Its peer may be anybody."""

    hook: str
    version: int
    "Of IP."
    meta: Mapping[str, Any]
    "By nft's keys of meta and ct."
    payload: Mapping[str, Any]
    "By nft's names of fields, whatever header they are in."


@dataclass(frozen=True, slots=True)
class Applied:
    """What decides about a packet."""

    chain: Mapping[str, Any]
    rule: Mapping[str, Any] | None
    "None: the chain's policy."
    verdict: str
    statement: Any = None
    "The verdict's particulars, as nft tells them."

    def __str__(self) -> str:
        where = f"chain {self.chain['name']} of table {self.chain['family']} {self.chain['table']}"
        return f"the policy of {where}" if self.rule is None else f"a rule (handle {self.rule['handle']}) in {where}"

    def before_it(self, rule: str) -> str:
        """The command that puts another rule before this one."""
        chain = self.chain
        return (f"nft insert rule {chain['family']} {chain['table']} {chain['name']} {rule}, and the same in your "
                "firewall's configuration")


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

    def drops(self, packet: Packet) -> Applied | None:
        """What certainly drops it on its hook; None where it passes, or may."""
        for chain in self._at(packet, "filter"):
            try:
                applied = self._walk(chain, packet)
            except UndecidedError:
                continue
            if applied is None and chain.get("policy") == "drop":
                return Applied(chain, None, "drop")
            if applied is not None and applied.verdict in ("drop", "reject"):
                return applied
        return None

    def translates(self, packet: Packet) -> Applied | None:
        """What certainly gives a connection's first packet another address on its hook; None where nothing does.

        Raises UndecidedError.
        """
        for chain in self._at(packet, "nat"):
            applied = self._walk(chain, packet)
            if applied is not None and applied.verdict in OF_IPTABLES.values():
                return applied
        return None

    def _at(self, packet: Packet, kind: str) -> Iterator[Mapping[str, Any]]:
        """The chains of a type that a packet meets on its hook, in their order."""
        return (chain for chain in sorted(self._chains, key=lambda chain: chain.get("prio", 0))
                if chain.get("hook") == packet.hook and chain.get("type") == kind
                and chain["family"] in ("inet", FAMILY[packet.version]))

    def _walk(self, chain: Mapping[str, Any], packet: Packet, depth: int = 0) -> Applied | None:
        """What ends the walk for all of this hook's chain; None at the chain's end. Raises UndecidedError."""
        if depth > MAX_DEPTH:
            raise UndecidedError
        for rule in self._rules.get((chain["family"], chain["table"], chain["name"]), ()):
            applies = _all([_matches(part, packet) for part in rule.get("expr", ())])
            if applies is False:
                continue
            verdict, statement = _verdict(rule.get("expr", ()), packet)
            if verdict is None:
                continue
            if applies is None:
                if verdict in ("drop", "reject"):
                    continue
                raise UndecidedError
            if verdict == "return":
                return None
            if verdict not in ("jump", "goto"):
                return Applied(chain, rule, verdict, statement)
            there = self._named.get((chain["family"], chain["table"], statement["target"]))
            if there is None:
                raise UndecidedError
            decided = self._walk(there, packet, depth + 1)
            if decided is not None or verdict == "goto":
                return decided
        return None


def _verdict(parts: Sequence[Mapping[str, Any]], packet: Packet) -> tuple[str | None, Any]:
    """What a rule comes to where it applies: the verdict, and its particulars."""
    for part in parts:
        for verdict in (*DECIDES, "jump", "goto"):
            if verdict in part:
                return verdict, part[verdict]
        if "vmap" in part:
            return _mapped(part["vmap"], packet)
        if "xt" in part and (verdict := OF_IPTABLES.get((part["xt"] or {}).get("name", ""), "")):
            return verdict, None
    return None, None


def _mapped(vmap: Mapping[str, Any], packet: Packet) -> tuple[str | None, Any]:
    """The verdict of a map for this packet. Raises UndecidedError."""
    known = _field(vmap.get("key"), packet)
    elements = vmap.get("data", {}).get("set") if isinstance(vmap.get("data"), dict) else None
    if known is None or elements is None:
        raise UndecidedError
    for key, verdict in elements:
        if _equal(known, key):
            return _verdict([verdict], packet)
    return None, None


def _all(conditions: Sequence[bool | None]) -> bool | None:
    """Of several conditions that must all hold; None is 'not known'."""
    if False in conditions:
        return False
    return None if None in conditions else True


def _matches(part: Mapping[str, Any], packet: Packet) -> bool | None:
    if "match" not in part:
        family = next((part[name].get("family") for name in ("snat", "dnat") if part.get(name)), None)
        if family not in (None, FAMILY[packet.version]):
            return False
        target = (part.get("xt") or {}).get("name") in OF_IPTABLES
        return True if target or any(name in part for name in HARMLESS) else None
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
        if header not in (FAMILY[packet.version], "th", None, packet.meta["l4proto"]):
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
    if isinstance(one, dict) and "elem" in one:
        return _equal(known, one["elem"].get("val"))
    if isinstance(known, Address):
        return _is_address(known, one)
    if isinstance(one, dict) and "range" in one:
        low, high = one["range"]
        return isinstance(known, int) and isinstance(low, int) and low <= known <= high
    return bool(known == one or PROTOCOL_NUMBERS.get(str(known), object()) == one)


def _is_address(known: Address, one: Any) -> bool:
    if isinstance(one, dict) and "prefix" in one:
        return known in ip_network(f"{one['prefix']['addr']}/{one['prefix']['len']}", strict=False)
    if isinstance(one, dict) and "range" in one:
        low, high = (int(ip_address(end)) for end in one["range"])
        return low <= int(known) <= high
    return bool(str(known) == one)
