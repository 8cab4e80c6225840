"""The network with both daemons, built once for all tests that share it: under emulation a start costs 10 s."""

import os
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from tests.lab.gateway import GATEWAYS, Gateway, start_gateways
from tests.lab.names import SPARE_BOB6, SPARE_BOBS, canonical_tree, serve_names
from tests.lab.network import Network
from tests.lab.shares import share


@dataclass(frozen=True)
class Lab:
    """The canonical network, in service."""

    net: Network
    a: Gateway
    b: Gateway


@pytest.fixture(scope="session")
def named_network() -> Iterator[Network]:
    """The network with its DNS, but no daemon: its gateways only forward."""
    with Network() as net:
        serve_names(net, canonical_tree())
        yield net


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The network with its DNS and a daemon on SG-A and SG-B."""
    with Network() as net:
        yield build(net)


def build(net: Network, options: Mapping[str, Mapping[str, str]] | None = None) -> Lab:
    gateways = [Gateway(net, row, options) for row in GATEWAYS]
    spare = [f"address add {bob}/24 dev eth0" for bob in SPARE_BOBS]
    net["bob"].run(["ip", "-batch", "-"], stdin="\n".join([*spare, f"address add {SPARE_BOB6}/64 dev eth0 nodad"]))
    serve_names(net, canonical_tree())
    start_gateways(gateways)
    return Lab(net, *gateways)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """OEGW_LAB_SHARE=1/2: the first of two kernels' share. What needs a network that nobody has used comes first."""
    if wanted := os.environ.get("OEGW_LAB_SHARE"):
        files = share({item.path.stem for item in items}, *map(int, wanted.split("/")))
        config.hook.pytest_deselected(items=[item for item in items if item.path.stem not in files])
        items[:] = [item for item in items if item.path.stem in files]
    items.sort(key=lambda item: item.get_closest_marker("unused_network") is None)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """What failed is told at once; its logs and captures are kept where they outlive the lab's kernel."""
    report = (yield).get_result()
    if report.failed:
        print(f"\n{report.longreprtext}", flush=True)
        for net in Network.live:
            report.sections.append(("lab", f"logs and captures: {net.keep(item.name)}"))
