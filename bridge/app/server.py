"""uvicorn as a guest: a bound socket, no signals of its own, idle connections cut at the end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any, Final

import uvicorn

from bridge.app.tls import CertificateFiles
from bridge.errors import Misconfigured

GRACE: Final = 5
"""Seconds that open requests get when the server ends."""


class HttpServer(uvicorn.Server):
    """Serves one application on one listening socket."""

    def __init__(self, app: Any, certificate: CertificateFiles | None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                server_header=False,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=GRACE,
                h11_max_incomplete_event_size=16 * 1024,
                ssl_certfile=certificate.chain if certificate else None,
                ssl_keyfile=certificate.key if certificate else None,
            )
        )
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
        await super().startup(sockets=sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to the composition."""
        yield

    def end(self) -> None:
        """Stop accepting; open requests get their grace, idle connections nothing."""
        self.should_exit = True
        for connection in list(self.server_state.connections):
            cycle = getattr(connection, "cycle", None)
            transport = getattr(connection, "transport", None)
            if transport is not None and (cycle is None or cycle.response_complete):
                transport.abort()


def listen(host: str, port: int) -> socket.socket:
    """Bind a listening socket; port 0 takes a free one.

    :raises Misconfigured: the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=1024)
    except OSError as e:
        raise Misconfigured(f"cannot listen on {host}:{port}: {e}; choose another --host or --port") from e
    # Inherited by every connection; the event loop sets it only on sockets that it made itself.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
