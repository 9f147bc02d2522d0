"""The Debian package as dpkg reads it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.real

PROJECT = Path(__file__).resolve().parents[3]


SCRIPTS = PROJECT / "packaging" / "agent"


@pytest.fixture(scope="module")
def zipapp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("zipapp") / "iot-enroll.pyz"
    subprocess.run([sys.executable, SCRIPTS / "build_zipapp.py", "--output", path], check=True, capture_output=True)
    return path


def packed(zipapp: Path, folder: Path) -> Path:
    options = ("--zipapp", zipapp, "--output", folder)
    subprocess.run([sys.executable, SCRIPTS / "build_deb.py", *options], check=True, capture_output=True)
    (found,) = folder.glob("*.deb")
    return found


@pytest.fixture(scope="module")
def package(zipapp: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packed(zipapp, tmp_path_factory.mktemp("deb"))


def dpkg_deb(*arguments: str | Path) -> str:
    return subprocess.run(["dpkg-deb", *arguments], capture_output=True, text=True, check=True).stdout


def test_it_says_what_it_needs(package: Path) -> None:
    told = dict(line.split(": ", 1) for line in dpkg_deb("--field", package).splitlines() if line[:1] != " ")
    assert told["Package"] == "iot-enroll"
    assert told["Architecture"] == "all"
    assert told["Depends"] == "python3 (>= 3.11), python3-cryptography (>= 38)"
    assert told["Recommends"] == "wireguard-tools"


def test_its_files_belong_to_root_with_these_modes(package: Path) -> None:
    listed = [line.split(maxsplit=5) for line in dpkg_deb("--contents", package).splitlines()]
    assert {owner for _, owner, *_ in listed} == {"root/root"}
    files = {name.removeprefix("."): mode for mode, _, _, _, _, name in listed if not mode.startswith("d")}
    assert files.pop("/usr/bin/iot-enroll -> ../lib/iot-enroll/iot-enroll.pyz").startswith("l")
    units = ("iot-enroll.service", "iot-enroll.timer", "iot-enroll-retry.timer", "iot-enroll-status.service")
    assert files == {
        "/etc/iot-enroll.conf": "-rw-------",
        "/usr/lib/iot-enroll/iot-enroll.pyz": "-rwxr-xr-x",
        "/usr/lib/iot-enroll/after-run": "-rwxr-xr-x",
        "/usr/share/doc/iot-enroll/changelog.gz": "-rw-r--r--",
        "/usr/share/doc/iot-enroll/copyright": "-rw-r--r--",
        "/usr/share/doc/iot-enroll/device.md": "-rw-r--r--",
    } | {f"/usr/lib/systemd/system/{unit}": "-rw-r--r--" for unit in units}


def test_its_configuration_survives_an_upgrade(package: Path) -> None:
    assert dpkg_deb("--info", package, "conffiles") == "/etc/iot-enroll.conf\n"


def test_two_builds_are_one(package: Path, zipapp: Path, tmp_path: Path) -> None:
    assert packed(zipapp, tmp_path).read_bytes() == package.read_bytes()
