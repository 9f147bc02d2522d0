"""The WireGuard data folder on disk: whole files or none, one writer at a time.

A reader never sees half a file: what is written goes to a file beside, is synced, and takes the name by
rename; then the folder is synced. What the files say is `peers_file`'s business.
"""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from wireguard.errors import FileMissingError, FolderUnusableError

PRIVATE = 0o600
PUBLIC = 0o644
LOCK_TIMEOUT = 30.0
_LOCK_POLL = 0.02


def read(path: Path) -> bytes:
    """Read a whole file.

    Raises:
        FileMissingError: it, or its folder, is not there.
        FolderUnusableError: it cannot be read.

    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise FileMissingError(f"{path} does not exist (yet).", path=path) from error
    except OSError as error:
        raise FolderUnusableError(f"{path} cannot be read: {error.strerror}.", path=path) from error


def replace_file(path: Path, content: bytes, *, mode: int) -> None:
    """Put `content` under this name, durably and as a whole, with exactly this mode.

    The caller holds the lock under which this name is written. A writer that is root gives the file to the
    owner of the folder, so that the other side of the volume can read and replace it.

    Raises:
        FolderUnusableError: it could not be written; the file that was there before is unharmed.

    """
    new = path.with_name(f".{path.name}.new")
    try:
        try:
            new.unlink(missing_ok=True)
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
            with open(descriptor, "wb") as file:  # noqa: PTH123 - an open descriptor, not a path
                _own(descriptor, path.parent, mode)
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            new.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise FolderUnusableError(
            f"{path} could not be written: {error.strerror}; check the volume's space and permissions.", path=path
        ) from error


@contextlib.contextmanager
def locked(path: Path, *, timeout: float = LOCK_TIMEOUT) -> Iterator[None]:
    """Hold the lock file `path` (flock(2)) against other processes and threads of this host.

    Raises:
        FolderUnusableError: the lock could not be had within `timeout` seconds, or not at all.

    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE)
    except OSError as error:
        raise FolderUnusableError(
            f"{path.parent} is not usable as WireGuard data folder: {error.strerror}.", path=path
        ) from error
    try:
        _acquire(descriptor, path, timeout)
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, path: Path, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _own(descriptor, path.parent, PRIVATE)
        except OSError as error:
            if error.errno not in {errno.EWOULDBLOCK, errno.EINTR} or time.monotonic() > deadline:
                raise FolderUnusableError(
                    f"{path} could not be locked: another process has held it for {timeout:g} s, or the "
                    "volume knows no locks.",
                    path=path,
                ) from error
            time.sleep(_LOCK_POLL)
        else:
            return


def _own(descriptor: int, folder: Path, mode: int) -> None:
    present, wanted = os.fstat(descriptor), folder.stat()
    if os.geteuid() == 0 and (present.st_uid, present.st_gid) != (wanted.st_uid, wanted.st_gid):
        os.fchown(descriptor, wanted.st_uid, wanted.st_gid)
    if present.st_mode & 0o777 != mode:
        os.fchmod(descriptor, mode)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
