r"""RFC 4322 section 3.2: the keying daemon's state machine.

                         nonexistent
          clear class  /      |      \  deny class
                      V       V       V
     clear-text <-- potential OE --> deny       left: OE-permissive
          ^  ^        |    |          ^  ^     right: OE-paranoid
          |  |        |    V          |  |
          |  +------ pending OE ------+  |
          |           |    |   ^         |
          |           V    V   | rekey   |
          |            keyed --+         |
          V              V               V
     - - - - - - - - expiring - - - - - - - -
                         |
                      expired

A responder (3.3.3) enters at potential OE and goes from there to keyed: it looks nothing up and begins no keying.
"""

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from oesvc.ipsec.policy import ForwardingPolicy as Policy
from oesvc.oe import actions
from oesvc.oe import events as ev
from oesvc.oe.aging import Lifespan
from oesvc.oe.classes import ConnectionClass

if TYPE_CHECKING:
    from oesvc.oe.connection import Connection


class State(Enum):
    NONEXISTENT = "nonexistent"
    CLEAR_TEXT = "clear-text"
    DENY = "deny"
    POTENTIAL_OE = "potential OE"
    PENDING_OE = "pending OE"
    KEYED = "keyed"
    EXPIRING = "expiring"
    EXPIRED = "expired"


Begin = Callable[["Connection"], "actions.Action | None"]


def as_usual(connection: "Connection") -> "actions.Action | None":
    """What the state begins on entry."""
    begin = ON_ENTRY.get(connection.state)
    return begin(connection) if begin else None


def nothing(connection: "Connection") -> None:
    """What is under way goes on."""


def renew(connection: "Connection") -> "actions.Action":
    """Keying with what the DNS says now: the peer may have rolled its key over since it was asked."""
    return connection.ask() if connection.answer_is_stale else connection.key_with_next_gateway()


class To(NamedTuple):
    """Where an arrow leads."""

    state: State
    lifespan: Lifespan = Lifespan.UNCHANGED
    begins: Begin = as_usual


Arrow = Callable[["Connection"], To]
"An arrow whose end depends on the connection."

S, L = State, Lifespan

BY_CLASS = {
    ConnectionClass.DENY: To(S.DENY, L.FIRST),
    ConnectionClass.CONFIGURED: To(S.DENY, L.FIRST),
    ConnectionClass.ALWAYS_CLEAR_TEXT: To(S.CLEAR_TEXT, L.FIRST),
    ConnectionClass.PASSIVE: To(S.CLEAR_TEXT, L.FIRST),
    ConnectionClass.OE_PERMISSIVE: To(S.POTENTIAL_OE),
    ConnectionClass.OE_PARANOID: To(S.POTENTIAL_OE),
}


def by_class(connection: "Connection") -> To:
    """3.2.1: the state in which the connection's class begins."""
    return BY_CLASS[connection.connection_class]


def fallback(lifespan: Lifespan) -> Arrow:
    """Failure leads OE-permissive to clear-text and OE-paranoid to deny.

    While a tunnel stands it changes nothing: the old keys serve until their hard lifetime (3.2.6).
    """
    def arrow(connection: "Connection") -> To:
        if connection.tunnel is not None:
            return To(S.KEYED)
        return To(S.DENY if connection.connection_class.never_clear else S.CLEAR_TEXT, lifespan)
    return arrow


def no_answer(connection: "Connection") -> To:
    """9.1: what a failure of the DNS means is local policy."""
    if connection.line.options.dns_failure_denies and connection.tunnel is None:
        return To(S.DENY, L.LOW)
    return fallback(L.LOW)(connection)


def bad_record(connection: "Connection") -> To:
    """3.2.4: deny, whatever the class, unless an administrator's class says that such a record counts as none."""
    if connection.line.options.bad_record_is_absence:
        return fallback(L.ANSWER)(connection)
    return To(S.DENY, L.ANSWER)


def next_gateway_or(otherwise: Arrow) -> Arrow:
    """3.2.5: a failure can be declared only after all gateways have been tried."""
    def arrow(connection: "Connection") -> To:
        return To(S.PENDING_OE) if connection.untried else otherwise(connection)
    return arrow


def rekey(connection: "Connection") -> To:
    """3.2.6: whoever knows the peer's gateway asks for new keys; a mere responder leaves it to the initiator."""
    return To(S.PENDING_OE, begins=renew) if connection.delegations else stay(connection)


def doubted(connection: "Connection") -> To:
    """3.2.6: a cautious attempt at new keys, by a mere responder too; the tunnel stands until it succeeds."""
    return To(S.PENDING_OE, begins=renew) if connection.delegations else To(S.EXPIRING, begins=lambda c: c.ask())


def keyed(connection: "Connection") -> To:
    """3.4.1: a new tunnel has its first lifespan; rekeying leaves the lifespan alone."""
    return To(S.KEYED) if connection.rekeyed else To(S.KEYED, L.FIRST)


