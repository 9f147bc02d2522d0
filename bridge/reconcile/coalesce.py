"""Many callers, one piece of work: whoever asks gets the result of a run that began after the question."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Coalesced(Generic[T]):
    """Runs ``work`` once for all callers that came before it began; never two runs at a time."""

    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self._work = work
        self._running = asyncio.Lock()
        self._waiting: asyncio.Future[T] | None = None

    async def __call__(self) -> T:
        """Return the result of a run that started after this call, or raise what that run raised."""
        if self._waiting is not None:
            return await asyncio.shield(self._waiting)
        mine = self._waiting = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._run(mine))
        mine.add_done_callback(lambda _: task.cancelled())  # keeps the task referenced until it is done
        return await asyncio.shield(mine)

    async def _run(self, result: asyncio.Future[T]) -> None:
        async with self._running:
            self._waiting = None
            try:
                value = await self._work()
            except BaseException as e:
                if not result.done():
                    result.set_exception(e)
                    result.exception()  # seen, also where every caller has gone
                if isinstance(e, asyncio.CancelledError):
                    raise
            else:
                if not result.done():
                    result.set_result(value)
