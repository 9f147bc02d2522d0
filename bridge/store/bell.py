"""Wakes whoever waits for a commit, from any thread."""

from __future__ import annotations

import asyncio
import threading


class Bell:
    """Counts commits; a waiter sees those that came since the last wait ended.

    Made for one consumer. Two of them are both woken by a commit they both wait for, but one that comes between two
    waits may be seen by the first only.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rung = 0
        self._heard = 0
        self._waiting: dict[asyncio.Future[None], asyncio.AbstractEventLoop] = {}

    def ring(self) -> None:
        """Wake every waiter."""
        with self._lock:
            self._rung += 1
            waiting, self._waiting = self._waiting, {}
        for future, loop in waiting.items():
            # A loop that was closed meanwhile has nobody left to wake.
            if not loop.is_closed():
                loop.call_soon_threadsafe(_finish, future)

    async def wait(self, seconds: float) -> bool:
        """Return True as soon as it rang since the last wait ended, False after ``seconds``."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self._lock:
            if self._rung != self._heard:
                self._heard = self._rung
                return True
            self._waiting[future] = loop
        try:
            await asyncio.wait((future,), timeout=seconds)
        finally:
            with self._lock:
                self._waiting.pop(future, None)
                rang = self._rung != self._heard or future.done()
                self._heard = self._rung
        return rang


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