def on_by_another_path(otherwise: Arrow) -> Arrow:
    """8: where the tunnel is gone, a tunnel with another gateway of the destination takes over."""
    def arrow(connection: "Connection") -> To:
        if connection.tunnel is None:
            return otherwise(connection)
        return stay(connection) if connection.state is S.PENDING_OE else To(S.KEYED)
    return arrow


def peer_lost(connection: "Connection") -> To:
    """8, 9.3: a dead gateway's flow is keyed with the others that the DNS names; without any it is asked anew."""
    return To(S.PENDING_OE) if connection.untried else To(S.EXPIRED)


def keys_lost(connection: "Connection") -> To:
    """3.1.5: back to hold and for new keys; but where rekeying has already failed, as the class says (3.2.6)."""
    if connection.rekey_failed:
        return fallback(L.LOW)(connection)
    if not connection.connection_class.initiates:
        return To(S.POTENTIAL_OE, begins=nothing)  # for a proposal that is under way, or ends with ProposalLapsed
    return To(S.PENDING_OE, begins=renew) if connection.delegations else To(S.POTENTIAL_OE)


def if_awaited(otherwise: Arrow) -> Arrow:
    """3.2.6: what the DNS says before a rekey; an answer that comes when keying is under way changes nothing."""
    return lambda connection: otherwise(connection) if connection.looking_up else stay(connection)


def renewed_without_answer(connection: "Connection") -> To:
    """What is known of a tunnel's gateway still serves to renew its keys."""
    return To(S.PENDING_OE) if connection.delegations else no_answer(connection)


def bad_record_at_renewal(connection: "Connection") -> To:
    return To(S.KEYED) if connection.tunnel is not None else bad_record(connection)


def back(lifespan: Lifespan) -> Arrow:
    """3.2.7: to the state from which it was put under review; a stale DNS answer is first asked for anew."""
    def arrow(connection: "Connection") -> To:
        if connection.answer_is_stale:
            return To(S.EXPIRING, begins=lambda c: c.ask())
        return To(connection.state_under_review, lifespan, nothing)
    return arrow


def found_anew(connection: "Connection") -> To:
    """3.2.7: a delegation is (still) there; a tunnel changes only with it, a flow without one is keyed now."""
    if connection.tunnel is not None and not connection.delegations_changed:
        return To(S.KEYED, L.USED)
    return To(S.PENDING_OE)


def unless_keyed(otherwise: Arrow) -> Arrow:
    """3.2.7: a new answer can end clear text or denial, but no flow is downgraded while it is encrypted."""
    def arrow(connection: "Connection") -> To:
        return To(S.KEYED, L.USED) if connection.tunnel is not None else otherwise(connection)
    return arrow


def invited(connection: "Connection") -> To:
    """3.3.2: a peer's proposal makes a new instance of what was clear or denied; a tunnel serves until the next."""
    return To(S.POTENTIAL_OE, begins=nothing) if connection.tunnel is None else To(S.KEYED, L.USED)


def lapsed(connection: "Connection") -> To:
    """A peer's proposal came to nothing: of no weight where we ask and key ourselves."""
    return stay(connection) if connection.looking_up else To(S.EXPIRED)


def stay(connection: "Connection") -> To:
    return To(connection.state, begins=nothing)


