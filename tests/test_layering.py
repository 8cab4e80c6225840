"""Who may import whom. The core knows no event loop, no socket and no clock."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "oesvc"

MAY_IMPORT = {
    "ipsec": set(),
    "ike": {"ipsec"},
    "oe": {"ipsec", "dns.answer"},
    "dns": {"ipsec"},
    "kernel": {"ipsec", "interfaces"},
    "keys": {"ipsec", "set_up"},
}
"Packages of ours that each may import besides itself."

PURE = ("ipsec", "ike", "oe")
FORBIDDEN_IN_CORE = {"twisted", "pyroute2", "ldns", "socket", "time", "asyncio", "os", "random", "secrets", "threading"}

ONLY_IN = {"ldns": {"dns/ldns_binding.py"}, "pyroute2": {"kernel"}, "twisted.internet.reactor": {"tap.py"},
           "prometheus_client": {"operator/metrics.py"}, "twisted.web": {"operator/metrics.py"},
           "dns": {"keys/zone_data.py"}, "twisted.conch": {"operator/manhole.py"}}
"Packages that only these files or folders may import."


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: import by the full name"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_within(name, module):
    return name == module or name.startswith(f"{module}.")


@pytest.mark.conformance("C-3.2-12", "C-3-03")
@pytest.mark.parametrize("layer", MAY_IMPORT)
def test_layer_imports_only_what_is_below(layer):
    allowed = {f"oesvc.{name}" for name in MAY_IMPORT[layer] | {layer}}
    for path in (ROOT / layer).rglob("*.py"):
        for name in imports(path):
            if is_within(name, "oesvc") and name != "oesvc":
                prefixes = {name} | {outer for outer in allowed if is_within(outer, name)}
                assert any(is_within(name, one) for one in allowed) or prefixes - {name}, f"{path.name} imports {name}"


@pytest.mark.parametrize("layer", PURE)
def test_core_knows_no_event_loop_socket_or_clock(layer):
    for path in (ROOT / layer).rglob("*.py"):
        for name in imports(path):
            assert name.partition(".")[0] not in FORBIDDEN_IN_CORE, f"{path} imports {name}"


@pytest.mark.parametrize("module, places", ONLY_IN.items())
def test_package_has_one_owner(module, places):
    for path in ROOT.rglob("*.py"):
        here = path.relative_to(ROOT).as_posix()
        if not any(here == place or here.startswith(f"{place}/") for place in places):
            assert not any(is_within(name, module) for name in imports(path)), f"{here} imports {module}"


def test_nothing_is_imported_inside_a_function():
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                inner = [n for n in ast.walk(node) if isinstance(n, (ast.Import, ast.ImportFrom))]
                assert not inner, f"{path}: {node.name}"


def test_files_stay_small():
    for path in ROOT.rglob("*.py"):
        assert len(path.read_text().splitlines()) < 400, path
