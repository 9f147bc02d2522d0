"""First boots of a minimal Debian: systemd as process 1, the .deb installed, the root read-only, one folder writable.

Nothing of this project runs in there but what the package installed; Python, cryptography, systemd and wireguard-tools
are Debian's. The servers are the real ones.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from compose.real.booted_debian import BootedDebian, installed
from tests.e2e.background import Background
from tests.e2e.broker import Mosquitto
from tests.e2e.crossing import crossing
from tests.e2e.processes import Device, wait_for
from tests.e2e.tenants import RealServers, Tenant

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

PROJECT = Path(__file__).resolve().parents[2]
STATE = "/var/lib/iot-enroll"
PRIVATE = {"device.key", "wg.key", "wg0.conf"}
FILES = PRIVATE | {"device.csr", "device.crt", "ca-chain.crt", "root.crt", "enrolled"}
UNIT, RETRY = "iot-enroll.service", "iot-enroll-retry.timer"
ASK_PAGE = """
import http.client, socket
page = http.client.HTTPConnection("localhost")
page.sock = socket.socket(socket.AF_UNIX)
page.sock.connect("/run/iot-enroll/status.sock")
page.request("GET", "/", headers={"Accept": "application/json"})
print(page.getresponse().read().decode())
"""
QUICK_RETRY = f"etc/systemd/system/{RETRY}.d/quick.conf"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package")
    scripts, zipapp = PROJECT / "packaging" / "agent", folder / "iot-enroll.pyz"
    for script, *options in (
        (scripts / "build_zipapp.py", "--output", zipapp),
        (scripts / "build_deb.py", "--zipapp", zipapp, "--output", folder),
    ):
        subprocess.run([sys.executable, script, *options], check=True, capture_output=True)
    (found,) = folder.glob("*.deb")
    return found


@pytest.fixture(scope="module")
def root(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image: what `dpkg` leaves behind, and a place to mount the writable folder at."""
    folder = installed(tmp_path_factory.mktemp("image") / "root", package)
    (folder / STATE.lstrip("/")).mkdir()
    return folder


@dataclass
class Board:
    """A device of which one folder survives a boot."""

    root: Path
    device: Device
    log: Path
    network_namespace: str | None = None
    told: dict[str, str] = field(default_factory=dict)

    def boot(self, **changed: str) -> BootedDebian:
        """Write the image's configuration and boot it."""
        self.device.folder.mkdir(exist_ok=True)
        known = {
            "BRIDGE_API_URL": self.device.url,
            "STEP_CA_FINGERPRINT": self.device.root_sha256,
            "DEVICE_ID": self.device.id,
            "ENROLL_TUNNEL": "none",
            "ENROLL_BUDGET": "30",
        }
        lines = [f"{name}={value}\n" for name, value in (known | self.told | changed).items()]
        (self.root / "etc" / "iot-enroll.conf").write_text("".join(lines))
        binds = {self.device.folder: STATE, Path("/dev/net/tun"): "/dev/net/tun"}
        return BootedDebian(self.root, binds, self.log, self.network_namespace)


@pytest.fixture
def board(root: Path, real: Tenant, tmp_path: Path) -> Iterator[Board]:
    yield Board(root, real.device("bare"), tmp_path / "console.log")
    (root / QUICK_RETRY).unlink(missing_ok=True)


@pytest.fixture
def mosquitto(servers: RealServers, tmp_path: Path) -> Iterator[Mosquitto]:
    made = Mosquitto(servers, tmp_path / "mosquitto")
    with made.broker:
        yield made


def outcome(debian: BootedDebian) -> tuple[str, str, int]:
    """State and result of the unit after its last run, and the agent's exit code."""
    told = debian.properties(UNIT, ["ActiveState", "Result", "ExecMainStatus"])
    return told["ActiveState"], told["Result"], int(told["ExecMainStatus"])


DONE, NOT_NOW = ("inactive", "success", 0), ("inactive", "success", 75)


def minutes_to_next_try(debian: BootedDebian) -> float | None:
    """How long systemd will wait, by its own list; `None` if no next try is planned."""
    listed = debian.run("systemctl", "list-timers", "--output=json", RETRY).stdout
    timers = json.loads(listed)
    if not timers:
        return None
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    shown = debian.properties(RETRY, ["NextElapseUSecMonotonic"])["NextElapseUSecMonotonic"]
    return (seconds(shown) - uptime) / 60


def seconds(shown: str) -> float:
    """Parse systemd's way to write a duration, as `1h 2min 3.5s`."""
    units = {"w": 604800, "d": 86400, "h": 3600, "min": 60, "s": 1, "ms": 0.001, "us": 0.000001}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)(min|ms|us|[wdhs])\b", shown))


