"""The systemd units: what follows from each exit code, and what they must and must not wait for."""

from __future__ import annotations

import configparser
import subprocess
from pathlib import Path

import pytest


class Unit(configparser.RawConfigParser):
    """A unit file; a key that is there twice keeps all its values, joined by newlines."""

    def __init__(self, path: Path) -> None:
        super().__init__(strict=False, delimiters=("=",), comment_prefixes=("#",), interpolation=None)
        self.optionxform = str  # type: ignore[assignment,method-assign]
        self.text = path.read_text()
        self.read_string(self.text)

    def values(self, section: str, key: str) -> list[str]:
        inside = self.text.partition(f"[{section}]")[2].partition("\n[")[0]
        return [line.partition("=")[2] for line in inside.splitlines() if line.startswith(f"{key}=")]


@pytest.fixture
def units(project: Path) -> Path:
    return project / "packaging" / "systemd"


@pytest.fixture
def service(units: Path) -> Unit:
    return Unit(units / "iot-enroll.service")


def test_a_boot_waits_for_no_time_and_nothing_waits_for_the_first_enrollment(units: Path, service: Unit) -> None:
    for path in units.glob("iot-enroll*"):
        directives = [line for line in path.read_text().splitlines() if not line.startswith("#")]
        assert not any("time-sync" in line or "time-set" in line for line in directives), path
        # Timers with OnCalendar= are ordered after time-sync.target by systemd itself.
        assert not any(line.startswith("OnCalendar=") for line in directives), path
    assert not service.has_section("Install")  # multi-user.target would be reached only after a whole run
    timer = Unit(units / "iot-enroll.timer")
    assert timer["Unit"]["Wants"] == "iot-enroll.service"
    assert timer["Install"]["WantedBy"] == "timers.target"


def test_not_now_is_no_failure_and_the_rest_is(service: Unit) -> None:
    assert service["Service"]["SuccessExitStatus"] == "75"
    assert service["Service"]["Type"] == "oneshot"
    assert "Restart" not in service["Service"]
    assert service["Service"]["ExecStopPost"] == "+/usr/lib/iot-enroll/after-run"


def test_the_next_try_is_random_and_never_sooner_than_a_quarter_of_an_hour(units: Path) -> None:
    retry, daily = Unit(units / "iot-enroll-retry.timer")["Timer"], Unit(units / "iot-enroll.timer")["Timer"]
    assert (retry["OnActiveSec"], retry["RandomizedDelaySec"], retry["Unit"]) == (
        "15min",
        "15min",
        "iot-enroll.service",
    )
    assert (daily["OnUnitInactiveSec"], daily["RandomizedDelaySec"]) == ("20h", "8h")


def test_the_configuration_may_be_missing_and_what_the_image_found_out_comes_last(service: Unit) -> None:
    assert service.values("Service", "EnvironmentFile") == ["-/etc/iot-enroll.conf", "-/run/iot-enroll.conf"]
    assert service["Service"]["Environment"] == "CERTS_DIR=/var/lib/iot-enroll"
    assert service["Service"]["StateDirectory"] == "iot-enroll"


@pytest.mark.parametrize(
    ("code", "status", "order", "said"),
    [
        ("exited", "0", "stop", ""),
        ("exited", "1", "stop", "<3>iot-enroll stopped for good"),
        ("exited", "2", "stop", "<3>iot-enroll is configured wrongly"),
        ("exited", "75", "restart", ""),
        ("exited", "203", "restart", ""),  # the program could not be started
        ("killed", "TERM", "restart", ""),  # overdue
        ("killed", "KILL", "restart", ""),  # out of memory
        ("dumped", "SEGV", "restart", ""),
        ("", "", "restart", ""),
    ],
)
def test_what_follows_a_run(units: Path, tmp_path: Path, code: str, status: str, order: str, said: str) -> None:
    log = tmp_path / "log"
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(f'#!/bin/sh\necho "$@" >>{log}\nexit 1\n')
    systemctl.chmod(0o755)
    told = {"EXIT_CODE": code, "EXIT_STATUS": status, "PATH": f"{tmp_path}:/usr/bin:/bin"}

    done = subprocess.run([units / "after-run"], env=told, capture_output=True, text=True, check=False)

    assert done.returncode == 0  # also where systemctl fails
    assert log.read_text() == f"{order} --no-block iot-enroll-retry.timer\n"
    assert done.stdout.startswith(said)
    assert bool(done.stdout) is bool(said)
