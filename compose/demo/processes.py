"""The processes of the demonstration: the bridge, and commands that are waited for. Each is ended by its own id."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from compose.demo.screen import Untrue

INTERRUPTS: Final = (signal.SIGINT, signal.SIGTERM)
BIN: Final = Path(sys.executable).parent
_OURS: Final = ("STEP_CA_", "THINGSBOARD_", "HAWKBIT_", "WG_", "BRIDGE_", "ENROLL_", "DEVICE_", "CERTS_DIR")
_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 15.0
_COMMAND_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Bridge:
    """A running bridge as its ready file describes it."""

    url: str
    root_sha256: str
    thingsboard_url: str
    hawkbit_url: str
    data: Path

    @property
    def operator_secret(self) -> str:
        """Password of the user ``iot-bridge`` at the stand-ins' REST interfaces."""
        return (self.data / "embedded" / "operator.secret").read_text(encoding="ascii").strip()


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that has ended."""

    status: int
    output: str
    errors: str

    @property
    def events(self) -> dict[str, dict[str, Any]]:
        """JSON Lines by their ``event``; of several, the last."""
        return {event["event"]: event for event in map(json.loads, self.output.splitlines())}


def outside_variables_removed() -> dict[str, str]:
    """Return this environment without anything that would point the demonstration at servers of yours."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}


@contextmanager
def bridge(folder: Path, variables: Mapping[str, str]) -> Iterator[Bridge]:
    """Run ``iot-bridge serve`` on a free port; end it when left.

    :raises Untrue: it ended or was not ready in time; the text holds the end of its log.
    """
    ready, log = folder / "ready.json", folder / "bridge.log"
    command: list[str | Path] = [BIN / "iot-bridge", "serve", "--port", "0"]
    command += ["--data", folder / "bridge", "--ready-file", ready]
    process = None
    try:
        with log.open("wb") as output, interrupts_held():
            # A session of its own: Ctrl-C at the terminal reaches us, and we end it in order.
            process = subprocess.Popen(
                command,
                env=outside_variables_removed() | dict(variables),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        yield _listening(process, ready)
    except Untrue as e:
        raise Untrue(f"{e}\n    {_tail(log)}") from e
    finally:
        _end(process)


def _listening(process: subprocess.Popen[bytes], ready: Path) -> Bridge:
    until(lambda: ready.exists() or process.poll() is not None, "the bridge to listen", _START_SECONDS)
    if process.poll() is not None:
        raise Untrue(f"iot-bridge serve ended with {process.returncode}")
    told = json.loads(ready.read_text(encoding="utf-8"))
    return Bridge(
        url=told["url"],
        root_sha256=told["root_sha256"],
        thingsboard_url=told["thingsboard_url"],
        hawkbit_url=told["hawkbit_url"],
        data=Path(told["data"]),
    )


def run(command: str, *arguments: str | Path, variables: Mapping[str, str] | None = None, cwd: Path) -> Ended:
    """Run a program of this installation to its end.

    :param variables: its whole environment; ``None``: ours without the variables of outside systems.
    :raises Untrue: it took more than a minute (and was killed).
    """
    argv = [BIN / command, *arguments]
    environment = outside_variables_removed() if variables is None else dict(variables)
    process = None
    try:
        with interrupts_held():
            process = subprocess.Popen(
                argv,
                env=environment,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        output, errors = process.communicate(timeout=_COMMAND_SECONDS)
    except subprocess.TimeoutExpired as e:
        raise Untrue(f"{_shown(command, arguments)} took more than {_COMMAND_SECONDS:g} s") from e
    finally:
        _end(process)
    return Ended(process.returncode, output, errors)


def succeeded(command: str, *arguments: str | Path, cwd: Path) -> Ended:
    """Run a program that must end with 0.

    :raises Untrue: it did not.
    """
    ended = run(command, *arguments, cwd=cwd)
    if ended.status != 0:
        raise Untrue(f"{_shown(command, arguments)} ended with {ended.status}: {ended.errors.strip()}")
    return ended


def until(true: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Return once ``true()`` is.

    :raises Untrue: it was not within ``seconds``.
    """
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise Untrue(f"waited {seconds:g} s for {what}")
        time.sleep(0.05)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold interrupts back while a process is being made: only one whose id is known can be ended."""
    came: list[int] = []
    before = {number: signal.signal(number, lambda which, _frame: came.append(which)) for number in INTERRUPTS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def _end(process: subprocess.Popen[bytes] | subprocess.Popen[str] | None) -> None:
    if process is None or process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(_STOP_SECONDS)


def _shown(command: str, arguments: Sequence[str | Path]) -> str:
    return " ".join([command, *map(str, arguments[:2])])


def _tail(log: Path) -> str:
    return "\n    ".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-8:])
