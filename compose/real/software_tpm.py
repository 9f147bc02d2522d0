"""A TPM 2.0 in software with a resource manager before it, for tests: started and ended by its pids.

swtpm is the TPM; tpm2-abrmd lets several processes use it, on a message bus of its own. `environment` is what a
process needs to find it.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from compose.real.owned_process import OwnedProcess, ServerFailed, answers, free_port

_START_SECONDS = 20.0
_ATTEMPTS = 5


@dataclass
class SoftwareTpm:
    """One TPM with its state in ``folder``: the same folder is the same TPM again. A context manager."""

    folder: Path
    _bus: tempfile.TemporaryDirectory[str] | None = None
    _processes: list[OwnedProcess] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """Variables by which tpm2-openssl and tpm2-tools find this TPM."""
        way = "tabrmd:bus_type=session"
        return {"DBUS_SESSION_BUS_ADDRESS": self._address, "TPM2OPENSSL_TCTI": way, "TPM2TOOLS_TCTI": way}

    def start(self) -> None:
        """Start the TPM, the bus and the resource manager; return when it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # The path of a socket has to be short.
        self._bus = tempfile.TemporaryDirectory(prefix="tpm")
        try:
            port = self._start_tpm()
            self._run("dbus-daemon", "--session", "--nofork", "--nopidfile", f"--address={self._address}")
            self._processes[-1].wait_until(self._bus_answers, _START_SECONDS)
            tcti = f"--tcti=swtpm:host=127.0.0.1,port={port}"
            self._run("tpm2-abrmd", "--session", "--allow-root", tcti)
            self._processes[-1].wait_until(self._tpm_answers, _START_SECONDS)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the three processes, the last first; the state stays in the folder."""
        while self._processes:
            self._processes.pop().stop()
        if self._bus is not None:
            self._bus.cleanup()
            self._bus = None

    def clear(self) -> None:
        """Let the TPM forget everything it ever wrapped, as a new owner does."""
        self._tool("tpm2_clear")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def _address(self) -> str:
        if self._bus is None:
            raise ServerFailed("the TPM is not started")
        return f"unix:path={self._bus.name}/bus"

    def _start_tpm(self) -> int:
        """Start swtpm on two neighbouring ports; a race for them is run again."""
        for attempt in range(1, _ATTEMPTS + 1):
            port = free_port()
            server = ("--server", f"type=tcp,port={port}", "--ctrl", f"type=tcp,port={port + 1}")
            state = ("--tpmstate", f"dir={self.folder}", "--flags", "not-need-init,startup-clear")
            self._run("swtpm", "socket", "--tpm2", *server, *state)
            try:
                # The TPM takes one connection at a time; the control port is as good a sign of life.
                self._processes[-1].wait_until(lambda port=port: answers(port + 1), _START_SECONDS)  # type: ignore[misc]
            except ServerFailed:
                self._processes.pop().stop()
                if attempt == _ATTEMPTS:
                    raise
            else:
                return port
        raise AssertionError("unreachable")

    def _run(self, program: str, *arguments: str) -> None:
        binary = shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
        if binary is None:
            raise ServerFailed(f"{program} is missing: run `compose/real/install.sh`")
        environment = {"DBUS_SESSION_BUS_ADDRESS": self._address}
        log = self.folder / f"{program}.log"
        process = OwnedProcess(program, [binary, *arguments], log, self.folder, environment=environment)
        process.start()
        self._processes.append(process)

    def _bus_answers(self) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(self._address.removeprefix("unix:path="))
            return True
        return False

    def _tpm_answers(self) -> bool:
        with contextlib.suppress(subprocess.CalledProcessError):
            self._tool("tpm2_getrandom", "--hex", "4")
            return True
        return False

    def _tool(self, *command: str) -> None:
        try:
            subprocess.run(command, env=os.environ | self.environment, capture_output=True, check=True, timeout=60)
        except FileNotFoundError as e:
            raise ServerFailed("tpm2-tools is missing: run `compose/real/install.sh`") from e