TRANSITIONS: dict[tuple[State, type[ev.Event]], To | Arrow] = {
    # 3.2.1 Nonexistent connection
    (S.NONEXISTENT,  ev.Acquired):            by_class,
    (S.NONEXISTENT,  ev.PeerAuthorized):      invited,
    # 3.2.2 Clear-text connection
    (S.CLEAR_TEXT,   ev.Acquired):            stay,
    (S.CLEAR_TEXT,   ev.LifespanEnded):       To(S.EXPIRING),
    (S.CLEAR_TEXT,   ev.RoomWanted):          To(S.EXPIRED),
    (S.CLEAR_TEXT,   ev.PeerAuthorized):      invited,
    (S.CLEAR_TEXT,   ev.TunnelNegotiated):    keyed,
    # 3.2.3 Deny connection
    (S.DENY,         ev.Acquired):            stay,
    (S.DENY,         ev.LifespanEnded):       To(S.EXPIRING),
    (S.DENY,         ev.RoomWanted):          To(S.EXPIRED),
    (S.DENY,         ev.PeerAuthorized):      invited,
    (S.DENY,         ev.TunnelNegotiated):    keyed,
    # 3.2.4 Potential OE connection
    (S.POTENTIAL_OE, ev.Acquired):            stay,
    (S.POTENTIAL_OE, ev.DelegationFound):     To(S.PENDING_OE),
    (S.POTENTIAL_OE, ev.DelegationAbsent):    fallback(L.ANSWER),
    (S.POTENTIAL_OE, ev.LookUpFailed):        no_answer,
    (S.POTENTIAL_OE, ev.DelegationBad):       bad_record,
    (S.POTENTIAL_OE, ev.PeerAuthorized):      stay,
    (S.POTENTIAL_OE, ev.TunnelNegotiated):    keyed,
    (S.POTENTIAL_OE, ev.ProposalLapsed):      lapsed,
    # 3.2.5 Pending OE connection
    (S.PENDING_OE,   ev.Acquired):            stay,
    (S.PENDING_OE,   ev.TunnelNegotiated):    keyed,
    (S.PENDING_OE,   ev.PeerSilent):          next_gateway_or(fallback(L.LOW)),
    (S.PENDING_OE,   ev.ChannelRefused):      next_gateway_or(fallback(L.LOW)),
    (S.PENDING_OE,   ev.PeerRefused):         next_gateway_or(fallback(L.NORMAL)),
    (S.PENDING_OE,   ev.PeerNotAuthentic):    next_gateway_or(fallback(L.ANSWER)),
    (S.PENDING_OE,   ev.SasRefused):          next_gateway_or(fallback(L.LOW)),
    (S.PENDING_OE,   ev.DelegationFound):     if_awaited(lambda _: To(S.PENDING_OE)),
    (S.PENDING_OE,   ev.DelegationAbsent):    if_awaited(fallback(L.ANSWER)),
    (S.PENDING_OE,   ev.LookUpFailed):        if_awaited(renewed_without_answer),
    (S.PENDING_OE,   ev.DelegationBad):       if_awaited(bad_record_at_renewal),
    (S.PENDING_OE,   ev.PeerAuthorized):      stay,
    (S.PENDING_OE,   ev.PeerDeleted):         stay,
    (S.PENDING_OE,   ev.PeerLost):            stay,
    (S.PENDING_OE,   ev.HardLifetimeReached): stay,
    # 3.2.6 Keyed connection
    (S.KEYED,        ev.Acquired):            stay,
    (S.KEYED,        ev.PeerAuthorized):      stay,
    (S.KEYED,        ev.TunnelNegotiated):    keyed,
    (S.KEYED,        ev.SoftLifetimeReached): rekey,
    (S.KEYED,        ev.KeysDoubted):         doubted,
    (S.KEYED,        ev.HardLifetimeReached): on_by_another_path(keys_lost),
    (S.KEYED,        ev.PeerDeleted):         on_by_another_path(lambda _: To(S.EXPIRED)),
    (S.KEYED,        ev.PeerLost):            on_by_another_path(peer_lost),
    (S.KEYED,        ev.PathChosen):          stay,
    (S.KEYED,        ev.LifespanEnded):       To(S.EXPIRING),
    # 3.2.7 Expiring connection
    (S.EXPIRING,     ev.Acquired):            stay,
    (S.EXPIRING,     ev.FoundInUse):          back(L.USED),
    (S.EXPIRING,     ev.FoundConnected):      back(L.FIRST),
    (S.EXPIRING,     ev.FoundIdle):           To(S.EXPIRED),
    (S.EXPIRING,     ev.DelegationFound):     found_anew,
    (S.EXPIRING,     ev.DelegationAbsent):    unless_keyed(fallback(L.ANSWER)),
    (S.EXPIRING,     ev.LookUpFailed):        lambda c: To(c.state_under_review, L.LOW, nothing),
    (S.EXPIRING,     ev.DelegationBad):       unless_keyed(bad_record),
    (S.EXPIRING,     ev.PeerAuthorized):      invited,
    (S.EXPIRING,     ev.TunnelNegotiated):    keyed,
    (S.EXPIRING,     ev.SoftLifetimeReached): rekey,
    (S.EXPIRING,     ev.HardLifetimeReached): on_by_another_path(keys_lost),
    (S.EXPIRING,     ev.PeerDeleted):         on_by_another_path(lambda _: To(S.EXPIRED)),
    (S.EXPIRING,     ev.PeerLost):            on_by_another_path(peer_lost),
}
# Not in the figure: the administrator wants what the next datagram meets to be decided anew; until then it is held.
TRANSITIONS |= {(state, event): To(S.EXPIRED) for state in State if state is not S.EXPIRED
                for event in (ev.Dropped, ev.PolicyChanged)}

# What each state asks of the forwarding plane (section 3.1); the others, and None, leave it be. A connection that
# rekeys encrypts with the old keys as long as they last; one keyed anew out of a review stays as it was (3.2.7).
FORWARDING: dict[State, Callable[["Connection"], Policy | None]] = {
    S.CLEAR_TEXT:   lambda c: Policy.PASS,
    S.DENY:         lambda c: Policy.DENY,
    S.POTENTIAL_OE: lambda c: Policy.HOLD,
    S.PENDING_OE:   lambda c: (None if c.forwarding is not Policy.ENCRYPT else
                               Policy.HOLD if c.tunnel is None else Policy.ENCRYPT),
    S.KEYED:        lambda c: Policy.ENCRYPT,
}

# What is begun on entering a state.
ON_ENTRY: dict[State, Callable[["Connection"], actions.Action]] = {
    S.POTENTIAL_OE: lambda c: c.ask(),
    S.PENDING_OE:   lambda c: c.key_with_next_gateway(),
    S.EXPIRING:     lambda c: actions.QueryLastUse(),
    S.EXPIRED:      lambda c: actions.TearDown(tuple(path.tunnel for path in c.paths)),
}

# The states that a lifespan ends (3.4.1).
AGING = (S.CLEAR_TEXT, S.DENY, S.KEYED)
