"""A real Mosquitto that admits by certificate, for tests and for ``make real``: started and ended by its pid.

The door as an operator would set it up before a broker that knows no leaf hashes: a client certificate is required,
the CN is the user name, a CRL is checked. Reloading the CRL refuses revoked certificates in the handshake of the next
connection; a live session stays until it is cut. An expired CRL refuses everyone.

    .venv/bin/python compose/real/mosquitto.py run FOLDER --ca CA.pem --crl CRL.pem --cert C.pem --key K.pem
"""

import argparse
import os
import pwd
import re
import shutil
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from compose.real.owned_process import (
    OwnedProcess,
    ServerFailed,
    answers,
    end_in_order_when_terminated,
    free_port,
    stay_until_interrupted,
)

_START_SECONDS = 15.0
_ATTEMPTS = 3
_RELOADED = "Reloading config."


@dataclass
class RealMosquitto:
    """One broker in ``folder``, on loopback; a context manager.

    ``ca``: PEM of the root that clients' chains must end in, with the CAs below it that clients do not send.
    ``crl``: PEM, the CRL of each CA that issues leaves (Mosquitto asks for none of the CAs above; a leaf of a CA
    without one is refused). ``certificate`` (with its chain, leaf first) and ``key``: the server's own, PEM.
    """

    folder: Path
    ca: Path
    crl: Path
    certificate: Path
    key: Path
    port: int = 0
    _process: OwnedProcess | None = field(default=None, repr=False)

    def start(self) -> int:
        """Start, wait until connections are accepted, return the port. A port lost to a race is chosen anew."""
        binary = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if binary is None:
            raise ServerFailed("Mosquitto is missing: run `compose/real/install.sh`")
        self.folder.mkdir(parents=True, exist_ok=True)
        fixed = self.port
        for attempt in range(1, _ATTEMPTS + 1):
            self.port = fixed or free_port()
            configuration = self.folder / "mosquitto.conf"
            configuration.write_text(self._configuration())
            command = [binary, "-c", str(configuration), "-v"]
            process = OwnedProcess("Mosquitto", command, self.folder / "mosquitto.log", self.folder)
            process.start()
            self._process = process
            try:
                process.wait_until(self._listening, _START_SECONDS)
            except ServerFailed:
                self.stop()
                if fixed or attempt == _ATTEMPTS or "Address already in use" not in process.output:
                    raise
            except BaseException:
                self.stop()
                raise
            else:
                return self.port
        raise AssertionError("unreachable")

    def reload(self) -> None:
        """Read the CRL file again (SIGHUP); returns when connections are judged by it."""
        process = self._started()
        before = process.output.count(_RELOADED)
        process.signal(signal.SIGHUP)
        # It reloads between two rounds of its one loop: what connects after the line meets the new CRL.
        process.wait_until(lambda: process.output.count(_RELOADED) > before and answers(self.port), _START_SECONDS)

    def stop(self) -> None:
        """End the process; nothing happens where none runs."""
        process, self._process = self._process, None
        if process is not None:
            process.stop()

    @property
    def pid(self) -> int:
        """The broker's process id."""
        return self._started().pid

    @property
    def log(self) -> str:
        """What the broker has logged: connects with their user name, refusals with OpenSSL's reason."""
        path = self.folder / "mosquitto.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _started(self) -> OwnedProcess:
        if self._process is None:
            raise ServerFailed("Mosquitto is not started")
        return self._process

    def _listening(self) -> bool:
        return re.search(r"mosquitto version \S+ running", self.log) is not None and answers(self.port)

    def _configuration(self) -> str:
        lines = {
            "listener": f"{self.port} 127.0.0.1",
            "cafile": self.ca.resolve(),
            "crlfile": self.crl.resolve(),
            "certfile": self.certificate.resolve(),
            "keyfile": self.key.resolve(),
            "tls_version": "tlsv1.2",
            "require_certificate": "true",
            "use_identity_as_username": "true",
            "allow_anonymous": "false",
            "persistence": "false",
            "log_dest": "stderr",
            # As root it would give up its rights and then not be able to read the 0600 files at a reload.
            "user": pwd.getpwuid(os.geteuid()).pw_name,
        }
        return "".join(f"{name} {value}\n" for name, value in lines.items())


def main() -> int:
    """``run FOLDER`` until interrupted."""
    parser = argparse.ArgumentParser(description="A real Mosquitto for tests.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run in the foreground until interrupted")
    run.add_argument("folder", type=Path)
    for name in ("ca", "crl", "cert", "key"):
        run.add_argument(f"--{name}", type=Path, required=True)
    run.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    try:
        with RealMosquitto(given.folder, given.ca, given.crl, given.cert, given.key, given.port) as broker:
            stay_until_interrupted(
                f"Mosquitto: mqtts://127.0.0.1:{broker.port} (kill -HUP {broker.pid} reloads the CRL)"
            )
    except ServerFailed as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    end_in_order_when_terminated()
    sys.exit(main())
