"""A unit of work on its way through a thread, and back to the event loop that waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from bridge.ports.registry import Transaction

T = TypeVar("T")


class Job(Generic[T]):
    """One unit and who waits for it. Once handed over it is run, also if nobody waits any longer."""

    __slots__ = ("error", "future", "loop", "result", "unit")

    def __init__(self, unit: Callable[[Transaction], T]) -> None:
        self.unit = unit
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[T] = self.loop.create_future()
        self.result: T | None = None
        self.error: BaseException | None = None

    def _tell(self) -> None:
        if self.future.done():  # cancelled: the commit stands, nobody asks
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)  # type: ignore[arg-type]  # set, where there is no error


def tell(jobs: Iterable[Job[Any]]) -> None:
    """Wake the waiters, with one call into each event loop. Called from any thread, after the commit."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Job[Any]]] = {}
    for job in jobs:
        by_loop.setdefault(job.loop, []).append(job)
    for loop, done in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_tell_all, done)


def _tell_all(jobs: list[Job[Any]]) -> None:
    for job in jobs:
        job._tell()  # noqa: SLF001 - same module
