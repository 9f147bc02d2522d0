"""The processes under load: the bridge, in front of a real step-ca or embedded, and the sync beside an interface."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compose.real.step_ca import RealStepCa

_TICK = os.sysconf("SC_CLK_TCK")
_KEPT = {"PATH", "HOME", "LANG"}
VPN = {
    "WG_SUBNET": "10.64.0.0/10",
    "WG_SERVER_ENDPOINT": "vpn.example.com:51820",
    "WG_SERVER_PUBLIC_KEY": "2Bk3gPBEvXyKGkr2Ie5ZFxvBD7pFDIvUxUVBLQ1vEFk=",
}
SECRET = "benchmark"


class Bridge:
    """``iot-bridge serve``: HTTPS, SQLite, one process, every device admitted."""

    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        folder.mkdir()
        self._log = folder / "bridge.log"
        ready = folder / "ready.json"
        environment = {**_kept(), "BRIDGE_ADMISSION": "open"}
        command = [sys.executable, "-m", "bridge", "serve", "--data", str(folder / "data"), "--port", "0"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "--ready-file", str(ready)], env={**environment, **variables}, stdout=log, stderr=log
            )
        told = self._await(ready)
        self.url, self._root_sha256 = str(told["url"]), str(told["root_sha256"])

    def variables(self) -> dict[str, str]:
        """Return the environment of a device that enrolls here, but for its id and its folder."""
        return {
            **_kept(),
            "BRIDGE_API_URL": self.url,
            "STEP_CA_FINGERPRINT": self._root_sha256,
            "ENROLL_TUNNEL": "none",
            "ENROLL_INVENTORY": "off",
        }

    def _await(self, ready: Path) -> dict[str, Any]:
        end = time.monotonic() + 60
        while time.monotonic() < end and self._process.poll() is None:
            if ready.exists():
                found: dict[str, Any] = json.loads(ready.read_text())
                return found
            time.sleep(0.05)
        raise SystemExit("the bridge did not start:\n" + self._log.read_text())

    def cpu(self) -> float:
        """Seconds of CPU used so far, by all threads."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK

    def memory(self) -> float:
        """Resident memory in MiB."""
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        return 0.0

    def stop(self) -> None:
        """End it as an operator would."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(20)


def _kept() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name in _KEPT}


def _strict(ca: RealStepCa) -> dict[str, str]:
    return {
        "STEP_CA_URL": ca.url,
        "STEP_CA_FINGERPRINT": ca.fingerprint.value,
        "STEP_CA_PROVISIONER_NAME": ca.device_provisioner,
        "STEP_CA_PROVISIONER_PASSWORD": ca.password,
        "STEP_CA_SERVER_PROVISIONER_NAME": ca.server_provisioner,
        "STEP_CA_SERVER_PROVISIONER_PASSWORD": ca.password,
        "BRIDGE_PUBLIC_HOST": "localhost",
        "BRIDGE_WEBHOOK_SECRET": SECRET,
    }


@contextmanager
def embedded(folder: Path) -> Iterator[Bridge]:
    """Run the bridge with stand-ins of all systems inside."""
    started = Bridge(folder, {})
    try:
        yield started
    finally:
        started.stop()


@contextmanager
def bridge(folder: Path, ca: RealStepCa, *, vpn: bool) -> Iterator[Bridge]:
    """Run the bridge in front of a step-ca; with a VPN also the sync that a WireGuard server would run."""
    shared = folder / "wg-data"
    started = Bridge(folder, _strict(ca) | (VPN | {"WG_DATA_DIR": str(shared)} if vpn else {}))
    sync = None
    if vpn:
        script = Path(__file__).with_name("interface.py")
        sync = subprocess.Popen([sys.executable, str(script), str(shared)])
    try:
        yield started
    finally:
        started.stop()
        if sync is not None:
            sync.terminate()
            sync.wait(10)
