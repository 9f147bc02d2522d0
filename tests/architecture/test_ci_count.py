"""The closing lines of `.ci/run`: what ran is counted, and nothing that did not run passes for good."""

import subprocess
import sys
from pathlib import Path

import pytest

SUITES = ("architecture", "contract.ca", "crash", "devicecrash", "e2e", "property", "races", "unit.ca")
REAL = (
    "contract.ca",
    "contract.debian",
    "contract.hawkbit",
    "contract.keys",
    "contract.mosquitto",
    "contract.postgresql",
    "contract.systemd",
    "contract.wireguard",
    "crash",
    "e2e",
    "races",
)


def report(path: Path, folders: tuple[str, ...], outcome: str = "") -> Path:
    cases = "".join(f'<testcase classname="tests.{folder}.test_a" name="x">{outcome}</testcase>' for folder in folders)
    path.write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
    return path


def count(project: Path, *reports: Path) -> tuple[int, list[str]]:
    command = [sys.executable, project / ".ci" / "count.py", *reports]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.splitlines()


def test_all_passed(project: Path, tmp_path: Path) -> None:
    reports = report(tmp_path / "test.xml", SUITES), report(tmp_path / "test-real.xml", REAL)
    status, lines = count(project, *reports)
    assert status == 0
    assert lines[-1] == f"{len(SUITES) + len(REAL)} passed, 0 failed"
    assert any(line.startswith("contract/ca [real]") for line in lines)


@pytest.mark.parametrize("outcome", ["<failure/>", "<error/>", "<skipped/>"])
def test_what_did_not_pass_has_failed(project: Path, tmp_path: Path, outcome: str) -> None:
    reports = report(tmp_path / "test.xml", SUITES), report(tmp_path / "test-real.xml", REAL, outcome)
    status, lines = count(project, *reports)
    assert status == 1
    assert lines[-1] == f"{len(SUITES)} passed, {len(REAL)} failed"


def test_a_suite_without_a_test_is_a_failure(project: Path, tmp_path: Path) -> None:
    reports = report(tmp_path / "test.xml", SUITES[1:]), report(tmp_path / "test-real.xml", REAL[1:])
    status, lines = count(project, *reports)
    assert status == 1
    assert {"architecture: NO TEST RAN", "contract/ca [real]: NO TEST RAN"} <= set(lines)


def test_a_missing_report_is_a_failure(project: Path, tmp_path: Path) -> None:
    status, lines = count(project, report(tmp_path / "test.xml", SUITES), tmp_path / "test-real.xml")
    assert status == 1
    assert any(line.endswith("test-real.xml: MISSING") for line in lines)
    assert lines[-1] == f"{len(SUITES)} passed, 0 failed"
