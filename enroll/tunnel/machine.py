"""What a tunnel needs to know of the machine, and to do on it, behind one Protocol.

Responsible for running commands with argument lists, never by a shell, and for ending one that does not end.
Not responsible for which command is run, or for what it said.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from subprocess import Popen

_COMMAND_SECONDS: Final = 30.0
_END_SECONDS: Final = 5.0
_QUICK_TEXT: Final = 200
# What a command gets of our environment. Not the voucher: wireguard-go runs on for as long as the tunnel is up.
_PASSED_ON: Final = ("PATH", "WG_QUICK_USERSPACE_IMPLEMENTATION", "DBUS_SYSTEM_BUS_ADDRESS")
_ALWAYS: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C",
    # `wg` looks a name up 15 times, with growing pauses; one run of the agent has no time for that.
    "WG_ENDPOINT_RESOLUTION_RETRIES": "2",
}


@dataclass(frozen=True, slots=True)
class Completed:
    """How a command ended. ``output`` may hold keys and is never shown; ``last_error`` may be."""

    status: int
    output: str = field(repr=False)
    errors: str = field(repr=False)

    @property
    def last_error(self) -> str:
        """The last line it said on standard error, fit for a terminal."""
        lines = [line.strip() for line in self.errors.splitlines() if line.strip()]
        return "".join(c for c in lines[-1][:_QUICK_TEXT] if c.isprintable()) if lines else "no message"


class Machine(Protocol):
    """What the tunnel needs to know of, and do on, the machine."""

    def is_root(self) -> bool:
        """Return whether this process may configure interfaces."""

    def find(self, command: str) -> str | None:
        """Return the path of a command, if it is installed."""

    def has_interface(self, name: str) -> bool:
        """Return whether there is a network interface of that name."""

    def runs_systemd(self) -> bool:
        """Return whether systemd is this machine's init."""

    def group(self, name: str) -> int | None:
        """Return the number of a group, if there is one of that name."""

    def give(self, path: Path, group: int) -> None:
        """Make a file the group's; raises ``OSError`` as the system does."""

    def run(self, arguments: Sequence[str], stdin: str = "") -> Completed:
        """Run a command to its end, without a shell; one that cannot run has status 127, one that hangs 124."""


class LinuxMachine:
    """The real thing."""

    def is_root(self) -> bool:
        """Return whether this process may configure interfaces."""
        return os.geteuid() == 0

    def find(self, command: str) -> str | None:
        """Return the path of a command, if it is installed."""
        import shutil  # noqa: PLC0415 - brings archives and compression along, and few runs get here

        return shutil.which(command)

    def has_interface(self, name: str) -> bool:
        """Return whether there is a network interface of that name."""
        import socket  # noqa: PLC0415 - as above

        with contextlib.suppress(OSError):
            return socket.if_nametoindex(name) > 0  # /sys may show another network than ours, in a container
        return False

    def runs_systemd(self) -> bool:
        """Return whether systemd is this machine's init; see sd_booted(3)."""
        return Path("/run/systemd/system").is_dir()

    def group(self, name: str) -> int | None:
        """Return the number of a group, if there is one of that name."""
        import grp  # noqa: PLC0415 - only systemd-networkd needs it

        try:
            return grp.getgrnam(name).gr_gid
        except KeyError:
            return None

    def give(self, path: Path, group: int) -> None:
        """Make a file the group's; raises ``OSError`` as the system does."""
        os.chown(path, -1, group, follow_symlinks=False)

    def run(self, arguments: Sequence[str], stdin: str = "") -> Completed:
        """Run a command to its end, without a shell; one that cannot run has status 127, one that hangs 124.

        One that hangs is asked to end first, with whatever it started: wg-quick then removes its half-made interface.
        """
        import subprocess  # noqa: PLC0415 - slow to import, and most runs raise no tunnel

        try:
            process = subprocess.Popen(  # noqa: S603 - a list of our own words and typed values, no shell
                list(arguments),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env=_ALWAYS | {name: os.environ[name] for name in _PASSED_ON if name in os.environ},
                start_new_session=True,
            )
        except OSError as e:
            return Completed(127, "", str(e))
        with process:
            try:
                output, errors = process.communicate(stdin, timeout=_COMMAND_SECONDS)
            except subprocess.TimeoutExpired:
                _end(process)
                return Completed(124, "", f"no end within {_COMMAND_SECONDS:.0f} s")
        return Completed(process.returncode, output, errors)


def _end(process: Popen[str]) -> None:
    """Ask it to end, with whatever it started (wg-quick then removes its half-made interface); insist after a while."""
    import signal  # noqa: PLC0415 - as subprocess
    import subprocess  # noqa: PLC0415

    for ending in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, ending)
            process.communicate(timeout=_END_SECONDS)
            return
