"""Fuzzing of all that reads octets from the network, guided by coverage (atheris): `make fuzz`, fuzz/run --help.

    targets     the table: what is fuzzed, and what it begins with
    ladders     IKE: two engines brought to a step, then messages from a peer that has the keys and no manners
    forging     such messages, correctly encrypted and hashed and signed where the fuzzer does not say otherwise
    readers     the parsers alone: ISAKMP, DNS messages, records
    run         atheris as the driver
    corpus/     what was found worth keeping; replayed and mutated by tests/test_fuzz_corpus.py, without atheris

A target is a function from octets to nothing. It raises only for a finding: an exception that is not declared, a
refused datagram that changed something, text that is not fit for a log, work or growth that the sender has not paid.
"""
