"""Where a process can die: before and after every effect, counted, with no word about it in the product.

A commit is counted in the dialect that performs it, every call of a port in a proxy that knows no port by name: an
effect that is new is counted because it is an effect, not because somebody remembered it.
"""

from __future__ import annotations

import inspect
import os
import signal
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from bridge.ports.registry import Registry, Transaction
from bridge.store.open import RegistryStore

T = TypeVar("T")


class Fuse:
    """Ends this process with SIGKILL at the boundary of the given number; ``None`` lets it live.

    Every boundary that is reached while the fuse is live is written to the journal, at once and past all buffers.
    Between the end of one effect and the beginning of the next nothing happens that a death could leave behind: unless
    ``both_sides`` are wanted all the same, the two boundaries count as one.
    """

    def __init__(self, at: int | None, journal: Path, offset: Callable[[], float], *, both_sides: bool) -> None:
        self._at = at
        self._both_sides = both_sides
        self._after_an_effect = False
        self._offset = offset
        self._journal = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._reached = 0
        self.live = False
        self.unit = ""
        """Who asked for the commit that comes next."""

    def reach(self, boundary: str) -> None:
        """Count a boundary; the process may end here."""
        if not self.live:
            return
        os.write(self._journal, f"{self._offset()}\t{boundary}\n".encode())
        same_as_the_last = self._after_an_effect and is_beginning(boundary)
        self._after_an_effect = not is_beginning(boundary)
        if same_as_the_last and not self._both_sides:
            return
        if self._reached == self._at:
            os.kill(os.getpid(), signal.SIGKILL)
        self._reached += 1


def is_beginning(boundary: str) -> bool:
    """Tell whether an effect begins here; else one has just ended."""
    return boundary.startswith("before ")


def guarded(name: str, port: Any, fuse: Fuse) -> Any:
    """Return a stand-in for the port on which each asynchronous call has a boundary on both sides."""
    return _Guarded(name, port, fuse)


class _Guarded:
    def __init__(self, name: str, port: Any, fuse: Fuse) -> None:
        self._name, self._port, self._fuse = name, port, fuse

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(self._port, attribute)
        if not inspect.iscoroutinefunction(value):
            return value
        return _both_sides(f"{self._name}.{attribute}", value, self._fuse)


def _both_sides(name: str, call: Callable[..., Awaitable[T]], fuse: Fuse) -> Callable[..., Awaitable[T]]:
    async def guarded_call(*given: Any, **named: Any) -> T:
        fuse.reach(f"before {name}")
        try:
            return await call(*given, **named)
        finally:
            fuse.reach(f"after {name}")

    return guarded_call


class GuardedRegistry:
    """A registry whose commits have a boundary on both sides; reading changes nothing, so it has none."""

    def __init__(self, store: RegistryStore, fuse: Fuse) -> None:
        self._store, self._fuse = store, fuse
        commit, wrote = store.engine.dialect.do_commit, _Wrote()

        def guarded_commit(connection: Any) -> None:
            if not wrote.anything(connection.driver_connection):
                commit(connection)
                return
            fuse.reach(f"before commit of {fuse.unit}")
            commit(connection)
            fuse.reach(f"after commit of {fuse.unit}")

        store.engine.dialect.do_commit = guarded_commit  # type: ignore[method-assign]

    async def write(self, unit: Callable[[Transaction], T]) -> T:
        """Run the unit; its commit carries the name of the function that wrote it."""
        self._fuse.unit = unit.__qualname__.split(".<locals>")[0]
        return await self._store.write(unit)

    async def read(self, unit: Callable[[Transaction], T]) -> T:
        """Run the unit."""
        return await self._store.read(unit)

    async def changed(self, seconds: float) -> bool:
        """Wait for a commit."""
        return await self._store.changed(seconds)


class _Wrote:
    """Tells whether there is anything to commit: a look that found nothing to do is no effect."""

    def __init__(self) -> None:
        self._changes: dict[int, int] = {}

    def anything(self, driver: Any) -> bool:
        """Return whether the open transaction of the driver's connection wrote something."""
        if isinstance(driver, sqlite3.Connection):
            before = self._changes.get(id(driver), 0)
            self._changes[id(driver)] = driver.total_changes
            return driver.total_changes != before
        return driver.execute("SELECT pg_current_xact_id_if_assigned() IS NOT NULL").fetchone() == (True,)


def _is_a_registry(registry: GuardedRegistry) -> Registry:
    return registry
