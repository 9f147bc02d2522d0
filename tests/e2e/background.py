"""An event loop in a thread of its own, for stand-ins beside synchronous tests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager, ExitStack
from typing import Any, TypeVar

T = TypeVar("T")
STOP_SECONDS = 20.0


class Background:
    """An event loop in a thread of its own, for stand-ins beside synchronous tests."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="stand-ins")
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], seconds: float = 30.0) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(seconds)

    def enter(self, stack: ExitStack, context: AbstractAsyncContextManager[T]) -> T:
        """Enter an asynchronous context; the stack ends it."""
        entered = self.run(context.__aenter__())
        stack.callback(lambda: self.run(context.__aexit__(None, None, None)))
        return entered

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(STOP_SECONDS)
        self._loop.close()
