"""A real Mosquitto that admits whom step-ca certified and did not revoke."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ca.standin.signing import Signer
from compose.real.mosquitto import RealMosquitto
from tests.e2e.processes import Device
from tests.e2e.tenants import RealServers, write_server_certificate


class Mosquitto:
    """A broker that admits whom step-ca certified and did not revoke."""

    def __init__(self, servers: RealServers, folder: Path) -> None:
        self._servers = servers
        pki = servers.ca.hierarchy
        folder.mkdir()
        anchors, self._crl = folder / "ca.pem", folder / "crl.pem"
        anchors.write_bytes(pki.issuing.pem + pki.intermediate.pem + pki.root.pem)
        self._crl.write_bytes(servers.crl_pem())
        certificate, key = write_server_certificate(Signer(pki), folder)
        self.broker = RealMosquitto(folder, anchors, self._crl, certificate, key)

    def read_crl_again(self) -> None:
        self._crl.write_bytes(self._servers.crl_pem())
        self.broker.reload()

    def publish(self, device: Device) -> subprocess.CompletedProcess[str]:
        """Publish with `mosquitto_pub` and what lies in the device's folder."""
        shown = device.write_chain()
        command = ["mosquitto_pub", "-h", "localhost", "-p", str(self.broker.port), "-i", device.id, "-q", "1"]
        command += ["--cafile", str(device.path("root.crt")), "--cert", str(shown)]
        command += ["--key", str(device.path("device.key")), "-t", "v1/devices/me/telemetry", "-m", "{}"]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
