"""IKEv1: RFC 2407, 2408 and 2409, without I/O.

    engine          what the owner calls; which part a datagram belongs to
    phase1, phase2  run main mode and quick mode for all channels and tunnels: events, timers, repetitions
    teardown        deletes, INITIAL-CONTACT, shutting down
    invitations     main mode 1, answered without state
    liveness, renewal
                    peers that have died, channels that near their end
    informational   notifies and deletes, written and read
    main_mode, quick_mode
                    the ladders: one function for each message, which returns what comes of it or raises
    exchange        climbs a ladder; a step that raises has changed nothing
    offers          the profiles; negotiation, phase1_offer, phase2_offer: proposals written, chosen, refused
    nat, mapping    NATs found, and what they spoil; peers whose address or port they change
    vendor          extensions that peers announce
    channels, tunnels, prefixes, counters, core, timers, retransmit, config
                    what all of them share
    wire            ISAKMP in octets
"""
