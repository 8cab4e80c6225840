"""The message catalog for `journalctl -x`: what each outcome means and what to do. `python3 -m oesvc.operator.catalog`
prints it as systemd reads it; the package installs that. Imports little, so that it can be built anywhere."""

from uuid import UUID, uuid5

from oesvc.oe.reasons import Because

NAMESPACE = UUID("6bd04f52-2a1c-4d0e-9f3c-4322c0de0001")
"Ours, for message ids."
SUPPRESSED = "SUPPRESSED"

WHAT_TO_DO = {
    Because.CLASS_IS_CLEAR: "A line in the policy file `clear` says so. `oegw why` names the line.",
    Because.CLASS_IS_DENY: "A line in the policy file `block` says so. `oegw why` names the line.",
    Because.NOT_OE_CAPABLE: "Nothing is wrong here: the other side has not published any record. It goes in clear, or "
                            "is denied where the policy says `private`.",
    Because.DNS_FAILED: "The resolver is silent, or knows no DNSSEC. `oegw doctor` tells which.",
    Because.RECORD_BAD: "A record is malformed or its signatures do not hold; it may be forged, so nothing is sent. "
                        "`oegw dns` shows the chain of trust link by link; the other side must mend it.",
    Because.PEER_SILENT: "The other gateway is down, or UDP ports 500 and 4500 do not reach it. `oegw probe` tries "
                         "again; `oegw doctor` looks at this side's firewall.",
    Because.PEER_REFUSED: "The other gateway answers and does not want to: look at its log, and whether this side's "
                          "own records are published (`oegw doctor`).",
    Because.PEER_NOT_AUTHENTIC: "Whoever answers does not have the key that the DNS tells: a roll-over that went "
                                "wrong, or an attack. `oegw dns` shows the keys.",
    Because.SAS_REFUSED: "This host's kernel has no ESP, or not this cipher: `oegw doctor`.",
    Because.KEYS_EXPIRED: "New keys were not agreed in time; the flow is keyed anew. Look for what came before.",
    Because.TUNNEL_STANDS: "All is well.",
    Because.PEER_AUTHORIZED: "All is well: the other side began.",
}
"For those of which there is more to say."


def message_id(name: str) -> str:
    """128 bits as journald writes them: the same for the same kind in every version."""
    return uuid5(NAMESPACE, name).hex


def catalog() -> str:
    """All entries."""
    entries = [_entry(because.name, f"A flow is decided: {because.value}",
                      f"{WHAT_TO_DO.get(because, 'Nothing needs to be done.')}\n\nThe flow is @OEGW_FLOW@; "
                      "`oegw why` with its two addresses tells how it came about.") for because in Because]
    entries.append(_entry(SUPPRESSED, "Lines were not written",
                          "The same happened so often that it was counted instead of written: @OEGW_SUPPRESSED@ times. "
                          "`oegw status` and the metrics count everything."))
    return "\n".join(entries)


def _entry(name: str, subject: str, text: str) -> str:
    return (f"-- {message_id(name)}\nSubject: {subject}\nDefined-By: oegw\n"
            f"Documentation: man:oegw-troubleshooting(7)\n\n{text}\n")


if __name__ == "__main__":
    print(catalog(), end="")