def test_the_three_phases_of_a_first_boot_and_a_second_boot(
    board: Board, real: Tenant, servers: RealServers, mosquitto: Mosquitto, background: Background
) -> None:
    device, road = board.device, servers.tunnel
    board.network_namespace = road.client.namespace
    board.told = {"ENROLL_TUNNEL": "wg-quick"}
    ports = {int(found) for found in re.findall(r"localhost:(\d+)", device.url)} | {servers.thingsboard.mqtt_port}
    with ExitStack() as stack:
        background.enter(stack, crossing(road.client.namespace, ports))
        with board.boot() as debian:
            journal = debian.journal(UNIT)
            assert outcome(debian) == DONE, journal
            assert debian.run("systemctl", "is-system-running").stdout.strip() == "running"
            assert minutes_to_next_try(debian) is None
            status = json.loads(debian.run("env", f"CERTS_DIR={STATE}", "iot-enroll", "status", "--json").stdout)
            assert status["enrolled"] is True, status
            assert road.answers(road.client, road.pool.server_address), journal
            assert "handshake" in journal
            assert debian.run("systemctl", "start", "iot-enroll-status.service").returncode == 0
            page = wait_for(lambda: json.loads(debian.run("python3", "-c", ASK_PAGE).stdout or "null"))
            assert page["enrolled"] is True, page
            assert page["last_run"], page
            assert page["tunnel"]["handshake_age"] >= 0, page
        first = device.serial

        modes = {path.name: path.stat().st_mode & 0o777 for path in device.folder.iterdir() if path.is_file()}
        assert {name for name in modes if not name.startswith(".")} == FILES
        assert modes == {name: 0o600 if name in PRIVATE else 0o644 for name in modes}
        assert device.folder.stat().st_mode & 0o777 == 0o700
        content = {path.name: path.read_bytes() for path in device.folder.iterdir()}
        wait_for(lambda: real.eyes.hawkbit.target(device.id))
        published = mosquitto.publish(device)
        assert published.returncode == 0, (published.stderr, mosquitto.broker.log)

        with board.boot() as debian:
            assert outcome(debian) == DONE, debian.journal(UNIT)
            assert road.answers(road.client, road.pool.server_address)
    assert {path.name: path.read_bytes() for path in device.folder.iterdir()} == content
    assert [issued["serial"] for issued in real.bridge.show(device.id)["issuances"]] == [str(first)]


def test_a_device_that_is_not_admitted_yet_tries_again_by_itself(board: Board, real: Tenant) -> None:
    board.device = real.device("early", registered=False)
    board.told = {"ENROLL_BUDGET": "1"}

    with board.boot() as debian:
        assert outcome(debian) == NOT_NOW, debian.journal(UNIT)
        # Waiting is no failure; the next try is random, and never sooner than a quarter of an hour.
        assert debian.run("systemctl", "is-system-running").stdout.strip() == "running"
        wait = minutes_to_next_try(debian)
        assert wait is not None
        assert 14 < wait <= 30
    key = board.device.path("device.key").read_bytes()

    quick = board.root / QUICK_RETRY
    quick.parent.mkdir(exist_ok=True)
    quick.write_text("[Timer]\nOnActiveSec=\nOnActiveSec=500ms\nRandomizedDelaySec=500ms\nAccuracySec=10ms\n")
    with board.boot() as debian:
        wait_for(lambda: debian.journal(UNIT).count("Starting") >= 3, 60)
        real.bridge.order("device", "register", board.device.id)
        wait_for(board.device.path("enrolled").exists, 60)
        wait_for(lambda: outcome(debian) == DONE, 60)
        wait_for(lambda: minutes_to_next_try(debian) is None)
    assert board.device.path("device.key").read_bytes() == key


def test_a_lost_folder_waits_for_the_operator_and_becomes_generation_2(board: Board, real: Tenant) -> None:
    with board.boot() as debian:
        assert outcome(debian) == DONE, debian.journal(UNIT)
    serial = board.device.serial

    # The power fails before the answer is stored: the keys are there, so it is the same certificate.
    for name in FILES - {"device.key", "wg.key", "device.csr"}:
        board.device.path(name).unlink()
    with board.boot() as debian:
        assert outcome(debian) == DONE, debian.journal(UNIT)
    assert board.device.serial == serial

    # The storage is replaced: nobody can tell this device from a thief, but the operator.
    board.device = board.device.wiped()
    with board.boot(ENROLL_BUDGET="2") as debian:
        assert outcome(debian) == NOT_NOW, debian.journal(UNIT)
        assert "re-enroll" in debian.journal(UNIT)
    real.bridge.order("re-enroll", board.device.id)
    with board.boot() as debian:
        assert outcome(debian) == DONE, debian.journal(UNIT)
    assert board.device.serial != serial
    assert real.bridge.show(board.device.id)["generation"] == 2


def test_a_retired_device_stops_with_a_line_that_says_so(board: Board, real: Tenant) -> None:
    with board.boot() as debian:
        assert outcome(debian) == DONE, debian.journal(UNIT)
    ended = real.bridge.command("decommission", board.device.id, "--wait")
    assert ended.status == 0, ended.errors
    board.device = board.device.wiped()

    with board.boot() as debian:
        assert outcome(debian) == ("failed", "exit-code", 1), debian.journal(UNIT)
        assert "stopped for good" in debian.journal(UNIT)
        assert minutes_to_next_try(debian) is None
        assert failed(debian) == [UNIT]


def test_an_image_without_configuration_names_the_variable(board: Board) -> None:
    with board.boot(BRIDGE_API_URL="") as debian:
        assert outcome(debian) == ("failed", "exit-code", 2), debian.journal(UNIT)
        assert "BRIDGE_API_URL" in debian.journal(UNIT)
        assert "/etc/iot-enroll.conf" in debian.journal(UNIT)
        assert minutes_to_next_try(debian) is None
        assert failed(debian) == [UNIT]
    assert not board.device.path("device.key").exists()


def failed(debian: BootedDebian) -> list[str]:
    listed: list[dict[str, Any]] = json.loads(debian.run("systemctl", "--failed", "--output=json").stdout)
    return [one["unit"] for one in listed]
