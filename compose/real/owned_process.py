"""A server process that is ours: started, waited for, signalled and ended by its own pid, never by a name."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_STOP_SECONDS = 15.0
_LOOK_SECONDS = 0.05


class ServerFailed(Exception):
    """A real server is missing, could not be built or did not start; the text says what to do."""


@dataclass
class OwnedProcess:
    """One child process whose output goes to ``log``. Not started by construction."""

    name: str
    command: Sequence[str | Path]
    log: Path
    folder: Path
    user: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_signal: signal.Signals = signal.SIGTERM
    _process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id, while it is started."""
        if self._process is None:
            raise ServerFailed(f"{self.name} is not started")
        return self._process.pid

    @property
    def output(self) -> str:
        """All that the process has written."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def start(self) -> None:
        """Start with an empty log."""
        identity = {"user": self.user, "group": self.user, "extra_groups": ()} if self.user else {}
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(part) for part in self.command],
                cwd=self.folder,
                env=os.environ | dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # an interrupt at the terminal reaches us, and we end it in order
                **identity,  # type: ignore[call-overload]
            )

    def wait_until(self, ready: Callable[[], bool], seconds: float) -> None:
        """Return once ``ready()``; raise ServerFailed with the end of the log if it ends or takes too long."""
        deadline = time.monotonic() + seconds
        while not ready():
            if self._process is None or self._process.poll() is not None:
                raise ServerFailed(f"{self.name} ended while it started:\n{self._tail()}")
            if time.monotonic() > deadline:
                raise ServerFailed(f"{self.name} was not ready within {seconds:g} s:\n{self._tail()}")
            time.sleep(_LOOK_SECONDS)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to this process alone."""
        os.kill(self.pid, number)

    def stop(self) -> None:
        """End the process, by force if it does not listen; nothing happens where none runs."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(self.stop_signal)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_STOP_SECONDS)

    def _tail(self) -> str:
        return "\n".join(self.output.splitlines()[-20:])


def stay_until_interrupted(announcement: str) -> None:
    """Print a line and stay until SIGINT or SIGTERM; both end this as KeyboardInterrupt does."""
    print(announcement, flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            signal.pause()


def end_in_order_when_terminated() -> None:
    """Let SIGTERM unwind the stack as SIGINT does, so that ``with`` blocks end what they started."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def free_port() -> int:
    """A loopback port that nothing used a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(port: int) -> bool:
    """Whether something accepts connections on the loopback port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
