"""The product as processes: `iot-bridge serve`, its commands, and `iot-enroll` with a folder of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
from cryptography import x509
from typer.testing import CliRunner

from bridge.app.serving import Serving, running
from bridge.cli import app
from bridge.cli.exits import code_of
from bridge.config import load
from bridge.errors import BridgeError

T = TypeVar("T")
BIN = Path(sys.executable).parent
OURS = ("STEP_CA_", "THINGSBOARD_", "HAWKBIT_", "WG_", "BRIDGE_", "ENROLL_", "DEVICE_", "CERTS_DIR", "XDG_")
START_SECONDS = 40.0
STOP_SECONDS = 20.0


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(OURS)}


def wait_for(look: Callable[[], T], seconds: float = 20.0) -> T:
    """Return what `look` returns once that is true; a failed assertion in it counts as not yet."""
    end = time.monotonic() + seconds
    while True:
        try:
            if found := look():
                return found
            assert found
        except AssertionError:
            if time.monotonic() > end:
                raise
        time.sleep(0.03)


@dataclass
class Ended:
    """A command that has ended."""

    status: int
    output: str
    errors: str

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.splitlines()]

    def event(self, name: str) -> dict[str, Any]:
        """The last event of this name."""
        found = [one for one in self.events if one["event"] == name]
        assert found, (self.output, self.errors)
        return found[-1]


def run(*command: str | Path, variables: Mapping[str, str], cwd: Path, seconds: float = 60.0) -> Ended:
    done = subprocess.run(
        [str(part) for part in command],
        env=clean_environment() | dict(variables),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def refused_start(folder: Path, variables: Mapping[str, str]) -> Ended:
    """Try to start a server in this process, which is quicker; it must refuse, and leave as its command would."""

    async def start() -> None:
        async with running(load(variables, bridge_data=folder / "data"), Serving(port=0)):
            pass

    try:
        asyncio.run(start())
    except BridgeError as e:
        return Ended(code_of(e), "", f"{e} {e.advice}")
    raise AssertionError("the server started")


@dataclass
class Bridge:
    """`iot-bridge serve` as a process, with its data in `folder`; a context manager."""

    folder: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    port: int = 0
    ready: dict[str, Any] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def url(self) -> str:
        return str(self.ready["url"])

    @property
    def log(self) -> str:
        path = self.folder / "bridge.log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        ready = self.folder / "ready.json"
        command = [BIN / "iot-bridge", "serve", "--port", str(self.port), "--data", self.data, "--ready-file", ready]
        with (self.folder / "bridge.log").open("ab") as log:
            self._process = process = subprocess.Popen(
                command,
                env=clean_environment() | dict(self.variables),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            wait_for(lambda: ready.exists() or process.poll() is not None, START_SECONDS)
            assert process.poll() is None, self.log[-3000:]
            self.ready = json.loads(ready.read_text())
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> int | None:
        """End it with SIGTERM; return its exit code."""
        process, self._process = self._process, None
        if process is None:
            return None
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_SECONDS)
            raise

    def kill(self) -> None:
        """End it with SIGKILL: what it announced stays behind, as on a loss of power, and is taken away."""
        process, self._process = self._process, None
        assert process is not None
        process.kill()
        process.wait(STOP_SECONDS)
        (self.folder / "ready.json").unlink()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def command(self, *arguments: str) -> Ended:
        """Run `iot-bridge` as a process of its own."""
        data = ("--data", self.data)
        return run(BIN / "iot-bridge", *arguments, *data, variables=self.variables, cwd=self.folder)

    def order(self, *arguments: str) -> Any:
        """Run `iot-bridge … --json` in this process, which is quicker; it has to succeed."""
        cleared: dict[str, str | None] = dict.fromkeys(name for name in os.environ if name.startswith(OURS))
        given = [*arguments, "--json", "--data", str(self.data)]
        done = CliRunner().invoke(app, given, env=cleared | dict(self.variables), catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    def show(self, device: str) -> dict[str, Any]:
        shown: dict[str, Any] = self.order("device", "show", device)
        return shown

    def client(self, root_pem: str) -> httpx.Client:
        trust = ssl.create_default_context(cadata=root_pem)
        return httpx.Client(base_url=self.url, verify=trust, trust_env=False, timeout=30)


@dataclass
class Device:
    """`iot-enroll` with a folder of its own. It knows the bridge's URL, the root's fingerprint and its id."""

    id: str
    folder: Path
    url: str
    root_sha256: str

    def run(self, *, budget: int = 30, **variables: str) -> Ended:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        known = {
            "BRIDGE_API_URL": self.url,
            "STEP_CA_FINGERPRINT": self.root_sha256,
            "DEVICE_ID": self.id,
            "CERTS_DIR": str(self.folder),
            "ENROLL_TUNNEL": "none",
            "ENROLL_BUDGET": str(budget),
        }
        return run(BIN / "iot-enroll", "run", "--json", variables=known | variables, cwd=self.folder)

    def path(self, name: str) -> Path:
        return self.folder / name

    @property
    def leaf(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.path("device.crt").read_bytes())

    @property
    def serial(self) -> int:
        return self.leaf.serial_number

    def write_chain(self) -> Path:
        """Write leaf and issuers into one file, as servers are shown them."""
        path = self.folder.with_name("shown.pem")
        path.write_bytes(self.path("device.crt").read_bytes() + self.path("ca-chain.crt").read_bytes())
        return path

    def wiped(self) -> Device:
        """The same device after a factory reset: another folder, so other keys."""
        return Device(self.id, self.folder.with_name(f"{self.folder.name}-wiped"), self.url, self.root_sha256)
