"""Coroutines that are begun: what comes of them is what Twisted's own way would have given."""

import gc

import pytest
from twisted.internet.defer import Deferred, succeed

from oesvc.coroutines import begin


async def total(*parts):
    return sum([await part for part in parts])


def result(deferred):
    results = []
    deferred.addBoth(results.append)
    return results[0] if results else None


def test_what_need_not_wait_is_there_at_once_and_leaves_no_garbage_behind():
    gc.collect()
    gc.disable()
    try:
        for _ in range(100):
            assert result(begin(total(succeed(1), succeed(2)))) == 3
        assert gc.collect() < 100
    finally:
        gc.enable()


def test_what_has_to_wait_goes_on_with_each_result():
    first, second = Deferred(), Deferred()
    done = begin(total(succeed(1), first, second))
    assert result(done) is None
    first.callback(10)
    assert result(done) is None
    second.callback(100)
    assert result(done.addCallback(lambda _: None)) is None
    assert result(begin(total(succeed(1), first.addCallback(lambda _: 10)))) == 11


@pytest.mark.parametrize("waits", [False, True])
def test_an_error_is_raised_where_it_is_awaited_and_may_be_caught_there(waits):
    async def careful(part):
        try:
            return await part
        except KeyError:
            return await succeed("caught")

    for of, expected in ((careful, "caught"), (total, None)):
        part = Deferred()
        if waits:
            done = begin(of(part))
            part.errback(KeyError("gone"))
        else:
            part.errback(KeyError("gone"))
            done = begin(of(part))
        came = result(done)
        assert came == expected if expected else came.check(KeyError)
