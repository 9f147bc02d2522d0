# ruff: noqa: S310 - a script: it starts go and step-ca, asks loopback, prints
"""A real step-ca 0.30.2 for tests and for ``make real``: installed, configured, started, ended by its process id.

Everything lives in a folder of its own, on loopback, on a free port. The PKI and the provisioners' keys are made
here; templates and claims are the ones that the product gives to operators (``ca.template``).

    .venv/bin/python compose/real/step_ca.py install
    .venv/bin/python compose/real/step_ca.py run .real/data/step-ca

Needs Go 1.21 or newer (newer toolchains come through Go's module proxy); no root.
"""

import argparse
import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

from ca.models import Fingerprint, TrustAnchor
from ca.standin.files import private_folder, write_private
from ca.standin.hierarchy import Hierarchy, load_or_make
from ca.standin.provisioners import NewProvisioner, new_provisioner
from ca.template import device_template, provisioner_entry, server_template

VERSION = "v0.30.2"
PACKAGE = f"github.com/smallstep/certificates/cmd/step-ca@{VERSION}"
PROJECT = Path(__file__).resolve().parents[2]
BIN = PROJECT / ".real" / "bin"

DEVICE_PROVISIONER = "iot-bridge"
SERVER_PROVISIONER = "iot-bridge-server"
PLAIN_PROVISIONER = "plain"
KEYLESS_PROVISIONER = "keyless"
PASSWORD = "only for tests and demonstrations"  # noqa: S105 - of a CA on loopback whose keys lie beside it
CRL_URL = "https://localhost/1.0/crl"
"""What step-ca writes into its CRL as distribution point: the first of ``dnsNames``, without the port."""
SERVER_NAMES = ("localhost", "bridge.example.com")

_START_SECONDS = 30.0
_STOP_SECONDS = 10.0


class StepCaFailed(Exception):
    """step-ca could not be installed or started; the text says what to do."""


def install() -> Path:
    """Return the step-ca binary, building it first where it is missing (two minutes cold)."""
    binary = BIN / "step-ca"
    if binary.exists():
        return binary
    BIN.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"CGO_ENABLED": "0", "GOBIN": str(BIN)}
    try:
        subprocess.run(["go", "install", PACKAGE], env=environment, check=True)
    except FileNotFoundError as error:
        raise StepCaFailed("step-ca is built with Go: install Go 1.21 or newer and put `go` on PATH") from error
    except subprocess.CalledProcessError as error:
        raise StepCaFailed(f"`go install {PACKAGE}` failed with {error.returncode}; its output says why") from error
    return binary


