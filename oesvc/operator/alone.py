"""`oegw dns` without a daemon: a resolver of its own, by the configuration of the one that is to be."""

import random
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.python.failure import Failure

from oesvc.config import Config, ConfigError
from oesvc.discovery import Discovery
from oesvc.dns.anchor_keeper import FILE_NAME, AnchorKeeper
from oesvc.dns.anchors import AnchorError
from oesvc.dns.resolver import DnsConfig, ValidatingResolver
from oesvc.name_service import dns_config
from oesvc.oe.classes import ClassTable
from oesvc.operator.dns_report import Inquiry, Inspector

INTERRUPTED = 130
"As shells have it."


def inspect(settings: Config, inquiry: Inquiry) -> dict[str, Any]:
    """Look up, and wait for it. Raises ConfigError; SystemExit when a signal ends it."""
    try:
        dns = dns_config(settings)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    with suppress(AnchorError):  # what the daemon keeps may be for its own eyes only
        keeper = AnchorKeeper(settings.state_directory / FILE_NAME, dns.anchors)
        dns = replace(dns, anchors=keeper.anchors)
    results: list[dict[str, Any] | Failure] = []
    with suppress(SystemExit):  # so `react` ends
        react(lambda reactor: inspect_with(reactor, dns, settings, inquiry).addBoth(results.append))
    if not results:
        raise SystemExit(INTERRUPTED)
    (result,) = results
    if isinstance(result, Failure):
        result.raiseException()
    return result


def inspect_with(reactor: Any, dns: DnsConfig, settings: Config, inquiry: Inquiry) -> "Deferred[dict[str, Any]]":
    """With a resolver that is closed in the end."""
    resolver = ValidatingResolver(dns, reactor)
    inspector = Inspector(resolver, Discovery(resolver, settings.dnssec, random.SystemRandom().random),
                          ClassTable(settings.policies, settings.default_class), settings.dnssec, time.time,
                          dns.clock_skew)

    def close(result: Any) -> "Deferred[Any]":
        return resolver.close().addCallback(lambda _: result)

    return Deferred.fromCoroutine(inspector.inspect(inquiry)).addBoth(close)
