"""The answer to `oegw dns` as text for people: a table of the chain, the records, the decision."""

from collections.abc import Iterator
from typing import Any

from oesvc.operator.colours import BOLD, GREEN, RED, YELLOW, Paint, painter

Values = dict[str, Any]

STATUS_COLOURS = {"secure": GREEN, "insecure": YELLOW, "bogus": RED, "indeterminate": RED}
STANDING_COLOURS = {"used": GREEN, "not used": YELLOW, "malformed": RED}
HEADER = ("NAME", "RECORD", "KEY", "ALGORITHM", "VALID FROM", "VALID UNTIL", "")
USUAL_OUTCOMES = ("NOERROR", "NXDOMAIN")
LONGEST_RECORD = 100
SEP = 0x0001
REVOKED = 0x0080


def dns(answer: Values, colour: bool = False) -> str:
    """Colours are for terminals only."""
    paint = painter(colour)
    lines: list[str] = []
    told: list[Values] = []
    for look_up in answer["lookups"]:
        lines += [*_look_up(look_up, [link for link in look_up["chain"] if link not in told], paint), ""]
        told += look_up["chain"]
    lines += _decision(answer, paint)
    return "\n".join(lines).rstrip()


def _look_up(look_up: Values, chain: list[Values], paint: Paint) -> Iterator[str]:
    """`chain` is what of it was not told before."""
    yield paint(f"{look_up['type']} {look_up['name']}", BOLD)
    yield f"  {_told(look_up, paint)}"
    if look_up["canonical"] not in (None, look_up["name"]):
        yield f"  alias of {look_up['canonical']}"
    yield f"  {_asked(look_up['questions'])}"
    before = look_up["remembered"]
    if before is not None:
        yield f"  the daemon remembers {'the same' if _same(before, look_up) else _told(before, paint)}, " \
              f"for {before['believed_for']:.0f} s yet"
    if len(chain) < len(look_up["chain"]):
        yield f"  {len(look_up['chain']) - len(chain)} links of its chain are told above{', then:' if chain else ''}"
    if chain:
        yield from _table([row for link in chain for row in _rows(link)], paint)
    if look_up["records"]:
        yield "  records:"
    for record in look_up["records"]:
        yield f"    {_shortened(record['text'])}"
        standing = (look_up["not_believed"] and "not believed") or record["standing"]
        why = look_up["not_believed"] or record["objection"]
        yield f"      {paint(standing, STANDING_COLOURS.get(standing, ''))}{f': {why}' if why else ''}"
        yield from (f"      to be mended: {remark}" for remark in (record["delegation"] or {}).get("remarks", ()))


def _told(verdict: Values, paint: Paint) -> str:
    status = paint(verdict["status"], STATUS_COLOURS.get(verdict["status"], ""))
    return f"{status}, {verdict['kind']}: {verdict['reason']}"


def _same(one: Values, other: Values) -> bool:
    return all(one[part] == other[part] for part in ("status", "kind", "reason"))


def _asked(questions: list[Values]) -> str:
    """How many, and those that went wrong."""
    odd = [one for one in questions if not one["outcome"].startswith(USUAL_OUTCOMES)]
    told = "".join(f"; {one['type']} {one['name']}: {one['outcome']}" for one in odd)
    return f"{len(questions)} question{'' if len(questions) == 1 else 's'} to the resolvers{told}"


Row = tuple[tuple[str, ...], str]
"The cells, and the colour of the last."


def _rows(link: Values) -> Iterator[Row]:
    if link["link"] == "anchor":
        for key in (*link["ds"], *link["dnskeys"]):
            yield (link["zone"], "anchor", str(key["tag"]), key["algorithm"], "", "", "trusted by configuration"), ""
    elif link["link"] == "conclusion":
        yield (link["name"], "", "", "", "", "", link["reason"] + _remembered(link)), YELLOW
    elif link["link"] == "absence":
        what = "that a wildcard stands for the name" if link["expanded"] else "that there is none"
        proven = link["problem"] or f"the {link['by']} records of {link['zone']} prove {what}"
        record = "wildcard" if link["expanded"] else f"no {link['type']}"
        yield (link["name"], record, "", "", "", "", proven), RED if link["problem"] else GREEN
        for record in link["records"]:
            yield (f"  {_short_owner(record['owner'], link['by'])}", link["by"], "", "", "", "", record["shows"]), ""
    else:
        yield from _records(link)


def _records(link: Values) -> Iterator[Row]:
    name = _short_owner(link["name"], link["type"])
    keys = [record for record in link["records"] if "tag" in record]
    for key in keys:
        yield (name, link["type"], str(key["tag"]), key["algorithm"], "", "", _of_key(key)), ""
    if not keys:
        count = len(link["records"])
        told = _shortened(link["records"][0]["text"]) if count == 1 else f"{count} records"
        yield (name, link["type"], "", "", "", "", told), ""
    for signature in link["signatures"]:
        by = f" by {signature['signer']}" if signature["signer"] != link["name"] else ""
        yield ((name, "RRSIG", str(signature["tag"]), signature["algorithm"], signature["inception"],
                signature["expiration"], (signature["problem"] or f"good{by}") + _remembered(link)),
               RED if signature["problem"] else GREEN)
    if link["problem"] and not any(signature["problem"] in link["problem"] for signature in link["signatures"]
                                   if signature["problem"]):
        yield (name, "", "", "", "", "", link["problem"]), RED


def _short_owner(name: str, rdtype: str) -> str:
    """A hash tells people nothing; its beginning tells one from the other."""
    return f"{name[:8]}...{name.partition('.')[2]}" if rdtype == "NSEC3" else name


def _of_key(key: Values) -> str:
    if "digest" in key:
        return str(key["digest"])
    told = ["key signing key" if key["flags"] & SEP else "zone signing key"]
    told += ["revoked"] if key["flags"] & REVOKED else []
    return ", ".join([*told, "named above"] if key.get("trusted") else told)


def _remembered(link: Values) -> str:
    return " (remembered)" if link["remembered"] else ""


def _table(rows: list[Row], paint: Paint) -> Iterator[str]:
    """Columns as wide as they must be; a name is written once for rows that follow one another."""
    widths = [max(len(cells[column]) for cells, _ in [(HEADER, ""), *rows]) for column in range(len(HEADER) - 1)]
    above = ""
    for cells, colour in [(HEADER, ""), *rows]:
        name, *others = cells[:-1]
        shown = ["" if name == above and name else name, *others]
        padded = "  ".join(cell.ljust(width) for cell, width in zip(shown, widths, strict=True))
        yield f"  {padded}  {paint(cells[-1], colour)}".rstrip()
        above = name


def _decision(answer: Values, paint: Paint) -> Iterator[str]:
    decision, gateway = answer["decision"], answer["as_gateway"]
    if decision is not None:
        yield from _flow(answer["subject"], decision, paint)
    proven = f"by {', '.join(gateway['keys'])}" if gateway["keys"] else "by no key"
    yield f"a gateway that says it is {answer['subject']} can prove it {proven}: {gateway['detail']}"


def _flow(subject: str, decision: Values, paint: Paint) -> Iterator[str]:
    yield paint(f"a flow to {subject} {decision['outcome']}", BOLD)
    yield f"  policy   {decision['policy']}"
    yield f"  reason   {decision['reason']}"
    for gateway in decision["gateways"]:
        yield f"  gateway  {gateway['gateway']}, precedence {gateway['precedence']}: {', '.join(gateway['keys'])}"


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_RECORD else f"{text[:LONGEST_RECORD]}... ({len(text)} characters)"