@dataclass
class RealStepCa:
    """One step-ca in ``folder``: ``start()`` returns once it is healthy, ``stop()`` ends it.

    A second start with the same folder keeps PKI, provisioners, revocations and used tokens. ``anchor``, ``url`` and
    ``provisioners`` (by name) are set by ``start``. ``extra_provisioners`` adds that many unused ones, so that the
    list has several pages.
    """

    folder: Path
    extra_provisioners: int = 0
    port: int = 0
    crl: bool = True
    url: str = ""
    provisioners: dict[str, NewProvisioner] = field(default_factory=dict)
    password: str = PASSWORD
    device_provisioner: str = DEVICE_PROVISIONER
    server_provisioner: str = SERVER_PROVISIONER
    _hierarchy: Hierarchy | None = None
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        """Install if needed, write ca.json, start, wait until healthy; return the URL."""
        binary = install()
        private_folder(self.folder)
        self._hierarchy = load_or_make(self.folder / "pki", datetime.now(UTC))
        self._load_provisioners()
        self.port = self.port or _free_port()
        self.url = f"https://localhost:{self.port}"
        write_private(self.folder / "ca.json", json.dumps(self._configuration(), indent=2).encode())
        with (self.folder / "step-ca.log").open("ab") as log:
            self._process = subprocess.Popen(
                [binary, self.folder / "ca.json"], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            self._wait_healthy()
        except BaseException:
            self.stop()
            raise
        return self.url

    def stop(self) -> None:
        """End the process; nothing happens where none runs."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_STOP_SECONDS)

    @property
    def hierarchy(self) -> Hierarchy:
        """The three CAs with their keys."""
        if self._hierarchy is None:
            raise StepCaFailed("start() first")
        return self._hierarchy

    @property
    def anchor(self) -> TrustAnchor:
        """What a client trusts."""
        return self.hierarchy.anchor

    @property
    def fingerprint(self) -> Fingerprint:
        """The root's fingerprint."""
        return self.anchor.root_fingerprint

    @property
    def log(self) -> str:
        """step-ca's own log: the causes that its answers keep to themselves."""
        return (self.folder / "step-ca.log").read_text(errors="replace")

    def _load_provisioners(self) -> None:
        path = self.folder / "provisioners.json"
        if path.exists():
            kept = json.loads(path.read_text())
            self.provisioners = {item["name"]: NewProvisioner(**item) for item in kept}
            return
        names = [DEVICE_PROVISIONER, SERVER_PROVISIONER, PLAIN_PROVISIONER, KEYLESS_PROVISIONER]
        made = [new_provisioner(name, PASSWORD) for name in names]
        self.provisioners = {item.name: item for item in made}
        plain = [{"name": p.name, "public_jwk": dict(p.public_jwk), "encrypted_key": p.encrypted_key} for p in made]
        write_private(path, json.dumps(plain).encode())

    def _entries(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = [
            {
                "type": "JWK",
                "name": f"unused-{n}",
                "key": dict(new_provisioner("x", "x", iterations=1000).public_jwk),
            }
            for n in range(self.extra_provisioners)
        ]
        templates = {DEVICE_PROVISIONER: device_template(CRL_URL), SERVER_PROVISIONER: server_template(SERVER_NAMES)}
        for name, template in templates.items():
            made = self.provisioners[name]
            entry = provisioner_entry(name, made.public_jwk, template, encrypted_key=made.encrypted_key)
            entries.append(entry)
        plain = self.provisioners[PLAIN_PROVISIONER]
        keyless = self.provisioners[KEYLESS_PROVISIONER]
        entries.append(
            {
                "type": "JWK",
                "name": PLAIN_PROVISIONER,
                "key": dict(plain.public_jwk),
                "encryptedKey": plain.encrypted_key,
            }
        )
        entries.append(provisioner_entry(KEYLESS_PROVISIONER, keyless.public_jwk, device_template()))
        return entries

    def _configuration(self) -> dict[str, Any]:
        pki = self.hierarchy
        files = {
            "root.crt": pki.root.pem,
            "chain.crt": pki.issuing.pem + pki.intermediate.pem,
            "issuing.key": pki.issuing.key_pem,
        }
        for name, content in files.items():
            write_private(self.folder / name, content)
        configuration: dict[str, Any] = {
            "root": str(self.folder / "root.crt"),
            "crt": str(self.folder / "chain.crt"),
            "key": str(self.folder / "issuing.key"),
            "address": f"127.0.0.1:{self.port}",
            "dnsNames": ["localhost", "127.0.0.1"],
            "logger": {"format": "json"},
            "db": {"type": "badgerv2", "dataSource": str(self.folder / "db")},
            "authority": {"provisioners": self._entries()},
            "tls": {"minVersion": 1.2, "maxVersion": 1.3},
        }
        if self.crl:
            configuration["crl"] = {"enabled": True, "generateOnRevoke": True}
        return configuration

    def _wait_healthy(self) -> None:
        context = ssl.create_default_context(cafile=str(self.folder / "root.crt"))
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                raise StepCaFailed(f"step-ca ended at once:\n{self.log[-2000:]}")
            with contextlib.suppress(OSError), self._health(context) as answer:
                if json.load(answer).get("status") == "ok":
                    return
            time.sleep(0.05)
        raise StepCaFailed(f"step-ca was not healthy within {_START_SECONDS:.0f} s:\n{self.log[-2000:]}")

    def _health(self, context: ssl.SSLContext) -> HTTPResponse:
        answer: HTTPResponse = urllib.request.urlopen(f"{self.url}/health", timeout=2, context=context)
        return answer


@contextlib.contextmanager
def real_step_ca(folder: Path, *, extra_provisioners: int = 0, crl: bool = True) -> Iterator[RealStepCa]:
    """Start a step-ca in ``folder``, give it to the block, end it."""
    server = RealStepCa(folder, extra_provisioners=extra_provisioners, crl=crl)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> int:
    """``install``, or ``run FOLDER`` in the foreground until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description="A real step-ca for tests and for `make real`.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("install", help="build step-ca into .real/bin")
    run = commands.add_parser("run", help="run one in the foreground")
    run.add_argument("folder", type=Path)
    run.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    try:
        if arguments.command == "install":
            print(install())
            return 0
        return _run(RealStepCa(arguments.folder.resolve(), port=arguments.port))
    except StepCaFailed as error:
        print(error, file=sys.stderr)
        return 1


def _run(server: RealStepCa) -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server.start()
    try:
        print(
            f"STEP_CA_URL={server.url}",
            f"STEP_CA_FINGERPRINT={server.fingerprint}",
            f"STEP_CA_PROVISIONER_NAME={DEVICE_PROVISIONER}",
            f"STEP_CA_PROVISIONER_PASSWORD='{PASSWORD}'",
            f"STEP_CA_SERVER_PROVISIONER_NAME={SERVER_PROVISIONER}",
            f"STEP_CA_SERVER_PROVISIONER_PASSWORD='{PASSWORD}'",
            sep="\n",
            flush=True,
        )
        signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
