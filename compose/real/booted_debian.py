"""A Debian that boots: systemd as process 1 in a container of systemd-nspawn, with a read-only root.

For tests of what is packaged: units run as they would on a device, sandbox and all. Whoever makes one says which
folders are writable. Needs root and the Debian package systemd-container.
"""

import contextlib
import secrets
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from compose.real.debian_root import build
from compose.real.owned_process import OwnedProcess, ServerFailed

_BOOT_SECONDS = 120.0
_COMMAND_SECONDS = 30.0


def installed(folder: Path, package: Path) -> Path:
    """Return a copy of the pristine root, made as `folder`, with a .deb installed by `dpkg`.

    Raises:
        ServerFailed: the root cannot be built or copied, or `dpkg` refuses.

    """
    _demand("cp", "--archive", "--reflink=auto", str(build()), str(folder))  # keeps the nodes in /dev what they are
    inside = folder / "package.deb"
    shutil.copyfile(package, inside)
    _demand("chroot", str(folder), "dpkg", "--install", "/package.deb")
    inside.unlink()
    (folder / "etc" / "hosts").write_text("127.0.0.1 localhost\n")
    return folder


def _demand(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ServerFailed(f"`{' '.join(command)}` failed; are we root?\n{done.stdout}{done.stderr}")


@dataclass
class BootedDebian:
    """One boot of `root`; a context manager that returns once nothing is starting any more, and shuts down.

    `binds` are folders or devices of this machine and where they are, writable, inside. `network_namespace` is a name
    of `ip netns`; without one the network is this machine's.
    """

    root: Path
    binds: Mapping[Path, str]
    log: Path
    network_namespace: str | None = None
    _process: OwnedProcess | None = field(default=None, repr=False)

    def __enter__(self) -> Self:
        """Boot."""
        if shutil.which("systemd-nspawn") is None:
            raise ServerFailed("systemd-nspawn is missing: run `compose/real/install.sh`")
        name = f"iotb-{secrets.token_hex(4)}"
        command = ["systemd-nspawn", f"--directory={self.root}", "--boot", "--read-only", f"--machine={name}"]
        command += [
            "--register=no",
            "--keep-unit",
            "--capability=CAP_NET_ADMIN",
            "--console=pipe",
            "--resolv-conf=off",
            "--timezone=off",
        ]
        command += [f"--bind={outside}:{inside}" for outside, inside in self.binds.items()]
        if self.network_namespace is not None:
            command.append(f"--network-namespace-path=/run/netns/{self.network_namespace}")
        process = OwnedProcess("systemd-nspawn", command, self.log, self.root.parent)
        process.start()
        self._process = process
        try:
            process.wait_until(self._settled, _BOOT_SECONDS)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Shut down in order: nspawn hands SIGTERM on as the request to do so."""
        process, self._process = self._process, None
        if process is not None:
            process.stop()

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a program inside, beside the services, and give its result back, whatever it is."""
        enter = ["nsenter", f"--target={self._first_process()}", "--all", "--", *command]
        return subprocess.run(enter, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False)

    def properties(self, unit: str, names: Sequence[str]) -> dict[str, str]:
        """Return what systemd says of a unit."""
        shown = self.run("systemctl", "show", unit, f"--property={','.join(names)}").stdout
        return dict(line.split("=", 1) for line in shown.splitlines())

    def journal(self, unit: str) -> str:
        """Return what a unit has written since the boot, and systemd about it."""
        return self.run("journalctl", "--output=cat", "--no-pager", f"--unit={unit}").stdout

    def _settled(self) -> bool:
        with contextlib.suppress(ServerFailed, FileNotFoundError, IndexError):
            return self.run("systemctl", "is-system-running").stdout.strip() in {"running", "degraded"}
        return False

    def _first_process(self) -> int:
        if self._process is None:
            raise ServerFailed("the container is not started")
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        return int(children[0])
