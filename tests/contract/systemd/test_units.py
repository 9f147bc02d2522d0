"""The packaged units as systemd itself reads them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

pytestmark = pytest.mark.real

PACKAGING = Path(__file__).resolve().parents[3] / "packaging" / "systemd"
UNITS = ("iot-enroll.service", "iot-enroll.timer", "iot-enroll-retry.timer", "iot-enroll-status.service")
TARGETS = ("network-online", "local-fs", "timers", "sysinit", "basic", "shutdown", "multi-user", "sockets", "slices")
MOST_EXPOSED = {"iot-enroll.service": 2.6, "iot-enroll-status.service": 1.7}
"""`systemd-analyze security`, 0 to 10; a service without any hardening has 9.6."""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A root in which the programs that the units start are there."""
    folder = tmp_path / "etc" / "systemd" / "system"
    folder.mkdir(parents=True)
    for unit in UNITS:
        shutil.copy(PACKAGING / unit, folder)
    for program in ("usr/bin/iot-enroll", "usr/lib/iot-enroll/after-run"):
        (tmp_path / program).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PACKAGING / "after-run", tmp_path / program)
    for target in TARGETS:
        (folder / f"{target}.target").write_text(f"[Unit]\nDescription={target}\n")
    return tmp_path


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_has_nothing_to_say_against_a_unit(image: Path, unit: str) -> None:
    said = analyze("verify", "--man=no", "--recursive-errors=no", f"--root={image}", unit)
    assert (said.returncode, complaints(said.stderr.splitlines())) == (0, []), said.stderr


def complaints(lines: Sequence[str]) -> list[str]:
    return [line for line in lines if "iot-enroll" in line]


@pytest.mark.parametrize("unit", sorted(MOST_EXPOSED))
def test_a_service_is_confined(image: Path, unit: str) -> None:
    threshold = str(int(MOST_EXPOSED[unit] * 10))
    said = analyze("security", "--offline=true", f"--threshold={threshold}", f"--root={image}", unit)
    shown = re.search(r"Overall exposure level for \S+: ([\d.]+)", said.stdout)
    assert shown, said.stderr
    print(f"{unit}: exposure {shown[1]}, limit {MOST_EXPOSED[unit]}")  # noqa: T201 - the figure, for the log
    assert said.returncode == 0, said.stdout


def test_durations_are_what_they_look_like() -> None:
    for path in PACKAGING.glob("*.timer"):
        for duration in re.findall(r"^(?:On\w+|RandomizedDelaySec|AccuracySec)=(.+)$", path.read_text(), re.MULTILINE):
            assert analyze("timespan", duration).returncode == 0, (path, duration)
