"""A pytest plugin that reads the results of finished runs: `make check` sums up by it.

Every test case of a JUnit file PART.xml is one test here, and so is every PART.status: the exit status of that part.
A part that ends well must not have skipped anything either: a skipped test has shown nothing.
"""

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest


class Verdict(pytest.Item):
    """One test that was run elsewhere; `said` is what went wrong, empty when nothing did."""

    said = ""

    def runtest(self) -> None:
        if self.said:
            pytest.fail(self.said, pytrace=False)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, self.name


class Status(pytest.File):
    def collect(self) -> Iterator[Verdict]:
        status = self.path.read_text().strip()
        verdict = Verdict.from_parent(self, name=f"{self.path.stem} ended with 0")
        verdict.said = "" if status == "0" else f"{self.path.stem} ended with {status}"
        yield verdict


class Cases(pytest.File):
    def collect(self) -> Iterator[Verdict]:
        for case in ElementTree.parse(self.path).iter("testcase"):
            verdict = Verdict.from_parent(self, name=f"{case.get('classname')}::{case.get('name')}")
            verdict.said = "\n".join(f"{bad.tag}: {bad.get('message')}\n{bad.text or ''}"
                                     for bad in case if bad.tag in ("failure", "error", "skipped"))
            yield verdict


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.File | None:
    if file_path.suffix == ".status":
        return Status.from_parent(parent, path=file_path)
    return Cases.from_parent(parent, path=file_path) if file_path.suffix == ".xml" else None
