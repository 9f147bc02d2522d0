"""An embedded hawkBit: the Management API and DDI calls that this project meets, with hawkBit's own traps.

It is the update server of embedded mode and of the tests, and refuses what the real one refuses with the same
statuses and codes; either version's dialect can be chosen. Loopback only. Not here: software modules, rollouts,
tags, target types; their paths are 404, as on a server that does not have them.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Self

import uvicorn

from hawkbit.errors import HawkbitMisconfigured
from hawkbit.standin_access import FloodFilter, User, Users
from hawkbit.standin_answers import Answers
from hawkbit.standin_context import Context
from hawkbit.standin_dialect import DIALECTS
from hawkbit.standin_routes import build_app
from hawkbit.standin_state import DEFAULT_CONFIGURATION, State

GRACE = 5  # seconds that open requests get at stop()


def _milliseconds() -> int:
    return time.time_ns() // 1_000_000


def _token() -> str:
    return secrets.token_hex(16)


class EmbeddedHawkbit:
    """A hawkBit of one tenant (`DEFAULT`) in the caller's event loop, its state kept in `folder`.

    `username` may do everything; further `users` what their permissions say. `polling_time` is the tenant's
    until it is configured otherwise: a second, so that what a retired device's poll brings back shows soon.
    As on the real one, devices cannot authenticate until a way is switched on (`…/system/configs/…`).
    Raises HawkbitMisconfigured for a dialect other than "0.3.0M7" and "1.0.4".
    """

    def __init__(
        self,
        folder: Path,
        username: str,
        password: str,
        *,
        port: int = 0,
        dialect: str = "1.0.4",
        users: Sequence[User] = (),
        polling_time: timedelta = timedelta(seconds=1),
        now: Callable[[], int] = _milliseconds,
        new_token: Callable[[], str] = _token,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        if dialect not in DIALECTS:
            raise HawkbitMisconfigured(f"the embedded hawkBit speaks {' and '.join(DIALECTS)}, not {dialect!r}")
        if not username or ":" in username or not password:
            raise HawkbitMisconfigured("the embedded hawkBit needs a user name without colon, and a password")
        self._folder = folder
        self._users = (User(username, password), *users)
        self._answers = Answers(DIALECTS[dialect])
        self._port = port
        self._defaults = {**DEFAULT_CONFIGURATION, "pollingTime": _duration(polling_time)}
        self._now = now
        self._new_token = new_token
        self._monotonic = monotonic
        self._running: _Running | None = None

    @property
    def url(self) -> str:
        """Return `http://127.0.0.1:PORT`. Raises RuntimeError unless started."""
        if self._running is None:
            raise RuntimeError("the embedded hawkBit is not started")
        return f"http://127.0.0.1:{self._running.port}"

    async def start(self) -> None:
        """Listen on loopback; returns when requests are answered.

        Raises StateFolderUnusable for a folder that cannot be used, OSError for a port that is taken.
        """
        if self._running is not None:
            return
        listener = _listen(self._port)
        try:
            state = State(self._folder, self._defaults)
        except BaseException:
            listener.close()
            raise
        context = Context(state, self._answers, self._now, self._new_token)
        users = Users(self._users, self._answers)
        server = _Server(build_app(context, users, FloodFilter(self._monotonic)))
        task = asyncio.create_task(server.serve(sockets=[listener]), name="embedded-hawkbit")
        self._running = _Running(listener, state, server, task)
        await server.listening.wait()

    async def stop(self) -> None:
        """Stop listening, let open requests end within 5 s, and close the state. Does nothing if not started."""
        running, self._running = self._running, None
        if running is None:
            return
        running.server.should_exit = True
        try:
            await running.task
        finally:
            running.listener.close()
            running.state.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


class _Running:
    def __init__(self, listener: socket.socket, state: State, server: _Server, task: asyncio.Task[None]) -> None:
        self.listener = listener
        self.port: int = listener.getsockname()[1]
        self.state = state
        self.server = server
        self.task = task


class _Server(uvicorn.Server):
    """Uvicorn without its hold on the process: no signal handlers, no logging setup."""

    def __init__(self, app: Callable[..., object]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=GRACE,
            )
        )
        self.listening = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Say when requests are answered."""
        await super().startup(sockets)
        self.listening.set()


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
    except BaseException:
        listener.close()
        raise
    return listener


def _duration(length: timedelta) -> str:
    seconds = round(length.total_seconds())
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
