"""Where the status page listens: a unix socket, or a port of the loopback interface, and nowhere else.

Responsible for refusing every other address, for the socket's mode, and for a socket file that a dead process left.
Not responsible for what is said there.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from enroll.errors import ConfigurationError
from enroll.names import HostPort

_OPTION: Final = "--serve"
_MAX_UNIX_PATH: Final = 107
_OWNER_AND_GROUP: Final = 0o117


@contextlib.contextmanager
def listening_on(address: str) -> Iterator[socket.socket]:
    """Listen on ``unix:/path`` (mode 0660) or ``127.0.0.1:port``, ``[::1]:port``, ``localhost:port``, in a context.

    :raises ConfigurationError: another address, or one that cannot be had.
    """
    scheme, colon, path = address.partition(":")
    if scheme == "unix" and colon:
        with _unix(Path(path)) as listening:
            yield listening
        return
    try:
        server = HostPort.parse(address)
    except ValueError as e:
        raise ConfigurationError(_OPTION, f"{e}, and not unix:/path") from e
    if not server.loopback:
        raise ConfigurationError(_OPTION, f"{server.host} is not this machine's loopback address")
    host = "127.0.0.1" if server.host.lower().startswith("localhost") else server.host
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, server.port), family=family)
    except OSError as e:
        raise ConfigurationError(_OPTION, f"{server} cannot be had: {e.strerror or e}") from e
    with listening:
        yield listening


@contextlib.contextmanager
def _unix(path: Path) -> Iterator[socket.socket]:
    if not path.is_absolute() or not 1 < len(os.fsencode(path)) <= _MAX_UNIX_PATH:
        raise ConfigurationError(_OPTION, f"{path} is no absolute path of at most {_MAX_UNIX_PATH} bytes")
    _clear(path)
    with socket.socket(socket.AF_UNIX) as listening:
        mask = os.umask(_OWNER_AND_GROUP)
        try:
            listening.bind(str(path))
            listening.listen()
        except OSError as e:
            raise ConfigurationError(_OPTION, f"{path} cannot be had: {e.strerror or e}") from e
        finally:
            os.umask(mask)
        ours = path.lstat().st_ino
        try:
            yield listening
        finally:
            with contextlib.suppress(OSError):
                if path.lstat().st_ino == ours:
                    path.unlink()


def _clear(path: Path) -> None:
    """Remove a socket that nobody listens on any more."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ConfigurationError(_OPTION, f"{path} is there and is no socket")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1.0)
            probe.connect(str(path))
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
    except FileNotFoundError:
        pass
    except OSError as e:
        raise ConfigurationError(_OPTION, f"{path} cannot be had: {e.strerror or e}") from e
    else:
        raise ConfigurationError(_OPTION, f"another process answers on {path}")
