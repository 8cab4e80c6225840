"""Coroutines that mostly need not wait."""

from collections.abc import Coroutine, Generator
from types import coroutine as awaitable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail, succeed

T = TypeVar("T")


def begin(coroutine: "Coroutine[Deferred[Any], Any, T]") -> "Deferred[T]":
    """As Deferred.fromCoroutine. One that ends without having waited leaves no circle of objects behind.

    Twisted makes 17 for each, that it may be cancelled; for each new flow the garbage collector had to find them.
    """
    try:
        awaited = coroutine.send(None)
    except StopIteration as end:
        return succeed(end.value)
    except Exception:
        return fail()
    return Deferred.fromCoroutine(_rest(coroutine, awaited))


async def _rest(coroutine: "Coroutine[Deferred[Any], Any, T]", awaited: "Deferred[Any]") -> T:
    return await _go_on(coroutine, awaited)


@awaitable
def _go_on(coroutine: "Coroutine[Deferred[Any], Any, T]", awaited: "Deferred[Any]") \
        -> "Generator[Deferred[Any], Any, T]":
    """Hand to a coroutine that has begun whatever comes of what it awaits."""
    while True:
        try:
            try:
                result = yield awaited
            except Exception as error:
                awaited = coroutine.throw(error)
            else:
                awaited = coroutine.send(result)
        except StopIteration as end:
            value: T = end.value
            return value
