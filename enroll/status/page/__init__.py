"""The local status page: what ``iot-enroll status`` tells, to whoever asks on this machine.

Responsible for one address on which ``GET /`` answers the state on disk, the last run, and the age of the tunnel's
handshake, as text or JSON. Read-only: it takes no other request, reads no body, and has nothing secret to tell. One
connection at a time, each bounded in size and time.

Not responsible for what the state is (``enroll.status.report``), and no part of the agent's work depends on it.
"""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from enroll.errors import EnrollError
from enroll.status import lastrun
from enroll.status.page.conversation import Answer, converse, refusal
from enroll.status.page.listening import listening_on
from enroll.trust.clock import Clock, SystemClock
from enroll.tunnel.interface import show
from enroll.tunnel.machine import LinuxMachine, Machine

_FRESH_SECONDS: Final = 1.0
_LOOKS: Final = 0.1


def serve(
    address: str,
    folder: Path,
    run_dir: Path | None,
    interface: str = "wg0",
    *,
    machine: Machine | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Answer until ``stop`` is set, or the process is told to end.

    :param address: ``unix:/path`` (mode 0660; a socket that a dead process left is replaced), or a port of the loopback
        interface: ``127.0.0.1:8081``, ``[::1]:8081``, ``localhost:8081``.
    :param stop: looked at ten times a second; without it, nothing wakes the process but a request.
    :raises ConfigurationError: another address, or one that cannot be had.
    """
    page = _Page(folder, run_dir, interface, SystemClock(), machine or LinuxMachine())
    with _ended_by_signal(), listening_on(address) as listening:
        listening.settimeout(None if stop is None else _LOOKS)
        while stop is None or not stop.is_set():
            try:
                connection, _ = listening.accept()
            except TimeoutError:
                continue
            except OSError:  # the other side has gone already, or there is no descriptor left
                time.sleep(_LOOKS)
                continue
            with connection:
                converse(connection, page.answer)


@contextlib.contextmanager
def _ended_by_signal() -> Iterator[None]:
    """Let SIGTERM end the process in order, so that the socket's file goes away."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(_number: int, _frame: object) -> None:
        raise SystemExit(0)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Page:
    """What is answered; made anew at most once a second."""

    def __init__(self, folder: Path, run_dir: Path | None, interface: str, clock: Clock, machine: Machine) -> None:
        self._folder, self._run_dir, self._interface = folder, run_dir, interface
        self._clock, self._machine = clock, machine
        self._made: tuple[float, Answer, Answer] | None = None

    def answer(self, headers: Mapping[str, str]) -> Answer:
        """Return the page as the ``Accept`` header wants it."""
        now = self._clock.monotonic()
        if self._made is None or not 0 <= now - self._made[0] < _FRESH_SECONDS:
            try:
                self._made = (now, *self._make())
            except Exception:  # noqa: BLE001 - a page that cannot be made must not end the server
                return refusal(HTTPStatus.INTERNAL_SERVER_ERROR)
        _, as_text, as_json = self._made
        return as_json if "application/json" in headers.get("accept", "") else as_text

    def _make(self) -> tuple[Answer, Answer]:
        from enroll.status.report import inspect  # noqa: PLC0415 - loads cryptography; a wrong address is told before

        last, tunnel = lastrun.read(self._run_dir), self._tunnel()
        try:
            status = inspect(self._folder, self._clock.now())
            facts, sentences = status.to_json(), status.sentences()
        except EnrollError as e:
            facts, sentences = {"folder": str(self._folder), "enrolled": False, "why": str(e)}, [str(e)]
        document = {**facts, "last_run": last.to_json() if last else None, "tunnel": tunnel}
        age = tunnel["handshake_age"]
        shown = "no handshake known" if age is None else f"last handshake {age} s ago"
        lines = [*sentences, *([last.sentence()] if last else []), f"tunnel {self._interface}: {shown}"]
        body = json.dumps(document).encode() + b"\n"
        return Answer(HTTPStatus.OK, "\n".join([*lines, ""]).encode()), Answer(HTTPStatus.OK, body, "application/json")

    def _tunnel(self) -> dict[str, Any]:
        """Return the tunnel's age in seconds, as far as this process may look: ``wg`` wants root."""
        there = self._machine.has_interface(self._interface)
        shown = show(self._machine, self._interface) if there else None
        seen = shown.handshake if shown is not None else None
        age = None if seen is None else int((self._clock.now() - seen).total_seconds())
        return {"interface": self._interface, "up": there, "handshake_age": age}
