"""The ports that devices were told of, kept over a restart of the embedded stack.

A device stores broker and update server with its certificate: listening elsewhere after a restart would strand it.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path

import structlog

_log = structlog.get_logger("bridge.embedded")


class RememberedPorts:
    """Loopback ports by name in one file; one that something else has taken meanwhile is given up, loudly."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, int] = _read(path)

    def of(self, name: str) -> int:
        """Return the port of the last start if it is free, else 0: any free one."""
        port = self._known.get(name, 0)
        if port and not _is_free(port):
            text = f"port {port} is taken: devices enrolled before look for {name} there; free it and start again"
            _log.warning("embedded.port", text=text)
            return 0
        return port

    def remember(self, **ports: int) -> None:
        """Write the ports of this start."""
        if ports != self._known:
            beside = self._path.with_suffix(".new")
            beside.touch(mode=0o600)
            beside.write_text(json.dumps(ports) + "\n", encoding="ascii")
            beside.replace(self._path)
            self._known = ports


def _read(path: Path) -> dict[str, int]:
    try:
        found = json.loads(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return {}  # the first start, or a damaged file: free ports are as good as any
    known = found.items() if isinstance(found, dict) else ()
    return {name: port for name, port in known if isinstance(port, int) and 0 < port < 1 << 16}


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
