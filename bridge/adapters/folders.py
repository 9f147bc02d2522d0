"""Folders made at start: those that only the bridge may enter, and the one that it shares."""

from __future__ import annotations

from pathlib import Path

from bridge.errors import Misconfigured


def private_folder(path: Path) -> Path:
    """Make the folder with mode 0700 and return it.

    :raises Misconfigured: it cannot be made, or is not ours.
    """
    _make(path)
    try:
        path.chmod(0o700)
    except OSError as e:
        raise _unusable(path, e) from e
    return path


def shared_folder(path: Path) -> Path:
    """Make the folder if it is not there and return it; who may enter one that is there is not changed.

    :raises Misconfigured: it cannot be made.
    """
    _make(path)
    return path


def _make(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as e:
        raise _unusable(path, e) from e


def _unusable(path: Path, error: OSError) -> Misconfigured:
    return Misconfigured(f"the folder {path} cannot be used ({error.strerror}); check BRIDGE_DATA, --data, WG_DATA_DIR")
