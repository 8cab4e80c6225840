"""`oegw dns` without a daemon: a resolver of its own, by the configuration of the one that is to be.

`python3 -m oesvc.operator.alone FILE` takes a list of questions on standard input and answers each as the control
socket does. It is a program of its own because it loads what the other commands need not wait for.
"""

import json
import random
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react
from twisted.python.failure import Failure

from oesvc.config import Config, ConfigError, load
from oesvc.discovery import Discovery
from oesvc.dns.anchor_keeper import FILE_NAME, AnchorKeeper
from oesvc.dns.anchors import AnchorError
from oesvc.dns.resolver import DnsConfig, ValidatingResolver
from oesvc.name_service import dns_config
from oesvc.operator.dns_report import Inspector
from oesvc.operator.inquiry import Inquiry


def answer(reactor: Any, file: Path, questions: Sequence[dict[str, Any]]) -> "Deferred[None]":
    """Print what the DNS says, or what is wrong with the configuration."""
    def done(results: list[dict[str, Any]] | Failure) -> None:
        print(json.dumps([{"error": results.getErrorMessage()}] if isinstance(results, Failure) else
                         [{"answer": result} for result in results]))

    try:
        settings = load(file)
        dns = _with_kept_anchors(dns_config(settings), settings)
        inquiries = [Inquiry.parse(one["subject"], one["types"], one["fresh"]) for one in questions]
    except (ConfigError, ValueError) as error:
        print(json.dumps([{"error": str(error)}]))
        raise SystemExit(0) from None
    return inspect(reactor, dns, settings, inquiries).addBoth(done)


def inspect(reactor: Any, dns: DnsConfig, settings: Config,
            inquiries: Sequence[Inquiry]) -> "Deferred[list[dict[str, Any]]]":
    """With a resolver that is closed in the end."""
    resolver = ValidatingResolver(dns, reactor)
    inspector = Inspector(resolver, Discovery(resolver, settings.dnssec, random.SystemRandom().random),
                          settings.class_table(), time.time, dns.clock_skew)

    def close(result: Any) -> "Deferred[Any]":
        return resolver.close().addCallback(lambda _: result)

    return gatherResults([Deferred.fromCoroutine(inspector.inspect(one)) for one in inquiries]).addBoth(close)


def _with_kept_anchors(dns: DnsConfig, settings: Config) -> DnsConfig:
    """What the daemon has made of its trust anchors (RFC 5011), where that may be read."""
    with suppress(AnchorError):
        return replace(dns, anchors=AnchorKeeper(settings.state_directory / FILE_NAME, dns.anchors).anchors)
    return dns


if __name__ == "__main__":
    react(answer, (Path(sys.argv[1]), json.load(sys.stdin)))
