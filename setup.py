"""Packaging of oegw. Tools' settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
POLICIES = ("block", "clear", "clear-or-private", "private", "private-or-clear")


def version() -> str:
    # Read, not imported: what oesvc imports need not be installed to build it.
    found = re.search(r'__version__ = "([^"]+)"', (HERE / "oesvc/__init__.py").read_text())
    assert found
    return found[1]


setup(
    name="oegw",
    version=version(),
    description="Opportunistic encryption gateway for Linux (RFC 4322)",
    license="MIT",
    python_requires=">=3.11",
    # The plugin's folder joins Twisted's own package of that name: it has no __init__.py.
    packages=[*find_packages(include=["oesvc", "oesvc.*"]), "twisted.plugins"],
    data_files=[("share/doc/oegw/examples", ["etc/oegw.conf"]),
                ("share/doc/oegw/examples/policies", [f"etc/policies/{name}" for name in POLICIES]),
                ("share/doc/oegw/examples/prometheus", ["etc/prometheus/oegw.rules.yml",
                                                        "etc/prometheus/oegw-dashboard.json"])],
    # ldns, the DNS library's own binding, is not on PyPI: Debian's python3-ldns.
    install_requires=["twisted>=22.4", "cryptography>=38", "pyopenssl>=23", "pyroute2>=0.7.2",
                      "service-identity>=18", "prometheus-client>=0.14", "dnspython>=2.3"],
    extras_require={"manhole": ["twisted[conch]"]},
    entry_points={"console_scripts": ["oegw = oesvc.operator.main:run"]},
    zip_safe=False,
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Framework :: Twisted",
        "License :: OSI Approved :: MIT License",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Topic :: Security",
        "Topic :: System :: Networking",
    ],
)
