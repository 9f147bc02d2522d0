"""A real hawkBit 0.3.0M7 for tests and for ``make real``: built from Maven Central, started, ended by its pid.

    .venv/bin/python compose/real/hawkbit_server.py build
    .venv/bin/python compose/real/hawkbit_server.py run .real/data/hawkbit

Needs a JDK (17) and Maven; no root. The build takes about a minute and 82 MB in ``~/.m2`` the first time, the server
is ready in about 11 s and takes 290 MB. State is in memory: it is gone when the process ends.
Users (for tests, loopback only): admin/admin, bridge/bridge (targets and metadata), reader/reader.
"""

import argparse
import base64
import contextlib
import fcntl
import hashlib
import http.client
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from compose.real.owned_process import (
    OwnedProcess,
    ServerFailed,
    end_in_order_when_terminated,
    stay_until_interrupted,
)

PROJECT = Path(__file__).resolve().parents[2]
SOURCE = Path(__file__).resolve().parent / "hawkbit"
OUTPUT = PROJECT / ".real" / "hawkbit"
ADMIN = ("admin", "admin")
BRIDGE = ("bridge", "bridge")
READER = ("reader", "reader")

_JAVA = ("java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx256m")
_START_SECONDS = 90.0
_LISTENING = re.compile(r"started on port\(s\):? (\d+)")


def build() -> Path:
    """Return the jar, building it where it is missing or older than its sources. Safe beside other builders."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    jar, stamp, wanted = OUTPUT / "hawkbit.jar", OUTPUT / "built-from", _digest()
    with (OUTPUT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if jar.exists() and stamp.exists() and stamp.read_text() == wanted:
            return jar
        if shutil.which("mvn") is None or shutil.which("java") is None:
            raise ServerFailed("hawkBit is built with Maven and Java 17: run `compose/real/install.sh`")
        command = ["mvn", "-B", "-ntp", "package", f"-Doutput={OUTPUT}"]
        finished = subprocess.run(command, cwd=SOURCE, capture_output=True, text=True, check=False)
        if finished.returncode != 0:
            tail = "\n".join(finished.stdout.splitlines()[-25:])
            raise ServerFailed(f"`{' '.join(command)}` in {SOURCE} failed:\n{tail}")
        stamp.write_text(wanted)
    return jar


@dataclass
class RealHawkbit:
    """One hawkBit in ``folder``: ``start()`` returns once it answers, ``stop()`` ends it. A context manager.

    ``options`` are properties of hawkBit's, for example
    ``hawkbit.server.ddi.security.authentication.targettoken.enabled=true``.
    """

    folder: Path
    options: Sequence[str] = ()
    port: int = 0
    url: str = ""
    _process: OwnedProcess | None = field(default=None, repr=False)

    def start(self) -> str:
        """Build if needed, start on a free loopback port, wait until it answers; return the URL."""
        jar = build()
        scratch = self.folder / "tmp"
        scratch.mkdir(parents=True, exist_ok=True)
        command = [*_JAVA, f"-Djava.io.tmpdir={scratch.resolve()}", "-jar", str(jar), f"--server.port={self.port}"]
        process = OwnedProcess(
            "hawkBit", [*command, *(f"--{option}" for option in self.options)], self.folder / "hawkbit.log", self.folder
        )
        process.start()
        self._process = process
        try:
            process.wait_until(self._ready, _START_SECONDS)
        except BaseException:
            self.stop()
            raise
        self.url = f"http://127.0.0.1:{self.port}"
        return self.url

    def stop(self) -> None:
        """End the process; nothing happens where none runs."""
        process, self._process = self._process, None
        if process is not None:
            process.stop()

    @property
    def log(self) -> str:
        """What this hawkBit has logged."""
        path = self.folder / "hawkbit.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _ready(self) -> bool:
        listening = _LISTENING.search(self.log)
        if listening is None:
            return False
        self.port = int(listening[1])
        secret = base64.b64encode(":".join(ADMIN).encode()).decode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        with contextlib.closing(connection), contextlib.suppress(OSError):
            connection.request("GET", "/rest/v1/targets?limit=1", headers={"Authorization": f"Basic {secret}"})
            return connection.getresponse().status == http.client.OK
        return False


def _digest() -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in SOURCE.rglob("*") if path.is_file()):
        digest.update(str(path.relative_to(SOURCE)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def main() -> int:
    """``build``, or ``run FOLDER`` until interrupted."""
    parser = argparse.ArgumentParser(description="A real hawkBit for tests.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="build the jar into .real/hawkbit")
    run = commands.add_parser("run", help="run in the foreground until interrupted")
    run.add_argument("folder", type=Path)
    run.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    try:
        if arguments.command == "build":
            print(build())
            return 0
        with RealHawkbit(arguments.folder, port=arguments.port) as server:
            stay_until_interrupted(f"hawkBit: {server.url} (admin/admin, bridge/bridge, reader/reader)")
    except ServerFailed as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    end_in_order_when_terminated()
    sys.exit(main())
