"""What is imported when it is called, so that no command waits for what only others need."""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any


def later(place: str) -> Callable[..., Any]:
    """What stands at `module:name` in `oesvc`."""
    return partial(_call, place)


def _call(place: str, *arguments: Any) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(f"oesvc.{module}"), name)(*arguments)
