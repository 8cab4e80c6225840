"""Fuzzing of all that reads octets from the network, guided by coverage (atheris): `make fuzz`, `fuzz/run --help`.

    targets     the table: what is fuzzed, and what it begins with
    ladders     IKE: two engines brought to a step, then messages from a peer that has the keys and no manners
    forging     such messages: encrypted, hashed and signed rightly where the fuzzer does not say otherwise
    strangers   datagrams from addresses that nothing is known of
    readers     the parsers alone: ISAKMP, DNS messages, records
    seeds       an honest handshake's messages, and some records
    finding     what a target says when something is wrong
    run         the driver; `guided` is one target under atheris, in a process of its own
    corpora     inputs collected and kept
    corpus/     what was found worth keeping; replayed and changed by tests/test_fuzz_corpus.py, without atheris

A target is a function from octets to nothing. It raises only for a finding: an exception that is not declared, a
refused datagram that changed something, an effect that nothing vouches for, text that is not fit for a log, an honest
handshake that does not end well, work or growth or octets sent that the sender has not paid for.
"""
