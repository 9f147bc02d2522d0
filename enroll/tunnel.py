"""Phase 3: the VPN interface, raised by wg-quick where that is possible, and its handshake observed.

Responsible for deciding whether a tunnel may be raised here, for calling ``wg-quick`` and ``wg`` with
argument lists, and for saying in a sentence why one was not raised; that is never an error.

Not responsible for ``wg0.conf`` (``enroll.wgconf``).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

from enroll.names import HostPort

POLL: Final = 0.5
"""Seconds between looks for a handshake."""

_COMMAND_SECONDS: Final = 30.0
_QUICK_TEXT: Final = 200


@dataclass(frozen=True, slots=True)
class Completed:
    """How a command ended. ``output`` may hold keys and is never shown; ``errors`` may be."""

    status: int
    output: str
    errors: str


class Machine(Protocol):
    """What the tunnel needs to know of, and do on, the machine."""

    def is_root(self) -> bool:
        """Return whether this process may configure interfaces."""

    def find(self, command: str) -> str | None:
        """Return the path of a command, if it is installed."""

    def has_interface(self, name: str) -> bool:
        """Return whether there is a network interface of that name."""

    async def run(self, arguments: Sequence[str]) -> Completed:
        """Run a command to its end, without a shell; a command that cannot run has status 127."""


class LinuxMachine:
    """The real thing."""

    def is_root(self) -> bool:
        """Return whether this process may configure interfaces."""
        return os.geteuid() == 0

    def find(self, command: str) -> str | None:
        """Return the path of a command, if it is installed."""
        return shutil.which(command)

    def has_interface(self, name: str) -> bool:
        """Return whether there is a network interface of that name."""
        return Path("/sys/class/net", name).exists()

    async def run(self, arguments: Sequence[str]) -> Completed:
        """Run a command to its end, without a shell; a command that cannot run has status 127."""
        return await asyncio.to_thread(_run, list(arguments))


def _run(arguments: list[str]) -> Completed:
    try:
        ended = subprocess.run(  # noqa: S603 - an argument list of our own; nothing of an answer but typed values
            arguments,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_COMMAND_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return Completed(124, "", f"no end within {_COMMAND_SECONDS:.0f} s")
    except OSError as e:
        return Completed(127, "", str(e))
    return Completed(ended.returncode, ended.stdout, ended.stderr)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the tunnel."""

    raised: bool
    why: str
    handshake: datetime | None = None
    """Time of the latest handshake seen; ``None`` if none was."""


def obstacle(machine: Machine, endpoint: HostPort, *, wanted: bool) -> str | None:
    """Return why a tunnel cannot be raised here, or ``None``.

    :param wanted: the operator named wg-quick; then a loopback endpoint is their business.
    """
    if machine.find("wg-quick") is None or machine.find("wg") is None:
        return "not raised: wireguard-tools are not installed; wg0.conf is ready for them"
    if not machine.is_root():
        return "not raised: only root can; run 'wg-quick up' with wg0.conf as root"
    if endpoint.loopback and not wanted:
        return f"not raised: the endpoint {endpoint} is this machine itself"
    return None


async def bring_up(
    machine: Machine,
    config: Path,
    public_key: str,
    patience: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]],
) -> Outcome:
    """Raise the interface named like the file, if it is not up already, and watch for a handshake.

    :param public_key: the device's own: tells our interface from a stranger's of that name.
    :param patience: seconds that may still be waited for a handshake; looked at after each poll.
    """
    interface = config.stem
    if machine.has_interface(interface):
        shown = await machine.run(["wg", "show", interface, "public-key"])
        if shown.status != 0 or shown.output.strip() != public_key:
            return Outcome(raised=False, why=f"not raised: an interface {interface} of somebody else exists")
        said = "was up already"
    else:
        ended = await machine.run(["wg-quick", "up", str(config)])
        if ended.status != 0:
            return Outcome(raised=False, why=f"not raised: wg-quick failed: {_last_line(ended.errors)}")
        said = "raised by wg-quick"
    seen = await _handshake(machine, interface, patience, sleep)
    if seen is None:
        return Outcome(raised=True, why=f"{said}; no handshake seen yet, check the endpoint and its UDP port")
    return Outcome(raised=True, why=f"{said}; handshake at {seen:%Y-%m-%dT%H:%M:%SZ}", handshake=seen)


async def _handshake(
    machine: Machine,
    interface: str,
    patience: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]],
) -> datetime | None:
    while True:
        shown = await machine.run(["wg", "show", interface, "latest-handshakes"])
        latest = latest_handshake(shown.output) if shown.status == 0 else 0
        if latest:
            return datetime.fromtimestamp(latest, UTC)
        if patience() < POLL:
            return None
        await sleep(POLL)


def latest_handshake(output: str) -> int:
    """Return the newest time (epoch seconds) in ``wg show IF latest-handshakes``; 0 if there was none."""
    fields = (line.split("\t") for line in output.splitlines())
    return max((int(f[1]) for f in fields if len(f) == 2 and f[1].isdecimal()), default=0)  # noqa: PLR2004 - key, time


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "".join(c for c in lines[-1][:_QUICK_TEXT] if c.isprintable()) if lines else "no message"
