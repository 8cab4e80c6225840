"""A week of a thousand gateways on one simulated clock: `make simulate`, simulate/run --help.

    run         command line: one world, its report and its plot
    world       everything put together: gateways, flows, faults, and the quiet at the end
    clock       one heap of events for all; a process that has died is called no more
    network     IKE and ESP between gateways: late, lost, doubled, overtaken, damaged; parts cut off for a while
    names       the DNS: TTLs, caches, roll-overs, records that are wrong, forged, unsigned or missing; silence
    kernel      a gateway's SPD, SAD and sets, by RFC 4322 section 3.1 as oesvc/kernel/service.py keeps them
    plane       the ForwardingPlane of oesvc.interfaces on such a kernel
    gateway     a machine with the real KeyingDaemon, OE machine and IKE engine; killed, stopped, started anew
    traffic     hosts that begin flows: how many, how long, how often is heavy-tailed (Pareto)
    laws        the invariants, checked at every step
    report      what came of it, in words and as a plot

Real: the daemon, discovery, authorization, the OE machine, the IKE engine with all its arithmetic. Cheap where it is
not what is tried: RSA keys have 1024 bits and come out of a pool, so that several gateways share one. Modelled: DNS
(answers come with the status that a validator would give them), kernel, network. All chance comes from the seed.
"""
