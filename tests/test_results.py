"""The last lines of `make check`: nothing that failed, was skipped or did not run is left out of the sum."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GOOD = '<testcase classname="tests.a" name="test_good"/>'


def summary(folder: Path) -> tuple[int, str]:
    """Status and last line of the summing-up."""
    done = subprocess.run([sys.executable, "-m", "pytest", "-p", "results", "-p", "no:cacheprovider", "-c", "/dev/null",
                           f"--rootdir={folder}", "-q", str(folder)], capture_output=True, text=True, timeout=60,
                          env={"PYTHONPATH": str(ROOT / "tools"), "PYTHONDONTWRITEBYTECODE": "1"})
    return done.returncode, done.stdout.splitlines()[-1]


def write(folder: Path, part: str, status: int, cases: str) -> None:
    (folder / f"{part}.status").write_text(f"{status}\n")
    (folder / f"{part}.xml").write_text(f'<testsuites><testsuite name="pytest">{cases}</testsuite></testsuites>')


def test_good_results_of_all_parts_are_added_up(tmp_path: Path) -> None:
    write(tmp_path, "unit", 0, GOOD * 3)
    write(tmp_path, "lab", 0, GOOD * 2)
    status, last = summary(tmp_path)
    assert (status, last.partition(" in ")[0]) == (0, "7 passed")


def test_every_test_that_did_not_pass_fails_the_whole(tmp_path: Path) -> None:
    bad = "".join(f'<testcase classname="tests.a" name="test_{kind}"><{kind} message="m">text</{kind}></testcase>'
                  for kind in ("failure", "error", "skipped"))
    write(tmp_path, "unit", 0, GOOD + bad)
    status, last = summary(tmp_path)
    assert (status, last.partition(" in ")[0]) == (1, "3 failed, 2 passed")


def test_a_part_that_ended_badly_fails_the_whole_though_its_tests_passed(tmp_path: Path) -> None:
    write(tmp_path, "lab", 124, GOOD)
    status, last = summary(tmp_path)
    assert (status, last.partition(" in ")[0]) == (1, "1 failed, 1 passed")


def test_no_results_at_all_are_no_success(tmp_path: Path) -> None:
    assert summary(tmp_path)[0] != 0
