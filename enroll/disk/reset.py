"""Forgetting an identity, so that the next run makes a new one under the same id.

Responsible for removing keys, certificates and the flag: the flag first, the key next, so that a reset cut short
either happened or did not. Not responsible for the bridge, which gives the id to a new key only if an operator
opened a window for it.
"""

from __future__ import annotations

from pathlib import Path

from enroll.disk import files, takeover
from enroll.disk.files import Disk

_NEXT = ("enrolled", "confirmed", "device.key", "device.crt", "ca-chain.crt", "root.crt", "device.csr")
_NAMES = ("enrolled", "device.key", "device.crt", "device.csr", "ca-chain.crt", "root.crt", "wg.key")


def forget(folder: Path, disk: Disk, interface: str) -> list[str]:
    """Remove the identity in the folder and return the names of what was removed; files set aside stay.

    :raises BusyFolderError: an agent works there.
    :raises StorageError: a file cannot be removed; run it again.
    """
    conf = f"{interface}.conf"
    names = [*_NAMES[:2], *(f"next/{name}" for name in (*_NEXT, conf)), *_NAMES[2:], conf, *takeover.OLDER_NAMES]
    removed: list[str] = []
    with files.locked(disk, folder):
        for name in names:
            path = folder / name
            if files.remove(disk, path):
                removed.append(name)
            files.remove(disk, files.beside(path))  # what a crash left of a write may be a key
    return removed
