"""Crash-safe files: new beside old, synced, renamed, folder synced.

Responsible for the only way in which the agent writes, reads and locks files, over a small ``Disk`` whose
every method is one effect: tests stop a run after each of them. After a crash a file is there whole, as it
was before, or not at all; what lies beside it (``.NAME.new``) is rubbish that the next write removes. What is
there already is not written again: flash wears out.

Not responsible for what the files mean.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
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

    def remove_folder(self, path: Path) -> None:
        """Remove an empty folder; none there is fine."""

    def create(self, path: Path, data: bytes, mode: int) -> None:
        """Create a file that must not exist and write the data, unsynced."""

    def restrict(self, path: Path, mode: int) -> None:
        """Give a file another mode."""

    def sync(self, path: Path) -> None:
        """Bring a file's content and mode to the medium."""

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

    def remove_folder(self, path: Path) -> None:
        """Remove an empty folder; none there is fine."""
        with contextlib.suppress(FileNotFoundError):
            path.rmdir()

    def create(self, path: Path, data: bytes, mode: int) -> None:
        """Create a file that must not exist (also not as a link) and write the data, unsynced."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(stream.fileno(), mode)  # the umask may have taken bits that others need to read
            stream.write(data)

    def restrict(self, path: Path, mode: int) -> None:
        """Give a file, and never what a link points to, another mode."""
        with _descriptor(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK) as descriptor:
            os.fchmod(descriptor, mode)

    def sync(self, path: Path) -> None:
        """Bring a file's content and mode to the medium."""
        with _descriptor(path, os.O_RDONLY) as descriptor:
            os.fsync(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file its name, over whatever had it."""
        source.replace(target)

    def sync_folder(self, path: Path) -> None:
        """Bring a folder's names to the medium."""
        with _descriptor(path, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
            os.fsync(descriptor)

    def remove(self, path: Path) -> None:
        """Remove a file; none there is fine."""
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _descriptor(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def beside(path: Path) -> Path:
    """Return the name under which the file's next content is written before it takes its place."""
    return path.with_name(f".{path.name}.new")


def write(disk: Disk, path: Path, data: bytes, mode: int) -> bool:
    """Put the data under the name so that a crash leaves the old file or the new one, never a part.

    When this returns the file is on the medium. One that is there already, with this content, mode and owner, is
    only synced.

    :returns: whether anything was written.
    :raises StorageError: the folder cannot be written; the old file is untouched.
    """
    new = beside(path)
    try:
        there = _is_there(path, data, mode)
        if not there:
            disk.remove(new)
            disk.create(new, data, mode)
            disk.sync(new)
            disk.rename(new, path)
        else:
            disk.sync(path)  # it may be from a run that was killed before it came to that
        disk.sync_folder(path.parent)
    except OSError as e:
        with contextlib.suppress(OSError):
            disk.remove(new)
        raise StorageError(f"cannot write {path}: {_why(e, path.parent)}") from e
    return not there


def _is_there(path: Path, data: bytes, mode: int) -> bool:
    try:
        with _descriptor(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK) as descriptor:
            found = os.fstat(descriptor)
            same = stat.S_ISREG(found.st_mode) and found.st_size == len(data) and found.st_uid == os.geteuid()
            return same and stat.S_IMODE(found.st_mode) == mode and os.read(descriptor, len(data) + 1) == data
    except OSError:
        return False


def remove(disk: Disk, path: Path) -> bool:
    """Remove a file and bring that to the medium; return whether it was there.

    :raises StorageError: it cannot be removed.
    """
    if not path.exists() and not path.is_symlink():
        return False
    try:
        disk.remove(path)
        disk.sync_folder(path.parent)
    except OSError as e:
        raise StorageError(f"cannot remove {path}: {e.strerror or e}; check permissions") from e
    return True


def read(path: Path) -> bytes | None:
    """Return the file's content, or ``None`` if there is none.

    A link is followed only to a file of the same folder or below it.

    :raises StorageError: it cannot be read, is no regular file, or is larger than ``MAX_FILE``.
    """
    try:
        _check_link(path)
        with _descriptor(path, os.O_RDONLY | os.O_NONBLOCK) as descriptor:  # a FIFO must not hold the agent up
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise StorageError(f"{path} is no regular file and not the agent's; move it away")
            with os.fdopen(os.dup(descriptor), "rb") as stream:
                data = stream.read(MAX_FILE + 1)
    except FileNotFoundError:
        return None
    except OSError as e:
        raise StorageError(f"cannot read {path}: {_why(e, path.parent)}") from e
    if len(data) > MAX_FILE:
        raise StorageError(f"{path} is larger than {MAX_FILE} bytes and not the agent's; move it away")
    return data


def _check_link(path: Path) -> None:
    try:
        outside = path.is_symlink() and not path.resolve().is_relative_to(path.parent.resolve())
    except RuntimeError:  # a link that leads to itself
        outside = True
    if outside:
        raise StorageError(f"{path} is a link to outside of its folder and not the agent's; move it away")


def guard(disk: Disk, path: Path) -> int | None:
    """Take a secret away from other users, if they could read or write it.

    What they have read already stays read: tell a person.

    :returns: the mode it had, if it was too wide; ``None`` if all is well or there is no such file.
    :raises StorageError: the file belongs to another user, or the folder cannot be written.
    """
    try:
        found = path.lstat()
        mode = stat.S_IMODE(found.st_mode)
        if not stat.S_ISREG(found.st_mode) or not mode & ~SECRET:
            return None
        disk.restrict(path, SECRET)
        disk.sync(path)
    except FileNotFoundError:
        return None
    except OSError as e:
        raise StorageError(f"cannot keep {path} from other users: {_why(e, path.parent)}") from e
    return mode


def ensure_folder(disk: Disk, path: Path) -> None:
    """Have a folder whose own name is on the medium, so that files in it can be.

    :raises StorageError: it cannot be made.
    """
    try:
        if not path.is_dir():
            disk.make_folder(path)
            disk.sync_folder(path.parent)
    except OSError as e:
        raise StorageError(f"cannot use the folder {path}: {_why(e, path.parent)}; check CERTS_DIR") from e


def set_aside(disk: Disk, path: Path, now: datetime) -> str:
    """Rename a damaged file to a dated name beside it and return that name; nothing is overwritten.

    :raises StorageError: the folder cannot be written.
    """
    stem = f"{path.name}.bad-{now:%Y%m%dT%H%M%SZ}"
    names = (stem if n == 1 else f"{stem}-{n}" for n in range(1, 1000))
    kept = next((name for name in names if not os.path.lexists(path.with_name(name))), None)
    if kept is None:
        raise StorageError(f"too many damaged copies of {path}; look at the medium and clear the folder")
    try:
        disk.rename(path, path.with_name(kept))
        disk.sync_folder(path.parent)
    except OSError as e:
        raise StorageError(f"cannot rename {path}: {_why(e, path.parent)}") from e
    return kept


@contextlib.contextmanager
def locked(disk: Disk, folder: Path) -> Iterator[None]:
    """Hold the folder for one agent; the lock ends with the process, however it ends.

    :raises BusyFolderError: another process holds it.
    :raises StorageError: there is no such folder and it cannot be made.
    """
    ensure_folder(disk, folder)
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as e:
        raise StorageError(f"cannot use the folder {folder}: {_why(e, folder)}; check CERTS_DIR") from e
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise BusyFolderError(f"another iot-enroll works in {folder}") from e
        yield
    finally:
        os.close(descriptor)


def _why(error: OSError, folder: Path) -> str:
    """Say what happened and what a person can do."""
    said = error.strerror or str(error) or type(error).__name__
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            advice = f"free some space where {folder} lies; nothing that was stored is lost"
        case errno.EROFS:
            advice = "CERTS_DIR must name a folder that is writable"
        case errno.EACCES | errno.EPERM:
            advice = f"check who owns {folder} and who runs the agent"
        case errno.EIO | errno.EUCLEAN:
            advice = "the medium fails; check it (dmesg)"
        case _:
            advice = f"look at {folder}"
    return f"{said}; {advice}"
