"""The observer's side: a bridge, devices, and what becomes of them."""

from __future__ import annotations

import secrets
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from tests.devicecrash.orders import Case, Order, Report
from tests.e2e.processes import Bridge, clean_environment
from tests.e2e.tenants import Tenant

_PROJECT = Path(__file__).resolve().parents[2]
RUNS = 4
"""So many runs a device may need after a death: one that repairs, and those that the table ends with "next run"."""


@dataclass
class Devices:
    """The server that forks a process for each order."""

    _server: subprocess.Popen[str]

    def run(self, order: Order) -> int:
        """Let the process live, or die; return its exit status, negative for a signal."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        order.case.report.unlink(missing_ok=True)
        self._server.stdin.write(order.line())
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def end_of(self, order: Order) -> Report:
        """Let the process live to its end and return what it tells."""
        assert self.run(order) == 0, order.case.log.read_text()
        return Report.read(order.case.report)


@contextmanager
def devices(log: Path) -> Iterator[Devices]:
    with log.open("wb") as errors:
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.devicecrash.victims"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=_PROJECT,
            env=clean_environment(),
        )
    with server:
        yield Devices(server)
        assert server.stdin is not None
        server.stdin.close()


@dataclass
class Device:
    """One device of one case: what it is told, and what lies on its flash."""

    field: Field
    order: Order

    @property
    def id(self) -> str:
        return self.order.device

    @property
    def case(self) -> Case:
        return self.order.case

    def live(self, act: str = "run", **changes: Any) -> Report:
        """Let it live to its end."""
        return self.field.devices.end_of(replace(self.order, act=act, **changes))

    def path(self, name: str) -> Path:
        return self.case.certs / name


@dataclass
class Registry:
    """What the bridge has stored, read past it."""

    path: Path

    def rows(self, statement: str, *given: Any) -> list[dict[str, Any]]:
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=10)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(statement, given)]

    def issuances(self, device: str) -> list[dict[str, Any]]:
        return self.rows("SELECT * FROM issuance WHERE device = ? ORDER BY epoch", device)

    def current(self, device: str) -> str | None:
        """Digest of the leaf that is current."""
        found = [one["leaf_sha256"] for one in self.issuances(device) if one["state"] == "current"]
        return found[0] if found else None

    def let_claims_expire(self, device: str) -> None:
        """Let the time pass (15 s and 60 s) for which nobody else takes up what a bridge that was killed had begun."""
        with closing(sqlite3.connect(self.path, timeout=10)) as connection, connection:
            connection.execute("UPDATE issuance SET deadline = 0 WHERE device = ? AND state = 'intent'", (device,))
            connection.execute("UPDATE link SET claimed_until = 0 WHERE device = ? AND claimed_by <> ''", (device,))

    def open_window(self, device: str) -> None:
        """An operator lets the id come with a new key: the row that `iot-bridge re-enroll` writes, written here."""
        (found,) = self.rows("SELECT generation FROM device WHERE id = ?", device)
        now = time.time_ns() // 1000
        row = {
            "device": device,
            "generation": found["generation"],
            "opened_by": "the test",
            "opened_at": now,
            "expires_at": now + 3_600_000_000,
            "compromised": False,
        }
        marks = ", ".join("?" * len(row))
        with closing(sqlite3.connect(self.path, timeout=10)) as connection, connection:
            connection.execute(f"INSERT INTO reenroll_window ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))


@dataclass
class Field:
    """A bridge and its devices."""

    tenant: Tenant
    devices: Devices
    folder: Path
    studied: dict[str, Report] = field(default_factory=dict)

    @property
    def bridge(self) -> Bridge:
        return self.tenant.bridge

    @property
    def registry(self) -> Registry:
        return Registry(self.bridge.data / "registry.sqlite")

    @cached_property
    def issuer(self) -> str:
        """SHA-256 of the tenant's issuing CA, which some devices pin too."""
        with self.bridge.client(self.tenant.root_pem) as http:
            first = http.get("/intermediates").raise_for_status().json()["crts"][0]
        return x509.load_pem_x509_certificate(first.encode()).fingerprint(hashes.SHA256()).hex()

    def device(self, *, outfit: bool = False) -> Device:
        """A device that was never started; its id is used nowhere else."""
        identity = f"d-{secrets.token_hex(5)}"
        root = self.bridge.ready["root_sha256"]
        issuer = self.issuer if outfit else None
        order = Order(str(self.folder / identity), identity, self.bridge.url, root, issuer=issuer, outfit=outfit)
        for folder in (order.case.networkd, order.case.updaters):
            folder.mkdir(parents=True)
        return Device(self, order)

    def study(self, name: str) -> Report:
        """Return what a scenario's act does, effect by effect, when nothing is in its way."""
        if name not in self.studied:
            from tests.devicecrash.scenarios import SCENARIOS  # noqa: PLC0415 - scenarios are told in terms of this

            device = SCENARIOS[name].before(self)
            self.studied[name] = device.live(SCENARIOS[name].act, study=True)
            self.forget(device)
        return self.studied[name]

    def forget(self, device: Device) -> None:
        """Make room: of a case that ended well nobody needs the files."""
        shutil.rmtree(device.case.folder)
