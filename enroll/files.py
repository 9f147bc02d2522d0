"""Crash-safe files: new beside old, synced, renamed, folder synced.

Responsible for the only way in which the agent writes, reads and locks files, over a small ``Disk`` whose
every method is one effect: tests stop a run after each of them. After a crash a file is there whole, as it
was before, or not at all; what lies beside it (``.NAME.new``) is rubbish that the next write removes.

Not responsible for what the files mean.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

from enroll.errors import BusyFolderError, StorageError

MAX_FILE: Final = 1024 * 1024
"""Largest file that is read, in bytes."""

SECRET: Final = 0o600
PUBLIC: Final = 0o644


class Disk(Protocol):
    """The effects on a file system. Every method raises ``OSError`` as the system does."""

    def make_folder(self, path: Path) -> None:
        """Create a folder (0700) and its parents; one that is there is left as it is."""

    def create(self, path: Path, data: bytes, mode: int) -> None:
        """Create a file that must not exist and write the data, unsynced."""

    def sync(self, path: Path) -> None:
        """Bring a file's content to the medium."""

    def rename(self, source: Path, target: Path) -> None:
        """Give a file its name, over whatever had it."""

    def sync_folder(self, path: Path) -> None:
        """Bring a folder's names to the medium."""

    def remove(self, path: Path) -> None:
        """Remove a file; none there is fine."""


class PosixDisk:
    """The real thing."""

    def make_folder(self, path: Path) -> None:
        """Create a folder (0700) and its parents; one that is there is left as it is."""
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def create(self, path: Path, data: bytes, mode: int) -> None:
        """Create a file that must not exist (also not as a link) and write the data, unsynced."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(stream.fileno(), mode)  # the umask may have taken bits that others need to read
            stream.write(data)

    def sync(self, path: Path) -> None:
        """Bring a file's content to the medium."""
        _fsync(path, os.O_RDONLY)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file its name, over whatever had it."""
        source.replace(target)

    def sync_folder(self, path: Path) -> None:
        """Bring a folder's names to the medium."""
        _fsync(path, os.O_RDONLY | os.O_DIRECTORY)

    def remove(self, path: Path) -> None:
        """Remove a file; none there is fine."""
        path.unlink(missing_ok=True)


def _fsync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write(disk: Disk, path: Path, data: bytes, mode: int) -> None:
    """Put the data under the name so that a crash leaves the old file or the new one, never a part.

    :raises StorageError: the folder cannot be written; the old file is untouched.
    """
    beside = path.with_name(f".{path.name}.new")
    try:
        disk.remove(beside)
        disk.create(beside, data, mode)
        disk.sync(beside)
        disk.rename(beside, path)
        disk.sync_folder(path.parent)
    except OSError as e:
        with contextlib.suppress(OSError):
            disk.remove(beside)
        raise StorageError(f"cannot write {path}: {e.strerror or e}; check space and permissions") from e


def read(path: Path) -> bytes | None:
    """Return the file's content, or ``None`` if there is none.

    :raises StorageError: it cannot be read, or is larger than ``MAX_FILE``.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE + 1)
    except FileNotFoundError:
        return None
    except OSError as e:
        raise StorageError(f"cannot read {path}: {e.strerror or e}; check who runs the agent") from e
    if len(data) > MAX_FILE:
        raise StorageError(f"{path} is larger than {MAX_FILE} bytes and not the agent's; move it away")
    return data


def set_aside(disk: Disk, path: Path, now: datetime) -> str:
    """Rename a damaged file to a dated name beside it and return that name; nothing is overwritten.

    :raises StorageError: the folder cannot be written.
    """
    stem = f"{path.name}.bad-{now:%Y%m%dT%H%M%SZ}"
    names = (stem if n == 1 else f"{stem}-{n}" for n in range(1, 1000))
    kept = next((name for name in names if not path.with_name(name).exists()), None)
    if kept is None:
        raise StorageError(f"too many damaged copies of {path}; look at the medium and clear the folder")
    try:
        disk.rename(path, path.with_name(kept))
        disk.sync_folder(path.parent)
    except OSError as e:
        raise StorageError(f"cannot rename {path}: {e.strerror or e}; check space and permissions") from e
    return kept


@contextlib.contextmanager
def locked(disk: Disk, folder: Path) -> Iterator[None]:
    """Hold the folder for one agent; the lock ends with the process, however it ends.

    :raises BusyFolderError: another process holds it.
    :raises StorageError: there is no such folder and it cannot be made.
    """
    try:
        disk.make_folder(folder)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as e:
        raise StorageError(f"cannot use the folder {folder}: {e.strerror or e}; check CERTS_DIR") from e
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as e:
        raise BusyFolderError(f"another iot-enroll works in {folder}") from e
    finally:
        os.close(descriptor)
